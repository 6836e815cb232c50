package cosco.client.format;

import com.google.protobuf.ByteString;
import cosco.client.CoscoException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/** Arrays of numbers as fields of bytes, as cosco/protocol/wire/arrays.py has them. */
public final class NumberArrays {
  private NumberArrays() {}

  /** Returns the numbers in as many bytes each as the largest needs; nothing if all are 0. */
  public static ByteString narrow(long[] numbers) {
    long all = 0;
    for (long number : numbers) {
      all |= number;
    }
    if (all == 0) {
      return ByteString.EMPTY;
    }
    int width = (all >>> 8) == 0 ? 1 : (all >>> 16) == 0 ? 2 : (all >>> 32) == 0 ? 4 : 8;
    byte[] out = new byte[width * numbers.length];
    for (int i = 0; i < numbers.length; i++) {
      for (int k = 0; k < width; k++) {
        out[i * width + k] = (byte) (numbers[i] >>> 8 * k);
      }
    }
    return ByteString.copyFrom(out);
  }

  /**
   * Returns what `narrow` made of `count` numbers.
   *
   * @throws CoscoException DataCorrupted if that is not what it is
   */
  public static long[] wide(ByteString data, int count, String what) throws CoscoException {
    long[] out = new long[count];
    if (data.isEmpty()) {
      return out;
    }
    int width = count == 0 ? 0 : data.size() / count;
    if (width * count != data.size() || (width != 1 && width != 2 && width != 4 && width != 8)) {
      throw BlockHeader.corrupted(
          what + ": " + data.size() + " bytes are no array of " + count + " numbers");
    }
    for (int i = 0; i < count; i++) {
      for (int k = 0; k < width; k++) {
        out[i] |= (data.byteAt(i * width + k) & 0xffL) << 8 * k;
      }
    }
    return out;
  }

  /** Returns the numbers as eight bytes each. */
  public static ByteString bytes64(long[] numbers) {
    ByteBuffer b = ByteBuffer.allocate(8 * numbers.length).order(ByteOrder.LITTLE_ENDIAN);
    for (long number : numbers) {
      b.putLong(number);
    }
    return ByteString.copyFrom(b.array());
  }

  /**
   * Returns `count` ascending numbers, of which `data` has how many are left out before each.
   *
   * @throws CoscoException DataCorrupted if that is not what it is
   */
  public static long[] ascending(ByteString data, int count, String what) throws CoscoException {
    long[] numbers = wide(data, count, what);
    long last = -1;
    for (int i = 0; i < count; i++) {
      last += numbers[i] + 1;
      numbers[i] = last;
    }
    return numbers;
  }
}
