package cosco.client.format;

import cosco.client.CoscoException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/** The header of a block, as cosco/format/block.py has it; lengths in bytes. */
public final class BlockHeader {
  public static final int HEADER_BYTES = 64;
  public static final int MAX_CONTENT_BYTES = 1 << 20;
  public static final int POSITION_SHIFT = 16;
  public static final int MAX_FRAGMENTS = 1 << POSITION_SHIFT;

  public static final int FRAGMENT = 1;
  public static final int LAST = 2;
  public static final int LENGTHS = 4;
  public static final int MARK = 8;

  static final int MAGIC = 0x314B4243; // "CBK1"
  private static final long MAX_ROWS = 1L << (64 - POSITION_SHIFT);

  public long exchange;
  public long attempt;
  public long position;
  public int partition;
  public int mapper;
  public int rows;
  public int rawBytes;
  public int storedBytes;
  public int codec;
  public int flags;
  public long digest;
  int crc;

  /** Returns the length of the whole block. */
  public int blockBytes() {
    return HEADER_BYTES + storedBytes;
  }

  /** Returns the length of the content without its length table, if it has one. */
  public long rowBytes() {
    return (flags & LENGTHS) != 0 ? rawBytes - 4L * rows : rawBytes;
  }

  public long firstRow() {
    return position >>> POSITION_SHIFT;
  }

  /** Returns the position after the last one that the block covers. */
  public long end() {
    if (!isFragment()) {
      return position + ((long) rows << POSITION_SHIFT);
    }
    return isLast() ? firstRow() + rows << POSITION_SHIFT : position + 1;
  }

  public boolean isFragment() {
    return (flags & FRAGMENT) != 0;
  }

  public boolean isLast() {
    return (flags & LAST) != 0;
  }

  public boolean isMark() {
    return flags == MARK;
  }

  /**
   * Reads and range-checks the header at `offset`, but not its checksum.
   *
   * @throws CoscoException DataCorrupted where no block begins
   */
  public static BlockHeader parse(byte[] data, int offset, int end) throws CoscoException {
    if (end - offset < HEADER_BYTES) {
      throw corrupted("a block header is cut short at byte " + end);
    }
    ByteBuffer b = ByteBuffer.wrap(data, offset, HEADER_BYTES).order(ByteOrder.LITTLE_ENDIAN);
    if (b.getInt() != MAGIC) {
      throw corrupted("no block begins at byte " + offset);
    }
    BlockHeader h = new BlockHeader();
    h.crc = b.getInt();
    h.exchange = b.getLong();
    h.attempt = b.getLong();
    h.position = b.getLong();
    h.partition = b.getInt();
    h.mapper = b.getInt();
    h.rows = b.getInt();
    h.rawBytes = b.getInt();
    h.storedBytes = b.getInt();
    h.codec = b.get() & 0xff;
    h.flags = b.get() & 0xff;
    int zero = b.getShort();
    h.digest = b.getLong();
    h.check(zero);
    return h;
  }

  private void check(int zero) throws CoscoException {
    if (rawBytes < 0 || rawBytes > MAX_CONTENT_BYTES || storedBytes < 0 || storedBytes > rawBytes) {
      throw corrupted("impossible block lengths: raw " + rawBytes + ", stored " + storedBytes);
    }
    boolean known =
        flags == 0 || flags == LENGTHS || flags == FRAGMENT || flags == (FRAGMENT | LAST)
            || flags == MARK;
    if (codec > 1 || !known || zero != 0) {
      throw corrupted("unknown block codec " + codec + " or flags " + flags);
    }
    if (isFragment() ? rows != (isLast() ? 1 : 0) : isMark() && (rows != 0 || position != 0)) {
      throw corrupted("a fragment or a mark with " + rows + " rows");
    }
    if (!isFragment() && !isMark() && (rows <= 0 || (position & (MAX_FRAGMENTS - 1)) != 0)) {
      throw corrupted("a block without rows, or one that begins inside a row");
    }
    if ((flags & LENGTHS) != 0 && rows * 4L > rawBytes) {
      throw corrupted("a length table of " + rows + " rows in " + rawBytes + " bytes");
    }
    if (firstRow() + rows > MAX_ROWS) {
      throw corrupted("row ids beyond their range");
    }
  }

  /** Returns which block it is, for messages. */
  public String place() {
    return "a block of mapper " + mapper + ", partition " + partition + ", row " + firstRow();
  }

  static CoscoException corrupted(String what) {
    return new CoscoException("DataCorrupted", what);
  }
}
