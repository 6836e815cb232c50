package cosco.client.read;

import java.io.Serializable;

/** How a reader goes about it. Times in seconds. */
public final class ReaderOptions implements Serializable {
  private static final long serialVersionUID = 1;

  /** What is received ahead of the caller, over all streams. */
  public long prefetchBytes = 32L << 20;
  /** A stream of which nothing comes for so long is given up. */
  public double stallS = 60;
  /** How long the service may wait for mappers that are missing, before that is an error. */
  public double commitWaitS = 1;
  /** Whether a run is of use only until the one after the next is asked for, which has its array. */
  public boolean reusesRuns;
  /** How long a daemon is waited for that alone may have something, and is out of reach. */
  public double unreachableS = 60;
}
