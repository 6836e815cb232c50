package cosco.client.read.state;

import cosco.v1.Source;
import java.util.Arrays;
import java.util.List;

/** What is committed of some partitions of one range, at one version of the exchange. */
public final class Committed {
  public final int generation;
  public final int build;
  public final Attempts attempts;
  public final List<Source> sources;
  /** Ascending. */
  public final int[] partitions;
  private final long[] rows;
  private final long[] rowBytes;
  private final long[] digests;

  /** Takes all of these; sums are of one partition each. */
  public Committed(
      int generation, int build, Attempts attempts, List<Source> sources, int[] partitions,
      long[] rows, long[] rowBytes, long[] digests) {
    this.generation = generation;
    this.build = build;
    this.attempts = attempts;
    this.sources = sources;
    this.partitions = partitions;
    this.rows = rows;
    this.rowBytes = rowBytes;
    this.digests = digests;
  }

  /** Returns whether it says something of a partition. */
  public boolean has(int partition) {
    return Arrays.binarySearch(partitions, partition) >= 0;
  }

  /** Returns the sums of a partition that it has. */
  public Sums sums(int partition) {
    int i = Arrays.binarySearch(partitions, partition);
    return new Sums(rows[i], rowBytes[i], digests[i]);
  }

  /** Returns the partitions from `first` on that have rows. */
  int[] notEmpty(int first) {
    int[] found = new int[partitions.length];
    int count = 0;
    for (int i = 0; i < partitions.length; i++) {
      if (partitions[i] >= first && rows[i] != 0) {
        found[count++] = partitions[i];
      }
    }
    return Arrays.copyOf(found, count);
  }

  /** Returns whether a merge of this one is one of `other` as well. */
  public boolean goesOn(Committed other) {
    return generation == other.generation && build == other.build;
  }
}
