package cosco.client.write;

import cosco.client.CoscoException;

/** How a writer works; the same for every exchange. */
public final class WriterOptions {
  /** What is usual. */
  public static final WriterOptions DEFAULT = new WriterOptions("", 16 << 20, 1024, 8 << 20);

  /** "lz4", "none", or "" for what the exchange says. */
  public final String codec;
  /** Frames that no daemon has acknowledged, in all; one always passes. */
  public final long windowBytes;
  /** And their number. */
  public final int maxFramesUnderWay;
  /** Memory of frames that are not full yet, in all; one always is. */
  public final long openFramesBytes;

  private WriterOptions(
      String codec, long windowBytes, int maxFramesUnderWay, long openFramesBytes) {
    this.codec = codec;
    this.windowBytes = windowBytes;
    this.maxFramesUnderWay = maxFramesUnderWay;
    this.openFramesBytes = openFramesBytes;
  }

  /** Returns the same with another codec: "lz4", "none", or "" for what the exchange says. */
  public WriterOptions withCodec(String codec) throws CoscoException {
    if (!codec.isEmpty() && !codec.equals("lz4") && !codec.equals("none")) {
      throw new CoscoException("InvalidArgument", "codec `" + codec + "`: give lz4 or none");
    }
    return new WriterOptions(codec, windowBytes, maxFramesUnderWay, openFramesBytes);
  }

  /** Returns the same with another window. */
  public WriterOptions withWindow(long windowBytes, int maxFramesUnderWay) throws CoscoException {
    check("windowBytes", windowBytes);
    check("maxFramesUnderWay", maxFramesUnderWay);
    return new WriterOptions(codec, windowBytes, maxFramesUnderWay, openFramesBytes);
  }

  /** Returns the same with another bound of memory of frames that are not full yet. */
  public WriterOptions withOpenFramesBytes(long openFramesBytes) throws CoscoException {
    check("openFramesBytes", openFramesBytes);
    return new WriterOptions(codec, windowBytes, maxFramesUnderWay, openFramesBytes);
  }

  private static void check(String name, long value) throws CoscoException {
    if (value < 1) {
      throw new CoscoException("InvalidArgument", name + " is " + value + ": give 1 or more");
    }
  }
}
