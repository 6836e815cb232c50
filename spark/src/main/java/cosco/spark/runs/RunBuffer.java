package cosco.spark.runs;

import cosco.client.format.BlockCodec;
import java.io.OutputStream;
import java.util.Arrays;

/** The run of one partition that waits: serialized records, behind the room that a block needs. */
public final class RunBuffer extends OutputStream {
  public byte[] bytes;
  public int records;
  private static final int MAX_BYTES = Integer.MAX_VALUE - 64;

  private final int usual;
  private int end = BlockCodec.IDENTITY_BYTES;

  /**
   * room: bytes of it to begin with, IDENTITY_BYTES among them. usual: what it becomes if no record
   * is longer than most.
   */
  public RunBuffer(int room, int usual) {
    this.usual = usual;
    bytes = new byte[room];
  }

  /** Returns the bytes of records. */
  public int length() {
    return end - BlockCodec.IDENTITY_BYTES;
  }

  /** Returns where the next byte goes in `bytes`. */
  public int position() {
    return end;
  }

  /** Returns how much longer the array must become for so many bytes; 0: it has room. */
  public int growth(int more) {
    long needed = (long) end + more;
    if (needed <= bytes.length) {
      return 0;
    }
    if (needed > MAX_BYTES) {
      throw new IllegalArgumentException("a record of " + more + " bytes: the limit is 2 GiB");
    }
    long room = Math.max(needed, Math.min(bytes.length * 4L, usual));
    room = Math.max(room, needed > usual ? Math.min(needed + needed / 2, MAX_BYTES) : 0);
    return (int) (room - bytes.length);
  }

  /** Makes the array longer. */
  public void grow(int by) {
    if (by > 0) {
      bytes = Arrays.copyOf(bytes, bytes.length + by);
    }
  }

  /** Takes note of bytes that were written at `position()`. */
  public void wrote(int length) {
    end += length;
  }

  /** Begins the next run. */
  public void clear() {
    end = BlockCodec.IDENTITY_BYTES;
    records = 0;
  }

  @Override
  public void write(int one) {
    grow(growth(1));
    bytes[end++] = (byte) one;
  }

  @Override
  public void write(byte[] from, int at, int length) {
    grow(growth(length));
    System.arraycopy(from, at, bytes, end, length);
    end += length;
  }
}
