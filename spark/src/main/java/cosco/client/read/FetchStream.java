package cosco.client.read;

import cosco.client.CoscoException;
import cosco.client.read.state.BrokenStream;
import cosco.client.read.state.Messages;
import cosco.client.rpc.Services;
import cosco.v1.FetchRequest;
import io.grpc.ClientCall;
import io.grpc.Metadata;
import io.grpc.Status;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;

/**
 * One fetch: gRPC puts messages into a queue, the reader's thread takes them.
 *
 * <p>No more come than were asked for, so that the queue is bounded by who calls `request`.
 */
final class FetchStream extends ClientCall.Listener<byte[]> implements Messages {
  /** How long a message of a daemon is at most, nearly. */
  static final long MESSAGE_BYTES = (1 << 20) + (64 << 10);

  private static final Object CLOSED = new Object();
  private static final Object END = new Object();

  private final ClientCall<FetchRequest, byte[]> call;
  private final String address;
  private final double stallS;
  private final Watch watch;
  private final LinkedBlockingQueue<Object> inbox = new LinkedBlockingQueue<>();
  private final AtomicLong queuedBytes = new AtomicLong();
  private final AtomicInteger asked = new AtomicInteger();
  private volatile boolean isOver; // no message comes any more
  private volatile boolean isClosed; // nobody takes one any more

  /** Is told what the reader's thread does. */
  interface Watch {
    /** A message of the stream is about to be taken: see that others come. */
    void takes(FetchStream stream);

    /** A message was taken. */
    void took(int bytes);

    /** The reader's thread has waited for so long, and goes on waiting. */
    void waits(FetchStream stream, long waitedNs);

    /** The wait is over. */
    void waited(long ns);
  }

  /** Begins the call, without asking for messages. */
  FetchStream(Services services, String address, FetchRequest request, double stallS, Watch watch)
      throws CoscoException {
    this.address = address;
    this.stallS = stallS;
    this.watch = watch;
    call = services.fetch(address);
    call.start(this, new Metadata());
    call.sendMessage(request);
    call.halfClose();
  }

  /** Returns what it has, or may come to have, in bytes. */
  long reservedBytes() {
    return queuedBytes.get() + asked.get() * MESSAGE_BYTES;
  }

  /** Returns whether no message is there or on its way. */
  boolean isIdle() {
    return asked.get() == 0 && inbox.isEmpty();
  }

  boolean isOver() {
    return isOver;
  }

  /** Has one more message come. */
  void request() {
    asked.incrementAndGet();
    call.request(1);
  }

  @Override
  public void onMessage(byte[] message) {
    queuedBytes.addAndGet(message.length);
    asked.decrementAndGet();
    inbox.add(message);
  }

  @Override
  public void onClose(Status status, Metadata trailers) {
    isOver = true;
    asked.set(0);
    inbox.add(status.isOk() ? END : status.asRuntimeException(trailers));
  }

  @Override
  public byte[] next() throws BrokenStream, CoscoException {
    Object found = poll();
    if (found instanceof byte[]) {
      byte[] message = (byte[]) found;
      queuedBytes.addAndGet(-message.length);
      watch.took(message.length);
      return message;
    }
    if (found == END) {
      return null;
    }
    if (found == CLOSED || isClosed) {
      throw new CoscoException("ClientClosed", "the reader was closed");
    }
    if (found == null) {
      throw new BrokenStream("nothing came from it for " + stallS + " s", true, false);
    }
    CoscoException meant =
        Services.meaning((Throwable) found, "a fetch at " + address);
    if (meant.getCause() != null) { // not of the daemon: the call failed on its way
      throw new BrokenStream(meant.getMessage(), false, false);
    }
    if (meant.isRetriable()) {
      throw new BrokenStream(meant.toString(), false, true);
    }
    throw meant;
  }

  private Object poll() throws CoscoException {
    watch.takes(this);
    Object found = inbox.poll();
    if (found != null) {
      return found;
    }
    long began = System.nanoTime();
    long now = began;
    try {
      while (found == null && now - began < (long) (stallS * 1e9)) {
        long leftNs = (long) (stallS * 1e9) - (now - began);
        found = inbox.poll(
            Math.min(leftNs, TimeUnit.MILLISECONDS.toNanos(500)), TimeUnit.NANOSECONDS);
        now = System.nanoTime();
        if (found == null) {
          watch.waits(this, now - began);
        }
      }
      return found;
    } catch (InterruptedException error) {
      Thread.currentThread().interrupt();
      throw new CoscoException("ClientClosed", "interrupted while it read", false, error);
    } finally {
      watch.waited(System.nanoTime() - began);
    }
  }

  /** Ends the call, from any thread; a wait of the reader's thread ends. */
  void close() {
    isClosed = true;
    inbox.add(CLOSED);
    call.cancel("the reader has what it needs, or ends", null);
  }
}
