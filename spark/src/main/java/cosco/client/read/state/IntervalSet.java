package cosco.client.read.state;

import java.util.Arrays;

/** Disjoint, sorted, non-adjacent half-open intervals of numbers of 0 or more. */
final class IntervalSet {
  private long[] starts = new long[4];
  private long[] ends = new long[4];
  private int count;

  /** Returns the number of intervals. */
  int size() {
    return count;
  }

  /** Returns whether all of [start, end) is in the set. */
  boolean covers(long start, long end) {
    int i = after(start) - 1;
    return i >= 0 && ends[i] >= end;
  }

  /** Returns whether any of [start, end) is in the set. */
  boolean overlaps(long start, long end) {
    int i = after(end - 1) - 1;
    return i >= 0 && ends[i] > start;
  }

  /** Adds [start, end), which is not empty, and joins what it touches. */
  void add(long start, long end) {
    if (count > 0 && ends[count - 1] == start) { // in order: the last one grows
      ends[count - 1] = end;
      return;
    }
    int low = after(start);
    if (low > 0 && ends[low - 1] >= start) {
      low--;
    }
    int high = after(end);
    long from = low < high ? Math.min(start, starts[low]) : start;
    long to = low < high ? Math.max(end, ends[high - 1]) : end;
    if (count + 1 > starts.length) {
      starts = Arrays.copyOf(starts, 2 * count);
      ends = Arrays.copyOf(ends, 2 * count);
    }
    System.arraycopy(starts, high, starts, low + 1, count - high);
    System.arraycopy(ends, high, ends, low + 1, count - high);
    starts[low] = from;
    ends[low] = to;
    count += 1 - (high - low);
  }

  /** Returns how many intervals begin at `number` or before. */
  private int after(long number) {
    int i = Arrays.binarySearch(starts, 0, count, number);
    return i < 0 ? -i - 1 : i + 1;
  }
}
