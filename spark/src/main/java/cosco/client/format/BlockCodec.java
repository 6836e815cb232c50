package cosco.client.format;

import cosco.client.CoscoException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.zip.CRC32;
import net.jpountz.lz4.LZ4Compressor;
import net.jpountz.lz4.LZ4Exception;
import net.jpountz.lz4.LZ4Factory;
import net.jpountz.lz4.LZ4SafeDecompressor;
import net.openhft.hashing.LongHashFunction;

/**
 * Makes blocks of content, and undoes them; for one thread.
 *
 * <p>The digest is of the identity and the content as they lie one behind the other, so content is
 * given and taken with {@link #IDENTITY_BYTES} of room before it: nothing is copied for its sake.
 */
public final class BlockCodec {
  /** Room that stands before content. */
  public static final int IDENTITY_BYTES = 41;

  private static final int IDENTITY_AT = 8;
  private static final LongHashFunction XXH3 = LongHashFunction.xx3();

  private final LZ4Compressor compressor = LZ4Factory.fastestInstance().fastCompressor();
  private final LZ4SafeDecompressor decompressor = LZ4Factory.fastestInstance().safeDecompressor();
  private final CRC32 crc = new CRC32();
  private final boolean reuses;
  private final byte[][] kept = {new byte[0], new byte[0]};
  private int turn;

  /** Makes one that gives content in an array of its own each time. */
  public BlockCodec() {
    this(false);
  }

  /**
   * reuses: content is given in one of two arrays, in turn, so that what was given last stays until
   * the one after the next; but fragments in their own.
   */
  public BlockCodec(boolean reuses) {
    this.reuses = reuses;
  }

  /** Returns how long a block of so much content can become while it is made. */
  public int roomFor(int rawBytes) {
    return BlockHeader.HEADER_BYTES + compressor.maxCompressedLength(rawBytes);
  }

  /**
   * Writes a block to `out` at `at`, of which there are `roomFor(rawBytes)`; sets what of `h` is
   * not known before: storedBytes, codec, digest.
   *
   * @param content from its room on: `contentAt` is where the room begins
   * @param lz4 false: stored as it is
   * @return the length of the block
   */
  public int encode(BlockHeader h, byte[] content, int contentAt, byte[] out, int at, boolean lz4) {
    h.digest = digest(h, content, contentAt);
    int from = contentAt + IDENTITY_BYTES;
    int to = at + BlockHeader.HEADER_BYTES;
    int stored = h.rawBytes;
    if (lz4) {
      stored = compressor.compress(content, from, h.rawBytes, out, to, out.length - to);
    }
    h.codec = lz4 && stored < h.rawBytes ? 1 : 0;
    if (h.codec == 0) {
      stored = h.rawBytes;
      System.arraycopy(content, from, out, to, stored);
    }
    h.storedBytes = stored;
    ByteBuffer b = ByteBuffer.wrap(out, at, BlockHeader.HEADER_BYTES).order(ByteOrder.LITTLE_ENDIAN);
    b.putInt(BlockHeader.MAGIC).putInt(0).putLong(h.exchange).putLong(h.attempt)
        .putLong(h.position).putInt(h.partition).putInt(h.mapper).putInt(h.rows)
        .putInt(h.rawBytes).putInt(stored).put((byte) h.codec).put((byte) h.flags)
        .putShort((short) 0).putLong(h.digest);
    h.crc = crcOf(out, at, stored);
    b.putInt(at + 4, h.crc);
    return BlockHeader.HEADER_BYTES + stored;
  }

  /**
   * Checks that the whole block lies before `end`, and its checksum.
   *
   * @throws CoscoException DataCorrupted
   */
  public void check(BlockHeader h, byte[] data, int offset, int end) throws CoscoException {
    if (offset + h.blockBytes() > end) {
      throw BlockHeader.corrupted("a block of " + h.blockBytes() + " bytes is cut short");
    }
    if (crcOf(data, offset, h.storedBytes) != h.crc) {
      throw BlockHeader.corrupted("checksum of " + h.place() + " does not match");
    }
  }

  /**
   * Returns the content of a checked block behind IDENTITY_BYTES of room, and checks its digest.
   *
   * @throws CoscoException DataCorrupted
   */
  public byte[] decode(BlockHeader h, byte[] data, int offset) throws CoscoException {
    byte[] room = room(h);
    int from = offset + BlockHeader.HEADER_BYTES;
    boolean whole = h.storedBytes == h.rawBytes;
    if (h.codec == 0) {
      System.arraycopy(data, from, room, IDENTITY_BYTES, h.storedBytes);
    } else {
      try {
        whole = decompressor.decompress(
            data, from, h.storedBytes, room, IDENTITY_BYTES, h.rawBytes) == h.rawBytes;
      } catch (LZ4Exception error) {
        throw new CoscoException(
            "DataCorrupted", h.place() + " does not decompress", false, error);
      }
    }
    if (!whole || digest(h, room, 0) != h.digest) {
      throw BlockHeader.corrupted("digest of " + h.place() + " does not match");
    }
    if (room == kept[turn]) { // not of a broken block, which nobody is given
      turn = 1 - turn;
    }
    return room;
  }

  private byte[] room(BlockHeader h) {
    int length = IDENTITY_BYTES + h.rawBytes;
    if (!reuses || h.isFragment()) {
      return new byte[length];
    }
    if (kept[turn].length < length) {
      kept[turn] = new byte[length];
    }
    return kept[turn];
  }

  private int crcOf(byte[] data, int offset, int storedBytes) {
    crc.reset();
    crc.update(data, offset + IDENTITY_AT, BlockHeader.HEADER_BYTES - IDENTITY_AT + storedBytes);
    return (int) crc.getValue();
  }

  private static long digest(BlockHeader h, byte[] content, int contentAt) {
    ByteBuffer b = ByteBuffer.wrap(content, contentAt, IDENTITY_BYTES).order(ByteOrder.LITTLE_ENDIAN);
    b.putLong(h.exchange).putLong(h.attempt).putLong(h.position).putInt(h.partition)
        .putInt(h.mapper).putInt(h.rows).putInt(h.rawBytes).put((byte) h.flags);
    return XXH3.hashBytes(content, contentAt, IDENTITY_BYTES + h.rawBytes);
  }
}
