package cosco.client.read.state;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.ByteString;
import cosco.client.format.Bitmaps;
import cosco.v1.DaemonRef;
import cosco.v1.FetchRequest;
import cosco.v1.Source;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.Test;

class SharedPassTest {
  private static final Attempts ATTEMPTS = new Attempts(new int[] {1, 2}, new long[] {9, 9});
  private static final Set<DaemonRef> NOBODY = Collections.emptySet();

  private static Committed range(int index, int first, long[] rows, DaemonRef... daemons) {
    int[] partitions = new int[rows.length];
    for (int i = 0; i < rows.length; i++) {
      partitions[i] = first + i;
    }
    Source source = Source.newBuilder().setRangeIndex(index).setEpoch(1)
        .addAllDaemons(Arrays.asList(daemons)).build();
    return new Committed(
        1, 1, ATTEMPTS, Collections.singletonList(source), partitions, rows, rows, rows);
  }

  private static ReadPlan.Fetch fetch(Committed range, Set<DaemonRef> troubled) {
    ReadPlan plan = new ReadPlan(range.sources, 30, troubled);
    plan.step(0, false);
    return plan.fetch();
  }

  @Test
  void eachDaemonIsAskedOnceForWhatHasRows() throws Exception {
    DaemonRef a = ReadPlanTest.daemon("a");
    DaemonRef b = ReadPlanTest.daemon("b");
    List<Committed> told = Arrays.asList(
        range(0, 0, new long[] {1, 1, 0, 1}, a, b), range(1, 4, new long[] {1, 0}, b, a),
        range(2, 6, new long[] {0, 1}, a, b), range(3, 8, new long[] {0, 0}, a, b));
    SharedPass pass = SharedPass.of(told, 1, 1, 3, NOBODY);
    assertEquals(10, pass.endPartition());
    assertFalse(pass.namesMappers());
    assertEquals(2, pass.asks().size());
    FetchRequest request = pass.asks().get(0).request(5, ByteString.EMPTY, "cap");
    assertEquals(2, request.getPartsCount());
    assertEquals("cap", request.getCapability());
    assertArrayEquals(
        new int[] {1, 3}, Bitmaps.parse(request.getParts(0).getPartitions(), "").toArray());
    assertArrayEquals(new int[] {7}, pass.asks().get(0).partitions.get(1));
    assertEquals(1, pass.place(fetch(told.get(2), NOBODY)).part);
    assertEquals(b, pass.place(fetch(told.get(1), NOBODY)).ask.daemon);
    Set<DaemonRef> troubled = new HashSet<>(Collections.singleton(a));
    assertNull(pass.place(fetch(told.get(0), troubled))); // which is of b then
    assertNotNull(
        SharedPass.of(told, 0, 1, 3, troubled).place(fetch(told.get(0), troubled)));
  }

  @Test
  void mappersAreNamedWhereOthersWrote() {
    List<Committed> told =
        Collections.singletonList(range(0, 0, new long[] {1}, ReadPlanTest.daemon("a")));
    assertFalse(SharedPass.of(told, 0, 1, 3, NOBODY).namesMappers());
    assertTrue(SharedPass.of(told, 0, 1, 2, NOBODY).namesMappers());
    assertTrue(SharedPass.of(told, 0, 2, 3, NOBODY).namesMappers());
  }

  @Test
  void aPassHasABoundedNumberOfStreams() {
    List<Committed> told = new ArrayList<>();
    for (int i = 0; i < 40; i++) {
      told.add(range(i, i, new long[] {1}, ReadPlanTest.daemon("d" + i)));
    }
    SharedPass pass = SharedPass.of(told, 0, 1, 3, NOBODY);
    assertEquals(16, pass.asks().size());
    assertEquals(16, pass.endPartition());
  }
}
