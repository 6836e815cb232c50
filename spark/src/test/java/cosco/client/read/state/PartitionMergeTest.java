package cosco.client.read.state;

import static cosco.client.read.state.Blocks.block;
import static cosco.client.read.state.Blocks.content;
import static cosco.client.read.state.Blocks.fragment;
import static cosco.client.read.state.Blocks.header;
import static cosco.client.read.state.Blocks.headers;
import static cosco.client.read.state.Blocks.joined;
import static cosco.client.read.state.Blocks.slice;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import cosco.client.format.BlockCodec;
import cosco.client.format.BlockHeader;
import cosco.client.read.Run;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.TreeMap;
import org.junit.jupiter.api.Test;

class PartitionMergeTest {
  private static final Attempts ATTEMPTS =
      new Attempts(new int[] {1, 2, 5}, new long[] {101, 102, 105});

  private static Sums sums(List<Blocks.Block> blocks) {
    Sums sums = new Sums(0, 0, 0);
    for (Blocks.Block one : blocks) {
      sums.add(one.header);
    }
    return sums;
  }

  private static PartitionMerge merge(Sums expected, int start, int end) {
    return new PartitionMerge(
        Blocks.EXCHANGE, Blocks.PARTITION, ATTEMPTS, expected, start, end,
        new SeenRows(ATTEMPTS.size()), new BlockCodec());
  }

  /** Feeds blocks as one run, and returns what is given, by mapper and content. */
  private static List<String> fed(PartitionMerge merge, byte[]... blocks) {
    List<String> given = new ArrayList<>();
    merge.feed(slice(joined(Arrays.asList(blocks))));
    for (Run run = merge.next(); run != null; run = merge.next()) {
      given.add(text(run.mapper, run.records,
          Arrays.copyOfRange(run.data, run.at, run.at + run.length)));
    }
    return given;
  }

  private static String text(int mapper, int records, byte[] content) {
    return mapper + " " + records + " " + content.length + " " + Arrays.hashCode(content);
  }

  private static byte[] bad(byte[] block, int at) {
    byte[] copy = block.clone();
    copy[at] ^= 0x10;
    return copy;
  }

  @Test
  void eachBlockCountsOnceWhateverComesInWhateverOrder() {
    long seed = System.nanoTime();
    Random random = new Random(seed);
    for (int round = 0; round < 100; round++) {
      List<Blocks.Block> blocks = new ArrayList<>();
      List<String> expected = new ArrayList<>();
      for (int mapper : new int[] {1, 2, 5}) {
        long row = 0;
        for (int i = random.nextInt(8); i > 0; i--) {
          int rows = 1 + random.nextInt(9);
          byte[] content = content(random, 3000);
          if (random.nextInt(4) == 0) {
            row = longRow(random, mapper, row, blocks, expected);
            continue;
          }
          blocks.add(block(mapper, row, rows, content));
          if (content.length > 0) {
            expected.add(text(mapper, rows, content));
          }
          row += rows;
        }
      }
      Sums sums = sums(blocks);
      PartitionMerge merge = merge(sums, 0, 9);
      List<byte[]> copies = new ArrayList<>();
      for (Blocks.Block one : blocks) {
        for (int i = random.nextInt(3); i >= 0; i--) {
          copies.add(one.bytes);
        }
        BlockHeader other = header(one.header.mapper, one.header.firstRow(), 3);
        other.attempt += 1000; // it did not commit
        copies.add(block(other, new byte[9]).bytes);
      }
      BlockHeader mark = header(1, 0, 0);
      mark.flags = BlockHeader.MARK;
      copies.add(block(mark, new byte[0]).bytes);
      Collections.shuffle(copies, random);
      List<String> given = new ArrayList<>();
      for (byte[] copy : copies) {
        given.addAll(fed(merge, copy));
      }
      Collections.sort(given);
      Collections.sort(expected);
      assertEquals(expected, given, "seed " + seed);
      assertTrue(merge.isComplete(), "seed " + seed + ": " + merge.state());
      assertEquals(0, merge.refusals());
      assertEquals(sums.rows, merge.records());
    }
  }

  private static long longRow(
      Random random, int mapper, long row, List<Blocks.Block> blocks, List<String> expected) {
    List<byte[]> parts = new ArrayList<>();
    int count = 1 + random.nextInt(4);
    for (int i = 0; i < count; i++) {
      byte[] content = content(random, 2000);
      parts.add(content);
      blocks.add(fragment(mapper, row, i, i == count - 1, content));
    }
    expected.add(text(mapper, 1, joined(parts)));
    if (random.nextBoolean()) {
      return row + 1;
    }
    blocks.add(block(mapper, row + 1, 4, new byte[0])); // it only counts
    return row + 5;
  }

  @Test
  void aBadBlockCountsAsAbsentAndAnotherCopyOfItDoes() {
    byte[] content = new byte[500];
    new Random(3).nextBytes(content);
    Blocks.Block first = block(1, 0, 2, content);
    Blocks.Block second = block(1, 2, 2, content);
    for (int at = 0; at < first.bytes.length; at++) {
      PartitionMerge merge = merge(sums(Arrays.asList(first, second)), 0, 9);
      List<String> given = fed(merge, bad(first.bytes, at));
      assertTrue(given.isEmpty(), "byte " + at);
      assertEquals(1, merge.refusals(), "byte " + at);
      assertFalse(merge.isComplete());
      assertEquals(1, fed(merge, second.bytes).size());
      assertFalse(merge.isComplete());
      assertFalse(merge.isContradiction());
      assertEquals(1, fed(merge, second.bytes, first.bytes).size());
      assertTrue(merge.isComplete());
    }
  }

  @Test
  void whatFollowsABadBlockIsSkipped() {
    Blocks.Block first = block(1, 0, 2, new byte[50]);
    Blocks.Block second = block(1, 2, 2, new byte[50]);
    PartitionMerge merge = merge(sums(Arrays.asList(first, second)), 0, 9);
    assertTrue(fed(merge, bad(first.bytes, 20), second.bytes).isEmpty());
    assertEquals(2, fed(merge, first.bytes, second.bytes).size());
    assertTrue(merge.isComplete());
  }

  @Test
  void aWrongDigestIsFound() {
    Blocks.Block one = block(1, 0, 2, "abcdef".getBytes());
    BlockHeader h = header(1, 0, 2);
    Blocks.Block other = block(h, "abcdeg".getBytes());
    byte[] mixed = one.bytes.clone();
    System.arraycopy(other.bytes, 56, mixed, 56, 8); // the digest
    java.util.zip.CRC32 crc = new java.util.zip.CRC32();
    crc.update(mixed, 8, mixed.length - 8);
    java.nio.ByteBuffer.wrap(mixed).order(java.nio.ByteOrder.LITTLE_ENDIAN)
        .putInt(4, (int) crc.getValue());
    PartitionMerge merge = merge(sums(Collections.singletonList(one)), 0, 9);
    assertTrue(fed(merge, mixed).isEmpty());
    assertTrue(merge.reason().contains("digest"), merge.reason());
    assertEquals(1, fed(merge, one.bytes).size());
    assertTrue(merge.isComplete());
  }

  @Test
  void blocksOfOtherPlacesAreRefused() {
    BlockHeader exchange = header(1, 0, 1);
    exchange.exchange = 8;
    BlockHeader partition = header(1, 0, 1);
    partition.partition = 4;
    for (BlockHeader h : Arrays.asList(exchange, partition)) {
      PartitionMerge merge = merge(new Sums(1, 3, 0), 0, 9);
      Blocks.Block right = block(1, 0, 1, new byte[3]);
      assertEquals(1, fed(merge, block(h, new byte[3]).bytes, right.bytes).size());
      assertEquals(1, merge.refusals());
    }
  }

  @Test
  void aBlockThatOverlapsAnotherIsRefused() {
    PartitionMerge merge = merge(new Sums(0, 0, 0), 0, 9);
    fed(merge, block(1, 0, 4, new byte[3]).bytes);
    assertTrue(fed(merge, block(1, 2, 4, new byte[3]).bytes).isEmpty());
    assertEquals(1, merge.refusals());
    assertEquals(1, fed(merge, block(2, 2, 4, new byte[3]).bytes).size());
  }

  @Test
  void contentIsOfTheWantedMappersAndSumsAreOfAll() {
    List<Blocks.Block> blocks = Arrays.asList(
        block(1, 0, 1, new byte[3]), block(2, 0, 2, new byte[4]), block(5, 0, 3, new byte[5]));
    for (boolean isBare : new boolean[] {false, true}) {
      PartitionMerge merge = merge(sums(blocks), 2, 5);
      assertEquals(1, fed(merge, blocks.get(1).bytes).size());
      assertFalse(merge.isComplete());
      for (Blocks.Block one : Arrays.asList(blocks.get(0), blocks.get(2), blocks.get(0))) {
        if (isBare) {
          merge.feed(headers(one.headerAlone()));
          assertNull(merge.next());
        } else {
          assertTrue(fed(merge, one.bytes).isEmpty());
        }
      }
      assertTrue(merge.isComplete(), merge.state());
      assertEquals(2, merge.records());
    }
  }

  @Test
  void headersAreTakenBackAndNeverStandForWantedBlocks() {
    Blocks.Block wanted = block(2, 0, 2, new byte[4]);
    Blocks.Block other = block(1, 0, 1, new byte[3]);
    PartitionMerge merge = merge(sums(Arrays.asList(wanted, other)), 2, 3);
    merge.feed(headers(wanted.headerAlone()));
    assertEquals(1, merge.refusals());
    merge.feed(headers(other.headerAlone()));
    fed(merge, wanted.bytes);
    assertTrue(merge.isComplete());
    merge.forgetHeaders();
    assertFalse(merge.isComplete());
    fed(merge, other.bytes, wanted.bytes);
    assertTrue(merge.isComplete());
    merge.forgetHeaders();
    assertTrue(merge.isComplete());
  }

  @Test
  void sumsSayWhatIsMissingAndWhatContradicts() {
    Blocks.Block one = block(1, 0, 2, new byte[4]);
    Map<String, Sums> cases = new TreeMap<>();
    BlockHeader h = one.header;
    cases.put("is complete", new Sums(2, 4, h.digest));
    cases.put("lacks rows", new Sums(3, 9, h.digest + 1));
    cases.put("contradicts: more rows", new Sums(1, 4, h.digest));
    cases.put("contradicts: more bytes", new Sums(2, 3, h.digest));
    cases.put("contradicts: digest", new Sums(2, 4, h.digest + 1));
    cases.forEach((what, sums) -> {
      PartitionMerge merge = merge(sums, 0, 9);
      fed(merge, one.bytes);
      assertEquals(what.equals("is complete"), merge.isComplete(), what);
      if (!merge.isComplete()) {
        assertEquals(what.startsWith("contradicts"), merge.isContradiction(), what);
      }
    });
  }

  @Test
  void aLongRowThatIsNotWholeIsNotComplete() {
    Blocks.Block first = fragment(1, 0, 0, false, new byte[4]);
    PartitionMerge merge = merge(sums(Collections.singletonList(first)), 0, 9);
    assertTrue(fed(merge, first.bytes).isEmpty());
    assertFalse(merge.isComplete());
  }

  @Test
  void rowsAreJoinedInTheOrderOfTheirFragments() {
    Blocks.Block[] parts = {
      fragment(1, 6, 0, false, "ab".getBytes()), fragment(1, 6, 1, false, "cde".getBytes()),
      fragment(1, 6, 2, true, "f".getBytes())};
    PartitionMerge merge = merge(sums(Arrays.asList(parts)), 0, 9);
    assertTrue(fed(merge, parts[2].bytes, parts[0].bytes, parts[2].bytes).isEmpty());
    merge.feed(slice(parts[1].bytes));
    Run run = merge.next();
    assertArrayEquals(
        "abcdef".getBytes(), Arrays.copyOfRange(run.data, run.at, run.at + run.length));
    assertEquals(1, run.records);
    assertTrue(merge.isComplete());
  }
}
