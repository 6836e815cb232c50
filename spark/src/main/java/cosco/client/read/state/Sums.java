package cosco.client.read.state;

import cosco.client.format.BlockHeader;

/** What blocks add up to: rows, bytes of rows, and digests modulo 2^64. */
public final class Sums {
  public long rows;
  public long rowBytes;
  public long digest;

  /** Begins with these. */
  public Sums(long rows, long rowBytes, long digest) {
    this.rows = rows;
    this.rowBytes = rowBytes;
    this.digest = digest;
  }

  void add(BlockHeader h) {
    rows += h.rows;
    rowBytes += h.rowBytes();
    digest += h.digest;
  }

  void subtract(Sums other) {
    rows -= other.rows;
    rowBytes -= other.rowBytes;
    digest -= other.digest;
  }

  boolean are(Sums other) {
    return rows == other.rows && rowBytes == other.rowBytes && digest == other.digest;
  }
}
