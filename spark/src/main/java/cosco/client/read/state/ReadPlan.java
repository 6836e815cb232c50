package cosco.client.read.state;

import cosco.v1.DaemonRef;
import cosco.v1.Source;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * What a reader of one partition does next: whom it asks, when it asks anew, when rows are lost.
 *
 * <p>It decides and does nothing itself: `step` says what to do now, and whoever does it tells how
 * that went. Of each source the first daemon that answers well is believed, unless rows are missing
 * then: a second pass asks every daemon of every source. A daemon out of reach is reported, and
 * asked again until it answers or the service does not name it any more. Times are in seconds, of a
 * clock that never goes back.
 */
public final class ReadPlan {
  /** What to do; its arguments are in the methods of the plan. */
  public enum Act {
    /** Ask a daemon for `fetch()`; then call `answered`, `closed` or `unreachable`. */
    FETCH,
    /** Tell the service that `daemon()` is out of reach; then call `reported`. */
    REPORT_DAEMON,
    /** Pause for `pauseS()`, ask the service for the sources; then call `renewed`. */
    RENEW,
    /** Tell the service that rows are lost, for `reason()`, and throw. */
    REPORT_LOSS,
    /** Throw: a daemon stayed out of reach for too long, for `reason()`. */
    GIVE_UP,
    /** Every row was there. */
    DONE
  }

  /** What a daemon is asked for. */
  public static final class Fetch {
    public final Source source;
    public final DaemonRef daemon;
    /** Also for what others stored of the source. */
    public final boolean files;
    /** No block may come as its header alone. */
    public final boolean whole;

    Fetch(Source source, DaemonRef daemon, boolean files, boolean whole) {
      this.source = source;
      this.daemon = daemon;
      this.files = files;
      this.whole = whole;
    }
  }

  private static final class Trouble {
    final double since;
    String reason;
    boolean isToReport;
    boolean isReported; // in this round
    Boolean isAlive; // as the service said in the end

    Trouble(double since) {
      this.since = since;
    }
  }

  private static final double MIN_PAUSE_S = 0.05;
  private static final double MAX_PAUSE_S = 1.0;
  /** A daemon that is alive for the service, and out of reach for so long, is insisted on. */
  private static final double INSIST_AFTER_S = 3.0;
  /** Then those that answered are asked again, as others may have stored something meanwhile. */
  private static final double REASK_AFTER_S = 4.0;

  private final double unreachableS;
  private final Set<DaemonRef> troubled;
  private List<Source> sources;
  private boolean isSecondPass;
  private final Set<Long> answeredWell = new HashSet<>();
  private final Map<Long, Set<DaemonRef>> answered = new HashMap<>();
  private final Set<DaemonRef> down = new HashSet<>(); // in this round
  private final Map<DaemonRef, Trouble> troubles = new LinkedHashMap<>();
  private String bad = ""; // a reason, once anything was bad in this pass
  private boolean mustRenew = true; // before a loss is reported
  private boolean isClosed; // a daemon said that the exchange is, or the source is over
  private double roundPauseS = MIN_PAUSE_S;
  private double reaskGapS = REASK_AFTER_S;
  private double reaskAt = -1;
  private Fetch fetch;
  private DaemonRef daemon;
  private boolean insists;
  private double pauseS;
  private String reason = "";

  /**
   * Begins to read what one snapshot names.
   *
   * @param unreachableS bounds the wait for a daemon that is out of reach
   * @param troubled daemons that are asked last; those that do not answer are added
   */
  public ReadPlan(List<Source> sources, double unreachableS, Set<DaemonRef> troubled) {
    this.sources = sources;
    this.unreachableS = unreachableS;
    this.troubled = troubled;
  }

  /** Returns what FETCH asks for. */
  public Fetch fetch() {
    return fetch;
  }

  /** Returns whom REPORT_DAEMON is of. */
  public DaemonRef daemon() {
    return daemon;
  }

  /** Returns whether the one of REPORT_DAEMON was said to be alive, and is still out of reach. */
  public boolean insists() {
    return insists;
  }

  /** Returns how long to pause before RENEW. */
  public double pauseS() {
    return pauseS;
  }

  /** Returns why rows are lost, or what stayed out of reach. */
  public String reason() {
    return reason;
  }

  /** Returns whether a loss is of what is gone or bad; false: everything was read. */
  public boolean isGone() {
    return !bad.isEmpty() || nobodys() != null;
  }

  /** Returns what to do now. `isComplete`: the merge has every row. */
  public Act step(double now, boolean isComplete) {
    if (isComplete) {
      return Act.DONE;
    }
    if (isClosed) {
      return renewal(0); // which throws, if the exchange is closed
    }
    if (findFetch()) {
      return Act.FETCH;
    }
    List<DaemonRef> awaited = awaited();
    if (!awaited.isEmpty()) {
      return troubleStep(awaited, now);
    }
    if (!isSecondPass) {
      isSecondPass = true;
      answered.clear();
      bad = "";
      return step(now, false);
    }
    if (mustRenew) {
      return renewal(0);
    }
    Source nobodys = nobodys();
    if (!bad.isEmpty()) {
      reason = bad;
    } else if (nobodys != null) {
      reason = "no daemon alive has epoch " + nobodys.getEpoch() + " of range "
          + nobodys.getRangeIndex();
    } else {
      reason = "every copy was read";
    }
    return Act.REPORT_LOSS;
  }

  /** Notes that the daemon gave all it has. `why` tells what was bad in it; empty: nothing. */
  public void answered(Fetch fetch, String why) {
    answered.computeIfAbsent(key(fetch.source), key -> new HashSet<>()).add(fetch.daemon);
    troubles.remove(fetch.daemon);
    troubled.remove(fetch.daemon);
    roundPauseS = MIN_PAUSE_S;
    mustRenew = true;
    if (why.isEmpty()) {
      answeredWell.add(key(fetch.source));
    } else if (bad.isEmpty()) {
      bad = why;
    }
  }

  /** Notes that the daemon has dropped the exchange, or this epoch: the service knows why. */
  public void closed(Fetch fetch) {
    isClosed = true;
    answered(fetch, fetch.daemon.getAddress() + " dropped it");
  }

  /** Notes that the daemon did not answer to the end; `isBusy`: it said that it cannot now. */
  public void unreachable(Fetch fetch, double now, String why, boolean isBusy) {
    Trouble trouble = troubles.computeIfAbsent(fetch.daemon, one -> new Trouble(now));
    trouble.reason = why;
    trouble.isToReport = !isBusy;
    down.add(fetch.daemon);
    troubled.add(fetch.daemon);
  }

  /** Notes that the service took the report of `daemon()`, and what it said. */
  public void reported(boolean isAlive) {
    Trouble trouble = troubles.get(daemon);
    trouble.isReported = true;
    trouble.isAlive = isAlive;
  }

  /** Begins another round, with what the service says now of the same build's sources. */
  public void renewed(List<Source> now, double nowS) {
    Map<Long, Source> before = new HashMap<>();
    for (Source source : sources) {
      before.put(key(source), source);
    }
    for (Source source : now) {
      Source old = before.get(key(source));
      if (isSecondPass && old != null && source.getSealed() && !old.getSealed()) {
        // Whoever was asked before may have seen less than was stored for the seal.
        answered.remove(key(source));
      }
    }
    sources = now;
    mustRenew = false;
    isClosed = false;
    if (down.isEmpty()) {
      return;
    }
    down.clear();
    for (Trouble trouble : troubles.values()) {
      trouble.isReported = false;
    }
    roundPauseS = Math.min(2 * roundPauseS, MAX_PAUSE_S);
    if (reaskAt < 0) {
      reaskAt = nowS + reaskGapS;
    } else if (isSecondPass && nowS >= reaskAt) {
      answered.clear();
      reaskGapS *= 2;
      reaskAt = nowS + reaskGapS;
    }
  }

  /** Returns the daemon of a source that is asked first; null: it has none. */
  static DaemonRef firstOf(Source source, Set<DaemonRef> troubled) {
    for (DaemonRef one : source.getDaemonsList()) {
      if (!troubled.contains(one)) {
        return one;
      }
    }
    return source.getDaemonsCount() == 0 ? null : source.getDaemons(0);
  }

  /** Returns whether a daemon is asked for what others stored of a source, when asked first. */
  static boolean asksForFiles(Source source, DaemonRef daemon) {
    return source.getSealed() || !daemon.equals(source.getDaemons(0));
  }

  static long key(Source source) {
    return (long) source.getRangeIndex() << 32 | source.getEpoch();
  }

  private Act renewal(double pause) {
    pauseS = pause;
    return Act.RENEW;
  }

  private boolean findFetch() {
    for (Source source : openSources()) {
      for (DaemonRef one : byTrouble(source)) {
        boolean isAsked =
            answered.getOrDefault(key(source), Collections.emptySet()).contains(one);
        if (!down.contains(one) && !isAsked) {
          fetch = new Fetch(
              source, one, isSecondPass || asksForFiles(source, one), isSecondPass);
          return true;
        }
      }
    }
    return false;
  }

  private List<DaemonRef> byTrouble(Source source) {
    if (troubled.isEmpty()) {
      return source.getDaemonsList();
    }
    List<DaemonRef> sorted = new ArrayList<>();
    List<DaemonRef> last = new ArrayList<>();
    for (DaemonRef one : source.getDaemonsList()) {
      (troubled.contains(one) ? last : sorted).add(one);
    }
    sorted.addAll(last);
    return sorted;
  }

  /** Returns the sources of which a daemon is to be asked yet in this pass, if there is one. */
  private List<Source> openSources() {
    if (isSecondPass) {
      return sources;
    }
    List<Source> open = new ArrayList<>();
    for (Source source : sources) {
      if (!answeredWell.contains(key(source))) {
        open.add(source);
      }
    }
    return open;
  }

  private List<DaemonRef> awaited() {
    List<DaemonRef> found = new ArrayList<>();
    for (Source source : openSources()) {
      for (DaemonRef one : source.getDaemonsList()) {
        if (down.contains(one)) {
          found.add(one);
        }
      }
    }
    return found;
  }

  private Act troubleStep(List<DaemonRef> awaited, double now) {
    for (DaemonRef one : awaited) {
      Trouble trouble = troubles.get(one);
      boolean isDead = Boolean.FALSE.equals(trouble.isAlive);
      if (trouble.isToReport && !trouble.isReported && !isDead) {
        daemon = one;
        insists = Boolean.TRUE.equals(trouble.isAlive) && now - trouble.since >= INSIST_AFTER_S;
        return Act.REPORT_DAEMON;
      }
    }
    for (DaemonRef one : awaited) {
      Trouble trouble = troubles.get(one);
      if (now - trouble.since >= unreachableS) {
        reason = trouble.reason;
        return Act.GIVE_UP;
      }
    }
    return renewal(roundPauseS);
  }

  private Source nobodys() {
    for (Source source : sources) {
      if (source.getDaemonsCount() == 0) {
        return source;
      }
    }
    return null;
  }
}
