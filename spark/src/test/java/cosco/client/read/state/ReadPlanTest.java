package cosco.client.read.state;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import cosco.client.read.state.ReadPlan.Act;
import cosco.v1.DaemonRef;
import cosco.v1.Source;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.Test;

class ReadPlanTest {
  private static final DaemonRef A = daemon("a");
  private static final DaemonRef B = daemon("b");
  private static final DaemonRef C = daemon("c");

  private final Set<DaemonRef> troubled = new HashSet<>();
  private double now = 100;

  static DaemonRef daemon(String address) {
    return DaemonRef.newBuilder().setAddress(address).setIncarnation(1).build();
  }

  static Source source(int epoch, boolean isSealed, DaemonRef... daemons) {
    return Source.newBuilder().setRangeIndex(2).setEpoch(epoch).setSealed(isSealed)
        .addAllDaemons(Arrays.asList(daemons)).build();
  }

  private ReadPlan plan(Source... sources) {
    return new ReadPlan(Arrays.asList(sources), 30, troubled);
  }

  /** Returns what is asked for next: epoch, daemon, `f` for files, `w` for whole. */
  private String fetch(ReadPlan plan) {
    assertEquals(Act.FETCH, plan.step(now, false));
    ReadPlan.Fetch fetch = plan.fetch();
    return fetch.source.getEpoch() + fetch.daemon.getAddress() + (fetch.files ? "f" : "")
        + (fetch.whole ? "w" : "");
  }

  private String answered(ReadPlan plan, String bad) {
    String what = fetch(plan);
    plan.answered(plan.fetch(), bad);
    return what;
  }

  @Test
  void theFirstDaemonOfEachSourceIsBelievedThenAllAreAskedThenItIsALoss() {
    List<Source> sources = Arrays.asList(source(1, true, A, B), source(2, false, B, A));
    ReadPlan plan = plan(sources.get(0), sources.get(1));
    assertEquals("1af", answered(plan, ""));
    assertEquals("2b", answered(plan, ""));
    assertEquals(Act.DONE, plan.step(now, true));
    for (String expected : new String[] {"1afw", "1bfw", "2bfw", "2afw"}) {
      assertEquals(expected, answered(plan, ""));
    }
    assertEquals(Act.RENEW, plan.step(now, false));
    assertEquals(0, plan.pauseS());
    plan.renewed(sources, now);
    assertEquals(Act.REPORT_LOSS, plan.step(now, false));
    assertFalse(plan.isGone());
    assertEquals("every copy was read", plan.reason());
  }

  @Test
  void whatIsBadAtOneDaemonIsAskedOfTheNext() {
    ReadPlan plan = plan(source(1, false, A, B));
    assertEquals("1a", answered(plan, "a: checksum"));
    assertEquals("1bf", answered(plan, ""));
    assertEquals("1afw", answered(plan, "a: checksum"));
    assertEquals("1bfw", answered(plan, "b: checksum"));
    assertEquals(Act.RENEW, plan.step(now, false));
    plan.renewed(Collections.singletonList(source(1, false, A, B)), now);
    assertEquals(Act.REPORT_LOSS, plan.step(now, false));
    assertTrue(plan.isGone());
    assertEquals("a: checksum", plan.reason());
  }

  @Test
  void aDaemonOutOfReachIsAskedLastReportedAndWaitedForUntilItIsNotNamed() {
    ReadPlan plan = plan(source(1, false, A, B), source(2, false, A));
    assertEquals("1a", fetch(plan));
    plan.unreachable(plan.fetch(), now, "refused", false);
    assertEquals("1bf", answered(plan, ""));
    assertEquals(Act.REPORT_DAEMON, plan.step(now, false)); // as 2 is at A alone
    assertEquals(A, plan.daemon());
    assertFalse(plan.insists());
    plan.reported(true);
    assertEquals(Act.RENEW, plan.step(now, false));
    assertTrue(plan.pauseS() > 0);
    now += 4;
    plan.renewed(Arrays.asList(source(1, false, A, B), source(2, false, A)), now);
    assertEquals("2a", fetch(plan));
    plan.unreachable(plan.fetch(), now, "refused", false);
    assertEquals(Act.REPORT_DAEMON, plan.step(now, false));
    assertTrue(plan.insists());
    plan.reported(false);
    assertEquals(Act.RENEW, plan.step(now, false));
    plan.renewed(Arrays.asList(source(1, true, B), source(2, true)), now);
    for (String expected : new String[] {"1bfw"}) {
      assertEquals(expected, answered(plan, ""));
    }
    assertEquals(Act.RENEW, plan.step(now, false));
    plan.renewed(Arrays.asList(source(1, true, B), source(2, true)), now);
    assertEquals(Act.REPORT_LOSS, plan.step(now, false));
    assertTrue(plan.isGone());
    assertEquals("no daemon alive has epoch 2 of range 2", plan.reason());
    assertTrue(troubled.contains(A));
  }

  @Test
  void itGivesUpOnADaemonThatIsNamedAndOutOfReachForTooLong() {
    ReadPlan plan = plan(source(1, false, A));
    int rounds = 0;
    Act act = plan.step(now, false);
    for (; act != Act.GIVE_UP && rounds < 1000; act = plan.step(now, false)) {
      if (act == Act.FETCH) {
        plan.unreachable(plan.fetch(), now, "refused", false);
      } else if (act == Act.REPORT_DAEMON) {
        plan.reported(true);
      } else {
        assertEquals(Act.RENEW, act);
        now += plan.pauseS();
        plan.renewed(Collections.singletonList(source(1, false, A)), now);
      }
      rounds++;
    }
    assertEquals(Act.GIVE_UP, act);
    assertEquals("refused", plan.reason());
    assertTrue(now >= 130 && now < 133, "at " + now);
  }

  @Test
  void aBusyDaemonIsNotReported() {
    ReadPlan plan = plan(source(1, false, A));
    fetch(plan);
    plan.unreachable(plan.fetch(), now, "its store hangs", true);
    assertEquals(Act.RENEW, plan.step(now, false));
    plan.renewed(Collections.singletonList(source(1, false, A)), now);
    assertEquals("1a", answered(plan, ""));
    assertTrue(troubled.isEmpty());
  }

  @Test
  void whatADaemonDroppedTheServiceKnowsOf() {
    ReadPlan plan = plan(source(1, false, A, B));
    fetch(plan);
    plan.closed(plan.fetch());
    assertEquals(Act.RENEW, plan.step(now, false));
    plan.renewed(Collections.singletonList(source(1, false, A, B)), now);
    assertEquals("1bf", fetch(plan));
  }

  @Test
  void whoWasAskedBeforeASealIsAskedAgain() {
    ReadPlan plan = plan(source(1, false, A));
    assertEquals("1a", answered(plan, ""));
    assertEquals("1afw", answered(plan, ""));
    assertEquals(Act.RENEW, plan.step(now, false));
    plan.renewed(Collections.singletonList(source(1, true, A, C)), now);
    assertEquals("1afw", answered(plan, ""));
    assertEquals("1cfw", answered(plan, ""));
    assertEquals(Act.RENEW, plan.step(now, false));
    plan.renewed(Collections.singletonList(source(1, true, A, C)), now);
    assertEquals(Act.REPORT_LOSS, plan.step(now, false));
  }

  @Test
  void thoseInTroubleAreAskedLast() {
    troubled.add(A);
    ReadPlan plan = plan(source(1, false, A, B, C));
    assertEquals("1bf", answered(plan, "bad"));
    assertEquals("1cf", answered(plan, "bad"));
    assertEquals("1a", answered(plan, ""));
    assertTrue(troubled.isEmpty());
  }
}
