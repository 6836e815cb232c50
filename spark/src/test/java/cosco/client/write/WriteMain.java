package cosco.client.write;

import cosco.client.CoscoException;
import cosco.client.format.BlockCodec;
import cosco.client.rpc.ServiceAddress;
import cosco.client.rpc.Services;
import java.util.concurrent.locks.LockSupport;

/**
 * Writes runs of one record each, whose bytes follow from the mapper.
 *
 * <p>Arguments: metadata address, shuffle id, mapper, seed, rows, partitions, shortest row, longest
 * row, milliseconds between rows, milliseconds until it is interrupted, or 0. Row i is of partition
 * i modulo partitions, and begins with the mapper and i as two numbers of 8 bytes. Says `half` when
 * half is added, and `won …` or `failed …` at the end.
 */
public final class WriteMain {
  private WriteMain() {}

  /** Runs it. */
  public static void main(String[] args) throws Exception {
    int mapper = Integer.parseInt(args[2]);
    int seed = Integer.parseInt(args[3]);
    int rows = Integer.parseInt(args[4]);
    int partitions = Integer.parseInt(args[5]);
    int shortest = Integer.parseInt(args[6]);
    int longest = Integer.parseInt(args[7]);
    long pauseMs = Long.parseLong(args[8]);
    Services services = new Services(new ServiceAddress(args[0], "", "", "", 60));
    long interruptMs = Long.parseLong(args[9]);
    Thread self = Thread.currentThread();
    long begin = System.nanoTime();
    ExchangeWriter writer =
        new ExchangeWriter(services, "", args[1], mapper, WriterOptions.DEFAULT);
    if (interruptMs > 0) {
      new Thread(() -> {
        try {
          Thread.sleep(interruptMs);
        } catch (InterruptedException error) {
          return;
        }
        self.interrupt();
      }).start();
    }
    byte[] room = new byte[BlockCodec.IDENTITY_BYTES + longest];
    try {
      for (int i = 0; i < rows; i++) {
        if (i == rows / 2) {
          System.out.println("half");
        }
        int length = shortest + (int) ((i * 7919L + seed) % (longest - shortest + 1));
        fill(room, mapper, i, length);
        writer.add(i % partitions, 1, room, 0, length);
        LockSupport.parkNanos(pauseMs * 1000000);
      }
      WriterSums sums = writer.commit();
      long all = 0;
      for (long one : sums.rows()) {
        all += one;
      }
      System.out.println(
          "won " + sums.won() + " rows " + all + " resent " + writer.resentFrames() + " waited_ms "
              + writer.waitedNs() / 1000000 + " took_ms " + (System.nanoTime() - begin) / 1000000);
    } catch (CoscoException error) {
      System.out.println("failed " + error);
      writer.abort();
    }
    System.exit(0);
  }

  private static void fill(byte[] room, long mapper, long i, int length) {
    long first = mapper << 32 | i;
    for (int at = 0; at < length; at++) {
      long word = first + at / 8 * 6364136223846793005L;
      word = at < 8 ? mapper : at < 16 ? i : word;
      room[BlockCodec.IDENTITY_BYTES + at] = (byte) (word >>> 8 * (at % 8));
    }
  }
}
