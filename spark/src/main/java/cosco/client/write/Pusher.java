package cosco.client.write;

import com.google.protobuf.ByteString;
import cosco.client.CoscoException;
import cosco.client.push.Lane;
import cosco.client.push.Question;
import cosco.client.push.Routes;
import cosco.client.rpc.Methods;
import cosco.client.rpc.Services;
import cosco.v1.Assignment;
import cosco.v1.OpenAttemptReply;
import cosco.v1.RangeEpoch;
import cosco.v1.RenewAssignmentsReply;
import cosco.v1.RenewAssignmentsRequest;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Random;
import java.util.TreeSet;

/**
 * Frames of a writer on their way to daemons: one window over all of them, a link to each.
 *
 * <p>What goes where, and what counts, is decided in {@link Routes}; what to do about a daemon that
 * fails, in {@link cosco.client.push.LinkTrouble}. Here are the lock around them, which is this
 * object, and the waits: the writer's own thread asks the metadata service while it waits, so there
 * are no other threads than gRPC's.
 */
final class Pusher {
  /** A writer that sees nothing move for so long asks whether its exchange is still there. */
  private static final double QUIET_S = 5;

  /** How long the metadata service is asked to wait for a newer assignment, each time. */
  private static final double RENEW_WAIT_S = 2;

  /** How long it may be out of reach before the daemon is tried again. */
  private static final double RENEW_OUTAGE_S = 1;

  final Services services;
  final String shuffleId;
  final double serviceTimeoutS;
  final Routes routes;

  private final OpenAttemptReply opened;
  private final String credential;
  private final Random random = new Random();
  private final Map<Lane, DaemonLink> links = new LinkedHashMap<>();
  private CoscoException failure;
  private boolean closed;
  private long moves; // counts what moved
  private long waitedNs;

  Pusher(
      Services services, String credential, String shuffleId, OpenAttemptReply opened,
      WriterOptions options) {
    this.services = services;
    this.credential = credential;
    this.shuffleId = shuffleId;
    this.opened = opened;
    this.serviceTimeoutS = services.serviceTimeoutS();
    this.routes = new Routes(
        opened, Methods.PROTOCOL, options.windowBytes, options.maxFramesUnderWay);
  }

  static double nowS() {
    return System.nanoTime() / 1e9;
  }

  /** Takes a frame once there is room for it in the window. */
  void push(int range, int blocks, ByteString body) throws CoscoException {
    await(body.size());
    synchronized (this) {
      check();
      serve(routes.put(range, blocks, body));
    }
  }

  /** Waits until every frame is acknowledged, and returns the epochs in which they were. */
  long[] flush() throws CoscoException {
    await(-1);
    synchronized (this) {
      return routes.acknowledged();
    }
  }

  /** Raises what the writer failed with. */
  synchronized void check() throws CoscoException {
    if (failure != null) {
      throw failure;
    }
    if (closed) {
      throw new CoscoException(
          "ClientClosed", "exchange '" + shuffleId + "': the writer was closed or aborted");
    }
  }

  /** Ends all streams, gently if every frame is acknowledged, and drops what is left. */
  synchronized void close() {
    boolean gently = !closed && failure == null && routes.frames() == 0;
    closed = true;
    for (DaemonLink link : links.values()) {
      if (gently) {
        link.finish();
      } else {
        link.cancel("the writer is closed");
      }
    }
    links.clear();
    routes.drop();
    notifyAll();
  }

  synchronized long waitedNs() {
    return waitedNs;
  }

  synchronized long resentFrames() {
    return routes.resentFrames();
  }

  // --- for the links, with the lock held ----------------------------------------------------

  void moved() {
    moves++;
    notifyAll();
  }

  void wake() {
    notifyAll();
  }

  void fail(CoscoException error) {
    if (failure == null && !closed) {
      failure = error;
    }
    for (DaemonLink link : links.values()) {
      link.cancel("the writer has failed");
    }
    notifyAll();
  }

  // --- the waits of the writer's thread -----------------------------------------------------

  /** Waits for room for a frame with such a body, or, for -1, until every frame is acknowledged. */
  private void await(int bodyBytes) throws CoscoException {
    double awaySince = Double.NaN;
    long begin = 0;
    try {
      while (true) {
        boolean quiet;
        synchronized (this) {
          check();
          if (isReached(bodyBytes)) {
            return;
          }
          begin = begin == 0 ? System.nanoTime() : begin;
          long before = moves;
          DaemonLink link = waitForCare(bodyBytes);
          if (link != null) {
            awaySince = Double.NaN;
          }
          quiet = link == null && !isReached(bodyBytes) && failure == null && !closed;
          if (moves != before) {
            awaySince = Double.NaN;
          }
        }
        careForAll();
        if (quiet) {
          awaySince = lookForExchange(awaySince);
        }
      }
    } finally {
      if (begin != 0) {
        long end = System.nanoTime();
        synchronized (this) {
          waitedNs += end - begin;
        }
      }
    }
  }

  private boolean isReached(int bodyBytes) {
    return bodyBytes < 0 ? routes.frames() == 0 : routes.hasRoom(bodyBytes);
  }

  /**
   * Waits until it is reached, or a link is due.
   *
   * @return that link; null: it is reached, the writer has ended, or nothing moved for a while
   */
  private DaemonLink waitForCare(int bodyBytes) throws CoscoException {
    double quietS = Math.min(QUIET_S, serviceTimeoutS + 0.5);
    double quietAt = nowS() + quietS;
    long before = moves;
    while (failure == null && !closed && !isReached(bodyBytes)) {
      double now = nowS();
      if (moves != before) {
        before = moves;
        quietAt = now + quietS;
      }
      DaemonLink first = firstDue();
      if (first != null && first.dueS <= now) {
        return first;
      }
      if (quietAt <= now) {
        return null;
      }
      double untilS = Math.min(quietAt, first == null ? quietAt : first.dueS);
      try {
        wait(Math.max(1, (long) Math.ceil(1e3 * (untilS - now))));
      } catch (InterruptedException error) {
        throw interrupted(error);
      }
    }
    return null;
  }

  private DaemonLink firstDue() {
    DaemonLink first = null;
    for (DaemonLink link : links.values()) {
      if (link.needsCare() && (first == null || link.dueS < first.dueS)) {
        first = link;
      }
    }
    return first;
  }

  private CoscoException interrupted(InterruptedException error) {
    Thread.currentThread().interrupt();
    return new CoscoException(
        "ClientClosed", "exchange '" + shuffleId + "': the writer was interrupted", false, error);
  }

  /** Asks whether the exchange is still there; raises if not, or when the service stays away. */
  private double lookForExchange(double awaySince) throws CoscoException {
    try {
      renew(new Question(new TreeSet<>(), null, false), 0, RENEW_OUTAGE_S);
      return Double.NaN;
    } catch (CoscoException error) {
      double since = Double.isNaN(awaySince) ? nowS() : awaySince;
      if (!isAway(error) || nowS() - since >= serviceTimeoutS) {
        throw error;
      }
      return since;
    }
  }

  private static boolean isAway(CoscoException error) {
    return error.is("ServiceUnavailable") && error.isRetriable();
  }

  // --- what to do about daemons that fail ---------------------------------------------------

  /** Does for each link that is due what is to be done. */
  private void careForAll() throws CoscoException {
    while (true) {
      DaemonLink link;
      Question question;
      int ill = 0;
      synchronized (this) {
        link = firstDue();
        if (failure != null || closed || link == null || link.dueS > nowS()) {
          return;
        }
        for (DaemonLink one : links.values()) {
          ill += one.needsCare() ? 1 : 0;
        }
        question = link.tryAgain ? null : link.trouble.question(routes, nowS());
        if (question == null) {
          link.connect();
        }
      }
      if (question != null) {
        ask(link, question, ill);
      }
    }
  }

  /** Asks who takes over what a daemon failed at; raises what the writer fails with. */
  private void ask(DaemonLink link, Question question, int ill) throws CoscoException {
    double remainingS;
    synchronized (this) {
      remainingS = link.trouble.remainingS(nowS());
    }
    double waitS = Math.min(RENEW_WAIT_S / ill, remainingS);
    RenewAssignmentsReply answer = null;
    CoscoException away = null;
    try {
      answer = renew(question, waitS, Math.min(RENEW_OUTAGE_S, remainingS));
    } catch (CoscoException error) {
      if (!isAway(error)) {
        throw error;
      }
      away = error;
    }
    synchronized (this) {
      if (answer == null) {
        link.trouble.unanswered(String.valueOf(away.getMessage()));
        link.tryAgain = true;
      } else {
        boolean moved = take(answer.getAssignmentsList());
        link.tryAgain = link.trouble.answered(answer, moved);
        if (moved) {
          return; // and there may be another question at once
        }
      }
      if (link.trouble.remainingS(nowS()) <= 0) {
        throw link.trouble.error(shuffleId);
      }
      link.dueS = nowS() + link.trouble.pauseS() * (0.5 + random.nextDouble() / 2);
    }
  }

  private RenewAssignmentsReply renew(Question question, double waitS, double outageS)
      throws CoscoException {
    RenewAssignmentsRequest.Builder request = RenewAssignmentsRequest.newBuilder()
        .setNumber(opened.getInfo().getNumber())
        .setGeneration(opened.getInfo().getGeneration())
        .setInsist(question.insist)
        .setWaitS(waitS);
    for (long one : question.stale) {
      request.addStale(
          RangeEpoch.newBuilder().setRangeIndex((int) (one >>> 32)).setEpoch((int) one));
    }
    if (question.suspect != null) {
      request.setSuspect(question.suspect);
    }
    return services.metadata(
        Methods.RENEW_ASSIGNMENTS, request.build(), credential, waitS, outageS);
  }

  /** Moves frames to newer assignments, and returns whether any is newer. */
  private boolean take(Iterable<Assignment> assignments) throws CoscoException {
    if (closed || !routes.renew(assignments)) {
      return false;
    }
    for (DaemonLink link : links.values()) {
      link.afterMove();
    }
    for (Lane lane : routes.lanes()) {
      if (lane.sender.size() > 0) {
        serve(lane);
      }
    }
    for (Lane lane : routes.retire()) {
      DaemonLink link = links.remove(lane);
      if (link != null) {
        link.finish();
      }
    }
    moved();
    return true;
  }

  /** Has the frames of a lane sent. */
  private void serve(Lane lane) throws CoscoException {
    DaemonLink link = links.get(lane);
    if (link == null) {
      link = new DaemonLink(this, lane);
      links.put(lane, link);
    }
    link.goOn();
  }
}
