package cosco.client.read.state;

import com.google.protobuf.ByteString;
import cosco.client.format.Bitmaps;
import cosco.v1.DaemonRef;
import cosco.v1.FetchPart;
import cosco.v1.FetchRequest;
import cosco.v1.Source;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.roaringbitmap.RoaringBitmap;

/** Some partitions, ascending, and the one request for them that goes to each daemon. */
public final class SharedPass {
  private static final int MAX_STREAMS = 16;
  private static final int MAX_PARTS = 4096;
  private static final int MAX_PARTITIONS = 1 << 20;

  /** What one daemon is asked for. */
  public static final class Ask {
    public final DaemonRef daemon;
    /** Of each part its partitions. */
    public final List<int[]> partitions = new ArrayList<>();
    private final List<FetchPart> parts = new ArrayList<>();

    private Ask(DaemonRef daemon) {
      this.daemon = daemon;
    }

    private Place add(Source source, boolean files, int[] wanted, ByteString bitmap) {
      parts.add(FetchPart.newBuilder().setRangeIndex(source.getRangeIndex())
          .setEpoch(source.getEpoch()).setPartitions(bitmap).setFiles(files).build());
      partitions.add(wanted);
      return new Place(this, parts.size() - 1);
    }

    /** Returns the request; `mappers`: whose blocks are wanted whole, a bitmap. */
    public FetchRequest request(long number, ByteString mappers, String capability) {
      return FetchRequest.newBuilder().setNumber(number).addAllParts(parts).setMappers(mappers)
          .setCapability(capability).build();
    }
  }

  /** Where in the reply to a request a fetch is answered. */
  public static final class Place {
    public final Ask ask;
    public final int part;

    private Place(Ask ask, int part) {
      this.ask = ask;
      this.part = part;
    }
  }

  private final Map<DaemonRef, Ask> asks = new LinkedHashMap<>();
  private final Map<Long, Place> places = new HashMap<>();
  private int endPartition;
  private boolean hasOthers; // than [startMapper, endMapper) among those that wrote

  private SharedPass() {}

  /**
   * Takes from the front of `told` as much as goes into one pass.
   *
   * @param first partitions before this one are left out
   * @param startMapper those from this one on are wanted
   * @param endMapper and before this one
   * @param troubled daemons that are asked last
   */
  public static SharedPass of(
      List<Committed> told, int first, int startMapper, int endMapper, Set<DaemonRef> troubled) {
    SharedPass pass = new SharedPass();
    long partitions = 0;
    for (Committed one : told) {
      partitions += (long) one.partitions.length * one.sources.size();
      if (!pass.asks.isEmpty() && (partitions > MAX_PARTITIONS || !pass.fits(one, troubled))) {
        break;
      }
      pass.add(one, first, troubled);
      pass.endPartition = one.partitions[one.partitions.length - 1] + 1;
      pass.hasOthers |= !one.attempts.areWithin(startMapper, endMapper);
    }
    return pass;
  }

  /** Returns a pass of one fetch of one partition. */
  public static SharedPass alone(ReadPlan.Fetch fetch, int partition, boolean hasOthers) {
    SharedPass pass = new SharedPass();
    int[] wanted = {partition};
    Ask ask = pass.asks.computeIfAbsent(fetch.daemon, Ask::new);
    Place place = ask.add(fetch.source, fetch.files, wanted, bitmap(wanted));
    pass.places.put(ReadPlan.key(fetch.source), place);
    pass.hasOthers = hasOthers && !fetch.whole;
    return pass;
  }

  /** Returns what the daemons are asked for, the one that is needed first before the others. */
  public List<Ask> asks() {
    return Collections.unmodifiableList(new ArrayList<>(asks.values()));
  }

  /** Returns the partition after its last one. */
  public int endPartition() {
    return endPartition;
  }

  /** Returns whether mappers are to be named, as others wrote as well. */
  public boolean namesMappers() {
    return hasOthers;
  }

  /** Returns where a plan's fetch is answered; null: nowhere. */
  public Place place(ReadPlan.Fetch fetch) {
    Place place = places.get(ReadPlan.key(fetch.source));
    if (place == null || (fetch.whole && hasOthers) || !place.ask.daemon.equals(fetch.daemon)) {
      return null;
    }
    return place.ask.parts.get(place.part).getFiles() == fetch.files ? place : null;
  }

  private boolean fits(Committed one, Set<DaemonRef> troubled) {
    int more = 0;
    for (Source source : one.sources) {
      DaemonRef daemon = ReadPlan.firstOf(source, troubled);
      Ask ask = asks.get(daemon);
      more += ask == null ? 1 : 0;
      if (ask != null && ask.parts.size() + one.sources.size() > MAX_PARTS) {
        return false;
      }
    }
    return asks.size() + more <= MAX_STREAMS;
  }

  private void add(Committed one, int first, Set<DaemonRef> troubled) {
    int[] wanted = one.notEmpty(first);
    if (wanted.length == 0) {
      return;
    }
    ByteString bitmap = bitmap(wanted);
    for (Source source : one.sources) {
      DaemonRef daemon = ReadPlan.firstOf(source, troubled);
      if (daemon != null) {
        Ask ask = asks.computeIfAbsent(daemon, Ask::new);
        boolean files = ReadPlan.asksForFiles(source, daemon);
        places.put(ReadPlan.key(source), ask.add(source, files, wanted, bitmap));
      }
    }
  }

  private static ByteString bitmap(int[] partitions) {
    return Bitmaps.bytes(RoaringBitmap.bitmapOf(partitions));
  }
}
