package cosco.client.push;

import cosco.v1.DaemonRef;

/** The frames for one daemon. A lane that was retired is never used again. */
public final class Lane {
  public final DaemonRef ref;
  public final PushSender sender;
  long sequence; // of the latest frame

  Lane(DaemonRef ref, PushSender sender) {
    this.ref = ref;
    this.sender = sender;
  }
}
