package cosco.client.read.state;

import cosco.client.CoscoException;
import cosco.client.format.BlockCodec;
import cosco.client.format.BlockHeader;
import cosco.client.read.Run;
import java.util.HashMap;
import java.util.Map;

/** Rows that come in fragments, in any order, until they are whole. */
final class LongRows {
  private static final int MAX_BYTES = Integer.MAX_VALUE - 64;

  private static final class Row {
    final Map<Integer, byte[]> parts = new HashMap<>(); // with their rooms
    long bytes;
    int last = -1;
  }

  private final Map<Integer, Map<Long, Row>> rows = new HashMap<>(); // by mapper, then by row

  /** Returns whether no row is begun. */
  boolean isEmpty() {
    return rows.isEmpty();
  }

  /**
   * Keeps a fragment that was not seen before, and returns the row if that is all of it.
   *
   * @param room the content behind its room
   * @throws CoscoException CapacityExceeded for rows that no array can hold
   */
  Run add(BlockHeader h, byte[] room) throws CoscoException {
    Map<Long, Row> ofMapper = rows.computeIfAbsent(h.mapper, mapper -> new HashMap<>());
    Row row = ofMapper.computeIfAbsent(h.firstRow(), first -> new Row());
    int number = (int) (h.position & (BlockHeader.MAX_FRAGMENTS - 1));
    row.parts.put(number, room);
    row.bytes += h.rawBytes;
    if (h.isLast()) {
      row.last = number;
    }
    if (row.last < 0 || row.parts.size() <= row.last) {
      return null;
    }
    // The last fragment covers every later position, so there are exactly 0 to `last`.
    ofMapper.remove(h.firstRow());
    if (ofMapper.isEmpty()) {
      rows.remove(h.mapper);
    }
    if (row.bytes > MAX_BYTES) {
      throw new CoscoException(
          "CapacityExceeded", "a row of " + row.bytes + " bytes: no array of Java holds that");
    }
    byte[] whole = new byte[(int) row.bytes];
    int end = 0;
    for (int i = 0; i <= row.last; i++) {
      byte[] part = row.parts.remove(i);
      int length = part.length - BlockCodec.IDENTITY_BYTES;
      System.arraycopy(part, BlockCodec.IDENTITY_BYTES, whole, end, length);
      end += length;
    }
    return new Run(whole, 0, whole.length, h.partition, h.mapper, 1, false);
  }
}
