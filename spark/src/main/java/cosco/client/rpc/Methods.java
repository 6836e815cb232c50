package cosco.client.rpc;

import com.google.protobuf.Message;
import cosco.v1.AwaitCommitsReply;
import cosco.v1.AwaitCommitsRequest;
import cosco.v1.CloseApplicationReply;
import cosco.v1.CloseApplicationRequest;
import cosco.v1.CloseExchangeReply;
import cosco.v1.CloseExchangeRequest;
import cosco.v1.CommitReply;
import cosco.v1.CommitRequest;
import cosco.v1.CreateApplicationReply;
import cosco.v1.CreateApplicationRequest;
import cosco.v1.CreateExchangeRequest;
import cosco.v1.DescribeExchangeRequest;
import cosco.v1.ExchangeInfoReply;
import cosco.v1.FetchRequest;
import cosco.v1.FixRowKindRequest;
import cosco.v1.OpenAttemptReply;
import cosco.v1.OpenAttemptRequest;
import cosco.v1.PollApplicationReply;
import cosco.v1.PollApplicationRequest;
import cosco.v1.PushReply;
import cosco.v1.PushRequest;
import cosco.v1.RenewAssignmentsReply;
import cosco.v1.RenewAssignmentsRequest;
import cosco.v1.ReportDaemonReply;
import cosco.v1.ReportDaemonRequest;
import cosco.v1.ReportLossReply;
import cosco.v1.ReportLossRequest;
import io.grpc.MethodDescriptor;
import io.grpc.MethodDescriptor.MethodType;
import io.grpc.protobuf.ProtoUtils;

/** The calls of the services that this client makes, as protos/cosco/v1 has them. */
public final class Methods {
  public static final MethodDescriptor<CreateApplicationRequest, CreateApplicationReply>
      CREATE_APPLICATION = unary("CreateApplication",
          CreateApplicationRequest.getDefaultInstance(), CreateApplicationReply.getDefaultInstance());
  public static final MethodDescriptor<PollApplicationRequest, PollApplicationReply>
      POLL_APPLICATION = unary("PollApplication",
          PollApplicationRequest.getDefaultInstance(), PollApplicationReply.getDefaultInstance());
  public static final MethodDescriptor<CloseApplicationRequest, CloseApplicationReply>
      CLOSE_APPLICATION = unary("CloseApplication",
          CloseApplicationRequest.getDefaultInstance(), CloseApplicationReply.getDefaultInstance());
  public static final MethodDescriptor<CreateExchangeRequest, ExchangeInfoReply> CREATE_EXCHANGE =
      unary("CreateExchange",
          CreateExchangeRequest.getDefaultInstance(), ExchangeInfoReply.getDefaultInstance());
  public static final MethodDescriptor<DescribeExchangeRequest, ExchangeInfoReply> DESCRIBE_EXCHANGE =
      unary("DescribeExchange",
          DescribeExchangeRequest.getDefaultInstance(), ExchangeInfoReply.getDefaultInstance());
  public static final MethodDescriptor<FixRowKindRequest, ExchangeInfoReply> FIX_ROW_KIND =
      unary("FixRowKind",
          FixRowKindRequest.getDefaultInstance(), ExchangeInfoReply.getDefaultInstance());
  public static final MethodDescriptor<CloseExchangeRequest, CloseExchangeReply> CLOSE_EXCHANGE =
      unary("CloseExchange",
          CloseExchangeRequest.getDefaultInstance(), CloseExchangeReply.getDefaultInstance());
  public static final MethodDescriptor<OpenAttemptRequest, OpenAttemptReply> OPEN_ATTEMPT =
      unary("OpenAttempt",
          OpenAttemptRequest.getDefaultInstance(), OpenAttemptReply.getDefaultInstance());
  public static final MethodDescriptor<RenewAssignmentsRequest, RenewAssignmentsReply>
      RENEW_ASSIGNMENTS = unary("RenewAssignments",
          RenewAssignmentsRequest.getDefaultInstance(), RenewAssignmentsReply.getDefaultInstance());
  public static final MethodDescriptor<CommitRequest, CommitReply> COMMIT =
      unary("Commit", CommitRequest.getDefaultInstance(), CommitReply.getDefaultInstance());
  public static final MethodDescriptor<AwaitCommitsRequest, AwaitCommitsReply> AWAIT_COMMITS =
      unary("AwaitCommits",
          AwaitCommitsRequest.getDefaultInstance(), AwaitCommitsReply.getDefaultInstance());
  public static final MethodDescriptor<ReportLossRequest, ReportLossReply> REPORT_LOSS =
      unary("ReportLoss",
          ReportLossRequest.getDefaultInstance(), ReportLossReply.getDefaultInstance());
  public static final MethodDescriptor<ReportDaemonRequest, ReportDaemonReply> REPORT_DAEMON =
      unary("ReportDaemon",
          ReportDaemonRequest.getDefaultInstance(), ReportDaemonReply.getDefaultInstance());

  public static final MethodDescriptor<PushRequest, PushReply> PUSH =
      method("Shuffle/Push", MethodType.BIDI_STREAMING,
          PushRequest.getDefaultInstance(), PushReply.getDefaultInstance());
  /** Its replies are FetchReply, left as they came: so that the bytes of rows are copied once. */
  public static final MethodDescriptor<FetchRequest, byte[]> FETCH =
      MethodDescriptor.<FetchRequest, byte[]>newBuilder()
          .setType(MethodType.SERVER_STREAMING)
          .setFullMethodName("cosco.v1.Shuffle/Fetch")
          .setRequestMarshaller(ProtoUtils.marshaller(FetchRequest.getDefaultInstance()))
          .setResponseMarshaller(new RawMessages())
          .build();

  /** The protocol that this client speaks, as cosco/protocol/version.py has it. */
  public static final int PROTOCOL = 2;

  private Methods() {}

  private static <Q extends Message, R extends Message> MethodDescriptor<Q, R> unary(
      String name, Q request, R reply) {
    return method("Metadata/" + name, MethodType.UNARY, request, reply);
  }

  private static <Q extends Message, R extends Message> MethodDescriptor<Q, R> method(
      String name, MethodType type, Q request, R reply) {
    return MethodDescriptor.<Q, R>newBuilder()
        .setType(type)
        .setFullMethodName("cosco.v1." + name)
        .setRequestMarshaller(ProtoUtils.marshaller(request))
        .setResponseMarshaller(ProtoUtils.marshaller(reply))
        .build();
  }
}
