package cosco.client.push;

import cosco.v1.Hello;
import cosco.v1.PushReply;
import cosco.v1.PushRequest;
import cosco.v1.Refusal;
import cosco.v1.RefusalCode;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;

/**
 * All frames for one daemon, over one stream after the other.
 *
 * <p>A frame is <i>waiting</i>, then <i>announced</i>, <i>ready</i> (it was granted, or fits into
 * the loan of eager bytes) and <i>sent</i>; it is kept until it is acknowledged or withdrawn, so
 * also after it was refused. One caller at a time asks `nextRequest` until there is none, and hands
 * in what comes by `onReply`.
 */
public final class PushSender {
  /** A daemon that finds a frame broken gets it again so often: the network may be at fault. */
  public static final int MAX_RESENDS = 3;

  /** While so many frames are announced, ready or sent, no more are announced. */
  public static final int MAX_UNDER_WAY = 1024;

  /** The first frame goes in one message with the hello if it is not longer. */
  public static final int MAX_OPENING_BYTES = 64 << 10;

  private final Hello hello;
  private final Map<Long, OutFrame> kept = new LinkedHashMap<>(); // in the order of `add`
  private final ArrayDeque<OutFrame> waiting = new ArrayDeque<>();
  private final ArrayDeque<OutFrame> announced = new ArrayDeque<>();
  private final ArrayDeque<Ready> ready = new ArrayDeque<>();
  private final Map<Long, OutFrame> sent = new HashMap<>(); // not answered; withdrawn ones too
  private int granted; // of those ready
  private final Map<Long, Integer> eager = new HashMap<>(); // lengths, of those ready or sent
  private int eagerBytes;
  private int eagerLimit;
  private boolean saidHello;
  private boolean mayAnnounce = true;
  private long resentFrames;

  PushSender(Hello hello) {
    this.hello = hello;
  }

  /** Returns how many frames are kept. */
  public int size() {
    return kept.size();
  }

  /** Returns whether the daemon will say something yet about a frame that it knows of. */
  public boolean isUnderWay() {
    return !announced.isEmpty() || granted > 0 || !sent.isEmpty();
  }

  /** Returns how often a frame that was sent, and not answered, went out again. */
  long resentFrames() {
    return resentFrames;
  }

  /** Returns what the kept frames are stamped for. */
  public TreeSet<Long> rangeEpochs() {
    TreeSet<Long> all = new TreeSet<>();
    for (OutFrame frame : kept.values()) {
      all.add(frame.rangeEpoch());
    }
    return all;
  }

  /** Keeps a new frame, and has it sent. */
  void add(OutFrame frame) {
    kept.put(frame.sequence, frame);
    waiting.add(frame);
  }

  /** Keeps these no longer, wherever they are: what is answered of them is ignored. */
  void withdraw(Collection<OutFrame> frames) {
    for (OutFrame frame : frames) {
      if (kept.remove(frame.sequence) != null) {
        frame.withdrawn = true;
        if (!sent.containsKey(frame.sequence)) {
          returnLoan(frame.sequence); // it is skipped where it is ready
        }
      }
    }
    nextWaiting(); // those in front go at once, also while nobody asks what to say
  }

  /** Returns the kept frames of an assignment, in order. */
  List<OutFrame> stampedFor(long rangeEpoch) {
    List<OutFrame> found = new ArrayList<>();
    for (OutFrame frame : kept.values()) {
      if (frame.rangeEpoch() == rangeEpoch) {
        found.add(frame);
      }
    }
    return found;
  }

  /**
   * Begins anew: says hello, then sends all that is kept, in order.
   *
   * @param eagerBytes what the daemon lends to this stream, as far as that is known
   */
  public void beginStream(int eagerBytes) {
    resentFrames += sent.size();
    waiting.clear();
    waiting.addAll(kept.values());
    announced.clear();
    ready.clear();
    sent.clear();
    eager.clear();
    granted = 0;
    this.eagerBytes = 0;
    eagerLimit = eagerBytes;
    saidHello = false;
    mayAnnounce = true;
  }

  /** Returns what to say next, null if nothing; to be asked again after anything happened. */
  public PushRequest nextRequest() {
    if (!saidHello) {
      saidHello = true;
      return opening();
    }
    makeEager();
    List<Integer> lengths = announce();
    if (!lengths.isEmpty()) {
      return PushRequest.newBuilder().addAllAnnounce(lengths).build();
    }
    while (!ready.isEmpty()) {
      Ready next = ready.remove();
      granted -= next.eager ? 0 : 1;
      if (!next.frame.withdrawn) {
        sent.put(next.frame.sequence, next.frame);
        return request(next.frame, next.eager).build();
      }
      if (!next.eager) {
        return PushRequest.newBuilder().setWithdrawn(true).build();
      }
    }
    return null;
  }

  /**
   * Takes note of what the daemon said.
   *
   * @throws ProtocolBroken and all frames are kept then, for the next stream
   */
  public Answered onReply(PushReply reply) throws ProtocolBroken {
    if (reply.getEagerBytes() != 0) {
      eagerLimit = reply.getEagerBytes();
    }
    mayAnnounce = true;
    Answered answered = new Answered();
    for (long sequence : reply.getAcknowledgedList()) {
      OutFrame frame = answer(sequence);
      if (frame != null) {
        answered.acknowledged.add(frame);
      }
    }
    for (Refusal refusal : reply.getRefusedList()) {
      refused(refusal, answered);
    }
    grant(reply.getGranted());
    for (OutFrame frame : answered.acknowledged) {
      kept.remove(frame.sequence);
    }
    return answered;
  }

  private void refused(Refusal refusal, Answered answered) throws ProtocolBroken {
    OutFrame frame = null;
    if (refusal.getSequence() != 0) {
      frame = answer(refusal.getSequence());
      if (frame == null) {
        return; // it is somewhere else by now
      }
      if (refusal.getCode() == RefusalCode.REFUSAL_CODE_BAD_FRAME
          && ++frame.resends <= MAX_RESENDS) {
        waiting.add(frame);
        resentFrames++;
        return;
      }
    }
    answered.refused.add(new Answered.Refused(frame, refusal));
  }

  /** The hello, with the first frame if that may go at once and is short. */
  private PushRequest opening() {
    OutFrame first = nextWaiting();
    if (first == null || first.frameBytes() > Math.min(eagerLimit, MAX_OPENING_BYTES)) {
      return PushRequest.newBuilder().setHello(hello).build();
    }
    waiting.remove();
    borrow(first);
    sent.put(first.sequence, first);
    return request(first, true).setHello(hello).build();
  }

  private static PushRequest.Builder request(OutFrame frame, boolean eager) {
    return PushRequest.newBuilder().setEager(eager).setFrame(frame.bytes());
  }

  /** The first frame that waits, where it is. */
  private OutFrame nextWaiting() {
    while (!waiting.isEmpty() && waiting.peek().withdrawn) {
      waiting.remove();
    }
    return waiting.peek();
  }

  /** Makes waiting frames ready, to be sent eagerly, as far as the loan reaches. */
  private void makeEager() {
    OutFrame frame = nextWaiting();
    while (frame != null && eagerBytes + frame.frameBytes() <= eagerLimit) {
      waiting.remove();
      borrow(frame);
      ready.add(new Ready(frame, true));
      frame = nextWaiting();
    }
  }

  /** The lengths to announce now: once a reply, as messages cost by their number. */
  private List<Integer> announce() {
    boolean may = mayAnnounce || !isUnderWay();
    mayAnnounce = false;
    List<Integer> lengths = new ArrayList<>();
    int room = MAX_UNDER_WAY - announced.size() - ready.size() - sent.size();
    while (may && lengths.size() < room && nextWaiting() != null) {
      OutFrame frame = waiting.remove();
      announced.add(frame);
      lengths.add(frame.frameBytes());
    }
    return lengths;
  }

  private void grant(int count) throws ProtocolBroken {
    if (count < 0 || count > announced.size()) {
      throw new ProtocolBroken("it granted " + count + " frames of " + announced.size());
    }
    for (int i = 0; i < count; i++) {
      ready.add(new Ready(announced.remove(), false));
    }
    granted += count;
  }

  /** Returns the frame that is answered, null if it was withdrawn. */
  private OutFrame answer(long sequence) throws ProtocolBroken {
    OutFrame frame = sent.remove(sequence);
    if (frame == null) {
      throw new ProtocolBroken("it answered frame " + sequence + ", which was not sent");
    }
    returnLoan(sequence);
    return frame.withdrawn ? null : frame;
  }

  private void borrow(OutFrame frame) {
    eager.put(frame.sequence, frame.frameBytes());
    eagerBytes += frame.frameBytes();
  }

  private void returnLoan(long sequence) {
    Integer bytes = eager.remove(sequence);
    eagerBytes -= bytes == null ? 0 : bytes;
  }

  private static final class Ready {
    final OutFrame frame;
    final boolean eager;

    Ready(OutFrame frame, boolean eager) {
      this.frame = frame;
      this.eager = eager;
    }
  }
}
