package cosco.client.push;

import cosco.client.CoscoException;
import cosco.v1.DaemonRef;
import cosco.v1.RenewAssignmentsReply;
import java.util.TreeSet;

/**
 * What a writer does about a daemon that fails it: whom to ask, how long to wait, when to give up.
 *
 * <p>A daemon fails its writer by being out of reach, or by refusing frames of an assignment. The
 * metadata service is asked for newer assignments either way, and is told of a daemon that is out
 * of reach. Nothing of this loses rows or doubles them: see {@link Routes}. Times are seconds of
 * one clock.
 */
public final class LinkTrouble {
  /** A daemon that is alive for the service and out of reach for so long is insisted on. */
  public static final double INSIST_AFTER_S = 5;

  /**
   * A stream that breaks sooner after the daemon was heard, without a frame taken, counts as no
   * answer: small messages may get through where frames do not.
   */
  public static final double STEADY_S = 30;

  /** A daemon without room is borne for so long, unless it is known that another will come. */
  public static final double CAPACITY_WAIT_S = 5;

  private static final double FIRST_PAUSE_S = 0.05;
  private static final double MAX_PAUSE_S = 1;
  private static final double NEVER = Double.NaN;

  private final DaemonRef ref;
  private final double serviceTimeoutS;
  private final TreeSet<Long> refused = new TreeSet<>();
  private double silentSince = NEVER; // out of reach
  // The last silence and its end, if the daemon has taken no frame since.
  private double lastSilence = NEVER;
  private double lastSilenceEnd = NEVER;
  private double refusingSince = NEVER; // frames, without taking any
  private boolean replaced; // by another start, in the way of this one
  private boolean full;
  private boolean alive; // for the service
  private String reason = "";
  private String waitingFor = "";
  private String serviceIsAway = "";
  private int pauses;

  /** Begins with a daemon that has not failed. */
  public LinkTrouble(DaemonRef ref, double serviceTimeoutS) {
    this.ref = ref;
    this.serviceTimeoutS = serviceTimeoutS;
  }

  /** Notes that a stream broke, or could not be begun. */
  public void outOfReach(String why, double now) {
    reason = why;
    if (isSilent()) {
      return;
    }
    if (now - lastSilenceEnd < STEADY_S) {
      silentSince = lastSilence;
    } else {
      silentSince = now;
      alive = false;
    }
  }

  /** Notes that another start of the daemon answered. */
  public void replaced(String why, double now) {
    reason = why;
    replaced = true;
    beginRefusing(now);
  }

  /** Notes that frames of an assignment were not taken; `full`: as there was no room. */
  public void refused(long rangeEpoch, String why, double now, boolean full) {
    reason = why;
    refused.add(rangeEpoch);
    this.full = full;
    beginRefusing(now);
  }

  /** Notes that the daemon said something. */
  public void heard(double now) {
    if (isSilent()) {
      lastSilence = silentSince;
      lastSilenceEnd = now;
      silentSince = NEVER;
    }
  }

  /** Notes that the daemon took a frame. */
  public void acknowledged() {
    refusingSince = NEVER;
    lastSilence = lastSilenceEnd = NEVER;
    pauses = 0;
  }

  /** Forgets all of it: nothing is left that the daemon failed at. */
  public void over() {
    refused.clear();
    silentSince = refusingSince = lastSilence = lastSilenceEnd = NEVER;
    replaced = full = alive = false;
    waitingFor = "";
    pauses = 0;
  }

  /** Returns whether the present stream has come to its end by a refusal. */
  public boolean isRefused() {
    return !refused.isEmpty() || replaced;
  }

  /** Returns what to ask now; null: nothing, as all that failed has moved meanwhile. */
  public Question question(Routes routes, double now) {
    refused.removeIf(routes::isStale);
    TreeSet<Long> stale = new TreeSet<>(refused);
    DaemonRef suspect = null;
    boolean insist = false;
    if (isSuspect()) {
      stale.addAll(routes.routedTo(ref));
      suspect = ref;
      insist = alive && isSilent() && now - silentSince > INSIST_AFTER_S;
    }
    if (stale.isEmpty()) {
      over();
      return null;
    }
    return new Question(stale, suspect, insist);
  }

  /**
   * Notes the answer, after `Routes.renew`; `moved`: something of it was new.
   *
   * @return whether to try the daemon again; if not, there may be another question
   */
  public boolean answered(RenewAssignmentsReply answer, boolean moved) {
    serviceIsAway = "";
    waitingFor = answer.getWaitingFor();
    alive = answer.getAlive();
    if (moved) {
      return false;
    }
    boolean again = alive || !(isSuspect() || !waitingFor.isEmpty());
    if (again) { // it may have been behind: see whether it refuses still
      refused.clear();
      replaced = false;
    }
    return again;
  }

  /** Notes that the metadata service is out of reach: the daemon may be back first. */
  public void unanswered(String why) {
    serviceIsAway = why;
    refused.clear();
    replaced = false;
  }

  /** Returns how long to wait, at most, before the next try: longer each time. */
  public double pauseS() {
    pauses = Math.min(pauses + 1, 10);
    return Math.min(FIRST_PAUSE_S * (1 << pauses - 1), MAX_PAUSE_S);
  }

  /** Returns how long this may go on; 0: the writer fails with `error`. */
  public double remainingS(double now) {
    double since = now;
    since = silentSince < since ? silentSince : since; // false for what never was
    since = refusingSince < since ? refusingSince : since;
    double limitS = serviceTimeoutS;
    if (full && waitingFor.isEmpty() && serviceIsAway.isEmpty()) {
      limitS = Math.min(limitS, CAPACITY_WAIT_S);
    }
    return Math.max(0, limitS - (now - since));
  }

  /** Returns what the writer fails with when no time remains. */
  public CoscoException error(String shuffleId) {
    String failure = full ? "has no room" : "refuses frames";
    if (isSilent()) {
      failure = "does not answer";
    } else if (replaced) {
      failure = "was started again";
    }
    String kind = full ? "CapacityExceeded" : "ServiceUnavailable";
    String outlook = "run the mapper again";
    if (!serviceIsAway.isEmpty()) {
      kind = "ServiceUnavailable";
      outlook = "who takes over is unknown: " + serviceIsAway;
    } else if (!waitingFor.isEmpty()) {
      kind = "CapacityExceeded";
      outlook = "no other takes over: " + waitingFor;
    }
    String where = "exchange '" + shuffleId + "': the shuffle daemon at " + ref.getAddress();
    return new CoscoException(
        kind, where + " " + failure + "; " + outlook + " (" + reason + ")", true, null);
  }

  private boolean isSilent() {
    return !Double.isNaN(silentSince);
  }

  private boolean isSuspect() {
    return isSilent() || replaced;
  }

  private void beginRefusing(double now) {
    if (Double.isNaN(refusingSince)) {
      refusingSince = now;
    }
  }
}
