package cosco.spark.runs;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import cosco.client.CoscoException;
import cosco.client.read.Run;
import java.io.ByteArrayInputStream;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.apache.spark.SparkConf;
import org.apache.spark.memory.TaskMemoryManager;
import org.apache.spark.memory.UnifiedMemoryManager;
import org.apache.spark.serializer.JavaSerializer;
import org.apache.spark.sql.catalyst.expressions.UnsafeRow;
import org.apache.spark.sql.catalyst.expressions.codegen.UnsafeRowWriter;
import org.apache.spark.sql.execution.UnsafeRowSerializer;
import org.apache.spark.unsafe.types.UTF8String;
import org.junit.jupiter.api.Test;
import scala.Tuple2;
import scala.collection.Iterator;

final class UnsafeRowRunsTest {
  private final UnsafeRowSerializer serializer = new UnsafeRowSerializer(2, null);

  private static UnsafeRow row(long number, String text) {
    UnsafeRowWriter writer = new UnsafeRowWriter(2);
    writer.resetRowWriter();
    writer.write(0, number);
    writer.write(1, UTF8String.fromString(text));
    return writer.getRow();
  }

  private byte[] encoded(int count) throws Exception {
    byte[][] sent = new byte[1][];
    TaskMemoryManager memory = new TaskMemoryManager(
        new UnifiedMemoryManager(new SparkConf(false), 64 << 20, 32 << 20, 1), 0);
    RunBuckets buckets = new RunBuckets(memory, 1, 1 << 20, 32 << 20, (partition, run) ->
        sent[0] = Arrays.copyOfRange(
            run.bytes, run.position() - run.length(), run.position()));
    RecordEncoder encoder = UnsafeRowEncoder.of(serializer, buckets);
    assertNotNull(encoder);
    for (int i = 0; i < count; i++) {
      encoder.add(0, 0, row(i, "row " + i));
    }
    buckets.sendAll();
    return sent[0];
  }

  private List<String> decoded(Iterator<Tuple2<Object, Object>> rows) {
    List<String> found = new ArrayList<>();
    while (rows.hasNext()) {
      UnsafeRow row = (UnsafeRow) rows.next()._2();
      found.add(row.getLong(0) + " " + row.getUTF8String(1));
    }
    return found;
  }

  private static Run run(byte[] data) {
    return new Run(data, 0, data.length, 0, 0, 1, false);
  }

  @Test
  void rowsAreAsSparkWritesThem() throws Exception {
    byte[] data = encoded(1000);
    List<String> bySpark = decoded(
        serializer.newInstance().deserializeStream(new ByteArrayInputStream(data))
            .asKeyValueIterator());
    assertEquals(1000, bySpark.size());
    assertEquals("999 row 999", bySpark.get(999));
    assertEquals(bySpark, decoded(UnsafeRowDecoder.of(serializer).records(run(data))));
  }

  @Test
  void aRunThatEndsInsideARowIsAnError() throws Exception {
    byte[] data = encoded(3);
    for (int length : new int[] {1, 3, 5, data.length - 1}) {
      Iterator<Tuple2<Object, Object>> rows =
          UnsafeRowDecoder.of(serializer).records(run(Arrays.copyOf(data, length)));
      Throwable error = assertThrows(Throwable.class, () -> decoded(rows));
      assertTrue(error instanceof CoscoException && ((CoscoException) error).is("DataCorrupted"));
    }
    byte[] negative = {-1, 0, 0, 0, 0};
    assertThrows(Throwable.class, () -> decoded(
        UnsafeRowDecoder.of(serializer).records(run(negative))));
    assertFalse(UnsafeRowDecoder.of(serializer).records(run(new byte[0])).hasNext());
  }

  @Test
  void otherSerializersAreLeftToThemselves() {
    JavaSerializer java = new JavaSerializer(new SparkConf(false));
    assertNull(UnsafeRowDecoder.of(java));
    assertNull(UnsafeRowEncoder.of(java, null));
  }
}
