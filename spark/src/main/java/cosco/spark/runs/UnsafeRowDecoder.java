package cosco.spark.runs;

import cosco.client.CoscoException;
import cosco.client.read.Run;
import java.lang.reflect.Field;
import java.util.NoSuchElementException;
import org.apache.spark.serializer.Serializer;
import org.apache.spark.sql.catalyst.expressions.UnsafeRow;
import org.apache.spark.sql.execution.UnsafeRowSerializer;
import org.apache.spark.unsafe.Platform;
import scala.Tuple2;
import scala.collection.AbstractIterator;
import scala.collection.Iterator;

/**
 * Rows of Spark SQL as they lie in their run, copied nowhere: one object points to each in turn, as
 * Spark's own deserializer gives them.
 */
public final class UnsafeRowDecoder implements RunDecoder {
  private static final int LENGTH_BYTES = 4;
  private static final Field FIELDS = SqlSerializer.field("numFields");

  private final int fields;

  private UnsafeRowDecoder(int fields) {
    this.fields = fields;
  }

  /** Returns one for a serializer of rows of SQL; null for another one. */
  public static RunDecoder of(Serializer serializer) {
    if (!(serializer instanceof UnsafeRowSerializer) || FIELDS == null) {
      return null;
    }
    try {
      return new UnsafeRowDecoder(FIELDS.getInt(serializer));
    } catch (IllegalAccessException error) {
      return null;
    }
  }

  @Override
  public boolean reusesRuns() {
    return true; // so it is with Spark's own deserializer, and who keeps a row copies it
  }

  @Override
  public Iterator<Tuple2<Object, Object>> records(Run run) {
    return new Rows(run, fields);
  }

  private static final class Rows extends AbstractIterator<Tuple2<Object, Object>> {
    private final byte[] data;
    private final int end;
    private int at;
    private final UnsafeRow row;
    private final Tuple2<Object, Object> pair;

    Rows(Run run, int fields) {
      data = run.data;
      at = run.at;
      end = run.at + run.length;
      row = new UnsafeRow(fields);
      pair = new Tuple2<>(0, row);
    }

    @Override
    public boolean hasNext() {
      return at < end;
    }

    @Override
    public Tuple2<Object, Object> next() {
      if (end - at < LENGTH_BYTES) {
        throw at == end ? new NoSuchElementException("there are no more rows") : broken();
      }
      int length = (data[at] & 0xff) << 24 | (data[at + 1] & 0xff) << 16
          | (data[at + 2] & 0xff) << 8 | data[at + 3] & 0xff;
      if (length < 0 || length > end - at - LENGTH_BYTES) {
        throw broken();
      }
      row.pointTo(data, Platform.BYTE_ARRAY_OFFSET + at + LENGTH_BYTES, length);
      at += LENGTH_BYTES + length;
      return pair;
    }

    private static RuntimeException broken() {
      return Sneaky.unchecked(
          new CoscoException("DataCorrupted", "a run of rows of SQL that ends inside a row"));
    }
  }
}
