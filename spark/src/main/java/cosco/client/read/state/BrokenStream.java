package cosco.client.read.state;

/** A daemon did not answer to the end, or what it sends makes no sense. */
public final class BrokenStream extends Exception {
  private static final long serialVersionUID = 1;

  /** Whether nothing came for too long. */
  public final boolean isStalled;
  /** Whether the daemon did answer: that it cannot serve now. */
  public final boolean isBusy;

  /** Takes the reason, in one line. */
  public BrokenStream(String reason, boolean isStalled, boolean isBusy) {
    super(reason, null, false, false);
    this.isStalled = isStalled;
    this.isBusy = isBusy;
  }

  /** Returns what a daemon did that replies what it may not. */
  static BrokenStream nonsense(String what) {
    return new BrokenStream("it sent nonsense: " + what, false, false);
  }
}
