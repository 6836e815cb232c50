package cosco.client.push;

/** The daemon said something that makes no sense on this stream. */
public final class ProtocolBroken extends Exception {
  private static final long serialVersionUID = 1;

  ProtocolBroken(String what) {
    super(what);
  }
}
