package cosco.client.read.state;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import cosco.client.CoscoException;
import cosco.client.format.BlockHeader;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.Test;

class BlockSplitterTest {
  @Test
  void piecesMayBeCutAnywhere() throws CoscoException {
    long seed = System.nanoTime();
    Random random = new Random(seed);
    for (int round = 0; round < 200; round++) {
      List<byte[]> blocks = new ArrayList<>();
      boolean isHeaders = random.nextInt(3) == 0;
      for (int i = random.nextInt(6); i >= 0; i--) {
        Blocks.Block one = Blocks.block(1, i, 1, Blocks.content(random, 300));
        blocks.add(isHeaders ? one.headerAlone() : one.bytes);
      }
      byte[] body = Blocks.joined(blocks);
      BlockSplitter splitter = new BlockSplitter(isHeaders);
      List<byte[]> found = new ArrayList<>();
      int most = 1 + random.nextInt(400);
      for (int at = 0; at < body.length; ) {
        int length = Math.min(body.length - at, random.nextInt(most + 1));
        int before = random.nextInt(3);
        byte[] piece = new byte[before + length + 2];
        System.arraycopy(body, at, piece, before, length);
        ArrayDeque<Slice> runs = new ArrayDeque<>();
        splitter.feed(piece, before, before + length, runs);
        for (Slice run : runs) {
          assertEquals(isHeaders, run.isHeaders);
          for (int k = run.at; k < run.end; ) { // whole blocks
            int end = k + (isHeaders ? BlockHeader.HEADER_BYTES
                : BlockHeader.parse(run.data, k, run.end).blockBytes());
            found.add(Arrays.copyOfRange(run.data, k, end));
            k = end;
          }
        }
        at += length;
      }
      splitter.finish();
      assertEquals(blocks.size(), found.size(), "seed " + seed);
      assertArrayEquals(body, Blocks.joined(found), "seed " + seed);
    }
  }

  @Test
  void whatIsLeftOfABlockIsAnError() throws CoscoException {
    byte[] block = Blocks.block(1, 0, 1, new byte[20]).bytes;
    for (int length = 1; length < block.length; length++) {
      BlockSplitter splitter = new BlockSplitter(false);
      splitter.feed(block, 0, length, new ArrayDeque<>());
      assertThrows(CoscoException.class, splitter::finish);
    }
  }

  @Test
  void noBlockIsAnErrorWhereverItIsCut() {
    byte[] none = new byte[200];
    assertThrows(CoscoException.class,
        () -> new BlockSplitter(false).feed(none, 0, 200, new ArrayDeque<>()));
    assertThrows(CoscoException.class, () -> {
      BlockSplitter splitter = new BlockSplitter(false);
      splitter.feed(none, 0, 10, new ArrayDeque<>());
      splitter.feed(none, 10, 200, new ArrayDeque<>());
    });
  }
}
