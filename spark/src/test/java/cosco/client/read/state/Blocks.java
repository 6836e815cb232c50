package cosco.client.read.state;

import cosco.client.format.BlockCodec;
import cosco.client.format.BlockHeader;
import java.io.ByteArrayOutputStream;
import java.util.Arrays;
import java.util.List;
import java.util.Random;

/** Makes blocks for tests, of exchange 7 and partition 3. */
final class Blocks {
  static final long EXCHANGE = 7;
  static final int PARTITION = 3;

  private static final BlockCodec CODEC = new BlockCodec();

  private Blocks() {}

  /** One block, with what it is made of. */
  static final class Block {
    final BlockHeader header;
    final byte[] bytes;
    final byte[] content;

    Block(BlockHeader header, byte[] bytes, byte[] content) {
      this.header = header;
      this.bytes = bytes;
      this.content = content;
    }

    byte[] headerAlone() {
      return Arrays.copyOf(bytes, BlockHeader.HEADER_BYTES);
    }
  }

  /** Returns a header of mapper's attempt 100 + mapper. */
  static BlockHeader header(int mapper, long row, int rows) {
    BlockHeader h = new BlockHeader();
    h.exchange = EXCHANGE;
    h.partition = PARTITION;
    h.mapper = mapper;
    h.attempt = 100 + mapper;
    h.position = row << BlockHeader.POSITION_SHIFT;
    h.rows = rows;
    return h;
  }

  static Block block(int mapper, long row, int rows, byte[] content) {
    return block(header(mapper, row, rows), content);
  }

  static Block fragment(int mapper, long row, int number, boolean isLast, byte[] content) {
    BlockHeader h = header(mapper, row, isLast ? 1 : 0);
    h.position |= number;
    h.flags = BlockHeader.FRAGMENT | (isLast ? BlockHeader.LAST : 0);
    return block(h, content);
  }

  static Block block(BlockHeader h, byte[] content) {
    byte[] room = new byte[BlockCodec.IDENTITY_BYTES + content.length];
    System.arraycopy(content, 0, room, BlockCodec.IDENTITY_BYTES, content.length);
    h.rawBytes = content.length;
    byte[] out = new byte[CODEC.roomFor(content.length)];
    int length = CODEC.encode(h, room, 0, out, 0, true);
    return new Block(h, Arrays.copyOf(out, length), content);
  }

  /** Returns content of which some can be compressed, and some cannot. */
  static byte[] content(Random random, int most) {
    byte[] content = new byte[random.nextInt(most)];
    random.nextBytes(content);
    if (random.nextBoolean()) {
      Arrays.fill(content, (byte) 5);
    }
    return content;
  }

  static byte[] joined(List<byte[]> pieces) {
    ByteArrayOutputStream out = new ByteArrayOutputStream();
    for (byte[] piece : pieces) {
      out.write(piece, 0, piece.length);
    }
    return out.toByteArray();
  }

  static Slice slice(byte[] bytes) {
    return new Slice(bytes, 0, bytes.length, false);
  }

  static Slice headers(byte[] bytes) {
    return new Slice(bytes, 0, bytes.length, true);
  }
}
