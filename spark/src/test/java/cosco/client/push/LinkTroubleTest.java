package cosco.client.push;

import static cosco.client.push.Routes.rangeEpoch;
import static cosco.client.push.RoutesTest.A;
import static cosco.client.push.RoutesTest.B;
import static cosco.client.push.RoutesTest.assigned;
import static cosco.client.push.RoutesTest.routes;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import cosco.client.CoscoException;
import cosco.v1.DaemonRef;
import cosco.v1.RenewAssignmentsReply;
import java.util.Arrays;
import java.util.Collections;
import java.util.TreeSet;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Whom a writer asks about a daemon that fails it, and when it gives up. */
class LinkTroubleTest {
  static final double TIMEOUT_S = 60;
  static final RenewAssignmentsReply NOTHING = RenewAssignmentsReply.getDefaultInstance();
  static final RenewAssignmentsReply ALIVE = answer(true, "");
  static final RenewAssignmentsReply WAITING = answer(false, "a host");

  final LinkTrouble trouble = new LinkTrouble(A, TIMEOUT_S);

  static RenewAssignmentsReply answer(boolean alive, String waitingFor) {
    return RenewAssignmentsReply.newBuilder().setAlive(alive).setWaitingFor(waitingFor).build();
  }

  void asks(Routes routes, double now, DaemonRef suspect, boolean insist, Integer... ranges) {
    Question question = trouble.question(routes, now);
    TreeSet<Long> stale = new TreeSet<>();
    for (int range : ranges) {
      stale.add(rangeEpoch(range, 1));
    }
    assertNotNull(question);
    assertEquals(stale, question.stale);
    assertEquals(suspect, question.suspect);
    assertEquals(insist, question.insist);
  }

  static void move(Routes routes, int range) {
    assertTrue(routes.renew(Collections.singletonList(assigned(range, 2, B))));
  }

  void refuse(int range, double now) {
    trouble.refused(rangeEpoch(range, 1), "sealed", now, false);
  }

  void fails(String kind, String... parts) {
    CoscoException error = trouble.error("orders");
    assertEquals(kind, error.kind());
    for (String part : parts) {
      assertTrue(error.getMessage().contains(part), error.getMessage());
    }
    assertTrue(error.getMessage().contains("'orders'"), error.getMessage());
    assertTrue(error.getMessage().contains(A.getAddress()), error.getMessage());
  }

  @Test
  void aDaemonOutOfReachIsNamedWithAllThatLeadsThere() {
    trouble.outOfReach("refused", 10);
    assertFalse(trouble.isRefused());
    asks(routes(A, B, A), 10, A, false, 0, 2);
  }

  @Test
  void aRefusalNamesWhatWasRefusedAndSuspectsNobody() {
    refuse(2, 10);
    assertTrue(trouble.isRefused());
    asks(routes(A, B, A), 10, null, false, 2);
  }

  @Test
  void anotherStartOfTheDaemonIsReported() {
    trouble.replaced("started again", 10);
    assertTrue(trouble.isRefused());
    asks(routes(A, B), 10, A, false, 0);
  }

  @Test
  void nothingIsAskedOnceItAllHasMoved() {
    Routes routes = routes(A, A);
    refuse(0, 10);
    move(routes, 0);
    assertNull(trouble.question(routes, 10));
    trouble.outOfReach("refused", 10);
    asks(routes, 10, A, false, 1);
    move(routes, 1);
    assertNull(trouble.question(routes, 11));
    assertEquals(TIMEOUT_S, trouble.remainingS(1000)); // it is over
  }

  @Test
  void aDaemonSaidToBeAliveIsTriedAndAfterAWhileInsistedOn() {
    trouble.outOfReach("silence", 10);
    assertTrue(trouble.answered(ALIVE, false));
    trouble.outOfReach("silence", 15.1);
    asks(routes(A), 15, A, false, 0);
    asks(routes(A), 15.1, A, true, 0);
  }

  @ParameterizedTest
  @CsvSource({"41, false", "20, true"})
  void insistingBeginsAnewAfterASteadyStreamOrAFrameTaken(double silentAt, boolean taken) {
    trouble.outOfReach("silence", 10);
    trouble.answered(ALIVE, false);
    trouble.heard(11);
    if (taken) {
      trouble.acknowledged();
    }
    trouble.outOfReach("silence", silentAt);
    trouble.answered(ALIVE, false);
    asks(routes(A), silentAt + 0.1, A, false, 0);
    assertEquals(TIMEOUT_S, trouble.remainingS(silentAt));
  }

  @Test
  void aDaemonThatIsHeardAndTakesNothingIsInsistedOnAndGivenUp() {
    for (int second = 0; second < 10; second++) { // a path that lets only small messages through
      trouble.outOfReach("cut", 10 + second);
      trouble.answered(ALIVE, false);
      trouble.heard(10.5 + second);
    }
    trouble.outOfReach("cut", 20);
    asks(routes(A), 20, A, true, 0);
    assertEquals(TIMEOUT_S - 10, trouble.remainingS(20));
  }

  @Test
  void aDeadDaemonIsNotTriedButAskedAboutAgain() {
    trouble.outOfReach("refused", 10);
    assertFalse(trouble.answered(WAITING, false));
    assertFalse(trouble.answered(NOTHING, false));
    assertNotNull(trouble.question(routes(A), 11));
  }

  @Test
  void aRefusalWithoutNewsIsTriedAgainButNotWhileADaemonIsWaitedFor() {
    refuse(0, 10);
    assertFalse(trouble.answered(WAITING, false));
    assertTrue(trouble.isRefused());
    assertTrue(trouble.answered(NOTHING, false));
    assertFalse(trouble.isRefused());
  }

  @Test
  void whatMovedInPartIsAskedAboutForTheRest() {
    Routes routes = routes(A, A);
    trouble.outOfReach("refused", 10);
    move(routes, 0);
    assertFalse(trouble.answered(WAITING, true));
    asks(routes, 10, A, false, 1);
  }

  @Test
  void aRefusedAssignmentThatIsInForceIsTriedAgain() {
    refuse(0, 10);
    refuse(1, 10);
    assertTrue(trouble.answered(answer(true, "a host for range 1"), false));
    assertFalse(trouble.isRefused());
  }

  @Test
  void ofSeveralRefusalsThoseThatHaveNotMovedAreAskedAbout() {
    Routes routes = routes(A, A);
    refuse(0, 10);
    refuse(1, 10);
    move(routes, 0);
    assertFalse(trouble.answered(NOTHING, true));
    asks(routes, 10, null, false, 1);
  }

  @Test
  void aDaemonThatIsNotSaidToBeAliveIsNotInsistedOn() {
    trouble.outOfReach("silence", 10);
    trouble.answered(NOTHING, false);
    asks(routes(A), 20.1, A, false, 0);
  }

  @Test
  void theDaemonIsTriedWhileTheMetadataServiceIsAway() {
    trouble.outOfReach("refused", 10);
    trouble.unanswered("no route");
    assertEquals(1, trouble.remainingS(9 + TIMEOUT_S));
    assertEquals(0, trouble.remainingS(11 + TIMEOUT_S));
    fails("ServiceUnavailable", "no route");
  }

  @Test
  void waitingForAHostEndsWithItsReason() {
    refuse(0, 10);
    trouble.answered(answer(false, "2 hosts, 1 is there"), false);
    assertEquals(0, trouble.remainingS(70));
    fails("CapacityExceeded", "2 hosts, 1 is there");
  }

  @Test
  void aDaemonThatStaysAwayIsWhatTheWriterFailsWith() {
    trouble.outOfReach("stalled", 10);
    trouble.answered(ALIVE, false);
    fails("ServiceUnavailable", "does not answer", "stalled");
  }

  @Test
  void aFullDaemonIsBorneForSecondsUnlessAnotherWillCome() {
    trouble.refused(rangeEpoch(0, 1), "no space left", 10, true);
    trouble.answered(NOTHING, false);
    assertEquals(LinkTrouble.CAPACITY_WAIT_S, trouble.remainingS(10));
    fails("CapacityExceeded", "no space left");
    trouble.answered(WAITING, false);
    assertEquals(TIMEOUT_S, trouble.remainingS(10));
  }

  @Test
  void refusalsDoNotGoOnForEverHoweverOftenTheDaemonIsHeard() {
    for (int second = 0; second < 10; second++) {
      refuse(0, 10 + second);
      trouble.answered(NOTHING, false);
      trouble.heard(10 + second);
    }
    assertEquals(TIMEOUT_S - 9, trouble.remainingS(19));
    trouble.acknowledged();
    assertEquals(TIMEOUT_S, trouble.remainingS(19));
  }

  @Test
  void pausesGrowAndAreBoundedAndBeginAnew() {
    double[] pauses = new double[20];
    for (int i = 0; i < pauses.length; i++) {
      pauses[i] = trouble.pauseS();
    }
    double[] sorted = pauses.clone();
    Arrays.sort(sorted);
    assertTrue(Arrays.equals(sorted, pauses));
    assertEquals(0.05, pauses[0]);
    assertEquals(1.0, pauses[19]);
    trouble.acknowledged();
    assertEquals(0.05, trouble.pauseS());
  }
}
