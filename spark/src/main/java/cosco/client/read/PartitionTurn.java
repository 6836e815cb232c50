package cosco.client.read;

import cosco.client.CoscoException;
import cosco.client.read.state.BrokenStream;
import cosco.client.read.state.Committed;
import cosco.client.read.state.PartitionMerge;
import cosco.client.read.state.ReadPlan;
import cosco.client.read.state.SharedPass;
import cosco.client.read.state.Slice;
import cosco.v1.DaemonRef;
import java.util.Set;

/** One partition at its turn: a plan that is carried out until its sums are right. */
final class PartitionTurn {
  /** What the turn needs of its reader. */
  interface Reader {
    /** Returns what the service says now of a partition. */
    Committed renewed(int partition) throws CoscoException;

    /** Pauses, unless the reader is closed or interrupted. */
    void pause(double seconds) throws CoscoException;

    /** Returns an error that says which partition it is of. */
    CoscoException error(String kind, String what, boolean retriable);
  }

  private final Reader reader;
  private final Commits commits;
  private final Fetches fetches;
  private final int partition;
  private final PartitionMerge merge;
  private final ReadPlan plan;
  private final boolean hasOthers;
  private Committed read;
  private boolean hasGiven;
  private int retries;
  // The fetch under way; null: none is.
  private ReadPlan.Fetch fetch;
  private SharedPass.Place place;
  private Fetches.Open open;
  private int refusalsBefore;
  private String lastBad;

  /** Begins with what is committed of the partition. */
  PartitionTurn(
      Reader reader, Commits commits, Fetches fetches, int partition, Committed read,
      PartitionMerge merge, boolean hasOthers, double unreachableS, Set<DaemonRef> troubled) {
    this.reader = reader;
    this.commits = commits;
    this.fetches = fetches;
    this.partition = partition;
    this.read = read;
    this.merge = merge;
    this.hasOthers = hasOthers;
    plan = new ReadPlan(read.sources, unreachableS, troubled);
  }

  /** Another build is to be read in the place of this one, of which nothing was given. */
  static final class BegunAnew extends Exception {
    private static final long serialVersionUID = 1;
    final transient Committed now;

    BegunAnew(Committed now) {
      super(null, null, false, false);
      this.now = now;
    }
  }

  /** Returns how often something was fetched that another fetch was to give. */
  int retries() {
    return retries;
  }

  /** Returns the rows of the wanted mappers that were found. */
  long records() {
    return merge.records();
  }

  /** Returns the next run; null: all were given, and the sums are right. */
  Run next() throws CoscoException, BegunAnew {
    for (;;) {
      if (fetch != null) {
        Run run = fetched();
        if (run != null) {
          hasGiven = true;
          return run;
        }
      }
      ReadPlan.Act act = plan.step(System.nanoTime() / 1e9, merge.isComplete());
      switch (act) {
        case FETCH:
          begin(plan.fetch());
          break;
        case REPORT_DAEMON:
          plan.reported(commits.reportDaemon(plan.daemon(), plan.insists()));
          break;
        case RENEW:
          renew();
          break;
        case DONE:
          return null;
        case GIVE_UP:
          throw reader.error(
              "ServiceUnavailable", "it cannot be fetched: " + plan.reason(), true);
        default:
          throw lost();
      }
    }
  }

  private void begin(ReadPlan.Fetch next) throws CoscoException {
    fetch = next;
    refusalsBefore = merge.refusals();
    lastBad = "";
    if (next.whole) {
      merge.forgetHeaders();
    }
    open = null;
    SharedPass pass = fetches.pass();
    place = pass == null ? null : pass.place(next);
    if (place != null) {
      open = fetches.open(place.ask);
    }
    if (open == null || !open.replies.has(place.part, partition)) {
      SharedPass alone = SharedPass.alone(next, partition, hasOthers);
      fetches.begin(alone);
      place = alone.place(next);
      open = fetches.open(place.ask);
      retries++;
    }
  }

  /** Returns the next run of the fetch under way; null: it is over, and the plan was told. */
  private Run fetched() throws CoscoException {
    String address = fetch.daemon.getAddress();
    try {
      for (;;) {
        Run run = merge.next();
        if (run != null) {
          return run;
        }
        Slice blocks = open.replies.next(place.part, partition, this::refuse);
        if (blocks == null) {
          break;
        }
        merge.feed(blocks);
      }
    } catch (BrokenStream error) {
      fetches.end();
      plan.unreachable(
          fetch, System.nanoTime() / 1e9, address + ": " + error.getMessage(), error.isBusy);
      fetch = null;
      return null;
    } catch (CoscoException error) {
      fetches.end();
      if (error.is("ClientClosed", "AccessDenied")) {
        throw error;
      }
      if (error.is("ExchangeClosed")) {
        plan.closed(fetch);
        fetch = null;
        return null;
      }
      refuse(error.getMessage());
    }
    boolean isWell = merge.refusals() == refusalsBefore;
    plan.answered(
        fetch, isWell ? "" : lastBad.isEmpty() ? address + ": " + merge.reason() : lastBad);
    fetch = null;
    return null;
  }

  private void refuse(String reason) {
    lastBad = fetch.daemon.getAddress() + ": " + reason;
    merge.refuse(lastBad);
  }

  private void renew() throws CoscoException, BegunAnew {
    fetches.end();
    if (plan.pauseS() > 0) {
      reader.pause(plan.pauseS());
    }
    Committed now = reader.renewed(partition);
    if (read.goesOn(now)) {
      plan.renewed(now.sources, System.nanoTime() / 1e9);
      read = now;
    } else if (hasGiven) {
      throw reader.error(
          "DataLost", "rows were lost after others had been read: read it anew", true);
    } else {
      throw new BegunAnew(now);
    }
  }

  private CoscoException lost() throws CoscoException {
    String state = merge.state();
    fetches.end();
    commits.reportLoss(read, partition, plan.isGone(), state + "; " + plan.reason());
    if (merge.isContradiction()) {
      return reader.error("DataCorrupted", state, false);
    }
    return reader.error("DataLost", state + "; run its mappers again", true);
  }
}
