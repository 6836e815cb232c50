package cosco.client.read.state;

import cosco.client.CoscoException;
import cosco.client.format.BlockHeader;
import java.util.Arrays;
import java.util.Queue;

/**
 * Cuts the body of one section, which arrives in arbitrary pieces, into runs of whole blocks, or of
 * whole headers. After it threw it is of no more use.
 */
final class BlockSplitter {
  private final boolean isHeaders;
  private byte[] partial = new byte[0]; // the beginning of a block that is not whole yet
  private int partialBytes;
  private int wholeBytes; // of that block; 0 while its header is cut

  /** Begins before a section; `isHeaders`: blocks are without what they store. */
  BlockSplitter(boolean isHeaders) {
    this.isHeaders = isHeaders;
  }

  /**
   * Adds the blocks that a piece completes to `runs`; they lie in the piece, except for a block
   * that began in an earlier one.
   *
   * @throws CoscoException DataCorrupted where no block begins
   */
  void feed(byte[] piece, int at, int end, Queue<Slice> runs) throws CoscoException {
    int start = at;
    if (partialBytes > 0) {
      start = fill(piece, at, end);
      if (partialBytes != wholeBytes) {
        return;
      }
      runs.add(new Slice(partial, 0, wholeBytes, isHeaders));
      partial = new byte[0];
      partialBytes = wholeBytes = 0;
    }
    int whole = start;
    wholeBytes = 0;
    while (end - whole >= BlockHeader.HEADER_BYTES) {
      int length = lengthAt(piece, whole, end);
      if (length > end - whole) {
        wholeBytes = length;
        break;
      }
      whole += length;
    }
    if (whole > start) {
      runs.add(new Slice(piece, start, whole, isHeaders));
    }
    if (whole < end) {
      partialBytes = end - whole;
      partial = new byte[wholeBytes > 0 ? wholeBytes : BlockHeader.HEADER_BYTES];
      System.arraycopy(piece, whole, partial, 0, partialBytes);
    }
  }

  /**
   * Checks that nothing of a block is left.
   *
   * @throws CoscoException DataCorrupted
   */
  void finish() throws CoscoException {
    if (partialBytes > 0) {
      throw new CoscoException(
          "DataCorrupted", "blocks are cut short: " + partialBytes + " bytes of one are left");
    }
  }

  /** Adds what a piece has of the partial block, and returns where that ends in the piece. */
  private int fill(byte[] piece, int at, int end) throws CoscoException {
    int from = at;
    if (wholeBytes == 0) {
      from += take(piece, from, end, BlockHeader.HEADER_BYTES);
      if (partialBytes < BlockHeader.HEADER_BYTES) {
        return from;
      }
      wholeBytes = lengthAt(partial, 0, partialBytes);
      partial = Arrays.copyOf(partial, wholeBytes);
    }
    return from + take(piece, from, end, wholeBytes);
  }

  private int take(byte[] piece, int at, int end, int until) {
    int length = Math.min(until - partialBytes, end - at);
    System.arraycopy(piece, at, partial, partialBytes, length);
    partialBytes += length;
    return length;
  }

  private int lengthAt(byte[] data, int at, int end) throws CoscoException {
    return isHeaders
        ? BlockHeader.HEADER_BYTES
        : BlockHeader.parse(data, at, end).blockBytes();
  }
}
