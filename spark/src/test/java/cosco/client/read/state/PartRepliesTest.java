package cosco.client.read.state;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.ByteString;
import cosco.v1.FetchReply;
import cosco.v1.PartEnd;
import cosco.v1.Reference;
import cosco.v1.Section;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.Test;

class PartRepliesTest {
  private static final byte[] BLOCK = Blocks.block(1, 0, 1, "some bytes".getBytes()).bytes;

  private final List<String> bad = new ArrayList<>();

  private static FetchReply section(int bytes) {
    return FetchReply.newBuilder().setSection(Section.newBuilder().setBodyBytes(bytes)).build();
  }

  private static FetchReply unreadable(String error) {
    return FetchReply.newBuilder().setSection(Section.newBuilder().setError(error)).build();
  }

  private static FetchReply data(byte[] bytes, int from, int to) {
    return FetchReply.newBuilder().setData(ByteString.copyFrom(bytes, from, to - from)).build();
  }

  private static FetchReply end(int part, int partition) {
    return FetchReply.newBuilder()
        .setEnd(PartEnd.newBuilder().setPart(part).setPartition(partition)).build();
  }

  private static Messages messages(List<FetchReply> replies) {
    ArrayDeque<byte[]> left = new ArrayDeque<>();
    for (FetchReply reply : replies) {
      left.add(reply.toByteArray());
    }
    return left::poll;
  }

  /** Packs replies at random, as a daemon may. */
  private static List<FetchReply> packed(List<FetchReply> replies, Random random) {
    List<FetchReply> found = new ArrayList<>();
    FetchReply.Builder pack = FetchReply.newBuilder();
    for (FetchReply reply : replies) {
      pack.addPacked(reply);
      if (random.nextBoolean()) {
        found.add(pack.build());
        pack = FetchReply.newBuilder();
      }
    }
    found.add(pack.build());
    return found;
  }

  private byte[] all(PartReplies replies, int part, int partition) throws Exception {
    List<byte[]> found = new ArrayList<>();
    for (Slice run = replies.next(part, partition, bad::add); run != null;
        run = replies.next(part, partition, bad::add)) {
      found.add(Arrays.copyOfRange(run.data, run.at, run.end));
    }
    return Blocks.joined(found);
  }

  @Test
  void partsAreGivenFromWhereTheyLie() throws Exception {
    long seed = System.nanoTime();
    Random random = new Random(seed);
    for (int round = 0; round < 200; round++) {
      List<int[]> parts = Arrays.asList(new int[] {1, 4}, new int[] {1, 2, 4}, new int[] {9});
      int[][] order = {{0, 1}, {1, 1}, {1, 2}, {0, 4}, {1, 4}, {2, 9}};
      List<FetchReply> sent = new ArrayList<>();
      byte[][] expected = new byte[order.length][];
      for (int i = 0; i < order.length; i++) {
        List<byte[]> blocks = new ArrayList<>();
        for (int k = random.nextInt(3); k > 0; k--) {
          byte[] body = Blocks.joined(Arrays.asList(
              Blocks.block(1, k, 1, Blocks.content(random, 400)).bytes, BLOCK));
          blocks.add(body);
          sent.add(section(body.length));
          int cut = random.nextInt(body.length);
          sent.add(data(body, 0, cut));
          sent.add(data(body, cut, body.length));
        }
        expected[i] = Blocks.joined(blocks);
        sent.add(end(order[i][0], order[i][1]));
      }
      boolean isPacked = random.nextBoolean();
      PartReplies replies =
          new PartReplies(parts, messages(isPacked ? packed(sent, random) : sent));
      for (int i = 0; i < order.length; i++) {
        if (random.nextInt(3) == 0) {
          continue; // it is passed over by the next
        }
        assertTrue(replies.has(order[i][0], order[i][1]));
        assertArrayEquals(
            expected[i], all(replies, order[i][0], order[i][1]), "seed " + seed);
        assertFalse(replies.has(order[i][0], order[i][1]));
      }
      assertFalse(replies.has(2, 4));
      assertTrue(bad.isEmpty(), bad.toString());
    }
  }

  @Test
  void whatIsBegunCannotBeBegunAgain() throws Exception {
    List<FetchReply> sent =
        Arrays.asList(section(BLOCK.length), data(BLOCK, 0, BLOCK.length), end(0, 3));
    PartReplies replies =
        new PartReplies(Collections.singletonList(new int[] {3}), messages(sent));
    assertTrue(replies.has(0, 3));
    replies.next(0, 3, bad::add);
    assertFalse(replies.has(0, 3));
    assertNull(replies.next(0, 3, bad::add));
  }

  @Test
  void whatIsBadIsPassedOver() throws Exception {
    byte[] none = new byte[200];
    List<FetchReply> sent = Arrays.asList(
        unreadable("a file\n is gone"), section(200), data(none, 0, 100), data(none, 100, 200),
        section(BLOCK.length), data(BLOCK, 0, BLOCK.length),
        section(BLOCK.length - 1), data(BLOCK, 0, BLOCK.length - 1), end(0, 3));
    PartReplies replies =
        new PartReplies(Collections.singletonList(new int[] {3}), messages(sent));
    assertArrayEquals(BLOCK, all(replies, 0, 3));
    assertEquals(3, bad.size());
    assertEquals("a file is gone", bad.get(0));
  }

  @Test
  void whatFollowsInNoRightOrderIsABrokenStream() {
    List<List<FetchReply>> cases = Arrays.asList(
        Arrays.asList(section(BLOCK.length), section(BLOCK.length)),
        Arrays.asList(section(3), data(BLOCK, 0, 4), end(0, 3)),
        Arrays.asList(data(BLOCK, 0, 4), end(0, 3)),
        Arrays.asList(section(BLOCK.length), data(BLOCK, 0, 4), end(0, 3)),
        Arrays.asList(end(0, 4)),
        Arrays.asList(end(1, 3)),
        Arrays.asList(section(BLOCK.length), data(BLOCK, 0, BLOCK.length)),
        Collections.emptyList(),
        Arrays.asList(FetchReply.newBuilder().setSection(
            Section.newBuilder().setReference(Reference.newBuilder().setUrl("file:/x"))).build()));
    for (List<FetchReply> sent : cases) {
      PartReplies replies =
          new PartReplies(Collections.singletonList(new int[] {3}), messages(sent));
      assertThrows(BrokenStream.class, () -> all(replies, 0, 3), sent.toString());
    }
    PartReplies torn = new PartReplies(
        Collections.singletonList(new int[] {3}), () -> new byte[] {0x12, 0x7f, 1});
    assertThrows(BrokenStream.class, () -> all(torn, 0, 3));
  }
}
