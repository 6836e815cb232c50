package cosco.client.write;

import cosco.client.CoscoException;
import cosco.client.format.BlockCodec;
import cosco.client.format.NumberArrays;
import cosco.client.rpc.Methods;
import cosco.client.rpc.Services;
import cosco.v1.CommitRequest;
import cosco.v1.ExchangeInfoReply;
import cosco.v1.OpenAttemptReply;
import cosco.v1.OpenAttemptRequest;

/**
 * One run of a mapper: takes runs of records by partition, and commits them.
 *
 * <p>For one thread, but for `abort`. Records are seen by readers only once `commit` has returned,
 * and then all of them. An error ends the writer: nothing of it counts. A daemon that is lost is
 * waited for, or another one takes over; what it has not acknowledged is sent again, and counts
 * once. It holds a window of frames that no daemon has acknowledged, and as much of frames that are
 * not full, as its options say.
 */
public final class ExchangeWriter {
  private final Services services;
  private final String credential;
  private final String shuffleId;
  private final OpenAttemptReply opened;
  private final Pusher pusher;
  private final int partitions;
  private volatile BlockMaker blocks; // null: there will be no more of them
  private volatile long storedBytes;
  private WriterSums sums;

  /**
   * Opens an attempt of `mapper`.
   *
   * @param credential for the metadata service, a token or a capability; empty where nobody needs
   *     one
   * @throws CoscoException ExchangeNotFound, ExchangeClosed, AccessDenied, ServiceUnavailable
   */
  public ExchangeWriter(
      Services services, String credential, String shuffleId, int mapper, WriterOptions options)
      throws CoscoException {
    this.services = services;
    this.credential = credential;
    this.shuffleId = shuffleId;
    OpenAttemptRequest request = OpenAttemptRequest.newBuilder()
        .setShuffleId(shuffleId).setMapper(mapper).setProtocol(Methods.PROTOCOL).build();
    opened = services.metadata(Methods.OPEN_ATTEMPT, request, credential, 0);
    String codec = options.codec.isEmpty() ? opened.getInfo().getSpec().getCodec() : options.codec;
    pusher = new Pusher(services, credential, shuffleId, opened, options);
    partitions = opened.getInfo().getSpec().getPartitions();
    blocks = new BlockMaker(
        opened, codec.equals("lz4"), options.openFramesBytes,
        frame -> pusher.push(frame.range, frame.blocks, frame.body()));
  }

  /** Returns how many partitions the exchange has. */
  public int partitions() {
    return partitions;
  }

  /**
   * Adds a run of records to a partition; waits while the window is full.
   *
   * @param room has BlockCodec.IDENTITY_BYTES of room at `at`, which are written to, then
   *     `rawBytes` of content; the array may be used anew when this returns
   * @throws CoscoException what the pushing of earlier runs failed with; ClientClosed after `abort`
   *     or an interrupt; the writer has ended then
   */
  public void add(int partition, int records, byte[] room, int at, int rawBytes)
      throws CoscoException {
    if (partition < 0 || partition >= partitions) {
      throw refused("partition " + partition + ": there are " + partitions);
    }
    if (records < 1 || at < 0 || rawBytes < 0
        || (long) at + BlockCodec.IDENTITY_BYTES + rawBytes > room.length) {
      throw refused(
          "a run of " + records + " records in " + rawBytes + " bytes at " + at + " of an array of "
              + room.length);
    }
    try {
      BlockMaker maker = blocks; // before the check, so that it is there
      pusher.check();
      maker.add(partition, records, room, at, rawBytes);
      storedBytes = maker.allStoredBytes;
    } catch (CoscoException | RuntimeException | Error error) {
      abort();
      throw error;
    }
  }

  /**
   * Sends what is left, waits for every acknowledgement, and commits; again, for the same answer.
   *
   * @throws CoscoException what `add` raises; GenerationChanged if the exchange began anew
   *     meanwhile; ServiceUnavailable, CapacityExceeded
   */
  public WriterSums commit() throws CoscoException {
    if (sums != null) {
      return sums;
    }
    try {
      BlockMaker maker = blocks;
      pusher.check();
      maker.finish();
      CommitRequest request = request(maker, pusher.flush());
      boolean won = services.metadata(Methods.COMMIT, request, credential, 0).getWon();
      sums = new WriterSums(maker.rows, maker.rawBytes, maker.storedBytes, won);
      abort(); // which ends the streams in peace, as nothing is left
      return sums;
    } catch (CoscoException | RuntimeException | Error error) {
      abort();
      throw error;
    }
  }

  /** Gives up: streams end, nothing is kept. Safe at any time, also twice, by any thread. */
  public void abort() {
    pusher.close();
    blocks = null;
  }

  /** Returns how long this writer has waited for daemons. */
  public long waitedNs() {
    return pusher.waitedNs();
  }

  /** Returns how many bytes of blocks were made, headers included. */
  public long storedBytes() {
    return storedBytes;
  }

  /** Returns how many frames went out again, as another daemon took over or a stream broke. */
  public long resentFrames() {
    return pusher.resentFrames();
  }

  private CoscoException refused(String what) {
    return new CoscoException("InvalidArgument", "exchange '" + shuffleId + "': " + what);
  }

  private CommitRequest request(BlockMaker made, long[] acknowledged) {
    ExchangeInfoReply info = opened.getInfo();
    int count = 0;
    for (long stored : made.storedBytes) {
      count += stored == 0 ? 0 : 1;
    }
    long[][] columns = new long[5][count];
    int last = -1;
    for (int partition = 0, i = 0; i < count; partition++) {
      if (made.storedBytes[partition] != 0) {
        columns[0][i] = partition - last - 1;
        columns[1][i] = made.rows[partition];
        columns[2][i] = made.rawBytes[partition];
        columns[3][i] = made.storedBytes[partition];
        columns[4][i++] = made.digests[partition];
        last = partition;
      }
    }
    return CommitRequest.newBuilder()
        .setNumber(info.getNumber()).setMapper(opened.getMapper()).setAttempt(opened.getAttempt())
        .setGeneration(info.getGeneration())
        .setAcknowledged(NumberArrays.bytes64(acknowledged))
        .setGaps(NumberArrays.narrow(columns[0])).setRows(NumberArrays.narrow(columns[1]))
        .setRawBytes(NumberArrays.narrow(columns[2]))
        .setStoredBytes(NumberArrays.narrow(columns[3]))
        .setDigests(NumberArrays.bytes64(columns[4]))
        .setPartial(opened.getPartial()).addAllRanges(opened.getRangesList())
        .build();
  }
}
