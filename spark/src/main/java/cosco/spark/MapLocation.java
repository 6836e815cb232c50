package cosco.spark;

import org.apache.spark.storage.BlockManagerId;
import scala.Option;

/**
 * Where Spark's books say that the output of a map task is: nowhere that could be lost with an
 * executor. The port says which attempt of the stage it is of, from 1 on.
 */
final class MapLocation {
  /** No executor has this id, so none takes outputs with it when it goes. */
  private static final String EXECUTOR = "cosco";

  private static final String HOST = "cosco.invalid";

  private MapLocation() {}

  /** Returns the location for outputs of an attempt of a stage; 0 for stages that are determinate. */
  static BlockManagerId of(int stageAttempt) {
    return BlockManagerId.apply(EXECUTOR, HOST, stageAttempt + 1, Option.<String>empty());
  }

  /** Returns the attempt that `of` was given. */
  static int stageAttempt(BlockManagerId location) {
    return location.port() - 1;
  }
}
