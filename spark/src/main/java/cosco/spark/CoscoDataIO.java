package cosco.spark;

import org.apache.spark.SparkConf;
import org.apache.spark.shuffle.api.ShuffleDataIO;
import org.apache.spark.shuffle.api.ShuffleDriverComponents;
import org.apache.spark.shuffle.api.ShuffleExecutorComponents;
import org.apache.spark.shuffle.sort.io.LocalDiskShuffleDataIO;
import org.apache.spark.shuffle.sort.io.LocalDiskShuffleDriverComponents;

/**
 * Tells Spark that rows outlive the executors that wrote them.
 *
 * <p>So Spark runs no map task again for an executor that is gone, and dynamic allocation lets idle
 * ones go. All else is as Spark has it: shuffles that fall back use it.
 */
public final class CoscoDataIO implements ShuffleDataIO {
  private final ShuffleDataIO local;

  public CoscoDataIO(SparkConf conf) {
    local = new LocalDiskShuffleDataIO(conf);
  }

  @Override
  public ShuffleExecutorComponents executor() {
    return local.executor();
  }

  @Override
  public ShuffleDriverComponents driver() {
    return new LocalDiskShuffleDriverComponents() {
      @Override
      public boolean supportsReliableStorage() {
        return true;
      }
    };
  }
}
