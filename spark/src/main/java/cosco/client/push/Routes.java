package cosco.client.push;

import com.google.protobuf.ByteString;
import cosco.client.format.FrameHeader;
import cosco.v1.Assignment;
import cosco.v1.DaemonRef;
import cosco.v1.ExchangeInfoReply;
import cosco.v1.Hello;
import cosco.v1.OpenAttemptReply;
import cosco.v1.PushReply;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;

/**
 * Where a writer's frames go, what of them is acknowledged, and by whom.
 *
 * <p>Every range has one current assignment. A frame is stamped for it and kept in the lane of its
 * primary until that daemon acknowledges it. A newer assignment takes over whatever the one before
 * has not acknowledged: the same blocks under a new header. So a frame counts once, by the epoch
 * that was current when it was acknowledged; what older epochs say later is ignored.
 */
public final class Routes {
  private final Hello.Builder hello = Hello.newBuilder();
  private final long windowBytes;
  private final int windowFrames;
  private final Map<Integer, Assignment> current = new HashMap<>();
  private final Map<DaemonRef, Lane> lanes = new LinkedHashMap<>();
  private final TreeSet<Long> acknowledged = new TreeSet<>();
  private int frames;
  private long frameBytes;
  private long resentFrames; // moved ones, and those of lanes that were retired

  /**
   * Begins with the assignments that an attempt was opened with.
   *
   * @param protocol that is spoken on streams
   * @param windowBytes of frames that are not acknowledged, over all daemons; one always passes
   * @param windowFrames and their number: short ones cost a daemon more than their bytes
   */
  public Routes(OpenAttemptReply opened, int protocol, long windowBytes, int windowFrames) {
    ExchangeInfoReply info = opened.getInfo();
    hello.setProtocol(protocol).setNumber(info.getNumber()).setMapper(opened.getMapper())
        .setAttempt(opened.getAttempt()).setCapability(info.getCapability());
    this.windowBytes = windowBytes;
    this.windowFrames = windowFrames;
    for (Assignment assignment : info.getAssignmentsList()) {
      current.put(assignment.getRangeIndex(), assignment);
    }
  }

  /** Returns an assignment as one number, which a commit names as well. */
  public static long rangeEpoch(int range, int epoch) {
    return (long) range << 32 | epoch & 0xffffffffL;
  }

  /** Returns how many frames are not acknowledged. */
  public int frames() {
    return frames;
  }

  /** Returns their bytes, headers included. */
  public long frameBytes() {
    return frameBytes;
  }

  /** Returns how often frames went out again: to another assignment, on another stream, broken. */
  public long resentFrames() {
    long all = resentFrames;
    for (Lane lane : lanes.values()) {
      all += lane.sender.resentFrames();
    }
    return all;
  }

  /** Returns the newest assignment of a range that is known. */
  public Assignment current(int range) {
    return current.get(range);
  }

  /** Returns the lanes that have frames, or got some and are still routed to. */
  public List<Lane> lanes() {
    return new ArrayList<>(lanes.values());
  }

  /** Returns whether one more frame with a body of this length fits into the window. */
  public boolean hasRoom(int bodyBytes) {
    long after = frameBytes + FrameHeader.HEADER_BYTES + bodyBytes;
    return frames == 0 || after <= windowBytes && frames < windowFrames;
  }

  /**
   * Stamps a frame for the current assignment of its range.
   *
   * @return the lane it is in now
   */
  public Lane put(int range, int blocks, ByteString body) {
    Lane lane = add(range, blocks, body);
    frames++;
    frameBytes += FrameHeader.HEADER_BYTES + body.size();
    return lane;
  }

  /** Takes note of what a daemon said: what it acknowledged counts. */
  public Answered onReply(Lane lane, PushReply reply) throws ProtocolBroken {
    Answered answered = lane.sender.onReply(reply);
    for (OutFrame frame : answered.acknowledged) {
      frames--;
      frameBytes -= frame.frameBytes();
      acknowledged.add(frame.rangeEpoch());
    }
    return answered;
  }

  /** Returns the epochs that acknowledged frames while they were current, ascending. */
  public long[] acknowledged() {
    long[] all = new long[acknowledged.size()];
    int i = 0;
    for (long one : acknowledged) {
      all[i++] = one;
    }
    return all;
  }

  /**
   * Takes note of assignments, and moves frames to the newer ones.
   *
   * @return whether any is newer than what was known, of a range of the exchange
   */
  public boolean renew(Iterable<Assignment> assignments) {
    boolean any = false;
    for (Assignment assignment : assignments) {
      int range = assignment.getRangeIndex();
      Assignment old = current.get(range);
      if (old == null
          || Integer.compareUnsigned(assignment.getEpoch(), old.getEpoch()) <= 0) {
        continue;
      }
      any = true;
      current.put(range, assignment);
      Lane lane = lanes.get(old.getPrimary());
      if (lane != null) {
        List<OutFrame> moving = lane.sender.stampedFor(rangeEpoch(range, old.getEpoch()));
        lane.sender.withdraw(moving);
        resentFrames += moving.size();
        for (OutFrame frame : moving) {
          add(range, frame.blocks, frame.body);
        }
      }
    }
    return any;
  }

  /** Returns whether the range has a newer assignment than this. */
  boolean isStale(long rangeEpoch) {
    return Integer.compareUnsigned(
        current.get((int) (rangeEpoch >>> 32)).getEpoch(), (int) rangeEpoch) > 0;
  }

  /** Returns the current epochs whose primary this is; frames in its lane have no other. */
  Set<Long> routedTo(DaemonRef ref) {
    Set<Long> found = new HashSet<>();
    for (Assignment one : current.values()) {
      if (one.getPrimary().equals(ref)) {
        found.add(rangeEpoch(one.getRangeIndex(), one.getEpoch()));
      }
    }
    return found;
  }

  /** Forgets the lanes without frames that nothing is routed to any more, and returns them. */
  public List<Lane> retire() {
    Set<DaemonRef> needed = new HashSet<>();
    for (Assignment one : current.values()) {
      needed.add(one.getPrimary());
    }
    List<Lane> idle = new ArrayList<>();
    for (Lane lane : lanes()) {
      if (!needed.contains(lane.ref) && lane.sender.size() == 0) {
        lanes.remove(lane.ref);
        resentFrames += lane.sender.resentFrames();
        idle.add(lane);
      }
    }
    return idle;
  }

  /** Forgets all frames: nobody waits for them any more. */
  public void drop() {
    resentFrames = resentFrames();
    lanes.clear();
  }

  private Lane add(int range, int blocks, ByteString body) {
    Assignment to = current.get(range);
    DaemonRef ref = to.getPrimary();
    Lane lane = lanes.get(ref);
    if (lane == null) {
      Hello said = hello.setIncarnation(ref.getIncarnation()).build();
      lane = new Lane(ref, new PushSender(said));
      lanes.put(ref, lane);
    }
    lane.sequence++;
    lane.sender.add(
        new OutFrame(hello.getNumber(), ref, lane.sequence, range, to.getEpoch(), blocks, body));
    return lane;
  }
}
