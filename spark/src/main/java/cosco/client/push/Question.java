package cosco.client.push;

import cosco.v1.DaemonRef;
import java.util.TreeSet;

/** What to ask of RenewAssignments. */
public final class Question {
  /** Assignments that refused, or are out of reach. */
  public final TreeSet<Long> stale;
  /** The daemon that is out of reach; null: none is. */
  public final DaemonRef suspect;
  /** It was said to be alive, and is still out of reach. */
  public final boolean insist;

  /** Asks about these assignments. */
  public Question(TreeSet<Long> stale, DaemonRef suspect, boolean insist) {
    this.stale = stale;
    this.suspect = suspect;
    this.insist = insist;
  }
}
