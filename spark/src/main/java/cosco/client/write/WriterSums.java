package cosco.client.write;

/** What an attempt has written, and whether it counts. */
public final class WriterSums {
  private final long[] rows;
  private final long[] rawBytes;
  private final long[] storedBytes;
  private final boolean won;

  WriterSums(long[] rows, long[] rawBytes, long[] storedBytes, boolean won) {
    this.rows = rows;
    this.rawBytes = rawBytes;
    this.storedBytes = storedBytes;
    this.won = won;
  }

  /** Returns records by partition; of a mapper called back, those that were wanted again. */
  public long[] rows() {
    return rows;
  }

  /** Returns bytes of content by partition, before compression. */
  public long[] rawBytes() {
    return rawBytes;
  }

  /** Returns bytes of blocks by partition, headers included. */
  public long[] storedBytes() {
    return storedBytes;
  }

  /** Returns whether this attempt is the mapper's first one to commit, which alone counts. */
  public boolean won() {
    return won;
  }
}
