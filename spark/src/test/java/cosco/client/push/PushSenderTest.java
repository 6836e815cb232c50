package cosco.client.push;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.ByteString;
import com.google.protobuf.UnsafeByteOperations;
import cosco.v1.DaemonRef;
import cosco.v1.Hello;
import cosco.v1.PushReply;
import cosco.v1.PushRequest;
import cosco.v1.Refusal;
import cosco.v1.RefusalCode;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** What a sender says: which frame may go, which must go again, what of answers counts. */
class PushSenderTest {
  static final Hello HELLO = Hello.newBuilder().setNumber(7).setIncarnation(11).build();
  static final DaemonRef DAEMON = DaemonRef.newBuilder().setIncarnation(11).build();
  static final RefusalCode BAD = RefusalCode.REFUSAL_CODE_BAD_FRAME;
  static final RefusalCode NOT_ASSIGNED = RefusalCode.REFUSAL_CODE_NOT_ASSIGNED;

  final PushSender sender = new PushSender(HELLO);
  final List<Integer> announced = new ArrayList<>();
  final List<Long> sent = new ArrayList<>();

  static OutFrame frame(long sequence, int epoch, int frameBytes) {
    ByteString body = ByteString.copyFrom(new byte[frameBytes - 48]);
    return new OutFrame(7, DAEMON, sequence, 0, epoch, 1, body);
  }

  static long sequence(ByteString frame) {
    return frame.asReadOnlyByteBuffer().order(ByteOrder.LITTLE_ENDIAN).getLong(24);
  }

  static PushReply.Builder acked(long... sequences) {
    PushReply.Builder reply = PushReply.newBuilder();
    for (long one : sequences) {
      reply.addAcknowledged(one);
    }
    return reply;
  }

  static PushReply refusal(long sequence, RefusalCode code) {
    return PushReply.newBuilder()
        .addRefused(Refusal.newBuilder().setSequence(sequence).setCode(code)).build();
  }

  /** Frames of 100 bytes and their sequence. */
  void add(int from, int to) {
    for (int i = from; i <= to; i++) {
      sender.add(frame(i, 1, 100 + i));
    }
  }

  void begin(int count) {
    add(1, count);
    assertEquals(PushRequest.newBuilder().setHello(HELLO).build(), sender.nextRequest());
  }

  void say(List<Integer> lengths, Integer... sequences) {
    announced.clear();
    sent.clear();
    PushRequest request;
    while ((request = sender.nextRequest()) != null) {
      announced.addAll(request.getAnnounceList());
      if (!request.getFrame().isEmpty()) {
        sent.add(sequence(request.getFrame()));
      }
      assertFalse(request.getWithdrawn());
    }
    assertEquals(lengths, announced);
    List<Long> expected = new ArrayList<>();
    for (int one : sequences) {
      expected.add((long) one);
    }
    assertEquals(expected, sent);
  }

  List<Integer> lengths(Integer... lengths) {
    return Arrays.asList(lengths);
  }

  int reply(int granted, long... sequences) throws ProtocolBroken {
    Answered answered = sender.onReply(acked(sequences).setGranted(granted).build());
    assertTrue(answered.refused.isEmpty());
    return answered.acknowledged.size();
  }

  void lend(int bytes) throws ProtocolBroken {
    sender.onReply(PushReply.newBuilder().setEagerBytes(bytes).build());
  }

  void restart(int eager) {
    sender.beginStream(eager);
    assertEquals(PushRequest.newBuilder().setHello(HELLO).build(), sender.nextRequest());
  }

  int withdraw(int epoch) {
    List<OutFrame> frames = sender.stampedFor(Routes.rangeEpoch(0, epoch));
    sender.withdraw(frames);
    return frames.size();
  }

  @Test
  void framesAreAnnouncedOnceAndSentInOrderAsGranted() throws ProtocolBroken {
    begin(3);
    say(lengths(101, 102, 103));
    say(lengths());
    reply(2);
    add(4, 4);
    say(lengths(104), 1, 2);
    reply(2);
    say(lengths(), 3, 4);
    assertEquals(2, reply(0, 2, 1));
    assertEquals(2, sender.size());
  }

  @Test
  void whatWaitsIsAnnouncedWithOthersOnceAReplyHasCome() throws ProtocolBroken {
    begin(1);
    say(lengths(101));
    add(2, 3);
    say(lengths());
    reply(1);
    say(lengths(102, 103), 1);
    add(4, 4);
    say(lengths());
  }

  @Test
  void aNewStreamBeginsWithAllThatIsNotAcknowledged() throws ProtocolBroken {
    begin(4);
    say(lengths(101, 102, 103, 104));
    reply(3);
    say(lengths(), 1, 2, 3);
    reply(0, 2);
    restart(0);
    assertEquals(2, sender.resentFrames()); // 4 was not sent before
    say(lengths(101, 103, 104));
    reply(3);
    say(lengths(), 1, 3, 4);
    assertEquals(3, reply(0, 1, 3, 4));
    assertEquals(0, sender.size());
  }

  @Test
  void aBrokenFrameIsSentAgainAFewTimesAndThenTold() throws ProtocolBroken {
    begin(2);
    say(lengths(101, 102));
    reply(2);
    say(lengths(), 1, 2);
    reply(0, 2);
    for (int i = 0; i < PushSender.MAX_RESENDS; i++) {
      assertTrue(sender.onReply(refusal(1, BAD)).refused.isEmpty());
      say(lengths(101));
      reply(1);
      say(lengths(), 1);
    }
    Answered told = sender.onReply(refusal(1, BAD));
    assertEquals(1, told.refused.get(0).frame.sequence);
    assertEquals(1, sender.size()); // whoever keeps it decides
  }

  @Test
  void aRefusedFrameIsKeptAndGoesToTheNextStream() throws ProtocolBroken {
    begin(1);
    say(lengths(101));
    reply(1);
    say(lengths(), 1);
    assertEquals(1, sender.onReply(refusal(1, NOT_ASSIGNED)).refused.size());
    say(lengths());
    restart(0);
    say(lengths(101));
  }

  @Test
  void aRefusalOfTheStreamNamesNoFrame() throws ProtocolBroken {
    begin(1);
    Answered told = sender.onReply(refusal(0, RefusalCode.REFUSAL_CODE_WRONG_INCARNATION));
    assertNull(told.refused.get(0).frame);
  }

  @ParameterizedTest
  @ValueSource(strings = {"granted", "early", "unknown", "twice", "refused"})
  void nonsenseIsToldAndTakesNothing(String nonsense) throws ProtocolBroken {
    begin(4);
    say(lengths(101, 102, 103, 104));
    reply(2);
    say(lengths(), 1, 2);
    Map<String, PushReply> replies = new HashMap<>();
    replies.put("granted", acked(1).setGranted(3).build());
    replies.put("early", acked(1, 3).build());
    replies.put("unknown", acked(1, 99).build());
    replies.put("twice", acked(1, 1).build());
    replies.put("refused", refusal(99, BAD));
    assertThrows(ProtocolBroken.class, () -> sender.onReply(replies.get(nonsense)));
    restart(0);
    say(lengths(101, 102, 103, 104));
  }

  /** Frames 1 to 6, of epochs 1 and 2 in turn: two are sent, two announced, two new. */
  void mixed() throws ProtocolBroken {
    begin(0);
    for (int i = 1; i <= 6; i++) {
      sender.add(frame(i, 2 - i % 2, 100 + i));
      if (i == 4) {
        say(lengths(101, 102, 103, 104));
        reply(2);
        say(lengths(), 1, 2);
      }
    }
  }

  @Test
  void withdrawnFramesOfEveryStageAreGoneAndTheirAnswersAreIgnored() throws ProtocolBroken {
    mixed();
    assertEquals(2, sender.rangeEpochs().size());
    assertEquals(3, withdraw(1));
    assertEquals(0, withdraw(1));
    assertEquals(Collections.singleton(Routes.rangeEpoch(0, 2)), sender.rangeEpochs());
    assertEquals(1, reply(0, 1, 2));
    assertThrows(ProtocolBroken.class, () -> reply(0, 1)); // once only
    assertEquals(2, sender.size());
  }

  @Test
  void aRefusalOfAWithdrawnFrameIsIgnored() throws ProtocolBroken {
    mixed();
    withdraw(1);
    assertTrue(sender.onReply(refusal(1, NOT_ASSIGNED)).refused.isEmpty());
    assertEquals(1, sender.onReply(refusal(2, NOT_ASSIGNED)).refused.size());
    assertEquals(3, sender.size());
  }

  @Test
  void aWithdrawnFrameThatWasAnnouncedHasItsTurn() throws ProtocolBroken {
    mixed();
    withdraw(1);
    assertTrue(sender.isUnderWay());
    assertEquals(1, reply(2, 2));
    assertEquals(lengths(106), sender.nextRequest().getAnnounceList()); // 5 never was announced
    assertTrue(sender.nextRequest().getWithdrawn());
    assertEquals(4, sequence(sender.nextRequest().getFrame()));
    assertNull(sender.nextRequest());
    restart(0);
    say(lengths(104, 106));
    assertThrows(ProtocolBroken.class, () -> reply(0, 1)); // was of the stream before
  }

  @Test
  void aFrameIsUnderWayFromItsAnnouncementToItsAnswer() throws ProtocolBroken {
    begin(0);
    add(1, 1);
    assertFalse(sender.isUnderWay()); // nothing was said of it, so no reply will come
    say(lengths(101));
    assertTrue(sender.isUnderWay());
    reply(1);
    assertTrue(sender.isUnderWay());
    say(lengths(), 1);
    assertTrue(sender.isUnderWay());
    reply(0, 1);
    assertFalse(sender.isUnderWay());
  }

  @Test
  void framesAreSentEagerlyAsFarAsTheLoanReachesAndOthersAnnounced() throws ProtocolBroken {
    begin(4);
    lend(204);
    say(lengths(103, 104), 1, 2); // 203 bytes
    add(5, 5);
    reply(0, 1);
    say(lengths(105)); // 102 are under way
    sender.add(frame(6, 2, 106));
    lend(208);
    say(lengths(), 6);
    withdraw(1); // what was sent is answered all the same
    assertEquals(0, reply(0, 2));
    restart(0);
    say(lengths(106)); // the next stream has to lend anew
    sender.beginStream(106);
    say(lengths(), 6);
  }

  @Test
  void aWithdrawnFrameThatWasToGoEagerlyGivesItsLoanBack() throws ProtocolBroken {
    begin(2);
    lend(210); // both are ready when the first one is asked for
    assertTrue(sender.nextRequest().getEager());
    assertEquals(2, withdraw(1));
    sender.add(frame(3, 2, 103)); // and 101 are still to be answered
    say(lengths(), 3);
    assertEquals(1, reply(0, 1, 3));
  }

  @ParameterizedTest
  @CsvSource({"100,100,true", "101,100,false", "65536,1048576,true", "65537,1048576,false"})
  void aShortFirstFrameTravelsWithTheHello(int frameBytes, int eager, boolean together) {
    sender.add(frame(1, 1, frameBytes));
    sender.beginStream(eager);
    PushRequest request = sender.nextRequest();
    assertEquals(HELLO, request.getHello());
    assertEquals(together, request.getEager());
    assertEquals(together, !request.getFrame().isEmpty());
    assertEquals(together, sender.isUnderWay());
  }

  @Test
  void whatIsUnderWayIsBounded() throws ProtocolBroken {
    begin(PushSender.MAX_UNDER_WAY + 1);
    assertEquals(PushSender.MAX_UNDER_WAY, sender.nextRequest().getAnnounceCount());
    reply(1);
    say(lengths(), 1);
    reply(0, 1);
    assertEquals(1, sender.nextRequest().getAnnounceCount());
  }

  @Test
  void theBlocksOfAFrameAreNotCopied() throws ProtocolBroken {
    byte[] blocks = new byte[1000];
    ByteString body = UnsafeByteOperations.unsafeWrap(blocks);
    OutFrame frame = new OutFrame(7, DAEMON, 1, 3, 4, 5, body);
    ByteString bytes = frame.bytes();
    assertEquals(1048, bytes.size());
    blocks[0] = 9; // which is seen only where they are the same
    assertEquals(9, bytes.byteAt(48));
    ByteBuffer header = bytes.asReadOnlyByteBuffer().order(ByteOrder.LITTLE_ENDIAN);
    assertEquals(11, header.getLong(16));
    assertEquals(3, header.getInt(32));
    assertEquals(4, header.getInt(36));
    assertEquals(5, header.getInt(44));
    assertSame(body, frame.body);
  }
}
