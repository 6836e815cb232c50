package cosco.client.write;

import com.google.protobuf.ByteString;
import com.google.protobuf.UnsafeByteOperations;

/**
 * The blocks of a frame that is not full yet, one behind the other.
 *
 * <p>They lie in pieces: one array that grows would be copied over and over, and one as long as a
 * frame is more than the JVM likes to give.
 */
final class FrameBuilder {
  private static final int FIRST_BYTES = 4 << 10;
  private static final int PIECE_BYTES = 64 << 10;

  final int range;
  int used;
  int blocks;
  /** Memory of all pieces. */
  int capacity;

  private ByteString full = ByteString.EMPTY;
  private byte[] piece = new byte[0];
  private int end;

  FrameBuilder(int range) {
    this.range = range;
  }

  /** Adds the first `length` bytes of an array: one block. */
  void add(byte[] block, int length) {
    for (int from = 0; from < length; ) {
      if (end == piece.length) {
        next(length - from);
      }
      int part = Math.min(length - from, piece.length - end);
      System.arraycopy(block, from, piece, end, part);
      end += part;
      from += part;
    }
    used += length;
    blocks++;
  }

  /** Returns the blocks; the builder is not to be used any more. */
  ByteString body() {
    return full.concat(UnsafeByteOperations.unsafeWrap(piece, 0, end));
  }

  private void next(int left) {
    full = body();
    int usual = capacity == 0 ? Math.max(FIRST_BYTES, left) : Math.max(capacity, FIRST_BYTES);
    piece = new byte[Math.min(PIECE_BYTES, usual)];
    capacity += piece.length;
    end = 0;
  }
}
