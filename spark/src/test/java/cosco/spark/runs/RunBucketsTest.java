package cosco.spark.runs;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import org.apache.spark.SparkConf;
import org.apache.spark.memory.MemoryConsumer;
import org.apache.spark.memory.MemoryMode;
import org.apache.spark.memory.TaskMemoryManager;
import org.apache.spark.memory.UnifiedMemoryManager;
import org.junit.jupiter.api.Test;

final class RunBucketsTest {
  private static final int BLOCK = 4 << 10;

  /** Another consumer of the task, which wants much. */
  private static final class Greedy extends MemoryConsumer {
    Greedy(TaskMemoryManager memory) {
      super(memory, memory.pageSizeBytes(), MemoryMode.ON_HEAP);
    }

    @Override
    public long spill(long size, MemoryConsumer trigger) {
      return 0;
    }
  }

  private final List<ByteArrayOutputStream> sent = new ArrayList<>();
  private final List<Integer> records = new ArrayList<>();
  private final List<Integer> lengths = new ArrayList<>();
  private int sends;

  private static TaskMemoryManager memory(long bytes) {
    return new TaskMemoryManager(
        new UnifiedMemoryManager(new SparkConf(false), bytes, bytes / 2, 1), 0);
  }

  private RunBuckets buckets(TaskMemoryManager memory, int partitions, long most) {
    for (int i = 0; i < partitions; i++) {
      sent.add(new ByteArrayOutputStream());
      records.add(0);
    }
    return new RunBuckets(memory, partitions, BLOCK, most, (partition, run) -> {
      sends++;
      lengths.add(run.length());
      sent.get(partition).write(run.bytes, run.position() - run.length(), run.length());
      records.set(partition, records.get(partition) + run.records);
    });
  }

  private static void add(RunBuckets buckets, int partition, byte[] record) throws IOException {
    RunBuffer run = buckets.roomFor(partition, record.length);
    run.write(record, 0, record.length);
    buckets.wrote(partition, run);
  }

  private void random(long lent, long most, int longest) throws IOException {
    long seed = new Random().nextLong();
    Random random = new Random(seed);
    TaskMemoryManager memory = memory(lent);
    int partitions = 20;
    RunBuckets buckets = buckets(memory, partitions, most);
    List<ByteArrayOutputStream> expected = new ArrayList<>();
    int[] counts = new int[partitions];
    for (int i = 0; i < partitions; i++) {
      expected.add(new ByteArrayOutputStream());
    }
    for (int i = 0; i < Math.min(5000, (20 << 20) / longest); i++) {
      byte[] record = new byte[random.nextInt(longest)];
      random.nextBytes(record);
      int partition = random.nextInt(partitions);
      add(buckets, partition, record);
      expected.get(partition).write(record);
      counts[partition]++;
      assertTrue(buckets.getUsed() <= Math.max(most, longest * 2L), "seed " + seed);
    }
    buckets.sendAll();
    buckets.close();
    assertEquals(0, buckets.getUsed(), "seed " + seed);
    assertEquals(0, memory.getMemoryConsumptionForThisTask(), "seed " + seed);
    for (int i = 0; i < partitions; i++) {
      assertEquals(counts[i], records.get(i), "seed " + seed);
      assertArrayEquals(
          expected.get(i).toByteArray(), sent.get(i).toByteArray(), "seed " + seed);
    }
  }

  @Test
  void everyRecordGoesOnceInItsOrder() throws IOException {
    random(64 << 20, 8 << 20, 300);
    assertTrue(lengths.stream().filter(length -> length >= BLOCK).count() > sends / 2);
  }

  @Test
  void whereATaskMayHaveLittleRunsGoSooner() throws IOException {
    random(64 << 20, 64 << 10, 300);
  }

  @Test
  void whereSparkLendsLittleRunsGoSooner() throws IOException {
    random(96 << 10, 8 << 20, 300);
  }

  @Test
  void recordsMayBeLongerThanWhatATaskMayHave() throws IOException {
    random(64 << 20, 64 << 10, 200 << 10);
  }

  @Test
  void anotherConsumerIsGivenWhatRunsHave() throws IOException {
    TaskMemoryManager memory = memory(1 << 20);
    RunBuckets buckets = buckets(memory, 100, 1 << 20);
    for (int i = 0; i < 100; i++) {
      add(buckets, i, new byte[3000]);
    }
    assertEquals(0, sends);
    long before = buckets.getUsed();
    assertTrue(before >= 300_000);
    Greedy other = new Greedy(memory);
    assertEquals(1 << 20, other.acquireMemory(1 << 20));
    assertEquals(100, sends);
    assertEquals(0, buckets.getUsed());
  }

  @Test
  void inTheMiddleOfARecordNothingIsTaken() throws IOException {
    TaskMemoryManager memory = memory(1 << 20);
    RunBuckets buckets = buckets(memory, 2, 1 << 20);
    add(buckets, 0, new byte[3000]);
    RunBuffer run = buckets.roomFor(1, 10);
    assertEquals(0, buckets.spill(1 << 20, new Greedy(memory)));
    run.write(new byte[10], 0, 10);
    buckets.wrote(1, run);
    assertTrue(buckets.spill(1 << 20, new Greedy(memory)) > 0);
    assertEquals(2, sends);
  }
}
