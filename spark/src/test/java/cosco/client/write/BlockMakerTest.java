package cosco.client.write;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import cosco.client.CoscoException;
import cosco.client.format.BlockCodec;
import cosco.client.format.BlockHeader;
import cosco.v1.ExchangeInfoReply;
import cosco.v1.ExchangeSpec;
import cosco.v1.OpenAttemptReply;
import cosco.v1.PartitionRange;
import java.io.ByteArrayOutputStream;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.TreeMap;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Which blocks and frames come of runs, and what they add up to. */
class BlockMakerTest {
  private static final int ROOM = BlockCodec.IDENTITY_BYTES;
  private static final int MIB = 1 << 20;

  private final BlockCodec codec = new BlockCodec();
  private final List<FrameBuilder> frames = new ArrayList<>();
  private final Random random = new Random(5);

  private BlockMaker maker(int ranges, int each, boolean lz4, long maxOpenBytes) {
    ExchangeInfoReply.Builder info = ExchangeInfoReply.newBuilder()
        .setNumber(7).setSpec(ExchangeSpec.newBuilder().setPartitions(ranges * each));
    for (int i = ranges - 1; i >= 0; i--) { // in any order
      info.addRanges(PartitionRange.newBuilder().setIndex(i).setFirst(i * each).setCount(each));
    }
    OpenAttemptReply opened =
        OpenAttemptReply.newBuilder().setInfo(info).setMapper(3).setAttempt(4).build();
    return new BlockMaker(opened, lz4, maxOpenBytes, frames::add);
  }

  private byte[] run(int length) {
    byte[] room = new byte[ROOM + length];
    random.nextBytes(room);
    Arrays.fill(room, ROOM, ROOM + length / 2, (byte) 1); // so that it compresses
    return room;
  }

  /** The blocks of all frames so far, of one partition, by position; content by header. */
  private TreeMap<Long, BlockHeader> blocks(int partition, TreeMap<Long, byte[]> content)
      throws CoscoException {
    TreeMap<Long, BlockHeader> found = new TreeMap<>();
    for (FrameBuilder frame : frames) {
      byte[] body = frame.body().toByteArray();
      int count = 0;
      for (int at = 0; at < body.length; count++) {
        BlockHeader block = BlockHeader.parse(body, at, body.length);
        codec.check(block, body, at, body.length);
        byte[] room = codec.decode(block, body, at);
        if (block.partition == partition) {
          found.put(block.position, block);
          content.put(block.position, Arrays.copyOfRange(room, ROOM, room.length));
        }
        at += block.blockBytes();
      }
      assertEquals(frame.blocks, count);
    }
    return found;
  }

  @ParameterizedTest
  @CsvSource({
    "0, 1, 1, 0", "1, 1, 1, 0", "1048576, 9, 1, 0", "1048577, 1, 2, 0", "1048577, 9, 2, 1",
    "3145728, 1, 3, 0", "3145729, 2, 4, 1",
  })
  void aRunLongerThanABlockIsOneRowOfFragmentsAndABlockThatCountsTheOthers(
      int length, int records, int blocks, int counting) throws CoscoException {
    for (boolean lz4 : new boolean[] {true, false}) {
      frames.clear();
      BlockMaker maker = maker(1, 2, lz4, 8 * MIB);
      maker.add(1, 5, run(10), 0, 10);
      byte[] room = run(length);
      byte[] before = room.clone();
      maker.add(1, records, room, 0, length);
      maker.add(1, 6, run(20), 0, 20);
      maker.finish();
      assertArrayEquals(
          Arrays.copyOfRange(before, ROOM, before.length),
          Arrays.copyOfRange(room, ROOM, room.length));
      TreeMap<Long, byte[]> content = new TreeMap<>();
      TreeMap<Long, BlockHeader> found = blocks(1, content);
      assertEquals(2 + blocks + counting, found.size());
      assertEquals(5L << 16, found.higherKey(0L));
      long position = 5L << 16;
      ByteArrayOutputStream all = new ByteArrayOutputStream();
      for (int i = 0; i < blocks; i++) {
        BlockHeader block = found.get(position);
        assertEquals(blocks > 1, block.isFragment());
        assertEquals(blocks > 1 && i == blocks - 1, block.isLast());
        all.write(content.get(position), 0, content.get(position).length);
        position = block.end();
      }
      assertArrayEquals(Arrays.copyOfRange(before, ROOM, before.length), all.toByteArray());
      if (counting > 0) {
        assertEquals(records - 1, found.get(position).rows);
        assertEquals(0, found.get(position).rawBytes);
      }
      assertEquals((5L + records) << 16, found.lastKey());
      assertEquals(11 + records, maker.rows[1]);
      assertEquals(30 + length, maker.rawBytes[1]);
      long digests = 0;
      long stored = 0;
      for (BlockHeader block : found.values()) {
        digests += block.digest;
        stored += block.blockBytes();
      }
      assertEquals(digests, maker.digests[1]);
      assertEquals(stored, maker.storedBytes[1]);
      assertEquals(0, maker.rows[0]);
    }
  }

  @Test
  void framesAreOfOneRangeAndAboutAsLongAsTheyShouldBe() throws CoscoException {
    BlockMaker maker = maker(3, 4, false, 64 * MIB);
    for (int i = 0; i < 600; i++) {
      maker.add(i % 12, 1, run(20_000), 0, 20_000);
    }
    assertEquals(9, frames.size()); // 200 runs to a range, of which 53 fill a frame
    maker.finish();
    assertEquals(12, frames.size());
    long rows = 0;
    for (int partition = 0; partition < 12; partition++) {
      for (BlockHeader block : blocks(partition, new TreeMap<>()).values()) {
        rows += block.rows;
      }
    }
    assertEquals(600, rows);
    for (int i = 0; i < 9; i++) {
      assertTrue(frames.get(i).used >= MIB && frames.get(i).used < MIB + 20_100);
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {10, 3_000, 100_000, 1_000_000})
  void whatIsOpenIsBoundedHoweverManyRangesThereAre(int length) throws CoscoException {
    BlockMaker maker = maker(512, 8, true, 4 * MIB);
    int adds = length > 50_000 ? 100 : 4096;
    for (int i = 0; i < adds; i++) {
      maker.add(i * 8 % 4096 + i / 512, 1, run(length), 0, length);
      assertTrue(maker.openBytes() <= 4 * MIB, "" + maker.openBytes());
    }
    maker.finish();
    assertEquals(0, maker.openBytes());
    long rows = 0;
    for (long one : maker.rows) {
      rows += one;
    }
    assertEquals(adds, rows);
    int blocks = 0;
    for (FrameBuilder frame : frames) {
      blocks += frame.blocks;
      assertTrue(frame.body().size() > 0);
    }
    assertEquals(adds, blocks);
  }
}
