package cosco.spark.runs;

import java.io.IOException;

/** Writes records to the runs of their partitions, in the way that fits their serializer. */
public interface RecordEncoder {
  /** Adds one record. */
  void add(int partition, Object key, Object value) throws IOException;

  /** Ends what of a run is still open, before it is sent. */
  void end(int partition, RunBuffer run) throws IOException;
}
