package cosco.spark.runs;

import java.io.IOException;
import java.lang.reflect.Field;
import org.apache.spark.serializer.Serializer;
import org.apache.spark.sql.catalyst.expressions.UnsafeRow;
import org.apache.spark.sql.execution.UnsafeRowSerializer;
import org.apache.spark.sql.execution.metric.SQLMetric;
import org.apache.spark.unsafe.Platform;

/**
 * Rows of Spark SQL: copied once, from where they are to their run, as Spark's serializer would
 * write them: the length of a row, four bytes big-endian, and the row.
 */
public final class UnsafeRowEncoder implements RecordEncoder {
  private static final int LENGTH_BYTES = 4;
  private static final Field DATA_SIZE = SqlSerializer.field("dataSize");

  private final RunBuckets buckets;
  private final SQLMetric dataSize;

  private UnsafeRowEncoder(RunBuckets buckets, SQLMetric dataSize) {
    this.buckets = buckets;
    this.dataSize = dataSize;
  }

  /** Returns one for a serializer of rows of SQL; null for another one. */
  public static RecordEncoder of(Serializer serializer, RunBuckets buckets) {
    if (!(serializer instanceof UnsafeRowSerializer) || DATA_SIZE == null) {
      return null;
    }
    try {
      return new UnsafeRowEncoder(buckets, (SQLMetric) DATA_SIZE.get(serializer));
    } catch (IllegalAccessException error) {
      return null;
    }
  }

  @Override
  public void add(int partition, Object key, Object value) throws IOException {
    UnsafeRow row = (UnsafeRow) value;
    int length = row.getSizeInBytes();
    RunBuffer run = buckets.roomFor(partition, LENGTH_BYTES + length);
    byte[] bytes = run.bytes;
    int at = run.position();
    bytes[at] = (byte) (length >>> 24);
    bytes[at + 1] = (byte) (length >>> 16);
    bytes[at + 2] = (byte) (length >>> 8);
    bytes[at + 3] = (byte) length;
    Platform.copyMemory(row.getBaseObject(), row.getBaseOffset(), bytes,
        Platform.BYTE_ARRAY_OFFSET + at + LENGTH_BYTES, length);
    run.wrote(LENGTH_BYTES + length);
    buckets.wrote(partition, run);
    if (dataSize != null) {
      dataSize.add(length); // by which adaptive execution decides
    }
  }

  @Override
  public void end(int partition, RunBuffer run) {}
}
