package cosco.spark.runs;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import org.apache.spark.serializer.SerializationStream;
import org.apache.spark.serializer.SerializerInstance;
import scala.reflect.ClassTag;

/** Records of a serializer each of whose records stands for itself, as Kryo's: by way of a buffer. */
public final class SerializedEncoder implements RecordEncoder {
  private static final int KEPT_BYTES = 1 << 20;
  private static final ClassTag<Object> ANY = ClassTag.Any();

  private static final class Buffer extends ByteArrayOutputStream {
    byte[] bytes() {
      return buf;
    }
  }

  private final SerializerInstance serializer;
  private final RunBuckets buckets;
  private Buffer buffer;
  private SerializationStream stream;

  public SerializedEncoder(SerializerInstance serializer, RunBuckets buckets) {
    this.serializer = serializer;
    this.buckets = buckets;
    begin();
  }

  @Override
  public void add(int partition, Object key, Object value) throws IOException {
    buffer.reset();
    stream.writeKey(key, ANY);
    stream.writeValue(value, ANY);
    stream.flush();
    int length = buffer.size();
    RunBuffer run = buckets.roomFor(partition, length);
    run.write(buffer.bytes(), 0, length);
    buckets.wrote(partition, run);
    if (buffer.bytes().length > KEPT_BYTES) {
      begin(); // one long record is not to keep its memory from the others
    }
  }

  @Override
  public void end(int partition, RunBuffer run) {}

  private void begin() {
    buffer = new Buffer();
    stream = serializer.serializeStream(buffer);
  }
}
