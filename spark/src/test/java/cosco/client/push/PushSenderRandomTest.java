package cosco.client.push;

import static cosco.client.push.PushSenderTest.BAD;
import static cosco.client.push.PushSenderTest.HELLO;
import static cosco.client.push.PushSenderTest.acked;
import static cosco.client.push.PushSenderTest.frame;
import static cosco.client.push.PushSenderTest.refusal;
import static cosco.client.push.PushSenderTest.sequence;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import cosco.v1.PushReply;
import cosco.v1.PushRequest;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** A sender and a daemon that does whatever it likes. */
class PushSenderRandomTest {
  /** The other end, as random as it may be: grants, answers and breaks whenever it likes. */
  @ParameterizedTest
  @ValueSource(ints = {1, 2, 3, 4, 5, 6, 7, 8})
  void everyFrameIsAcknowledgedOnceOrWithdrawnWhateverBreaks(int seed) throws ProtocolBroken {
    for (int round = 0; round < 200; round++) {
      new Receiver(new Random(1000L * seed + round)).run();
    }
  }

  static final class Receiver {
    final Random random;
    final PushSender sender = new PushSender(HELLO);
    long added;
    final List<Integer> announced = new ArrayList<>();
    final List<Long> sent = new ArrayList<>();
    final Map<Long, Integer> eager = new HashMap<>();
    final Set<Long> done = new HashSet<>();
    final Set<Long> withdrawn = new HashSet<>();
    int limit;

    Receiver(Random random) {
      this.random = random;
    }

    void run() throws ProtocolBroken {
      for (int step = random.nextInt(80); step > 0; step--) {
        step(random.nextInt(8));
      }
      cut();
      while (sender.size() > 0) {
        listen(0);
        grant(announced.size());
        reply(acked(longs()).build());
        sent.clear();
      }
      Set<Long> all = new HashSet<>(done);
      all.addAll(withdrawn);
      assertEquals(added, all.size());
      assertEquals(added, done.size() + withdrawn.size());
    }

    private void step(int what) throws ProtocolBroken {
      if (what < 2) {
        added++;
        sender.add(frame(added, 1 + random.nextInt(2), (int) (100 + added)));
      } else if (what == 2) {
        grant(random.nextInt(announced.size() + 1));
      } else if (what == 3 && !sent.isEmpty()) {
        long one = sent.remove(random.nextInt(sent.size()));
        eager.remove(one);
        reply(random.nextBoolean() ? acked(one).build() : refusal(one, BAD));
      } else if (what == 4) {
        limit = 1 + random.nextInt(500);
        reply(PushReply.newBuilder().setEagerBytes(limit).build());
      } else if (what == 5) {
        listen(0);
      } else if (what == 6) {
        cut();
      } else if (what == 7) {
        List<OutFrame> frames = sender.stampedFor(Routes.rangeEpoch(0, 1 + random.nextInt(2)));
        sender.withdraw(frames);
        for (OutFrame frame : frames) {
          withdrawn.add(frame.sequence);
        }
      }
    }

    private void cut() {
      sender.beginStream(0);
      announced.clear();
      sent.clear();
      eager.clear();
      limit = 0;
    }

    private long[] longs() {
      long[] all = new long[sent.size()];
      for (int i = 0; i < all.length; i++) {
        all[i] = sent.get(i);
      }
      return all;
    }

    private void grant(int granted) throws ProtocolBroken {
      reply(PushReply.newBuilder().setGranted(granted).build());
      List<Integer> expected = new ArrayList<>(announced.subList(0, granted));
      announced.subList(0, granted).clear();
      List<Integer> came = listen(granted);
      for (int i = 0; i < granted; i++) {
        assertTrue(came.get(i) == null || came.get(i).equals(expected.get(i)));
      }
    }

    /** Returns the lengths of what was granted, null for those withdrawn meanwhile. */
    private List<Integer> listen(int granted) {
      List<Integer> came = new ArrayList<>();
      PushRequest request;
      List<Integer> old = new ArrayList<>(announced);
      announced.clear();
      while ((request = sender.nextRequest()) != null) {
        announced.addAll(request.getAnnounceList());
        if (request.getWithdrawn()) {
          came.add(null);
        } else if (!request.getFrame().isEmpty()) {
          long sequence = sequence(request.getFrame());
          assertFalse(withdrawn.contains(sequence) || done.contains(sequence));
          assertFalse(sent.contains(sequence));
          sent.add(sequence);
          if (request.getEager()) {
            eager.put(sequence, request.getFrame().size());
            assertTrue(eager.values().stream().mapToInt(Integer::intValue).sum() <= limit);
          } else {
            came.add(request.getFrame().size());
          }
        }
      }
      announced.addAll(0, old);
      assertEquals(granted, came.size());
      return came;
    }

    private void reply(PushReply reply) throws ProtocolBroken {
      for (OutFrame frame : sender.onReply(reply).acknowledged) {
        assertNotNull(frame);
        assertTrue(done.add(frame.sequence));
      }
    }
  }
}
