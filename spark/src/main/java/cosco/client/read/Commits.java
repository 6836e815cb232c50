package cosco.client.read;

import com.google.protobuf.ByteString;
import cosco.client.CoscoException;
import cosco.client.format.Bitmaps;
import cosco.client.read.state.CommitAnswer;
import cosco.client.read.state.Committed;
import cosco.client.rpc.Methods;
import cosco.client.rpc.Services;
import cosco.v1.AwaitCommitsReply;
import cosco.v1.AwaitCommitsRequest;
import cosco.v1.DaemonRef;
import cosco.v1.LossCause;
import cosco.v1.ReportDaemonRequest;
import cosco.v1.ReportLossRequest;
import java.util.ArrayList;
import java.util.List;
import org.roaringbitmap.RoaringBitmap;

/** What the metadata service says of one exchange to its reader, and is told by it. */
final class Commits {
  private static final int SHOWN_MAPPERS = 10;
  private static final int MAX_REASON_CHARS = 500;

  private final Services services;
  private final String credential;
  private final long number;
  private final String shuffleId;
  private final ByteString mappers;
  private final int mapperCount;
  private final double waitS;
  long waitedNs;

  /** Begins without a call; mappers [first, end) must have committed. */
  Commits(
      Services services, String credential, long number, String shuffleId, int first, int end,
      double waitS) {
    this.services = services;
    this.credential = credential;
    this.number = number;
    this.shuffleId = shuffleId;
    this.mappers = Bitmaps.range(first, end);
    this.mapperCount = end - first;
    this.waitS = waitS;
  }

  /**
   * Returns what is committed of partitions [first, end), from the first one on without a gap;
   * maybe not of all of them.
   *
   * @throws CoscoException DataLost, retriable, where mappers are missing; what the service means
   */
  List<Committed> of(int first, int end) throws CoscoException {
    RoaringBitmap partitions = new RoaringBitmap();
    partitions.add((long) first, (long) end);
    CommitAnswer answer = ask(partitions, waitS);
    if (!answer.waiting.isEmpty()) {
      if (answer.hasFailed) {
        answer = ask(answer.waiting, 0); // which throws why, if nothing has changed
      }
      if (!answer.waiting.isEmpty()) {
        throw missing(answer);
      }
      return of(first, end);
    }
    int expected = first;
    List<Committed> found = new ArrayList<>();
    for (Committed one : answer.ranges) {
      int last = one.partitions[one.partitions.length - 1];
      if (one.partitions[0] != expected || last - expected + 1 != one.partitions.length) {
        break; // a gap
      }
      found.add(one);
      expected = last + 1;
    }
    if (found.isEmpty() || expected > end) {
      throw new CoscoException("ServiceUnavailable",
          "exchange `" + shuffleId + "`: the service told nothing of partition " + first, true,
          null);
    }
    return found;
  }

  /** Returns whether the service can reach a daemon that cannot be reached here. */
  boolean reportDaemon(DaemonRef daemon, boolean insists) throws CoscoException {
    ReportDaemonRequest request =
        ReportDaemonRequest.newBuilder().setDaemon(daemon).setInsist(insists).build();
    return services.metadata(Methods.REPORT_DAEMON, request, credential, 0).getAlive();
  }

  /** Says that rows of the build are lost. Of a build that has ended that does nothing. */
  void reportLoss(Committed read, int partition, boolean isGone, String reason)
      throws CoscoException {
    LossCause cause = isGone ? LossCause.LOSS_CAUSE_GONE : LossCause.LOSS_CAUSE_MISSING;
    String line = reason.trim().replaceAll("\\s+", " ");
    services.metadata(
        Methods.REPORT_LOSS,
        ReportLossRequest.newBuilder().setNumber(number).setGeneration(read.generation)
            .setBuild(read.build).setPartition(partition).setCause(cause)
            .setReason(line.substring(0, Math.min(MAX_REASON_CHARS, line.length()))).build(),
        credential, 0);
  }

  private CommitAnswer ask(RoaringBitmap partitions, double wait) throws CoscoException {
    long began = System.nanoTime();
    AwaitCommitsReply reply = services.metadata(
        Methods.AWAIT_COMMITS,
        AwaitCommitsRequest.newBuilder().setNumber(number).setMappers(mappers).setWaitS(wait)
            .setPartitions(Bitmaps.bytes(partitions)).build(),
        credential, wait);
    waitedNs += System.nanoTime() - began;
    return CommitAnswer.parse(reply);
  }

  private CoscoException missing(CommitAnswer answer) {
    RoaringBitmap missing = answer.missing;
    StringBuilder shown = new StringBuilder();
    int count = 0;
    for (int mapper : missing) {
      if (count++ == SHOWN_MAPPERS) {
        shown.append(" and ").append(missing.getCardinality() - SHOWN_MAPPERS).append(" more");
        break;
      }
      shown.append(count == 1 ? "" : ", ").append(mapper);
    }
    String verb = answer.isRecompute ? "were called back, as rows were lost" : "did not commit";
    return new CoscoException(
        "DataLost",
        "exchange `" + shuffleId + "`, partition " + answer.waiting.first() + ": "
            + missing.getCardinality() + " of " + mapperCount + " mappers " + verb + ": " + shown
            + "; run them again",
        true, null);
  }
}
