package cosco.client.read.state;

/** A piece of an array: whole blocks, or whole headers without their blocks. */
public final class Slice {
  public final byte[] data;
  public final int at;
  public final int end;
  public final boolean isHeaders;

  /** Takes the array, and copies nothing. */
  public Slice(byte[] data, int at, int end, boolean isHeaders) {
    this.data = data;
    this.at = at;
    this.end = end;
    this.isHeaders = isHeaders;
  }
}
