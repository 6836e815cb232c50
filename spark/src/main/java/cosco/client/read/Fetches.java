package cosco.client.read;

import com.google.protobuf.ByteString;
import cosco.client.CoscoException;
import cosco.client.read.state.PartReplies;
import cosco.client.read.state.SharedPass;
import cosco.client.rpc.Services;
import java.util.ArrayList;
import java.util.IdentityHashMap;
import java.util.List;
import java.util.Map;

/**
 * The streams of one pass, and how much comes ahead over all of them.
 *
 * <p>One thread uses it, but for `close`.
 */
final class Fetches implements FetchStream.Watch {
  /** A daemon serves a bounded number of readers: none keeps a turn while it waits for another. */
  private static final long IDLE_NS = 2_000_000_000L;

  /** What HTTP/2 holds of a stream that is not read, beyond the messages that were asked for. */
  private static final long WINDOW_BYTES = 2 << 20;

  private static final int MAX_ASKED_AHEAD = 16;

  /** One stream with what is made of its messages. */
  static final class Open {
    final FetchStream stream;
    final PartReplies replies;

    private Open(FetchStream stream, PartReplies replies) {
      this.stream = stream;
      this.replies = replies;
    }
  }

  private final Services services;
  private final long number;
  private final String capability;
  private final ByteString mappers;
  private final ReaderOptions options;
  private final Map<SharedPass.Ask, Open> open = new IdentityHashMap<>();
  private final List<SharedPass.Ask> unopened = new ArrayList<>();
  private final List<FetchStream> streams = new ArrayList<>(); // guarded by itself, as it is closed
  private boolean isClosed; // guarded by `streams`
  private SharedPass pass;
  long waitedNs;
  long fetchedBytes;
  long fetches;

  /** Begins without streams; `mappers`: the wanted ones, a bitmap. */
  Fetches(
      Services services, long number, String capability, ByteString mappers,
      ReaderOptions options) {
    this.services = services;
    this.number = number;
    this.capability = capability;
    this.mappers = mappers;
    this.options = options;
  }

  /** Returns the pass under way; null: there is none. */
  SharedPass pass() {
    return pass;
  }

  /** Begins a pass in the place of another one; streams are opened as they are needed. */
  void begin(SharedPass next) {
    end();
    pass = next;
    unopened.addAll(next.asks());
  }

  /** Ends the pass, and its streams. */
  void end() {
    pass = null;
    open.clear();
    unopened.clear();
    synchronized (streams) {
      for (FetchStream stream : streams) {
        stream.close();
      }
      streams.clear();
    }
  }

  /** Ends everything, from any thread. */
  void close() {
    synchronized (streams) {
      isClosed = true;
      for (FetchStream stream : streams) {
        stream.close();
      }
    }
  }

  /** Returns the stream of one request of the pass; null: it was ended, as it was idle. */
  Open open(SharedPass.Ask ask) throws CoscoException {
    Open found = open.get(ask);
    if (found == null && unopened.remove(ask)) {
      found = begin(ask);
    }
    return found;
  }

  private Open begin(SharedPass.Ask ask) throws CoscoException {
    ByteString named = pass.namesMappers() ? mappers : ByteString.EMPTY;
    Open made;
    synchronized (streams) {
      if (isClosed) {
        throw new CoscoException("ClientClosed", "the reader was closed");
      }
      FetchStream stream = new FetchStream(
          services, ask.daemon.getAddress(), ask.request(number, named, capability),
          options.stallS, this);
      made = new Open(stream, new PartReplies(ask.partitions, stream));
      streams.add(stream);
    }
    fetches++;
    open.put(ask, made);
    return made;
  }

  @Override
  public void takes(FetchStream current) {
    int others = 0;
    long reserved = 0;
    for (Open one : open.values()) {
      reserved += one.stream.reservedBytes();
      if (!one.stream.isOver()) {
        others++;
        reserved += WINDOW_BYTES;
      }
    }
    if (!current.isOver() && current.isIdle()) {
      current.request();
      reserved += FetchStream.MESSAGE_BYTES;
    }
    long share = Math.max(
        2 * FetchStream.MESSAGE_BYTES, options.prefetchBytes / (others + unopened.size() + 1));
    reserved = ahead(current, reserved, share);
    for (Open one : open.values()) {
      reserved = ahead(one.stream, reserved, share);
    }
    openAhead(reserved);
  }

  private long ahead(FetchStream stream, long before, long share) {
    long reserved = before;
    int most = MAX_ASKED_AHEAD;
    while (!stream.isOver() && most-- > 0
        && reserved + FetchStream.MESSAGE_BYTES <= options.prefetchBytes
        && stream.reservedBytes() + FetchStream.MESSAGE_BYTES <= share) {
      stream.request();
      reserved += FetchStream.MESSAGE_BYTES;
    }
    return reserved;
  }

  private void openAhead(long before) {
    long reserved = before + WINDOW_BYTES + FetchStream.MESSAGE_BYTES;
    while (!unopened.isEmpty() && reserved <= options.prefetchBytes) {
      try {
        begin(unopened.remove(0)).stream.request();
      } catch (CoscoException error) {
        return; // whoever comes to its place is told
      }
      reserved += WINDOW_BYTES + FetchStream.MESSAGE_BYTES;
    }
  }

  @Override
  public void took(int bytes) {
    fetchedBytes += bytes;
  }

  @Override
  public void waits(FetchStream current, long soFarNs) {
    if (soFarNs < IDLE_NS) {
      return;
    }
    open.values().removeIf(one -> {
      boolean isEnded = one.stream != current && !one.stream.isOver();
      if (isEnded) {
        one.stream.close();
      }
      return isEnded;
    });
  }

  @Override
  public void waited(long ns) {
    waitedNs += ns;
  }
}
