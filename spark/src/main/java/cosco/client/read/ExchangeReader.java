package cosco.client.read;

import cosco.client.CoscoException;
import cosco.client.format.Bitmaps;
import cosco.client.format.BlockCodec;
import cosco.client.read.state.Attempts;
import cosco.client.read.state.Committed;
import cosco.client.read.state.PartitionMerge;
import cosco.client.read.state.SeenRows;
import cosco.client.read.state.SharedPass;
import cosco.client.rpc.Services;
import cosco.v1.DaemonRef;
import java.io.Closeable;
import java.util.HashSet;
import java.util.LinkedList;
import java.util.List;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;

/**
 * Reads some partitions of an exchange, ascending, each until it is verified that no row of it is
 * missing. For one thread, but for `close`.
 *
 * <p>It never waits for mappers to run again: whoever holds its slot may be needed for that.
 */
public final class ExchangeReader implements Closeable {
  private final String shuffleId;
  private final int startMapper;
  private final int endWanted;
  private final int endPartition;
  private final ReaderOptions options;
  private final long number;
  private final Commits commits;
  private final Fetches fetches;
  private final BlockCodec codec;
  private final Set<DaemonRef> troubled = new HashSet<>();
  private final CountDownLatch closed = new CountDownLatch(1);
  private final PartitionTurn.Reader helper = new PartitionTurn.Reader() {
    @Override
    public Committed renewed(int partition) throws CoscoException {
      return commits.of(partition, partition + 1).get(0);
    }

    @Override
    public void pause(double seconds) throws CoscoException {
      ExchangeReader.this.pause(seconds);
    }

    @Override
    public CoscoException error(String kind, String what, boolean retriable) {
      return ExchangeReader.this.error(kind, what, retriable);
    }
  };
  private List<Committed> told = new LinkedList<>(); // of partitions from the present one on
  private SharedPass shared; // what is fetched together of them
  private Attempts seenAttempts;
  private SeenRows seen;
  private int partition;
  private PartitionTurn turn; // null: the partition at its turn is not begun
  private CoscoException failure;
  private long retries;
  private long records;
  private long pausedNs;

  /**
   * Begins without a call.
   *
   * @param credential shown to the metadata service and to daemons; may be empty
   * @param firstMapper all from this one on must have committed
   * @param endMapper and before this one
   * @param startMapper content is given of those of them from this one on
   * @param endWanted and before this one; if that is nobody, then the reader gives nothing, at once
   * @param startPartition the first one that is read
   * @param endPartition the one after the last
   * @throws CoscoException InvalidArgument
   */
  public ExchangeReader(
      Services services, String credential, long number, String shuffleId, int firstMapper,
      int endMapper, int startMapper, int endWanted, int startPartition, int endPartition,
      ReaderOptions options) throws CoscoException {
    if (firstMapper < 0 || firstMapper > endMapper || startMapper > endWanted
        || startPartition < 0 || startPartition > endPartition) {
      throw new CoscoException("InvalidArgument", "exchange `" + shuffleId + "`: mappers ["
          + firstMapper + ", " + endMapper + "), of which [" + startMapper + ", " + endWanted
          + "), or partitions [" + startPartition + ", " + endPartition + ") cannot be read");
    }
    this.shuffleId = shuffleId;
    this.number = number;
    this.startMapper = Math.max(startMapper, firstMapper);
    this.endWanted = Math.min(endWanted, endMapper);
    // Of no mappers there is nothing to be read, nor to be verified.
    this.partition = this.startMapper < this.endWanted ? startPartition : endPartition;
    this.endPartition = endPartition;
    this.options = options;
    codec = new BlockCodec(options.reusesRuns);
    commits = new Commits(
        services, credential, number, shuffleId, firstMapper, endMapper, options.commitWaitS);
    fetches = new Fetches(
        services, number, credential,
        Bitmaps.range(this.startMapper, Math.max(this.startMapper, this.endWanted)), options);
  }

  /**
   * Waits for the next run; partitions ascend.
   *
   * @return null: all were given, and every partition is verified
   * @throws CoscoException DataLost, retriable, where mappers are to run again; ClientClosed after
   *     `close` or an interrupt; DataCorrupted; what the services mean. It is of no more use then.
   */
  public Run next() throws CoscoException {
    if (failure != null) {
      throw failure;
    }
    try {
      return advance();
    } catch (CoscoException error) {
      failure = error;
      close();
      throw error;
    } catch (RuntimeException | Error error) {
      failure = error("ClientClosed", "broken off by " + error, false);
      close();
      throw error;
    }
  }

  private Run advance() throws CoscoException {
    for (;;) {
      if (closed.getCount() == 0) {
        throw error("ClientClosed", "the reader was closed", false);
      }
      if (turn == null) {
        if (partition >= endPartition) {
          fetches.end();
          return null;
        }
        turn = begin(committed());
      }
      try {
        Run run = turn.next();
        if (run != null) {
          return run;
        }
        retries += turn.retries();
        records += turn.records();
        turn = null;
        partition++;
      } catch (PartitionTurn.BegunAnew error) {
        retries += turn.retries() + 1;
        turn = begin(error.now);
      }
    }
  }

  private PartitionTurn begin(Committed read) {
    if (seenAttempts != read.attempts) {
      seenAttempts = read.attempts;
      seen = new SeenRows(read.attempts.size());
    }
    PartitionMerge merge = new PartitionMerge(
        number, partition, read.attempts, read.sums(partition), startMapper, endWanted, seen,
        codec);
    return new PartitionTurn(helper, commits, fetches, partition, read, merge,
        !read.attempts.areWithin(startMapper, endWanted), options.unreachableS, troubled);
  }

  /** Returns what is committed of the partition at its turn, and sees that it is fetched. */
  private Committed committed() throws CoscoException {
    while (!told.isEmpty() && !told.get(0).has(partition)) {
      told.remove(0);
    }
    if (told.isEmpty() || fetches.pass() != shared) { // or it went another way: ask anew
      fetches.end();
      told = new LinkedList<>(commits.of(partition, endPartition));
      shared = null;
    }
    if (shared == null || partition >= shared.endPartition()) {
      shared = SharedPass.of(told, partition, startMapper, endWanted, troubled);
      fetches.begin(shared);
    }
    return told.get(0);
  }

  private void pause(double seconds) throws CoscoException {
    long began = System.nanoTime();
    try {
      if (closed.await((long) (seconds * 1e9), TimeUnit.NANOSECONDS)) {
        throw error("ClientClosed", "the reader was closed", false);
      }
    } catch (InterruptedException error) {
      Thread.currentThread().interrupt();
      throw error("ClientClosed", "interrupted while it read", false);
    } finally {
      pausedNs += System.nanoTime() - began;
    }
  }

  private CoscoException error(String kind, String what, boolean retriable) {
    String where = "exchange `" + shuffleId + "`, partition " + partition;
    return new CoscoException(kind, where + ": " + what, retriable, null);
  }

  /** Ends all streams; safe at any time, from any thread, twice. */
  @Override
  public void close() {
    closed.countDown();
    fetches.close();
  }

  /** Returns how long `next` waited for daemons and for the metadata service. */
  public long waitedNs() {
    return fetches.waitedNs + commits.waitedNs + pausedNs;
  }

  /** Returns the bytes of the messages that came. */
  public long fetchedBytes() {
    return fetches.fetchedBytes;
  }

  /** Returns how many fetches were begun. */
  public long fetches() {
    return fetches.fetches;
  }

  /** Returns how many of them were for what another one was to give. */
  public long retries() {
    return retries + (turn == null ? 0 : turn.retries());
  }

  /** Returns the rows of the wanted mappers that were found, those of the present partition too. */
  public long records() {
    return records + (turn == null ? 0 : turn.records());
  }
}
