package cosco.client.read.state;

import com.google.protobuf.ByteString;
import cosco.client.CoscoException;
import cosco.client.format.Bitmaps;
import cosco.client.format.NumberArrays;
import cosco.v1.AwaitCommitsReply;
import cosco.v1.RangeSnapshot;
import cosco.v1.ReadSnapshot;
import java.util.ArrayList;
import java.util.List;
import org.roaringbitmap.RoaringBitmap;

/** What the metadata service said of some partitions. */
public final class CommitAnswer {
  /** Of those that are ready, ascending; some may be left out. */
  public final List<Committed> ranges;
  /** Those that are not. */
  public final RoaringBitmap waiting;
  /** The mappers that they wait for. */
  public final RoaringBitmap missing;
  /** Whether some of these were called back. */
  public final boolean isRecompute;
  /** Whether some of `waiting` have failed. */
  public final boolean hasFailed;

  private CommitAnswer(List<Committed> ranges, AwaitCommitsReply reply) throws CoscoException {
    this.ranges = ranges;
    waiting = Bitmaps.parse(reply.getWaiting(), "waiting partitions");
    missing = Bitmaps.parse(reply.getMissing(), "missing mappers");
    isRecompute = reply.getRecompute();
    hasFailed = reply.getFailed();
  }

  /**
   * Reads an answer.
   *
   * @throws CoscoException DataCorrupted if it is none
   */
  public static CommitAnswer parse(AwaitCommitsReply reply) throws CoscoException {
    List<Committed> ranges = new ArrayList<>(reply.getRangesCount());
    Committed last = null;
    for (RangeSnapshot one : reply.getRangesList()) {
      last = range(one, last);
      ranges.add(last);
    }
    return new CommitAnswer(ranges, reply);
  }

  private static Committed range(RangeSnapshot one, Committed before) throws CoscoException {
    ReadSnapshot common = one.getCommon();
    Attempts attempts;
    if (!one.getSameMappers()) {
      attempts = attempts(common);
    } else if (before != null) {
      attempts = before.attempts;
    } else {
      throw corrupted("the first range refers to the mappers of another");
    }
    int[] partitions = Bitmaps.parse(one.getPartitions(), "partitions").toArray();
    int count = partitions.length;
    ByteString digests = one.getDigests();
    if (count == 0 || digests.size() != 8 * count) {
      throw corrupted(digests.size() + " bytes of digests of " + count + " partitions");
    }
    if (before != null && partitions[0] <= before.partitions[before.partitions.length - 1]) {
      throw corrupted("the ranges do not ascend");
    }
    return new Committed(
        common.getGeneration(), common.getBuild(), attempts, common.getSourcesList(), partitions,
        NumberArrays.wide(one.getRows(), count, "rows"),
        NumberArrays.wide(one.getRawBytes(), count, "raw bytes"),
        NumberArrays.wide(digests, count, "digests"));
  }

  private static Attempts attempts(ReadSnapshot common) throws CoscoException {
    int count = common.getCount();
    if (count < 0 || count > common.getAttempts().size()) {
      throw corrupted(common.getAttempts().size() + " bytes of attempts of " + count + " mappers");
    }
    long[] ids = NumberArrays.ascending(common.getGaps(), count, "mappers");
    int[] mappers = new int[count];
    for (int i = 0; i < count; i++) {
      if (ids[i] > Integer.MAX_VALUE) {
        throw corrupted("a mapper " + ids[i]);
      }
      mappers[i] = (int) ids[i];
    }
    return new Attempts(mappers, NumberArrays.wide(common.getAttempts(), count, "attempts"));
  }

  private static CoscoException corrupted(String what) {
    return new CoscoException("DataCorrupted", "an answer to AwaitCommits: " + what);
  }
}
