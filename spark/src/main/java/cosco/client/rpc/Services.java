package cosco.client.rpc;

import cosco.client.CoscoException;
import cosco.v1.ErrorDetail;
import cosco.v1.FetchRequest;
import cosco.v1.PushReply;
import cosco.v1.PushRequest;
import io.grpc.CallOptions;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptors;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.MetadataUtils;
import java.util.Random;
import java.util.concurrent.TimeUnit;

/**
 * Calls of the metadata service and of daemons.
 *
 * <p>A call of the metadata service that fails on its way is made again, at the next address if there
 * are several, until the service has been away for `serviceTimeoutS`: every call is safe to repeat.
 * Calls of daemons are made once: who makes them knows what else to do.
 */
public final class Services {
  /** The deadline of one try, on top of what the service is asked to wait. */
  private static final double CALL_TIMEOUT_S = 10;

  /** A service that never answered this process is given up after so long. */
  private static final double FIRST_CONTACT_S = 15;

  /** A push stream takes the next frame while less than this waits for the connection. */
  private static final int PUSH_BUFFER_BYTES = 1 << 20;

  private static final Metadata.Key<byte[]> ERROR =
      Metadata.Key.of("cosco-error-bin", Metadata.BINARY_BYTE_MARSHALLER);
  private static final Metadata.Key<String> AUTHORIZATION =
      Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

  private final ServiceAddress address;
  private final Random random = new Random();
  private volatile int current;
  private volatile boolean met;

  /** Begins without calling. */
  public Services(ServiceAddress address) {
    this.address = address;
  }

  /** Returns how long a service that was met is waited for. */
  public double serviceTimeoutS() {
    return address.serviceTimeoutS;
  }

  /** Counts the service as one that has answered, as it has answered who gave out its address. */
  public void setMet() {
    met = true;
  }

  /**
   * Calls the metadata service.
   *
   * @param credential a token or a capability; empty where nobody needs one
   * @param waitS what the request asks the service to wait
   * @throws CoscoException what the service means, or ServiceUnavailable
   */
  public <Q, R> R metadata(
      MethodDescriptor<Q, R> method, Q request, String credential, double waitS)
      throws CoscoException {
    return metadata(method, request, credential, waitS, address.serviceTimeoutS);
  }

  /** Does the same, but waits no longer than `outageS` for a service that is away. */
  public <Q, R> R metadata(
      MethodDescriptor<Q, R> method, Q request, String credential, double waitS, double outageS)
      throws CoscoException {
    long start = System.nanoTime();
    for (int failures = 0; ; failures++) {
      String where = address.metadata[current % address.metadata.length];
      try {
        R reply = tried(method, request, credential, waitS, where);
        met = true;
        return reply;
      } catch (StatusRuntimeException error) {
        CoscoException meant = meaning(error, method.getBareMethodName() + " at " + where);
        if (!isPassing(error, meant)) {
          throw meant;
        }
        double patienceS = met ? outageS : Math.min(FIRST_CONTACT_S, outageS);
        if ((System.nanoTime() - start) / 1e9 >= patienceS) {
          throw meant;
        }
        current++;
        pause(failures);
      }
    }
  }

  private <Q, R> R tried(
      MethodDescriptor<Q, R> method, Q request, String credential, double waitS, String where)
      throws CoscoException {
    CallOptions options = CallOptions.DEFAULT.withDeadlineAfter(
        (long) ((waitS + CALL_TIMEOUT_S) * 1e3), TimeUnit.MILLISECONDS);
    ManagedChannel channel = Channels.to(address, where);
    if (credential.isEmpty()) {
      return ClientCalls.blockingUnaryCall(channel, method, options, request);
    }
    Metadata headers = new Metadata();
    headers.put(AUTHORIZATION, "Bearer " + credential);
    return ClientCalls.blockingUnaryCall(
        ClientInterceptors.intercept(
            channel, MetadataUtils.newAttachHeadersInterceptor(headers)),
        method, options, request);
  }

  /** Opens a push stream to a daemon. */
  public ClientCall<PushRequest, PushReply> push(String daemon) throws CoscoException {
    return Channels.to(address, daemon).newCall(
        Methods.PUSH, CallOptions.DEFAULT.withOnReadyThreshold(PUSH_BUFFER_BYTES));
  }

  /** Opens a fetch at a daemon; its replies are messages of FetchReply. */
  public ClientCall<FetchRequest, byte[]> fetch(String daemon) throws CoscoException {
    return Channels.to(address, daemon).newCall(Methods.FETCH, CallOptions.DEFAULT);
  }

  /** Returns what a failed call means, in terms of cosco.errors. */
  public static CoscoException meaning(Throwable error, String where) {
    Status status = Status.fromThrowable(error);
    Metadata trailers = Status.trailersFromThrowable(error);
    byte[] detail = trailers == null ? null : trailers.get(ERROR);
    if (detail != null) {
      try {
        ErrorDetail meant = ErrorDetail.parseFrom(detail);
        return new CoscoException(meant.getKind(), meant.getMessage(), meant.getRetriable(), null);
      } catch (com.google.protobuf.InvalidProtocolBufferException broken) {
        // What the status says has to do.
      }
    }
    String reason = where + " failed: " + status.getCode() + ": " + status.getDescription();
    return new CoscoException("ServiceUnavailable", reason, isPassing(status), error);
  }

  private static boolean isPassing(StatusRuntimeException error, CoscoException meant) {
    return meant.is("ServiceUnavailable") && meant.isRetriable() && isPassing(error.getStatus());
  }

  private static boolean isPassing(Status status) {
    switch (status.getCode()) {
      case UNAVAILABLE:
      case DEADLINE_EXCEEDED:
      case CANCELLED:
      case ABORTED:
        return true;
      case RESOURCE_EXHAUSTED:
        return String.valueOf(status.getDescription()).contains("Concurrent RPC limit exceeded");
      default:
        return false;
    }
  }

  private void pause(int failures) throws CoscoException {
    double longestS = Math.min(1.0, 0.05 * (1 << Math.min(failures, 5)));
    try {
      Thread.sleep((long) (1e3 * longestS * random.nextDouble()) + 1);
    } catch (InterruptedException error) {
      Thread.currentThread().interrupt();
      throw new CoscoException("ClientClosed", "interrupted in a call", false, error);
    }
  }
}
