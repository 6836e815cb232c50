package cosco.client.format;

import com.google.protobuf.ByteString;
import cosco.client.CoscoException;
import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import org.roaringbitmap.RoaringBitmap;

/** Sets of mappers and partitions: the portable serialization; nothing for an empty one. */
public final class Bitmaps {
  private Bitmaps() {}

  /** Returns the set of `from` to `to`, this one left out, for a message. */
  public static ByteString range(int from, int to) {
    RoaringBitmap set = new RoaringBitmap();
    set.add((long) from, (long) to);
    return bytes(set);
  }

  /** Returns a set for a message. */
  public static ByteString bytes(RoaringBitmap set) {
    if (set.isEmpty()) {
      return ByteString.EMPTY;
    }
    set.runOptimize();
    ByteArrayOutputStream out = new ByteArrayOutputStream();
    try {
      set.serialize(new DataOutputStream(out));
    } catch (IOException error) {
      throw new UncheckedIOException(error); // of memory, so it never comes
    }
    return ByteString.copyFrom(out.toByteArray());
  }

  /**
   * Returns the set that a message has.
   *
   * @throws CoscoException DataCorrupted if it is none
   */
  public static RoaringBitmap parse(ByteString data, String what) throws CoscoException {
    RoaringBitmap set = new RoaringBitmap();
    if (!data.isEmpty()) {
      try {
        set.deserialize(new DataInputStream(data.newInput()));
      } catch (IOException | RuntimeException error) {
        throw new CoscoException("DataCorrupted", what + ": no roaring bitmap", false, error);
      }
    }
    return set;
  }
}
