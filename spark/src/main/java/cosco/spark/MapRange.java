package cosco.spark;

import java.util.ArrayList;
import java.util.List;
import java.util.SortedSet;

/** Map outputs [start, end) of a shuffle, by index. */
final class MapRange {
  final int start;
  final int end;

  MapRange(int start, int end) {
    this.start = start;
    this.end = end;
  }

  /** Returns the fewest ranges that have these, ascending, and no others. */
  static List<MapRange> of(SortedSet<Integer> indexes) {
    List<MapRange> found = new ArrayList<>();
    int start = 0;
    int end = 0;
    for (int index : indexes) {
      if (index != end) {
        add(found, start, end);
        start = index;
      }
      end = index + 1;
    }
    add(found, start, end);
    return found;
  }

  private static void add(List<MapRange> ranges, int start, int end) {
    if (start < end) {
      ranges.add(new MapRange(start, end));
    }
  }
}
