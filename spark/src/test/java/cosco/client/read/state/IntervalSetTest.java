package cosco.client.read.state;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.BitSet;
import java.util.Random;
import org.junit.jupiter.api.Test;

class IntervalSetTest {
  @Test
  void itIsWhatASetOfBitsIs() {
    long seed = System.nanoTime();
    Random random = new Random(seed);
    for (int round = 0; round < 300; round++) {
      IntervalSet set = new IntervalSet();
      SeenRows seen = new SeenRows(2);
      BitSet bits = new BitSet();
      for (int i = 0; i < 60; i++) {
        int start = random.nextInt(100);
        int end = start + 1 + random.nextInt(8);
        BitSet within = bits.get(start, end);
        String where = "seed " + seed + ", round " + round + ", step " + i;
        assertEquals(within.cardinality() > 0, set.overlaps(start, end), where);
        assertEquals(within.cardinality() == end - start, set.covers(start, end), where);
        assertEquals(set.overlaps(start, end), seen.overlaps(1, start, end), where);
        assertEquals(set.covers(start, end), seen.covers(1, start, end), where);
        if (random.nextBoolean()) {
          set.add(start, end);
          bits.set(start, end);
          if (within.isEmpty()) {
            seen.add(1, start, end);
          } else { // it is given what was not seen before
            for (int k = start; k < end; k++) {
              if (!within.get(k - start)) {
                seen.add(1, k, k + 1);
              }
            }
          }
        }
      }
      int runs = 0;
      for (int at = bits.nextSetBit(0); at >= 0; at = bits.nextSetBit(bits.nextClearBit(at))) {
        runs++;
      }
      assertEquals(runs, set.size(), "seed " + seed);
      assertEquals(runs, seen.intervals(1), "seed " + seed);
      assertEquals(0, seen.intervals(0));
      seen.clear();
      assertFalse(seen.overlaps(1, 0, 200));
      seen.add(1, 4, 5);
      assertEquals(1, seen.intervals(1));
    }
  }

  @Test
  void blocksInOrderAreOneInterval() {
    SeenRows seen = new SeenRows(1);
    for (int i = 0; i < 1000; i++) {
      seen.add(0, 10L * i, 10L * i + 10);
    }
    assertEquals(1, seen.intervals(0));
    assertTrue(seen.covers(0, 0, 10_000));
    assertFalse(seen.overlaps(0, 10_000, 10_001));
  }
}
