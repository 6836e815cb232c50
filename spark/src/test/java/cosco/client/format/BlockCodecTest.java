package cosco.client.format;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertNotSame;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;

import cosco.client.CoscoException;
import java.util.Arrays;
import org.junit.jupiter.api.Test;

final class BlockCodecTest {
  private final BlockCodec codec = new BlockCodec(true);

  private static byte[] block(int value, int length) {
    BlockCodec maker = new BlockCodec();
    BlockHeader h = new BlockHeader();
    h.rows = 1;
    h.rawBytes = length;
    byte[] room = new byte[BlockCodec.IDENTITY_BYTES + length];
    Arrays.fill(room, (byte) value);
    byte[] out = new byte[maker.roomFor(length)];
    return Arrays.copyOf(out, maker.encode(h, room, 0, out, 0, true));
  }

  private byte[] decoded(byte[] block) throws CoscoException {
    return codec.decode(BlockHeader.parse(block, 0, block.length), block, 0);
  }

  private static void assertIs(int value, int length, byte[] room) {
    byte[] expected = new byte[length];
    Arrays.fill(expected, (byte) value);
    int from = BlockCodec.IDENTITY_BYTES;
    assertArrayEquals(expected, Arrays.copyOfRange(room, from, from + length));
  }

  @Test
  void whatWasGivenLastStaysWhileTheNextIsMade() throws CoscoException {
    byte[] first = decoded(block(1, 500));
    byte[] second = decoded(block(2, 400));
    assertNotSame(first, second);
    assertIs(1, 500, first);
    assertSame(first, decoded(block(3, 300)));
    assertIs(2, 400, second);
    assertIs(3, 300, first);
  }

  @Test
  void aBrokenBlockTakesNobodysTurn() throws CoscoException {
    byte[] first = decoded(block(1, 500));
    byte[] second = decoded(block(2, 500));
    byte[] broken = block(4, 500);
    broken[8] ^= 1; // of another exchange, by its header
    for (int i = 0; i < 3; i++) {
      assertThrows(CoscoException.class, () -> decoded(broken));
    }
    assertIs(2, 500, second);
    assertSame(first, decoded(block(3, 500)));
    assertIs(2, 500, second);
  }
}
