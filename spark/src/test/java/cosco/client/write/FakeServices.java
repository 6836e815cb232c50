package cosco.client.write;

import cosco.client.CoscoException;
import cosco.client.format.BlockHeader;
import cosco.client.rpc.Methods;
import cosco.client.rpc.ServiceAddress;
import cosco.client.rpc.Services;
import cosco.v1.Assignment;
import cosco.v1.CommitReply;
import cosco.v1.CommitRequest;
import cosco.v1.DaemonRef;
import cosco.v1.ErrorDetail;
import cosco.v1.ExchangeInfoReply;
import cosco.v1.ExchangeSpec;
import cosco.v1.OpenAttemptReply;
import cosco.v1.OpenAttemptRequest;
import cosco.v1.PartitionRange;
import cosco.v1.PushReply;
import cosco.v1.PushRequest;
import cosco.v1.Refusal;
import cosco.v1.RefusalCode;
import cosco.v1.RenewAssignmentsReply;
import cosco.v1.RenewAssignmentsRequest;
import io.grpc.Metadata;
import io.grpc.Server;
import io.grpc.ServerServiceDefinition;
import io.grpc.Status;
import io.grpc.netty.shaded.io.grpc.netty.NettyServerBuilder;
import io.grpc.stub.ServerCalls;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.function.Function;

/** A metadata service and a daemon that do what a test says, over real connections. */
final class FakeServices implements AutoCloseable {
  static final long NUMBER = 7;
  static final int INCARNATION = 11;

  /** A frame that came. */
  static final class Came {
    final long sequence;
    final int range;
    final int epoch;
    final byte[] body;

    Came(byte[] frame) {
      ByteBuffer header = ByteBuffer.wrap(frame).order(ByteOrder.LITTLE_ENDIAN);
      sequence = header.getLong(24);
      range = header.getInt(32);
      epoch = header.getInt(36);
      body = Arrays.copyOfRange(frame, 48, frame.length);
    }

    List<BlockHeader> blocks() throws CoscoException {
      List<BlockHeader> blocks = new ArrayList<>();
      for (int at = 0; at < body.length; at += blocks.get(blocks.size() - 1).blockBytes()) {
        blocks.add(BlockHeader.parse(body, at, body.length));
      }
      return blocks;
    }
  }

  final Server server;
  final OpenAttemptReply.Builder opened = OpenAttemptReply.newBuilder().setMapper(5).setAttempt(9);
  final BlockingQueue<CommitRequest> commits = new LinkedBlockingQueue<>();
  final BlockingQueue<RenewAssignmentsRequest> renewals = new LinkedBlockingQueue<>();
  final List<Came> frames = Collections.synchronizedList(new ArrayList<>());
  /** "ended" or "cancelled", when a push stream ends. */
  final BlockingQueue<String> ends = new LinkedBlockingQueue<>();
  /** What is answered to the next frames; when there is no more, they are acknowledged. */
  final ConcurrentLinkedQueue<PushReply> answers = new ConcurrentLinkedQueue<>();
  /** What is raised by the next calls of that name. */
  final ConcurrentLinkedQueue<ErrorDetail> commitErrors = new ConcurrentLinkedQueue<>();
  final ConcurrentLinkedQueue<ErrorDetail> renewErrors = new ConcurrentLinkedQueue<>();
  volatile Function<RenewAssignmentsRequest, RenewAssignmentsReply> renew =
      request -> RenewAssignmentsReply.getDefaultInstance();
  /** Frames are taken, and never answered: all that comes is lent. */
  volatile boolean silent;
  /** Streams that are broken off at their first frame. */
  volatile int breaks;

  /** Begins, with `ranges` ranges of `each` partitions. */
  FakeServices(int ranges, int each) throws IOException {
    server = NettyServerBuilder.forAddress(new InetSocketAddress("127.0.0.1", 0))
        .maxInboundMessageSize(64 << 20)
        .addService(ServerServiceDefinition.builder("cosco.v1.Metadata")
            .addMethod(Methods.OPEN_ATTEMPT, ServerCalls.asyncUnaryCall(this::open))
            .addMethod(Methods.RENEW_ASSIGNMENTS, ServerCalls.asyncUnaryCall(this::renewed))
            .addMethod(Methods.COMMIT, ServerCalls.asyncUnaryCall(this::commit)).build())
        .addService(ServerServiceDefinition.builder("cosco.v1.Shuffle")
            .addMethod(Methods.PUSH, ServerCalls.asyncBidiStreamingCall(Stream::new)).build())
        .build().start();
    ExchangeInfoReply.Builder info = opened.getInfoBuilder().setNumber(NUMBER).setGeneration(1)
        .setSpec(ExchangeSpec.newBuilder().setPartitions(ranges * each).setCodec("lz4"));
    for (int i = 0; i < ranges; i++) {
      info.addRanges(PartitionRange.newBuilder().setIndex(i).setFirst(i * each).setCount(each));
      info.addAssignments(assigned(i, 1));
    }
  }

  String address() {
    return "127.0.0.1:" + server.getPort();
  }

  Assignment assigned(int range, int epoch) {
    return Assignment.newBuilder().setRangeIndex(range).setEpoch(epoch)
        .setPrimary(DaemonRef.newBuilder().setIncarnation(INCARNATION).setAddress(address()))
        .build();
  }

  ExchangeWriter writer(WriterOptions options) throws CoscoException {
    Services services = new Services(new ServiceAddress(address(), "", "", "", 30));
    return new ExchangeWriter(services, "", "orders", 5, options);
  }

  /** Has the next frame that nothing else is said of refused. */
  void refuse(RefusalCode code) {
    answers.add(PushReply.newBuilder()
        .addRefused(Refusal.newBuilder().setSequence(1).setCode(code).setReason("no")).build());
  }

  static ErrorDetail error(String kind) {
    return ErrorDetail.newBuilder().setKind(kind).setMessage("of the test").build();
  }

  @Override
  public void close() {
    server.shutdownNow();
  }

  private void open(OpenAttemptRequest request, StreamObserver<OpenAttemptReply> reply) {
    reply.onNext(opened.build());
    reply.onCompleted();
  }

  private void renewed(
      RenewAssignmentsRequest request, StreamObserver<RenewAssignmentsReply> reply) {
    renewals.add(request);
    if (!raised(renewErrors.poll(), reply)) {
      reply.onNext(renew.apply(request));
      reply.onCompleted();
    }
  }

  private void commit(CommitRequest request, StreamObserver<CommitReply> reply) {
    commits.add(request);
    if (!raised(commitErrors.poll(), reply)) {
      reply.onNext(CommitReply.newBuilder().setWon(true).build());
      reply.onCompleted();
    }
  }

  private static boolean raised(ErrorDetail error, StreamObserver<?> reply) {
    if (error != null) {
      Metadata trailers = new Metadata();
      trailers.put(
          Metadata.Key.of("cosco-error-bin", Metadata.BINARY_BYTE_MARSHALLER), error.toByteArray());
      reply.onError(Status.FAILED_PRECONDITION.asRuntimeException(trailers));
    }
    return error != null;
  }

  private final class Stream implements StreamObserver<PushRequest> {
    private final StreamObserver<PushReply> replies;

    Stream(StreamObserver<PushReply> replies) {
      this.replies = replies;
    }

    @Override
    public void onNext(PushRequest request) {
      if (request.hasHello() && silent) {
        replies.onNext(PushReply.newBuilder().setEagerBytes(64 << 20).build());
      }
      if (request.getAnnounceCount() > 0) {
        replies.onNext(PushReply.newBuilder().setGranted(request.getAnnounceCount()).build());
      }
      if (request.getFrame().isEmpty()) {
        return;
      }
      if (breaks > 0) {
        breaks--;
        replies.onError(Status.UNAVAILABLE.asRuntimeException());
        return;
      }
      Came came = new Came(request.getFrame().toByteArray());
      frames.add(came);
      PushReply answer = answers.poll();
      if (answer != null) {
        PushReply.Builder own = answer.toBuilder();
        own.getRefusedBuilder(0).setSequence(came.sequence);
        replies.onNext(own.build());
      } else if (!silent) {
        replies.onNext(PushReply.newBuilder().addAcknowledged(came.sequence).build());
      }
    }

    @Override
    public void onError(Throwable error) {
      ends.add("cancelled");
    }

    @Override
    public void onCompleted() {
      ends.add("ended");
      replies.onCompleted();
    }
  }
}
