package cosco.spark;

import cosco.client.CoscoException;
import org.apache.spark.ShuffleDependency;
import org.apache.spark.shuffle.BaseShuffleHandle;

/** What tasks need of one shuffle; it is as secret as the capability in it. */
final class CoscoShuffleHandle<K, V, C> extends BaseShuffleHandle<K, V, C> {
  private static final long serialVersionUID = 1;

  /** Of the exchange: its id, its number, and what lets tasks write to it and read from it. */
  final String exchange;

  final long number;
  final String capability;
  /** Map tasks of the shuffle. */
  final int mappers;
  /**
   * Whether a map task that runs again may give other rows. Then each attempt of the stage writes as
   * mappers of its own, so that rows of two attempts are never taken for those of one.
   */
  final boolean isIndeterminate;

  CoscoShuffleHandle(
      int shuffleId, ShuffleDependency<K, V, C> dependency, String exchange, long number,
      String capability, boolean isIndeterminate) {
    super(shuffleId, dependency);
    this.exchange = exchange;
    this.number = number;
    this.capability = capability;
    this.isIndeterminate = isIndeterminate;
    mappers = dependency.rdd().getNumPartitions();
  }

  /** Returns the id of the mapper that a task writes as. */
  int mapper(int mapIndex, int stageAttempt) throws CoscoException {
    long mapper = isIndeterminate ? (long) stageAttempt * mappers + mapIndex : mapIndex;
    if (mapper > Integer.MAX_VALUE) {
      throw new CoscoException(
          "InvalidArgument", "attempt " + stageAttempt + " of a stage of " + mappers + " tasks");
    }
    return (int) mapper;
  }
}
