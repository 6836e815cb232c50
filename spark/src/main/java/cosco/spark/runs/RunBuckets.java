package cosco.spark.runs;

import cosco.client.CoscoException;
import cosco.client.format.BlockCodec;
import java.io.IOException;
import org.apache.spark.memory.MemoryConsumer;
import org.apache.spark.memory.MemoryMode;
import org.apache.spark.memory.TaskMemoryManager;

/**
 * The runs of all partitions that wait to become blocks, in memory that Spark lends the task.
 *
 * <p>Nothing is spilled: where memory is short, what waits is sent. A run goes when it is as long as
 * a block; all of them when together they have what a task may have, or another consumer of the task
 * asks for memory.
 */
public final class RunBuckets extends MemoryConsumer {
  /** Takes a run: it may be used again when this returns. */
  public interface Sink {
    void take(int partition, RunBuffer run) throws IOException;
  }

  private static final int FIRST_BYTES = 1 << 10;
  /** The last record of a run goes beyond the length of a block. */
  private static final int SLACK_BYTES = 2 << 10;
  /** A run that cannot grow goes alone if it is as long as this: its block is worth its header. */
  private static final int WORTHWHILE_BYTES = 16 << 10;

  private final RunBuffer[] runs;
  private final int blockBytes;
  private final long maxBytes;
  private final Sink sink;
  private final Thread task = Thread.currentThread();
  private boolean isBusy;

  /** For the thread of one task. blockBytes: about as long runs become. */
  public RunBuckets(
      TaskMemoryManager memory, int partitions, int blockBytes, long maxBytes, Sink sink) {
    super(memory, memory.pageSizeBytes(), MemoryMode.ON_HEAP);
    runs = new RunBuffer[partitions];
    this.blockBytes = blockBytes;
    this.maxBytes = maxBytes;
    this.sink = sink;
  }

  /**
   * Returns the run of a partition, with room for `bytes` more; `wrote` must follow, before which no
   * run is sent. What the run had may have been.
   */
  public RunBuffer roomFor(int partition, int bytes) throws IOException {
    isBusy = true;
    RunBuffer run = runs[partition];
    if (run == null) {
      run = begin(partition, bytes);
    }
    int growth = run.growth(bytes);
    if (growth > 0 && !lend(growth)) {
      return makeRoom(partition, run, bytes);
    }
    run.grow(growth);
    return run;
  }

  /** Takes note of a record that was written to the run of a partition. */
  public void wrote(int partition, RunBuffer run) throws IOException {
    run.records++;
    if (run.length() >= blockBytes) {
      sink.take(partition, run);
      run.clear();
    }
    isBusy = false;
  }

  /** Takes note, after `wrote`, that a run has become longer than its room by itself. */
  public void grew(int by) throws IOException {
    if (by > 0) {
      acquireMemory(by); // less may be lent, but the bytes are there already
    }
    if (getUsed() > maxBytes) {
      sendAndFree();
    }
  }

  /** Sends all that waits, ascending by partition, so that frames are of neighbours. */
  public void sendAll() throws IOException {
    for (int partition = 0; partition < runs.length; partition++) {
      RunBuffer run = runs[partition];
      if (run != null && run.records > 0) {
        sink.take(partition, run);
        run.clear();
      }
    }
  }

  /** Gives all memory back. */
  public void close() {
    for (int partition = 0; partition < runs.length; partition++) {
      runs[partition] = null;
    }
    freeMemory(getUsed());
  }

  @Override
  public long spill(long size, MemoryConsumer trigger) throws IOException {
    if (trigger == this || isBusy || Thread.currentThread() != task) {
      return 0; // of another thread, or in the middle of a run
    }
    return sendAndFree();
  }

  private RunBuffer begin(int partition, int bytes) throws IOException {
    int room = Math.max(FIRST_BYTES, BlockCodec.IDENTITY_BYTES + Math.min(bytes, blockBytes));
    if (!lend(room)) {
      sendAndFree();
      if (!lend(room)) {
        throw new CoscoException("CapacityExceeded", "Spark lends the task no memory for rows: "
            + "give executors more, or fewer cores", true, null);
      }
    }
    runs[partition] = new RunBuffer(room, BlockCodec.IDENTITY_BYTES + blockBytes + SLACK_BYTES);
    return runs[partition];
  }

  private RunBuffer makeRoom(int partition, RunBuffer run, int bytes) throws IOException {
    if (run.records > 0 && run.length() >= WORTHWHILE_BYTES) {
      sink.take(partition, run);
      run.clear();
    } else {
      sendAndFree();
      run = begin(partition, bytes);
    }
    int growth = run.growth(bytes);
    if (growth > 0 && !lend(growth)) {
      sendAndFree();
      run = begin(partition, bytes);
      growth = run.growth(bytes);
      acquireMemory(growth); // a record longer than what may be had: it must be in memory whole
    }
    run.grow(growth);
    return run;
  }

  private boolean lend(int bytes) {
    if (getUsed() + bytes > maxBytes) {
      return false;
    }
    long lent = acquireMemory(bytes);
    if (lent < bytes) {
      freeMemory(lent);
      return false;
    }
    return true;
  }

  private long sendAndFree() throws IOException {
    boolean before = isBusy;
    isBusy = true;
    sendAll();
    isBusy = before;
    long freed = getUsed();
    close();
    return freed;
  }
}
