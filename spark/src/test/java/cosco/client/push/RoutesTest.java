package cosco.client.push;

import static cosco.client.push.Routes.rangeEpoch;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotSame;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.ByteString;
import cosco.v1.Assignment;
import cosco.v1.DaemonRef;
import cosco.v1.ExchangeInfoReply;
import cosco.v1.OpenAttemptReply;
import cosco.v1.PushReply;
import cosco.v1.PushRequest;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.TreeSet;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Which frames move, what an acknowledgement means, and what a commit names. */
class RoutesTest {
  static final DaemonRef A = daemon(10);
  static final DaemonRef B = daemon(11);
  static final DaemonRef C = daemon(12);

  static DaemonRef daemon(int incarnation) {
    return DaemonRef.newBuilder()
        .setIncarnation(incarnation).setAddress("host-" + incarnation + ":1").build();
  }

  static Assignment assigned(int range, int epoch, DaemonRef primary) {
    return Assignment.newBuilder()
        .setRangeIndex(range).setEpoch(epoch).setPrimary(primary).build();
  }

  /** Range i is with the i-th of these, in epoch 1. */
  static Routes routes(DaemonRef... primaries) {
    ExchangeInfoReply.Builder info = ExchangeInfoReply.newBuilder().setNumber(7)
        .setCapability("shown");
    for (int i = 0; i < primaries.length; i++) {
      info.addAssignments(assigned(i, 1, primaries[i]));
    }
    OpenAttemptReply opened = OpenAttemptReply.newBuilder()
        .setInfo(info).setMapper(1).setAttempt(3).build();
    return new Routes(opened, 2, 1000, 3);
  }

  static Lane put(Routes routes, int range, String content) {
    return routes.put(range, 1, ByteString.copyFromUtf8(content));
  }

  static Lane lane(Routes routes, DaemonRef ref) {
    for (Lane lane : routes.lanes()) {
      if (lane.ref.equals(ref)) {
        return lane;
      }
    }
    throw new AssertionError("no lane to " + ref);
  }

  /** A frame as its daemon gets it. */
  static final class Sent {
    final long incarnation;
    final long sequence;
    final int range;
    final int epoch;
    final String body;

    Sent(ByteString frame) {
      ByteBuffer header = frame.asReadOnlyByteBuffer().order(ByteOrder.LITTLE_ENDIAN);
      assertEquals(7, header.getLong(8));
      incarnation = header.getLong(16);
      sequence = header.getLong(24);
      range = header.getInt(32);
      epoch = header.getInt(36);
      body = frame.substring(48).toStringUtf8();
      assertEquals(frame.size() - 48, header.getInt(40));
    }

    @Override
    public String toString() {
      return incarnation + "/" + sequence + " " + range + "." + epoch + " " + body;
    }
  }

  static List<Sent> sendAll(Lane lane) throws ProtocolBroken {
    List<Sent> sent = new ArrayList<>();
    int announced = 0;
    for (int turn = 0; turn < 2; turn++) {
      PushRequest request;
      while ((request = lane.sender.nextRequest()) != null) {
        announced += request.getAnnounceCount();
        if (!request.getFrame().isEmpty()) {
          sent.add(new Sent(request.getFrame()));
        }
      }
      lane.sender.onReply(PushReply.newBuilder().setGranted(announced).build());
      announced = 0;
    }
    return sent;
  }

  static int acknowledge(Routes routes, Lane lane, long... sequences) throws ProtocolBroken {
    return routes.onReply(lane, PushSenderTest.acked(sequences).build()).acknowledged.size();
  }

  static void renew(Routes routes, boolean news, Assignment... assignments) {
    assertEquals(news, routes.renew(Arrays.asList(assignments)));
  }

  @Test
  void aFrameIsStampedForTheCurrentAssignmentOfItsRange() throws ProtocolBroken {
    Routes routes = routes(A, B);
    Lane first = put(routes, 0, "zero");
    Lane second = put(routes, 1, "one");
    assertSame(second, put(routes, 1, "more"));
    PushRequest hello = second.sender.nextRequest();
    assertEquals(11, hello.getHello().getIncarnation());
    assertEquals("shown", hello.getHello().getCapability());
    assertEquals(3, hello.getHello().getAttempt());
    assertEquals("[10/1 0.1 zero]", sendAll(first).toString());
    assertEquals("[11/1 1.1 one, 11/2 1.1 more]", sendAll(second).toString());
    assertEquals(3, routes.frames());
    assertEquals(3 * 48 + 11, routes.frameBytes());
  }

  @Test
  void whatIsNotAcknowledgedMovesWithItsRangeAndKeepsItsBlocks() throws ProtocolBroken {
    Routes routes = routes(A, A);
    Lane toA = put(routes, 0, "held");
    sendAll(toA);
    assertEquals(1, acknowledge(routes, toA, 1));
    put(routes, 0, "moved");
    put(routes, 1, "other");
    long bytes = routes.frameBytes();
    sendAll(toA);
    renew(routes, true, assigned(0, 2, B));
    assertEquals(B, routes.current(0).getPrimary());
    assertEquals(bytes, routes.frameBytes());
    assertEquals(1, routes.resentFrames());
    Lane toB = lane(routes, B);
    assertEquals("[11/1 0.2 moved]", sendAll(toB).toString());
    assertEquals(1, acknowledge(routes, toA, 2, 3)); // A's word on the moved one counts no more
    assertArrayEquals(new long[] {rangeEpoch(0, 1), rangeEpoch(1, 1)}, routes.acknowledged());
    assertEquals(1, acknowledge(routes, toB, 1));
    assertArrayEquals(
        new long[] {rangeEpoch(0, 1), rangeEpoch(0, 2), rangeEpoch(1, 1)}, routes.acknowledged());
    assertEquals(0, routes.frames());
    assertEquals(0, routes.frameBytes());
  }

  @Test
  void aRangeThatNeverAcknowledgedInAnEpochDoesNotNameIt() throws ProtocolBroken {
    Routes routes = routes(A);
    sendAll(put(routes, 0, "x"));
    renew(routes, true, assigned(0, 2, B));
    renew(routes, true, assigned(0, 3, C));
    Lane lane = lane(routes, C);
    sendAll(lane);
    acknowledge(routes, lane, 1);
    assertArrayEquals(new long[] {rangeEpoch(0, 3)}, routes.acknowledged());
  }

  @ParameterizedTest
  @ValueSource(ints = {0, 1, 2})
  void onlyNewerEpochsOfKnownRangesCount(int epoch) {
    Routes routes = routes(A);
    renew(routes, true, assigned(0, 2, B));
    put(routes, 0, "x");
    renew(routes, false, assigned(0, epoch, C), assigned(9, 5, C));
    assertEquals(B, routes.current(0).getPrimary());
    assertEquals(1, lane(routes, B).sender.size());
  }

  @Test
  void aRangeMayStayOnItsDaemonInANewEpoch() throws ProtocolBroken {
    Routes routes = routes(A, A);
    Lane lane = put(routes, 0, "x");
    put(routes, 1, "y");
    sendAll(lane);
    renew(routes, true, assigned(0, 2, A));
    assertEquals(1, acknowledge(routes, lane, 1, 2)); // of the old epoch, and of range 1
    assertEquals("[10/3 0.2 x]", sendAll(lane).toString());
    acknowledge(routes, lane, 3);
    assertArrayEquals(new long[] {rangeEpoch(0, 2), rangeEpoch(1, 1)}, routes.acknowledged());
  }

  @Test
  void pairsThatEndedAreToldFromThoseThatDidNot() {
    Routes routes = routes(A, A, B);
    renew(routes, true, assigned(0, 2, B));
    assertEquals(Collections.singleton(rangeEpoch(1, 1)), routes.routedTo(A));
    assertEquals(new HashSet<>(Arrays.asList(rangeEpoch(0, 2), rangeEpoch(2, 1))),
        routes.routedTo(B));
    assertTrue(routes.isStale(rangeEpoch(0, 1)));
    assertFalse(routes.isStale(rangeEpoch(0, 2)));
    assertFalse(routes.isStale(rangeEpoch(1, 1)));
  }

  @Test
  void aLaneIsRetiredWhenItIsEmptyAndNothingLeadsThere() {
    Routes routes = routes(A, A);
    Lane first = put(routes, 0, "x");
    renew(routes, true, assigned(0, 2, B));
    assertTrue(routes.retire().isEmpty()); // range 1 is still A's
    renew(routes, true, assigned(1, 2, B));
    assertEquals(Collections.singletonList(first), routes.retire());
    assertEquals(1, routes.lanes().size());
    renew(routes, true, assigned(0, 3, A));
    assertNotSame(first, lane(routes, A)); // whose stream may still be ending
    assertEquals(1, lane(routes, A).sender.size());
    assertEquals(2, routes.resentFrames());
  }

  @Test
  void theWindowIsOfBytesAndOfFramesAndOneFrameAlwaysPasses() throws ProtocolBroken {
    Routes routes = routes(A);
    assertTrue(routes.hasRoom(5000));
    Lane lane = routes.put(0, 1, ByteString.copyFrom(new byte[452]));
    assertTrue(routes.hasRoom(452));
    assertFalse(routes.hasRoom(453));
    put(routes, 0, "x");
    put(routes, 0, "y");
    assertFalse(routes.hasRoom(1));
    sendAll(lane);
    acknowledge(routes, lane, 2);
    assertTrue(routes.hasRoom(1));
  }

  @Test
  void nonsenseIsTold() {
    Routes routes = routes(A);
    Lane lane = put(routes, 0, "x");
    assertThrows(ProtocolBroken.class, () -> acknowledge(routes, lane, 1));
  }

  /**
   * Daemons that hold what they are sent until their epoch is sealed, and a metadata service that
   * seals and moves at any moment; streams break, answers come late or never.
   */
  @ParameterizedTest
  @ValueSource(ints = {1, 2, 3, 4, 5, 6, 7, 8})
  void everyFrameIsAcknowledgedOnceByTheEpochThatHoldsIt(int seed) throws ProtocolBroken {
    for (int round = 0; round < 200; round++) {
      new Cluster(new Random(1000L * seed + round)).run();
    }
  }

  static final class Cluster {
    final Random random;
    final DaemonRef[] refs = {A, B, C};
    final Assignment[] newest;
    final Routes routes;
    final Map<Long, Set<String>> held = new HashMap<>(); // by epoch
    final Map<Lane, List<Sent>> replies = new HashMap<>(); // on their way
    final TreeSet<Long> named = new TreeSet<>();
    final Set<String> told = new HashSet<>();
    int put;

    Cluster(Random random) {
      this.random = random;
      newest = new Assignment[1 + random.nextInt(3)];
      DaemonRef[] first = new DaemonRef[newest.length];
      for (int i = 0; i < newest.length; i++) {
        first[i] = refs[i];
        newest[i] = assigned(i, 1, refs[i]);
      }
      routes = routes(first);
    }

    void run() throws ProtocolBroken {
      for (int step = random.nextInt(80); step > 0; step--) {
        step(random.nextInt(8));
      }
      routes.renew(Arrays.asList(newest));
      for (Lane lane : routes.lanes()) {
        lane.sender.beginStream(0);
        for (Sent one : sendAll(lane)) {
          take(one);
          acknowledged(lane, one);
        }
      }
      assertEquals(0, routes.frames());
      assertEquals(0, routes.frameBytes());
      assertEquals(put, told.size());
      long[] all = routes.acknowledged();
      assertEquals(named.size(), all.length);
      for (long one : all) {
        assertTrue(named.contains(one));
      }
    }

    private void step(int what) throws ProtocolBroken {
      List<Lane> lanes = routes.lanes();
      Lane lane = lanes.isEmpty() ? null : lanes.get(random.nextInt(lanes.size()));
      int range = random.nextInt(newest.length);
      if (what < 2) {
        put(routes, range, "frame " + put++);
      } else if (what == 2) {
        newest[range] = assigned(range, newest[range].getEpoch() + 1, refs[random.nextInt(3)]);
      } else if (what == 3) {
        routes.renew(Collections.singletonList(newest[range]));
        replies.keySet().removeAll(routes.retire());
      } else if (what < 6 && lane != null) {
        for (Sent one : sendAll(lane)) {
          if (newest[one.range].getEpoch() == one.epoch) { // else it is fenced
            take(one);
            replies.computeIfAbsent(lane, key -> new ArrayList<>()).add(one);
          }
        }
      } else if (what == 6 && lane != null) {
        List<Sent> waiting = replies.getOrDefault(lane, new ArrayList<>());
        if (!waiting.isEmpty()) {
          acknowledged(lane, waiting.remove(random.nextInt(waiting.size())));
        }
      } else if (what == 7 && lane != null) {
        lane.sender.beginStream(0);
        replies.remove(lane);
      }
    }

    private void take(Sent one) {
      assertEquals(newest[one.range].getPrimary().getIncarnation(), one.incarnation);
      held.computeIfAbsent(rangeEpoch(one.range, one.epoch), key -> new HashSet<>()).add(one.body);
    }

    private void acknowledged(Lane lane, Sent one) throws ProtocolBroken {
      int before = routes.frames();
      Answered answered = routes.onReply(lane, PushSenderTest.acked(one.sequence).build());
      assertEquals(before - answered.acknowledged.size(), routes.frames());
      for (OutFrame frame : answered.acknowledged) {
        assertEquals(routes.current(frame.range).getEpoch(), frame.epoch);
        String body = frame.body.toStringUtf8();
        assertTrue(held.get(frame.rangeEpoch()).contains(body));
        assertTrue(told.add(body));
        named.add(frame.rangeEpoch());
      }
    }
  }
}
