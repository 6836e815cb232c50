package cosco.client.write;

import cosco.client.CoscoException;
import cosco.client.format.BlockCodec;
import cosco.client.format.BlockHeader;
import cosco.client.format.FrameHeader;
import cosco.v1.ExchangeInfoReply;
import cosco.v1.OpenAttemptReply;
import cosco.v1.PartitionRange;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * Makes blocks of the runs of one attempt, gathers them into frames of one range each, and keeps
 * the attempt's sums.
 *
 * <p>An attempt may be wanted for some ranges only; runs for others are dropped.
 */
final class BlockMaker {
  /** Where full frames go; it may wait. */
  interface Sink {
    void push(FrameBuilder frame) throws CoscoException;
  }

  final long[] rows;
  final long[] rawBytes;
  final long[] storedBytes;
  final long[] digests;
  long allStoredBytes;

  private final BlockCodec codec = new BlockCodec();
  private final BlockHeader header = new BlockHeader();
  private final byte[] saved = new byte[BlockCodec.IDENTITY_BYTES];
  private final boolean lz4;
  private final long maxOpenBytes;
  private final Sink sink;
  private final int[] firsts; // of ranges, ascending
  private final int[] indexes;
  private final boolean[] wanted;
  private final Map<Integer, FrameBuilder> open = new LinkedHashMap<>(); // by range
  private long openBytes; // of their arrays
  private byte[] encoded = new byte[0]; // the block that is being made

  /** `sink` gets each frame that is full. */
  BlockMaker(OpenAttemptReply opened, boolean lz4, long maxOpenBytes, Sink sink) {
    ExchangeInfoReply info = opened.getInfo();
    this.lz4 = lz4;
    this.maxOpenBytes = maxOpenBytes;
    this.sink = sink;
    header.exchange = info.getNumber();
    header.attempt = opened.getAttempt();
    header.mapper = opened.getMapper();
    int partitions = info.getSpec().getPartitions();
    rows = new long[partitions];
    rawBytes = new long[partitions];
    storedBytes = new long[partitions];
    digests = new long[partitions];
    List<PartitionRange> ranges = new ArrayList<>(info.getRangesList());
    ranges.sort(Comparator.comparingInt(PartitionRange::getFirst));
    firsts = new int[ranges.size()];
    indexes = new int[ranges.size()];
    wanted = new boolean[ranges.size()];
    Set<Integer> again = new HashSet<>(opened.getRangesList());
    for (int i = 0; i < firsts.length; i++) {
      firsts[i] = ranges.get(i).getFirst();
      indexes[i] = ranges.get(i).getIndex();
      wanted[i] = !opened.getPartial() || again.contains(indexes[i]);
    }
  }

  /** Makes blocks of a run, and gives the frames that are full away. */
  void add(int partition, int records, byte[] room, int at, int length) throws CoscoException {
    int range = Arrays.binarySearch(firsts, partition);
    range = range < 0 ? -range - 2 : range;
    if (!wanted[range]) {
      return;
    }
    long firstRow = rows[partition];
    if (length <= BlockHeader.MAX_CONTENT_BYTES) {
      block(range, partition, records, firstRow << BlockHeader.POSITION_SHIFT, 0, room, at, length);
      return;
    }
    for (int from = 0, i = 0; from < length; i++) {
      int part = Math.min(length - from, BlockHeader.MAX_CONTENT_BYTES);
      boolean last = from + part == length;
      // The identity goes where the part before ends.
      System.arraycopy(room, at + from, saved, 0, saved.length);
      block(
          range, partition, last ? 1 : 0, firstRow << BlockHeader.POSITION_SHIFT | i,
          BlockHeader.FRAGMENT | (last ? BlockHeader.LAST : 0), room, at + from, part);
      System.arraycopy(saved, 0, room, at + from, saved.length);
      from += part;
    }
    if (records > 1) { // which only counts the others
      byte[] none = new byte[BlockCodec.IDENTITY_BYTES];
      long position = firstRow + 1 << BlockHeader.POSITION_SHIFT;
      block(range, partition, records - 1, position, 0, none, 0, 0);
    }
  }

  /** Gives away what is left. */
  void finish() throws CoscoException {
    while (!open.isEmpty()) {
      cut(open.values().iterator().next());
    }
  }

  /** Returns the memory of frames that are not full. */
  long openBytes() {
    return openBytes;
  }

  private void block(
      int range, int partition, int count, long position, int flags, byte[] room, int at,
      int length) throws CoscoException {
    FrameBuilder frame = open.computeIfAbsent(indexes[range], FrameBuilder::new);
    header.partition = partition;
    header.rows = count;
    header.position = position;
    header.flags = flags;
    header.rawBytes = length;
    if (encoded.length < codec.roomFor(length)) {
      encoded = new byte[codec.roomFor(length)];
    }
    int bytes = codec.encode(header, room, at, encoded, 0, lz4);
    int before = frame.capacity;
    frame.add(encoded, bytes);
    openBytes += frame.capacity - before;
    rows[partition] += count;
    rawBytes[partition] += length;
    storedBytes[partition] += bytes;
    allStoredBytes += bytes;
    digests[partition] += header.digest;
    if (frame.used >= FrameHeader.TARGET_BYTES) {
      cut(frame);
    }
    while (openBytes > maxOpenBytes && open.size() > 1) {
      cut(longest());
    }
  }

  private FrameBuilder longest() {
    FrameBuilder longest = null;
    for (FrameBuilder one : open.values()) {
      longest = longest == null || one.capacity > longest.capacity ? one : longest;
    }
    return longest;
  }

  private void cut(FrameBuilder frame) throws CoscoException {
    open.remove(frame.range);
    openBytes -= frame.capacity;
    sink.push(frame);
  }
}
