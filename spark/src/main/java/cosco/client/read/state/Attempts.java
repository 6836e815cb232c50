package cosco.client.read.state;

import java.util.Arrays;

/** Whose blocks count in a range: mappers, ascending, with their committed attempts. */
public final class Attempts {
  private final int[] mappers;
  private final long[] attempts;

  /** Takes both arrays. */
  public Attempts(int[] mappers, long[] attempts) {
    this.mappers = mappers;
    this.attempts = attempts;
  }

  /** Returns how many mappers there are. */
  public int size() {
    return mappers.length;
  }

  /** Returns the place of a mapper whose attempt this is; negative if another one counts. */
  int indexOf(int mapper, long attempt) {
    int i = Arrays.binarySearch(mappers, mapper);
    return i >= 0 && attempts[i] == attempt ? i : -1;
  }

  /** Returns whether all mappers are of [start, end). */
  public boolean areWithin(int start, int end) {
    return mappers.length == 0 || (mappers[0] >= start && mappers[mappers.length - 1] < end);
  }
}
