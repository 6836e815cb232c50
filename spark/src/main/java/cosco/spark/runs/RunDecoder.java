package cosco.spark.runs;

import cosco.client.read.Run;
import scala.Tuple2;
import scala.collection.Iterator;

/** Reads the records of runs, in the way that fits their serializer. */
public interface RunDecoder {
  /**
   * Whether a record is of use only until the next is given. That there is a next one may be asked
   * for before, which may take another run.
   */
  default boolean reusesRuns() {
    return false;
  }

  /** Returns the records of a run; each may be of use only until the next is asked for. */
  Iterator<Tuple2<Object, Object>> records(Run run);
}
