package cosco.client.format;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.zip.CRC32;

/** The 48 bytes before the blocks of a frame, as cosco/format/frame.py has them. */
public final class FrameHeader {
  public static final int HEADER_BYTES = 48;
  /** A writer closes a frame once its blocks are this long; one block may go beyond. */
  public static final int TARGET_BYTES = 1 << 20;

  private static final int MAGIC = 0x31524643; // "CFR1"

  private FrameHeader() {}

  /** Returns the header of a frame of `blocks` blocks, of `bodyBytes` in all. */
  public static byte[] encode(
      long exchange, long incarnation, long sequence, int range, int epoch, int bodyBytes,
      int blocks) {
    byte[] header = new byte[HEADER_BYTES];
    ByteBuffer b = ByteBuffer.wrap(header).order(ByteOrder.LITTLE_ENDIAN);
    b.putInt(MAGIC).putInt(0).putLong(exchange).putLong(incarnation).putLong(sequence)
        .putInt(range).putInt(epoch).putInt(bodyBytes).putInt(blocks);
    CRC32 crc = new CRC32();
    crc.update(header, 8, HEADER_BYTES - 8);
    b.putInt(4, (int) crc.getValue());
    return header;
  }
}
