package cosco.client.read.state;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.ByteString;
import cosco.client.CoscoException;
import cosco.client.format.Bitmaps;
import cosco.client.format.NumberArrays;
import cosco.v1.AwaitCommitsReply;
import cosco.v1.RangeSnapshot;
import cosco.v1.ReadSnapshot;
import java.util.Arrays;
import org.junit.jupiter.api.Test;

class CommitAnswerTest {
  private static RangeSnapshot.Builder range(int first, int end, boolean isSame) {
    int count = end - first;
    long[] rows = new long[count];
    long[] digests = new long[count];
    for (int i = 0; i < count; i++) {
      rows[i] = 10L * (first + i);
      digests[i] = -1L - i;
    }
    ReadSnapshot.Builder common = ReadSnapshot.newBuilder().setGeneration(2).setBuild(3);
    if (!isSame) { // mappers 1 and 4
      common.setCount(2).setGaps(NumberArrays.narrow(new long[] {1, 2}))
          .setAttempts(NumberArrays.narrow(new long[] {900, 7}));
    }
    return RangeSnapshot.newBuilder().setCommon(common).setSameMappers(isSame)
        .setPartitions(Bitmaps.range(first, end)).setRows(NumberArrays.narrow(rows))
        .setRawBytes(NumberArrays.narrow(rows)).setDigests(NumberArrays.bytes64(digests));
  }

  private static AwaitCommitsReply reply(RangeSnapshot.Builder... ranges) {
    AwaitCommitsReply.Builder reply = AwaitCommitsReply.newBuilder();
    for (RangeSnapshot.Builder one : ranges) {
      reply.addRanges(one);
    }
    return reply.build();
  }

  @Test
  void rangesHaveTheSumsOfTheirPartitionsAndShareMappers() throws CoscoException {
    CommitAnswer answer = CommitAnswer.parse(reply(range(3, 6, false), range(6, 8, true)));
    Committed first = answer.ranges.get(0);
    assertArrayEquals(new int[] {3, 4, 5}, first.partitions);
    assertTrue(first.sums(4).are(new Sums(40, 40, -2)));
    assertEquals(1, first.attempts.indexOf(4, 7));
    assertEquals(0, first.attempts.indexOf(1, 900));
    assertTrue(first.attempts.indexOf(1, 7) < 0);
    assertTrue(first.attempts.indexOf(2, 7) < 0);
    assertSame(first.attempts, answer.ranges.get(1).attempts);
    assertTrue(first.attempts.areWithin(1, 5));
    assertTrue(!first.attempts.areWithin(2, 5) && !first.attempts.areWithin(1, 4));
    assertArrayEquals(new int[] {4, 5}, first.notEmpty(4));
    assertArrayEquals(
        new int[] {1, 2}, CommitAnswer.parse(reply(range(0, 3, false))).ranges.get(0).notEmpty(0));
  }

  @Test
  void itSaysWhoIsMissing() throws CoscoException {
    CommitAnswer answer = CommitAnswer.parse(AwaitCommitsReply.newBuilder()
        .setWaiting(Bitmaps.range(2, 4)).setMissing(Bitmaps.range(7, 8)).setRecompute(true).build());
    assertArrayEquals(new int[] {2, 3}, answer.waiting.toArray());
    assertArrayEquals(new int[] {7}, answer.missing.toArray());
    assertTrue(answer.isRecompute && !answer.hasFailed && answer.ranges.isEmpty());
  }

  @Test
  void whatMakesNoSenseIsRefused() {
    for (AwaitCommitsReply one : Arrays.asList(
        reply(range(0, 2, true)), reply(range(3, 5, false), range(2, 3, false)),
        reply(range(0, 2, false).setDigests(ByteString.EMPTY)),
        reply(range(0, 0, false)),
        reply(range(0, 3, false).setRows(ByteString.copyFrom(new byte[2]))),
        reply(range(0, 2, false).setCommon(ReadSnapshot.newBuilder().setCount(5))))) {
      assertThrows(CoscoException.class, () -> CommitAnswer.parse(one), one.toString());
    }
  }
}
