package cosco.client.format;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.ByteString;
import com.google.protobuf.Message;
import com.google.protobuf.TextFormat;
import cosco.client.CoscoException;
import cosco.client.format.GoldenFiles.Case;
import cosco.v1.AwaitCommitsReply;
import cosco.v1.CommitRequest;
import cosco.v1.ReadSnapshot;
import java.io.ByteArrayOutputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.util.Arrays;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.roaringbitmap.RoaringBitmap;

/**
 * The golden files of tests/golden: each case is made again, and what others made is read.
 *
 * <p>Not of segments.txt: this client reads no segments. What it makes is in by-java.txt, where it
 * may differ from what others make; `COSCO_GOLDEN=write mvn test -Dtest=GoldenTest` writes it anew.
 */
class GoldenTest {
  private static final int LZ4 = 1;

  private final BlockCodec codec = new BlockCodec();

  @Test
  void blocksAreMadeAndRead() throws Exception {
    for (Map.Entry<String, Case> entry : GoldenFiles.read("blocks").entrySet()) {
      Case one = entry.getValue();
      check(entry.getKey(), one, made(one));
      check(entry.getKey(), one, one.bytes("block"));
    }
  }

  @Test
  void blocksOfOthersAreRead() throws Exception {
    Map<String, Case> blocks = GoldenFiles.read("blocks");
    for (String by : new String[] {"by-rust", "by-java"}) {
      int count = 0;
      for (Map.Entry<String, Case> entry : GoldenFiles.read(by).entrySet()) {
        if (entry.getValue().containsKey("block")) {
          check(entry.getKey(), blocks.get(entry.getKey()), entry.getValue().bytes("block"));
          count++;
        }
      }
      assertEquals(2, count, by);
    }
  }

  @Test
  void whatIsMadeHereIsWhatOthersRead() throws Exception {
    StringBuilder text = new StringBuilder()
        .append("# Blocks of blocks.txt as the Java client compresses them, with lz4-java 1.8.0;\n")
        .append("# the others are the same. And the sets of bitmaps.txt as it writes them.\n")
        .append("# Made by: cd spark && COSCO_GOLDEN=write mvn test -Dtest=GoldenTest\n");
    for (Map.Entry<String, Case> entry : GoldenFiles.read("blocks").entrySet()) {
      byte[] block = made(entry.getValue());
      if (BlockHeader.parse(block, 0, block.length).codec == LZ4) {
        text.append("\ncase ").append(entry.getKey());
        text.append("\nblock ").append(GoldenFiles.hex(block)).append('\n');
      }
    }
    for (Map.Entry<String, Case> entry : GoldenFiles.read("bitmaps").entrySet()) {
      ByteString set = Bitmaps.bytes(set(entry.getValue()));
      text.append("\ncase set-").append(entry.getKey());
      text.append("\nbitmap ").append(GoldenFiles.hex(set.toByteArray())).append('\n');
    }
    if ("write".equals(System.getenv("COSCO_GOLDEN"))) {
      Files.write(
          GoldenFiles.path("by-java"), text.toString().getBytes(StandardCharsets.UTF_8));
    }
    byte[] there = Files.readAllBytes(GoldenFiles.path("by-java"));
    assertEquals(new String(there, StandardCharsets.UTF_8), text.toString());
  }

  @Test
  void whatIsNoBlockIsRefused() throws Exception {
    for (Map.Entry<String, Case> entry : GoldenFiles.read("refused").entrySet()) {
      byte[] block = entry.getValue().bytes("block");
      CoscoException error = assertThrows(
          CoscoException.class, () -> content(block), entry.getKey());
      assertEquals("DataCorrupted", error.kind(), entry.getKey());
    }
  }

  @Test
  void blocksAddUp() throws Exception {
    Map<String, Case> blocks = GoldenFiles.read("blocks");
    Case sums = GoldenFiles.read("sums").get("attempt");
    long[][] found = new long[4][4];
    for (String name : sums.members("of")) {
      byte[] block = blocks.get(name).bytes("block");
      BlockHeader h = BlockHeader.parse(block, 0, block.length);
      found[0][h.partition] += h.rows;
      found[1][h.partition] += h.rowBytes();
      found[2][h.partition] += h.blockBytes();
      found[3][h.partition] += h.digest;
    }
    String[] names = {"rows", "bytes", "stored", "digests"};
    for (int i = 0; i < names.length; i++) {
      assertArrayEquals(sums.numbers(names[i]), found[i], names[i]);
    }
  }

  @Test
  void frameHeadersAreMade() throws Exception {
    for (Map.Entry<String, Case> entry : GoldenFiles.read("frames").entrySet()) {
      Case one = entry.getValue();
      byte[] header = FrameHeader.encode(
          one.unsigned("exchange"), one.unsigned("incarnation"), one.unsigned("sequence"),
          one.number("range_index"), one.number("epoch"), one.number("body_bytes"),
          one.number("blocks"));
      assertArrayEquals(one.bytes("header"), header, entry.getKey());
    }
  }

  @Test
  void arraysAreMadeAndRead() throws Exception {
    for (Map.Entry<String, Case> entry : GoldenFiles.read("arrays").entrySet()) {
      Case one = entry.getValue();
      String name = entry.getKey();
      if (one.containsKey("narrow")) {
        long[] numbers = one.numbers("numbers");
        ByteString bytes = ByteString.copyFrom(one.bytes("narrow"));
        assertEquals(bytes, NumberArrays.narrow(numbers), name);
        assertArrayEquals(numbers, NumberArrays.wide(bytes, numbers.length, name), name);
      } else {
        long[] numbers = one.numbers("ascending");
        ByteString bytes = ByteString.copyFrom(one.bytes("gaps"));
        assertEquals(bytes, NumberArrays.narrow(gaps(numbers)), name);
        assertArrayEquals(numbers, NumberArrays.ascending(bytes, numbers.length, name), name);
      }
    }
  }

  @Test
  void setsAreRead() throws Exception {
    for (Map.Entry<String, Case> entry : GoldenFiles.read("bitmaps").entrySet()) {
      ByteString bytes = ByteString.copyFrom(entry.getValue().bytes("bitmap"));
      assertEquals(set(entry.getValue()), Bitmaps.parse(bytes, entry.getKey()), entry.getKey());
    }
  }

  @Test
  void messagesSayWhatTheirTextDoes() throws Exception {
    for (Map.Entry<String, Case> entry : GoldenFiles.read("messages").entrySet()) {
      Case one = entry.getValue();
      Class<?> kind = Class.forName("cosco.v1." + one.get("message"));
      Message.Builder builder = (Message.Builder) kind.getMethod("newBuilder").invoke(null);
      TextFormat.merge(one.get("text").equals("-") ? "" : one.get("text"), builder);
      Message said = builder.build();
      Message parsed = said.getParserForType().parseFrom(one.bytes("bytes"));
      assertEquals(said, parsed, entry.getKey());
      if (one.get("exact").equals("yes")) {
        assertArrayEquals(one.bytes("bytes"), said.toByteArray(), entry.getKey());
      }
    }
  }

  @Test
  void aCommitIsMade() throws Exception {
    CommitRequest made = CommitRequest.newBuilder()
        .setNumber(4711)
        .setMapper(3)
        .setAttempt(Long.MIN_VALUE + 9)
        .setGeneration(1)
        .setAcknowledged(NumberArrays.bytes64(new long[] {1, 2, (5L << 32) + 1}))
        .setGaps(NumberArrays.narrow(gaps(new long[] {0, 1, 70_000})))
        .setRows(NumberArrays.narrow(new long[] {3, 1L << 33, 7}))
        .setRawBytes(NumberArrays.narrow(new long[] {4, 5, 300}))
        .setStoredBytes(NumberArrays.narrow(new long[] {80, 70, 364}))
        .setDigests(NumberArrays.bytes64(new long[] {1, -1, Long.MIN_VALUE}))
        .build();
    Map<String, Case> messages = GoldenFiles.read("messages");
    assertArrayEquals(messages.get("commit").bytes("bytes"), made.toByteArray());
    CommitRequest partial = made.toBuilder().setPartial(true).addRanges(0).addRanges(5).build();
    assertArrayEquals(messages.get("commit-partial").bytes("bytes"), partial.toByteArray());
  }

  @Test
  void snapshotsAreRead() throws Exception {
    Map<String, Case> messages = GoldenFiles.read("messages");
    ReadSnapshot one =
        AwaitCommitsReply.parseFrom(messages.get("snapshot").bytes("bytes")).getSnapshot();
    checkMappers(one);
    assertEquals(11, one.getRows());
    assertEquals(-1, one.getDigest());
    AwaitCommitsReply ranges =
        AwaitCommitsReply.parseFrom(messages.get("range-snapshots").bytes("bytes"));
    checkMappers(ranges.getRanges(0).getCommon());
    assertTrue(ranges.getRanges(1).getSameMappers());
    assertEquals(0, ranges.getRanges(1).getCommon().getCount());
    ByteString rows = ranges.getRanges(0).getRows();
    assertArrayEquals(new long[] {0, 300}, NumberArrays.wide(rows, 2, "rows"));
    ByteString set = ranges.getRanges(0).getPartitions();
    assertEquals(RoaringBitmap.bitmapOf(8, 11), Bitmaps.parse(set, "partitions"));
  }

  private static void checkMappers(ReadSnapshot snapshot) throws CoscoException {
    int count = snapshot.getCount();
    assertArrayEquals(
        new long[] {0, 3, 260}, NumberArrays.ascending(snapshot.getGaps(), count, "gaps"));
    assertArrayEquals(
        new long[] {1, Long.MIN_VALUE + 9, 3},
        NumberArrays.wide(snapshot.getAttempts(), count, "attempts"));
  }

  /** Makes the block of a case. */
  private byte[] made(Case one) {
    BlockHeader h = new BlockHeader();
    h.exchange = one.unsigned("exchange");
    h.attempt = one.unsigned("attempt");
    h.position = one.unsigned("row") << BlockHeader.POSITION_SHIFT | one.number("fragment");
    h.partition = one.number("partition");
    h.mapper = one.number("mapper");
    h.rows = one.number("rows");
    h.flags = one.number("flags");
    byte[] content = one.bytes("content");
    h.rawBytes = content.length;
    byte[] room = new byte[BlockCodec.IDENTITY_BYTES + content.length];
    System.arraycopy(content, 0, room, BlockCodec.IDENTITY_BYTES, content.length);
    byte[] out = new byte[codec.roomFor(content.length)];
    int length = codec.encode(h, room, 0, out, 0, one.get("codec").equals("lz4"));
    return Arrays.copyOf(out, length);
  }

  /** Returns the content of a block, all of which is checked. */
  private byte[] content(byte[] block) throws CoscoException {
    BlockHeader h = BlockHeader.parse(block, 0, block.length);
    codec.check(h, block, 0, block.length);
    byte[] room = codec.decode(h, block, 0);
    return Arrays.copyOfRange(room, BlockCodec.IDENTITY_BYTES, room.length);
  }

  /** Checks that a block is the one of a case, but for how it is compressed. */
  private void check(String name, Case one, byte[] block) throws CoscoException {
    assertArrayEquals(one.bytes("content"), content(block), name);
    BlockHeader h = BlockHeader.parse(block, 0, block.length);
    assertEquals(block.length, h.blockBytes(), name);
    assertEquals(one.unsigned("digest"), h.digest, name);
    assertEquals(one.unsigned("end"), h.end(), name);
    byte[] golden = one.bytes("block");
    int codecOf = BlockHeader.parse(golden, 0, golden.length).codec;
    assertEquals(codecOf, h.codec, name);
    if (codecOf != LZ4) {
      assertArrayEquals(golden, block, name);
      return;
    }
    assertTrue(h.storedBytes < h.rawBytes, name);
    // All of the header but the checksum and how much is stored.
    assertArrayEquals(identity(golden), identity(block), name);
  }

  private static byte[] identity(byte[] block) {
    ByteArrayOutputStream out = new ByteArrayOutputStream();
    out.write(block, 0, 4);
    out.write(block, 8, 40);
    out.write(block, 52, BlockHeader.HEADER_BYTES - 52);
    return out.toByteArray();
  }

  private static RoaringBitmap set(Case one) {
    RoaringBitmap set = new RoaringBitmap();
    if (one.containsKey("numbers")) {
      for (long number : one.numbers("numbers")) {
        set.add((int) number);
      }
      return set;
    }
    long[] range = one.numbers("range");
    for (long number = range[0]; number < range[1]; number += range[2]) {
      set.add((int) number);
    }
    return set;
  }

  private static long[] gaps(long[] ascending) {
    long[] gaps = new long[ascending.length];
    for (int i = 0; i < gaps.length; i++) {
      gaps[i] = ascending[i] - (i == 0 ? 0 : ascending[i - 1] + 1);
    }
    return gaps;
  }
}
