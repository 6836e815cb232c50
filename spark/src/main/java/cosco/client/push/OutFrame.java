package cosco.client.push;

import com.google.protobuf.ByteString;
import com.google.protobuf.UnsafeByteOperations;
import cosco.client.format.FrameHeader;
import cosco.v1.DaemonRef;

/**
 * A frame on its way out, kept until it is acknowledged or withdrawn.
 *
 * <p>Its blocks never change; for another assignment they go under a header of their own.
 */
public final class OutFrame {
  /** By which it is answered. */
  public final long sequence;
  public final int range;
  public final int epoch;
  public final ByteString body;

  final int blocks;
  private final long exchange;
  private final long incarnation;
  boolean withdrawn;
  int resends;

  OutFrame(
      long exchange, DaemonRef primary, long sequence, int range, int epoch, int blocks,
      ByteString body) {
    this.exchange = exchange;
    this.incarnation = primary.getIncarnation();
    this.sequence = sequence;
    this.range = range;
    this.epoch = epoch;
    this.blocks = blocks;
    this.body = body;
  }

  /** Returns the length of the whole frame. */
  public int frameBytes() {
    return FrameHeader.HEADER_BYTES + body.size();
  }

  /** Returns what it is stamped for. */
  public long rangeEpoch() {
    return Routes.rangeEpoch(range, epoch);
  }

  /** Returns the whole frame; its blocks are not copied. */
  ByteString bytes() {
    byte[] header =
        FrameHeader.encode(exchange, incarnation, sequence, range, epoch, body.size(), blocks);
    return UnsafeByteOperations.unsafeWrap(header).concat(body);
  }
}
