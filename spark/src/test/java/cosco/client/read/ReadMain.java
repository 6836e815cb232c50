package cosco.client.read;

import cosco.client.CoscoException;
import cosco.client.rpc.ServiceAddress;
import cosco.client.rpc.Services;
import java.io.BufferedOutputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/**
 * Reads an exchange, for tests in Python: metadata, number, shuffle id, first and end mapper, start
 * and end of the wanted ones, start and end partition, prefetch bytes, stall in s, credential,
 * and after how many runs to stop until a byte comes on stdin (-1: never). A
 * last argument says what follows then: `nested` has another reader read all of it, and does not
 * stop; `close` and `interrupt` have another thread do so 0.3 s later.
 *
 * <p>Rows go to stdout: partition, mapper, length, bytes. The end, or an error, to stderr.
 */
public final class ReadMain {
  private ReadMain() {}

  /** Reads, and exits with 0, or 3 after a CoscoException. */
  public static void main(String[] args) throws Exception {
    Services services = new Services(new ServiceAddress(args[0], "", "", "", 20));
    ReaderOptions options = new ReaderOptions();
    options.prefetchBytes = Long.parseLong(args[9]);
    options.stallS = Double.parseDouble(args[10]);
    options.unreachableS = 20;
    int[] n = new int[9];
    for (int i = 3; i < 9; i++) {
      n[i] = Integer.parseInt(args[i]);
    }
    long stopAt = Long.parseLong(args[12]);
    String then = args.length > 13 ? args[13] : "";
    DataOutputStream out =
        new DataOutputStream(new BufferedOutputStream(System.out, 1 << 20));
    try (ExchangeReader reader = reader(services, args, n, options)) {
      long runs = 0;
      long nestedRetries = 0;
      for (Run run = reader.next(); run != null; run = reader.next()) {
        write(run, out);
        if (++runs == stopAt) {
          if (then.equals("nested")) {
            nestedRetries = retriesOfAll(reader(services, args, n, options));
            continue;
          }
          System.err.println("STOPPED");
          System.in.read();
          endSoon(then, reader);
        }
      }
      out.flush();
      System.err.println("END records=" + reader.records() + " fetches=" + reader.fetches()
          + " retries=" + (reader.retries() + nestedRetries) + " bytes=" + reader.fetchedBytes());
    } catch (CoscoException error) {
      out.flush();
      System.err.println("ERROR " + error.kind() + " " + error.isRetriable() + " "
          + error.getMessage());
      System.exit(3);
    }
  }

  private static void endSoon(String how, ExchangeReader reader) {
    Thread reading = Thread.currentThread();
    Thread ending = new Thread(() -> {
      try {
        Thread.sleep(300);
      } catch (InterruptedException error) {
        return;
      }
      if (how.equals("close")) {
        reader.close();
        reader.close();
      } else if (how.equals("interrupt")) {
        reading.interrupt();
      }
    });
    ending.setDaemon(true);
    ending.start();
  }

  private static ExchangeReader reader(
      Services services, String[] args, int[] n, ReaderOptions options) throws CoscoException {
    return new ExchangeReader(
        services, args[11], Long.parseUnsignedLong(args[1]), args[2], n[3], n[4], n[5], n[6], n[7],
        n[8], options);
  }

  private static long retriesOfAll(ExchangeReader reader) throws CoscoException {
    try (ExchangeReader closed = reader) {
      while (closed.next() != null) {
        continue;
      }
      return closed.retries();
    }
  }

  private static void write(Run run, DataOutputStream out) throws IOException {
    ByteBuffer lengths =
        ByteBuffer.wrap(run.data, run.at, run.length).order(ByteOrder.LITTLE_ENDIAN);
    int at = run.hasLengths ? run.at + 4 * run.records : run.at;
    for (int i = 0; i < (run.hasLengths ? run.records : 1); i++) {
      int length = run.hasLengths ? lengths.getInt() : run.length;
      out.writeInt(run.partition);
      out.writeInt(run.mapper);
      out.writeInt(length);
      out.write(run.data, at, length);
      at += length;
    }
  }
}
