package cosco.client.read.state;

import cosco.client.CoscoException;
import cosco.client.format.BlockCodec;
import cosco.client.format.BlockHeader;
import cosco.client.read.Run;
import java.util.ArrayList;
import java.util.List;

/**
 * One partition's committed blocks, exactly once: those of other attempts and those that were seen
 * are dropped, so any number of copies may be fed, in any order, until it is `isComplete`.
 *
 * <p>Contents are decoded one at a time, as `next` is called. Memory: one interval a mapper where
 * blocks come in order, and fragments of rows that are not whole yet.
 */
public final class PartitionMerge {
  private static final int MAX_REASONS = 16;

  private final long exchange;
  private final int partition;
  private final Attempts attempts;
  private final Sums expected;
  private final int start;
  private final int end;
  private final SeenRows seen;
  private final BlockCodec codec;
  private final Sums found = new Sums(0, 0, 0);
  private final LongRows longRows = new LongRows();
  private final List<String> bad = new ArrayList<>();
  private SeenRows bareSeen; // of headers that came alone
  private Sums bare = new Sums(0, 0, 0);
  private Slice fed;
  private int at;
  private int refusals;
  private long records;

  /**
   * Begins without blocks.
   *
   * @param seen of as many mappers as `attempts`; it is cleared, and used by this merge alone
   * @param start content is given of the mappers from this one on
   * @param end and before this one
   */
  public PartitionMerge(
      long exchange, int partition, Attempts attempts, Sums expected, int start, int end,
      SeenRows seen, BlockCodec codec) {
    this.exchange = exchange;
    this.partition = partition;
    this.attempts = attempts;
    this.expected = expected;
    this.start = start;
    this.end = end;
    this.seen = seen;
    this.codec = codec;
    seen.clear();
  }

  /** Takes blocks to be read by `next`, which has said that there are no others. */
  public void feed(Slice blocks) {
    if (blocks.isHeaders) {
      feedHeaders(blocks);
    } else {
      fed = blocks;
      at = blocks.at;
    }
  }

  /**
   * Returns the next run of the wanted mappers; null: other blocks are to be fed.
   *
   * <p>A block that fails its checks counts as absent. Where its length cannot be trusted, all that
   * follows it does.
   */
  public Run next() {
    while (fed != null && at < fed.end) {
      Run run = null;
      try {
        BlockHeader h = BlockHeader.parse(fed.data, at, fed.end);
        codec.check(h, fed.data, at, fed.end);
        int from = at;
        at += h.blockBytes();
        run = accept(h, from);
      } catch (CoscoException error) {
        refuse(error.getMessage());
        break;
      }
      if (run != null) {
        return run;
      }
    }
    fed = null;
    return null;
  }

  /** Notes why something that was to be fed is bad, and so absent. */
  public void refuse(String reason) {
    refusals++;
    if (bad.size() < MAX_REASONS) {
      bad.add(reason);
    }
  }

  /** Takes back what headers have added up: their blocks are fed whole from here on. */
  public void forgetHeaders() {
    found.subtract(bare);
    bare = new Sums(0, 0, 0);
    if (bareSeen != null) {
      bareSeen.clear();
    }
  }

  /** Returns whether everything committed was seen: the sums are those that were told. */
  public boolean isComplete() {
    return found.are(expected) && longRows.isEmpty();
  }

  /** Returns how often something was refused. */
  public int refusals() {
    return refusals;
  }

  /** Returns the first reason why something was refused; empty if nothing was. */
  public String reason() {
    return bad.isEmpty() ? "" : bad.get(0);
  }

  /** Returns the rows of the wanted mappers so far. */
  public long records() {
    return records;
  }

  /** Returns whether no loss explains what was found, as it is more than, or not, what was told. */
  public boolean isContradiction() {
    boolean isMore = found.rowBytes > expected.rowBytes || found.rows > expected.rows;
    boolean isLess = found.rowBytes < expected.rowBytes || found.rows < expected.rows;
    return isMore || (!isLess && bad.isEmpty());
  }

  /** Returns what was found, for a message. */
  public String state() {
    String what = "found " + found.rows + " of " + expected.rows + " committed rows ("
        + found.rowBytes + " of " + expected.rowBytes + " bytes)";
    if (!bad.isEmpty()) {
      return what + "; " + bad.get(0);
    }
    return isContradiction() ? what + "; that contradicts the committed sums" : what;
  }

  private Run accept(BlockHeader h, int from) {
    try {
      int mapper = newOf(h);
      if (mapper < 0) {
        return null;
      }
      byte[] room = null;
      boolean isWanted = isWanted(h.mapper);
      if (isWanted) {
        room = codec.decode(h, fed.data, from);
      }
      seen.add(mapper, h.position, h.end());
      found.add(h);
      if (!isWanted) {
        return null;
      }
      records += h.rows;
      if (h.isFragment()) {
        return longRows.add(h, room);
      }
      if (h.rawBytes == 0) {
        return null; // it only counts rows, of a run that a fragment has
      }
      return new Run(
          room, BlockCodec.IDENTITY_BYTES, h.rawBytes, partition, h.mapper, h.rows,
          (h.flags & BlockHeader.LENGTHS) != 0);
    } catch (CoscoException error) {
      refuse(error.getMessage());
      return null;
    }
  }

  private void feedHeaders(Slice headers) {
    for (int i = headers.at; i < headers.end; i += BlockHeader.HEADER_BYTES) {
      try {
        BlockHeader h = BlockHeader.parse(headers.data, i, headers.end);
        if (isWanted(h.mapper)) {
          throw corrupted("a block of mapper " + h.mapper + " came as its header alone");
        }
        int mapper = newOf(h);
        if (mapper >= 0) {
          if (bareSeen == null) {
            bareSeen = new SeenRows(attempts.size());
          }
          bareSeen.add(mapper, h.position, h.end());
          found.add(h);
          bare.add(h);
        }
      } catch (CoscoException error) {
        refuse(error.getMessage());
      }
    }
  }

  private boolean isWanted(int mapper) {
    return mapper >= start && mapper < end;
  }

  /** Returns the place of the mapper of a block that counts and was not seen, else -1. */
  private int newOf(BlockHeader h) throws CoscoException {
    if (h.exchange != exchange || h.partition != partition) {
      throw corrupted("a block of exchange " + h.exchange + ", partition " + h.partition
          + " lies among those of exchange " + exchange + ", partition " + partition);
    }
    if (h.isMark()) {
      return -1;
    }
    int mapper = attempts.indexOf(h.mapper, h.attempt);
    if (mapper < 0) {
      return -1;
    }
    if (h.position < 0 || h.end() <= h.position) {
      throw corrupted(h.place() + " is beyond what this client reads");
    }
    boolean isNew = isUnseen(seen, mapper, h)
        && (bareSeen == null || isUnseen(bareSeen, mapper, h));
    return isNew ? mapper : -1;
  }

  private static boolean isUnseen(SeenRows seen, int mapper, BlockHeader h) throws CoscoException {
    if (!seen.overlaps(mapper, h.position, h.end())) {
      return true;
    }
    if (seen.covers(mapper, h.position, h.end())) {
      return false;
    }
    throw corrupted(h.place() + " overlaps another one");
  }

  private static CoscoException corrupted(String what) {
    return new CoscoException("DataCorrupted", what);
  }
}
