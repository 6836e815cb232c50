package cosco.spark;

import com.google.protobuf.ByteString;
import cosco.client.CoscoException;
import cosco.client.format.Bitmaps;
import cosco.client.rpc.Methods;
import cosco.client.rpc.Services;
import cosco.v1.ApplicationAnswer;
import cosco.v1.ApplicationCall;
import cosco.v1.CloseApplicationRequest;
import cosco.v1.CloseExchangeRequest;
import cosco.v1.CreateApplicationRequest;
import cosco.v1.CreateExchangeRequest;
import cosco.v1.ExchangeInfoReply;
import cosco.v1.ExchangeSpec;
import cosco.v1.FixRowKindRequest;
import cosco.v1.PollApplicationReply;
import cosco.v1.PollApplicationRequest;
import cosco.v1.RowKind;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.security.SecureRandom;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import org.apache.spark.MapOutputTrackerMaster;
import org.apache.spark.ShuffleDependency;
import org.apache.spark.SparkEnv;
import org.roaringbitmap.IntConsumer;
import org.roaringbitmap.RoaringBitmap;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The driver's part: one application for all shuffles, whose lease it renews, and whose lost mappers
 * it takes out of Spark's books, so that those run again and no others.
 */
final class DriverSide {
  private static final Logger LOG = LoggerFactory.getLogger(DriverSide.class);
  private static final int MAX_LABEL_BYTES = 200;
  private static final double POLL_S = 10;
  private static final int MAX_PAUSE_MS = 1000;
  /** So long the end of a session waits for a service that is away: leases end as well. */
  private static final int STOP_S = 5;
  /** And so long another shuffle does, after one that has waited as long as it may. */
  private static final int AWAY_S = 1;

  private final CoscoOptions options;
  private final String label;
  private final Services services;
  private final ByteString owner;
  /** By Spark's id of the shuffle, and by the exchange's number. */
  private final Map<Integer, OpenExchange> open = new ConcurrentHashMap<>();

  private final Map<Long, OpenExchange> byNumber = new ConcurrentHashMap<>();
  // Closes exchanges: Spark's cleaner is not to wait for a service that is away.
  private final ExecutorService closing = Executors.newSingleThreadExecutor(DriverSide::thread);
  private Thread poller;
  private volatile String application;
  private volatile boolean isStopped;
  private volatile boolean isAway;

  /**
   * label: the name of the application, for people.
   *
   * <p>Throws IllegalArgumentException if there is no such file of a token.
   */
  DriverSide(CoscoOptions options, String label) {
    this.options = options;
    this.label = label;
    services = new Services(options.address);
    byte[] secret = new byte[16];
    new SecureRandom().nextBytes(secret);
    owner = ByteString.copyFrom(secret);
    try {
      token();
    } catch (CoscoException error) {
      throw new IllegalArgumentException(error.getMessage(), error);
    }
  }

  /**
   * Makes the exchange of a shuffle.
   *
   * <p>Throws ServiceUnavailable when the service has been away for long. What comes next does not
   * wait as long again if it can be left to Spark's own shuffle.
   */
  <K, V, C> CoscoShuffleHandle<K, V, C> register(
      int shuffleId, ShuffleDependency<K, V, C> dependency) throws CoscoException {
    try {
      CoscoShuffleHandle<K, V, C> handle = made(shuffleId, dependency);
      isAway = false;
      return handle;
    } catch (CoscoException error) {
      isAway = error.is("ServiceUnavailable");
      throw error;
    }
  }

  private double patienceS() {
    boolean waits = !isAway || options.fallback.equals(CoscoOptions.FALLBACK_FAIL);
    return waits ? services.serviceTimeoutS() : AWAY_S;
  }

  private <K, V, C> CoscoShuffleHandle<K, V, C> made(
      int shuffleId, ShuffleDependency<K, V, C> dependency) throws CoscoException {
    String id = application() + "/shuffle-" + shuffleId;
    boolean isIndeterminate =
        "INDETERMINATE".equals(dependency.rdd().outputDeterministicLevel().toString());
    ExchangeSpec.Builder spec = ExchangeSpec.newBuilder()
        .setShuffleId(id)
        .setPartitions(dependency.partitioner().numPartitions())
        .setReplicas(options.replicas)
        .setMinReplicas(1)
        .setCodec(options.codec)
        .setDeterministic(true) // of mappers: see CoscoShuffleHandle.isIndeterminate
        .setLeaseS(options.leaseS);
    if (!isIndeterminate) {
      spec.setMappers(dependency.rdd().getNumPartitions());
    }
    ExchangeInfoReply info = services.metadata(Methods.CREATE_EXCHANGE,
        CreateExchangeRequest.newBuilder().setSpec(spec).setOwner(owner).setCallback(true)
            .setApplicationId(application()).setProtocol(Methods.PROTOCOL).build(),
        token(), 0, patienceS());
    services.metadata(Methods.FIX_ROW_KIND,
        FixRowKindRequest.newBuilder().setNumber(info.getNumber())
            .setKind(RowKind.ROW_KIND_OPAQUE).setSeen(ByteString.EMPTY).build(),
        token(), 0, patienceS());
    CoscoShuffleHandle<K, V, C> handle = new CoscoShuffleHandle<>(
        shuffleId, dependency, id, info.getNumber(), info.getCapability(), isIndeterminate);
    OpenExchange exchange = new OpenExchange(handle);
    byNumber.put(exchange.number, exchange);
    open.put(shuffleId, exchange);
    return handle;
  }

  /** Lets an exchange go, in the background. */
  void unregister(int shuffleId) {
    OpenExchange exchange = open.remove(shuffleId);
    if (exchange == null || isStopped) {
      return;
    }
    byNumber.remove(exchange.number);
    closing.execute(() -> {
      try {
        services.metadata(Methods.CLOSE_EXCHANGE,
            CloseExchangeRequest.newBuilder().setShuffleId(exchange.id).setOwner(owner).build(),
            token(), 0);
      } catch (CoscoException | RuntimeException error) {
        LOG.warn("Exchange {} was not closed, and ends with its application: {}", exchange.id,
            error.toString());
      }
    });
  }

  /** Ends the application, with what is open of it. */
  void stop() {
    isStopped = true;
    closing.shutdown();
    Thread polls;
    synchronized (this) {
      polls = poller;
    }
    if (polls == null) {
      return;
    }
    polls.interrupt();
    try {
      closing.awaitTermination(STOP_S, TimeUnit.SECONDS);
      services.metadata(Methods.CLOSE_APPLICATION,
          CloseApplicationRequest.newBuilder().setApplicationId(application).setOwner(owner).build(),
          token(), 0, STOP_S);
      polls.join(1000);
      closing.shutdownNow();
    } catch (InterruptedException error) {
      Thread.currentThread().interrupt();
    } catch (CoscoException error) {
      LOG.warn("Application {} was not closed, and ends with its lease: {}", application,
          error.toString());
    }
  }

  private synchronized String application() throws CoscoException {
    if (application == null) {
      application = services.metadata(Methods.CREATE_APPLICATION,
          CreateApplicationRequest.newBuilder().setName(cut(label)).setOwner(owner)
              .setLeaseS(options.leaseS).setProtocol(Methods.PROTOCOL).build(),
          token(), 0, patienceS()).getApplicationId();
      poller = thread(this::poll);
      poller.start();
    }
    return application;
  }

  private String token() throws CoscoException {
    if (options.tokenFile.isEmpty()) {
      return "";
    }
    try {
      byte[] text = Files.readAllBytes(Paths.get(options.tokenFile));
      return new String(text, StandardCharsets.US_ASCII).trim();
    } catch (IOException error) {
      throw new CoscoException("InvalidArgument",
          "spark.cosco.tokenFile cannot be read: " + error, false, error);
    }
  }

  private void poll() {
    List<ApplicationAnswer> answers = new ArrayList<>();
    double waitS = Math.min(POLL_S, options.leaseS / 3);
    while (!isStopped) {
      try {
        PollApplicationReply reply = services.metadata(Methods.POLL_APPLICATION,
            PollApplicationRequest.newBuilder().setApplicationId(application).setOwner(owner)
                .setWaitS(waitS).addAllAnswers(answers).build(),
            token(), waitS);
        answers.clear();
        for (ApplicationCall call : reply.getCallsList()) {
          answers.add(arrange(call));
        }
      } catch (CoscoException error) {
        if (isStopped) {
          return;
        }
        LOG.warn("No news of application {}: {}", application, error.toString());
        if (error.is("ExchangeClosed", "ApplicationClosed", "ExchangeNotFound", "AccessDenied")) {
          return; // it is over, and so is whatever reads or writes
        }
        pause();
      }
    }
  }

  private ApplicationAnswer arrange(ApplicationCall call) {
    ApplicationAnswer.Builder answer = ApplicationAnswer.newBuilder().setNumber(call.getNumber())
        .setLossId(call.getCall().getLossId());
    OpenExchange exchange = byNumber.get(call.getNumber());
    if (exchange == null) {
      return answer.setFailure("Spark has no such shuffle any more").build();
    }
    try {
      RoaringBitmap lost = Bitmaps.parse(call.getCall().getMappers(), "mappers");
      lost.forEach((IntConsumer) mapper -> forget(exchange, mapper));
      LOG.warn("{} map outputs of shuffle {} are made again: {}", lost.getCardinality(),
          exchange.shuffleId, call.getCall().getReason());
      return answer.build();
    } catch (CoscoException | RuntimeException error) {
      LOG.warn("Lost rows of shuffle {} cannot be made again", exchange.shuffleId, error);
      return answer.setFailure(error.toString()).build();
    }
  }

  /** Takes one output out of Spark's books, if it is that of the mapper. */
  private static void forget(OpenExchange exchange, int mapper) {
    MapOutputTrackerMaster books = (MapOutputTrackerMaster) SparkEnv.get().mapOutputTracker();
    int attempt = exchange.isIndeterminate ? mapper / exchange.mappers : 0;
    books.unregisterMapOutput(
        exchange.shuffleId, mapper % exchange.mappers, MapLocation.of(attempt));
  }

  private static String cut(String label) {
    String text = label.trim().isEmpty() ? "spark" : label.trim();
    while (text.getBytes(StandardCharsets.UTF_8).length > MAX_LABEL_BYTES) {
      text = text.substring(0, text.length() - 1);
    }
    return text;
  }

  private static Thread thread(Runnable work) {
    Thread thread = new Thread(work, "cosco-driver");
    thread.setDaemon(true);
    return thread;
  }

  private static void pause() {
    try {
      Thread.sleep(MAX_PAUSE_MS);
    } catch (InterruptedException error) {
      Thread.currentThread().interrupt();
    }
  }

  /**
   * What is kept of a shuffle. Not its handle, which refers to the dependency: Spark's cleaner drops
   * a shuffle when nothing refers to that any more.
   */
  private static final class OpenExchange {
    final int shuffleId;
    final String id;
    final long number;
    final int mappers;
    final boolean isIndeterminate;

    OpenExchange(CoscoShuffleHandle<?, ?, ?> handle) {
      shuffleId = handle.shuffleId();
      id = handle.exchange;
      number = handle.number;
      mappers = handle.mappers;
      isIndeterminate = handle.isIndeterminate;
    }
  }
}
