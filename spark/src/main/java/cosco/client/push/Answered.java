package cosco.client.push;

import cosco.v1.Refusal;
import java.util.ArrayList;
import java.util.List;

/** What a reply meant for frames that were not withdrawn. */
public final class Answered {
  public final List<OutFrame> acknowledged = new ArrayList<>();
  public final List<Refused> refused = new ArrayList<>();

  Answered() {}

  /** A frame that was refused; null where the stream as a whole is meant. */
  public static final class Refused {
    public final OutFrame frame;
    public final Refusal refusal;

    Refused(OutFrame frame, Refusal refusal) {
      this.frame = frame;
      this.refusal = refusal;
    }
  }
}
