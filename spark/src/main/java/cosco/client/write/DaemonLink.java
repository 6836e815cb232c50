package cosco.client.write;

import cosco.client.CoscoException;
import cosco.client.push.Answered;
import cosco.client.push.Lane;
import cosco.client.push.LinkTrouble;
import cosco.client.push.ProtocolBroken;
import cosco.client.rpc.Services;
import cosco.v1.PushReply;
import cosco.v1.PushRequest;
import io.grpc.ClientCall;
import io.grpc.Metadata;
import io.grpc.Status;
import java.util.Collections;
import java.util.Set;

/**
 * One daemon of a writer, and the stream to it while there is one.
 *
 * <p>All of it is used with the lock of its {@link Pusher} held. What the stream says comes by
 * gRPC's threads, which wait for nothing else.
 */
final class DaemonLink {
  final Lane lane;
  final LinkTrouble trouble;
  /** When it is to be looked after, in seconds, where its stream has ended with frames left. */
  double dueS;
  /** Whether the daemon is to be tried again then, rather than asked about. */
  boolean tryAgain;

  private final Pusher pusher;
  private Stream stream; // null: there is none
  private boolean isIdle = true; // no frame was left when the stream ended

  DaemonLink(Pusher pusher, Lane lane) {
    this.pusher = pusher;
    this.lane = lane;
    this.trouble = new LinkTrouble(lane.ref, pusher.serviceTimeoutS);
  }

  /** Whether its stream has ended, or never began, and frames are left. */
  boolean needsCare() {
    return stream == null && lane.sender.size() > 0;
  }

  /** Says what is to be said, as frames were added or withdrawn. */
  void goOn() throws CoscoException {
    if (stream != null) {
      stream.say();
    } else if (isIdle) {
      connect();
    }
  }

  /** Forgets what the daemon failed at if nothing of it is left, as frames have moved. */
  void afterMove() {
    if (stream == null && lane.sender.size() == 0) {
      isIdle = true;
      trouble.over();
    }
  }

  /** Begins a stream. */
  void connect() throws CoscoException {
    Stream next = new Stream(pusher.services.push(lane.ref.getAddress()));
    lane.sender.beginStream(0);
    stream = next;
    isIdle = false;
    next.call.start(next, new Metadata());
    next.call.request(1);
    next.say();
  }

  /** Has the daemon end the stream when it has answered what it was sent. */
  void finish() {
    if (stream != null) {
      stream.call.halfClose();
      stream = null;
    }
  }

  /** Ends the stream at once. */
  void cancel(String why) {
    if (stream != null) {
      ClientCall<PushRequest, PushReply> call = stream.call;
      stream = null;
      call.cancel(why, null);
    }
  }

  private CoscoException error(String kind, String what) {
    return new CoscoException(
        kind,
        "exchange '" + pusher.shuffleId + "': the shuffle daemon at " + lane.ref.getAddress()
            + " " + what);
  }

  private void onReply(PushReply reply) throws CoscoException {
    trouble.heard(Pusher.nowS());
    try {
      Answered answered = pusher.routes.onReply(lane, reply);
      if (!answered.acknowledged.isEmpty()) {
        trouble.acknowledged();
        pusher.moved();
      }
      for (Answered.Refused one : answered.refused) {
        onRefusal(one);
      }
    } catch (ProtocolBroken broken) {
      String what = "breaks the protocol: " + broken.getMessage();
      throw new CoscoException(
          "ServiceUnavailable", error("", what).getMessage(), true, broken);
    }
    if (trouble.isRefused()) {
      cancel("refused");
      ended();
    }
  }

  private void onRefusal(Answered.Refused one) throws CoscoException {
    String told = one.refusal.getReason().trim().replaceAll("\\s+", " ");
    String reason = "refused: " + told.substring(0, Math.min(told.length(), 300));
    double now = Pusher.nowS();
    boolean full = false;
    switch (one.refusal.getCode()) {
      case REFUSAL_CODE_BAD_FRAME:
        throw error("DataCorrupted", reason);
      case REFUSAL_CODE_EXCHANGE_CLOSED:
        throw error("ExchangeClosed", reason);
      case REFUSAL_CODE_ACCESS_DENIED:
        throw error("AccessDenied", reason);
      case REFUSAL_CODE_INCOMPATIBLE:
        throw error("IncompatibleVersion", reason);
      case REFUSAL_CODE_WRONG_INCARNATION:
        trouble.replaced(reason, now);
        return;
      case REFUSAL_CODE_NO_CAPACITY:
        full = true;
        break;
      case REFUSAL_CODE_NOT_ASSIGNED:
        break;
      default:
        throw error("ServiceUnavailable", reason);
    }
    Set<Long> epochs = one.frame == null
        ? lane.sender.rangeEpochs() : Collections.singleton(one.frame.rangeEpoch());
    for (long rangeEpoch : epochs) {
      trouble.refused(rangeEpoch, reason, now, full);
    }
  }

  private void onEnd(Status status, Metadata trailers) throws CoscoException {
    if (!status.isOk()) {
      CoscoException meant =
          Services.meaning(
              status.asException(trailers), "the push stream to " + lane.ref.getAddress());
      if (!meant.is("ServiceUnavailable") || !meant.isRetriable()) {
        throw meant;
      }
      trouble.outOfReach(meant.getMessage(), Pusher.nowS());
    } else if (lane.sender.size() > 0) {
      trouble.outOfReach("it ended the stream", Pusher.nowS());
    }
    ended();
  }

  /** Has whoever waits look after what is left. */
  private void ended() {
    isIdle = false;
    afterMove();
    dueS = Pusher.nowS();
    tryAgain = false;
    pusher.wake();
  }

  /** One call to the daemon; of what is not the present one any more nothing counts. */
  private final class Stream extends ClientCall.Listener<PushReply> {
    final ClientCall<PushRequest, PushReply> call;

    Stream(ClientCall<PushRequest, PushReply> call) {
      this.call = call;
    }

    void say() {
      PushRequest request;
      while (call.isReady() && (request = lane.sender.nextRequest()) != null) {
        call.sendMessage(request);
      }
    }

    @Override
    public void onReady() {
      synchronized (pusher) {
        if (stream == this) {
          say();
        }
      }
    }

    @Override
    public void onMessage(PushReply reply) {
      synchronized (pusher) {
        if (stream != this) {
          return;
        }
        try {
          onReply(reply);
        } catch (CoscoException error) {
          pusher.fail(error);
        }
        if (stream == this) {
          call.request(1);
          say();
        }
      }
    }

    @Override
    public void onClose(Status status, Metadata trailers) {
      synchronized (pusher) {
        if (stream != this) {
          return;
        }
        stream = null;
        try {
          onEnd(status, trailers);
        } catch (CoscoException error) {
          pusher.fail(error);
        }
      }
    }
  }
}
