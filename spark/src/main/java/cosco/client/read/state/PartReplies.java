package cosco.client.read.state;

import cosco.client.CoscoException;
import cosco.v1.Section;
import java.util.ArrayDeque;
import java.util.Arrays;
import java.util.List;
import java.util.PriorityQueue;
import java.util.Queue;

/**
 * What one daemon replies to a request of parts, cut at their ends: ascending by partition, and
 * those of one partition in the order of the parts.
 */
public final class PartReplies {
  /** Is told what is bad in replies, and so absent. */
  public interface Bad {
    /** Takes a reason, in one line. */
    void refuse(String reason);
  }

  private final List<int[]> parts;
  private final int[] passed; // of each part, how many of its partitions have ended
  // The end of each part that comes next of it: by partition, then by part.
  private final PriorityQueue<Long> order = new PriorityQueue<>();
  private final Messages messages;
  private final Queue<Slice> runs = new ArrayDeque<>();
  private ReplyCursor cursor;
  private int nextPart; // whose end comes next; -1: none
  private int nextPartition;
  private boolean isBegun;
  private long left; // of the present section
  private BlockSplitter splitter; // null: the rest of the section is skipped, or all of it

  /** Begins before the first reply; `parts`: the partitions of each, ascending. */
  public PartReplies(List<int[]> parts, Messages messages) {
    this.parts = parts;
    this.messages = messages;
    passed = new int[parts.size()];
    for (int i = 0; i < passed.length; i++) {
      expect(i);
    }
    findNext();
  }

  /** Returns whether the replies of a partition of a part are all to come. */
  public boolean has(int part, int partition) {
    if (nextPart < 0 || Arrays.binarySearch(parts.get(part), partition) < 0) {
      return false;
    }
    int compared = Integer.compare(partition, nextPartition);
    if (compared == 0) {
      compared = Integer.compare(part, nextPart);
    }
    return compared > 0 || (compared == 0 && !isBegun);
  }

  /**
   * Returns the next blocks of a partition of a part, or null at its end; what lies before is
   * passed over.
   *
   * @throws BrokenStream where replies do not follow each other as they must, and of `Messages`
   * @throws CoscoException of `Messages`
   */
  public Slice next(int part, int partition, Bad bad) throws BrokenStream, CoscoException {
    for (;;) {
      boolean isWanted = nextPart == part && nextPartition == partition;
      if (isWanted) {
        isBegun = true;
        Slice run = runs.poll();
        if (run != null) {
          return run;
        }
      }
      runs.clear();
      advance();
      switch (cursor.kind) {
        case SECTION:
          section(cursor.section, bad, isWanted);
          break;
        case DATA:
          data(bad);
          break;
        default:
          partEnd();
          if (isWanted) {
            return null;
          }
      }
    }
  }

  private void advance() throws BrokenStream, CoscoException {
    while (cursor == null || !cursor.next()) {
      byte[] message = messages.next();
      if (message == null) {
        throw BrokenStream.nonsense("the stream ended before its last part did");
      }
      cursor = new ReplyCursor(message);
    }
  }

  private void section(Section section, Bad bad, boolean isWanted) throws BrokenStream {
    if (left > 0) {
      throw BrokenStream.nonsense("a section begins " + left + " bytes before the last one ends");
    }
    if (section.hasReference()) {
      throw BrokenStream.nonsense("a reference that was not asked for");
    }
    splitter = isWanted ? new BlockSplitter(section.getHeaders()) : null;
    String error = section.getError();
    if (!error.isEmpty()) {
      if (isWanted) {
        String line = error.trim().replaceAll("\\s+", " ");
        bad.refuse(line.substring(0, Math.min(300, line.length())));
      }
    } else {
      left = section.getBodyBytes();
    }
  }

  private void data(Bad bad) throws BrokenStream {
    int length = cursor.end - cursor.at;
    if (left < 0 || length > left) {
      throw BrokenStream.nonsense(length + " bytes of data where " + left + " are left");
    }
    left -= length;
    if (splitter == null) {
      return;
    }
    try {
      splitter.feed(cursor.message, cursor.at, cursor.end, runs);
      if (left == 0) {
        splitter.finish();
      }
    } catch (CoscoException error) {
      bad.refuse(error.getMessage());
      splitter = null;
    }
  }

  private void partEnd() throws BrokenStream {
    if (left > 0) {
      throw BrokenStream.nonsense("a part ends " + left + " bytes before its section does");
    }
    if (cursor.part != nextPart || cursor.partition != nextPartition) {
      throw BrokenStream.nonsense(
          "part " + cursor.part + " of partition " + cursor.partition + " ends out of its turn");
    }
    passed[nextPart]++;
    expect(nextPart);
    findNext();
  }

  private void findNext() {
    isBegun = false;
    Long next = order.poll();
    nextPart = next == null ? -1 : next.intValue();
    nextPartition = next == null ? -1 : (int) (next >>> 32);
  }

  private void expect(int part) {
    int[] partitions = parts.get(part);
    if (passed[part] < partitions.length) {
      order.add((long) partitions[passed[part]] << 32 | part);
    }
  }
}
