package cosco.spark.runs;

import java.io.IOException;
import org.apache.spark.serializer.SerializationStream;
import org.apache.spark.serializer.SerializerInstance;
import scala.reflect.ClassTag;

/** Records of a serializer whose records refer to those before, as Java's: a stream for each run. */
public final class StreamEncoder implements RecordEncoder {
  private static final ClassTag<Object> ANY = ClassTag.Any();

  private final SerializerInstance serializer;
  private final RunBuckets buckets;
  private final SerializationStream[] streams;

  public StreamEncoder(SerializerInstance serializer, RunBuckets buckets, int partitions) {
    this.serializer = serializer;
    this.buckets = buckets;
    streams = new SerializationStream[partitions];
  }

  @Override
  public void add(int partition, Object key, Object value) throws IOException {
    RunBuffer run = buckets.roomFor(partition, 0);
    int room = run.bytes.length;
    if (streams[partition] == null) {
      streams[partition] = serializer.serializeStream(run);
    }
    SerializationStream stream = streams[partition];
    stream.writeKey(key, ANY);
    stream.writeValue(value, ANY);
    int grown = run.bytes.length - room;
    buckets.wrote(partition, run);
    buckets.grew(grown);
  }

  @Override
  public void end(int partition, RunBuffer run) {
    SerializationStream stream = streams[partition];
    if (stream != null) {
      streams[partition] = null;
      stream.close();
    }
  }
}
