package cosco.spark;

import cosco.spark.runs.Sneaky;
import java.lang.invoke.MethodHandle;

/** The checksums by partition that Spark 4.1 and later want of the rows of a map task. */
final class RowChecksums {
  private final Object[] checksums;
  private final MethodHandle update;

  /** checksums: as `SparkVersions.rowChecksums` gives them, one or more. */
  RowChecksums(Object[] checksums) {
    this.checksums = checksums;
    update = SparkVersions.checksumUpdate(checksums[0]);
  }

  /** Adds a record. */
  void add(int partition, Object key, Object value) {
    try {
      update.invokeExact(checksums[partition], key, value);
    } catch (Throwable error) {
      throw Sneaky.unchecked(error);
    }
  }

  /** Returns the checksum of all partitions. */
  long value() {
    Class<?> kind = checksums.getClass().getComponentType();
    return (Long) SparkVersions.call(
        SparkVersions.named(kind, "getAggregatedChecksumValue"), null, (Object) checksums);
  }
}
