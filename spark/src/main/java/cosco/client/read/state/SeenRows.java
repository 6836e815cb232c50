package cosco.client.read.state;

import java.util.Arrays;

/**
 * Which positions of which mappers have come, of one partition at a time.
 *
 * <p>Blocks of a mapper come in order, nearly always, so that one interval each does. It is cleared
 * without being gone through, as there are thousands of small partitions.
 */
public final class SeenRows {
  private final int[] clearings;
  private final long[] starts;
  private final long[] ends;
  private final IntervalSet[] others; // in the place of the interval, once that does not do
  private int cleared = 1;

  /** Begins with nothing seen of so many mappers. */
  public SeenRows(int mappers) {
    clearings = new int[mappers];
    starts = new long[mappers];
    ends = new long[mappers];
    others = new IntervalSet[mappers];
  }

  /** Forgets everything. */
  public void clear() {
    cleared++;
    if (cleared == 0) { // it went around
      cleared = 1;
      Arrays.fill(clearings, 0);
    }
  }

  /** Returns whether all of [start, end) was seen. */
  boolean covers(int mapper, long start, long end) {
    if (clearings[mapper] != cleared) {
      return false;
    }
    IntervalSet set = others[mapper];
    return set != null ? set.covers(start, end) : starts[mapper] <= start && end <= ends[mapper];
  }

  /** Returns whether any of [start, end) was seen. */
  boolean overlaps(int mapper, long start, long end) {
    if (clearings[mapper] != cleared) {
      return false;
    }
    IntervalSet set = others[mapper];
    return set != null ? set.overlaps(start, end) : starts[mapper] < end && start < ends[mapper];
  }

  /** Notes that [start, end) was seen. */
  void add(int mapper, long start, long end) {
    if (clearings[mapper] != cleared) {
      clearings[mapper] = cleared;
      others[mapper] = null;
      starts[mapper] = start;
      ends[mapper] = end;
    } else if (others[mapper] == null && start == ends[mapper]) {
      ends[mapper] = end;
    } else {
      if (others[mapper] == null) {
        others[mapper] = new IntervalSet();
        others[mapper].add(starts[mapper], ends[mapper]);
      }
      others[mapper].add(start, end);
    }
  }

  /** Returns how many intervals are kept of a mapper. */
  int intervals(int mapper) {
    if (clearings[mapper] != cleared) {
      return 0;
    }
    return others[mapper] == null ? 1 : others[mapper].size();
  }

}
