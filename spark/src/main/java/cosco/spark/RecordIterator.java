package cosco.spark;

import cosco.client.CoscoException;
import cosco.client.read.ExchangeReader;
import cosco.client.read.Run;
import cosco.spark.runs.RunDecoder;
import cosco.spark.runs.Sneaky;
import java.util.ArrayDeque;
import java.util.NoSuchElementException;
import org.apache.spark.shuffle.FetchFailedException;
import org.apache.spark.shuffle.ShuffleReadMetricsReporter;
import scala.Tuple2;
import scala.collection.AbstractIterator;
import scala.collection.Iterator;

/** The records of an exchange's runs. What fails is told to Spark as it wants to be told. */
final class RecordIterator extends AbstractIterator<Tuple2<Object, Object>> {
  private final RunDecoder decoder;
  private final ShuffleReadMetricsReporter metrics;
  private final int shuffleId;
  private final int partition;
  private final ArrayDeque<ExchangeReader> later = new ArrayDeque<>();
  private ExchangeReader reader;
  private Iterator<Tuple2<Object, Object>> run;
  private long fetchedBytes;
  private long fetches;
  private long waitedNs;

  /** Without a reader there are no records. partition: the first one, for messages. */
  RecordIterator(
      RunDecoder decoder, ShuffleReadMetricsReporter metrics, int shuffleId,
      int partition) {
    this.decoder = decoder;
    this.metrics = metrics;
    this.shuffleId = shuffleId;
    this.partition = partition;
  }

  /** Gives the records of a reader too, after those of others; it is closed with this. */
  void add(ExchangeReader more) {
    if (reader == null) {
      begin(more);
    } else {
      later.add(more);
    }
  }

  private void begin(ExchangeReader next) {
    reader = next;
    fetchedBytes = 0;
    fetches = 0;
    waitedNs = 0;
  }

  @Override
  public boolean hasNext() {
    while (run == null || !run.hasNext()) {
      if (reader == null || !nextRun()) {
        return false;
      }
    }
    return true;
  }

  @Override
  public Tuple2<Object, Object> next() {
    if (!hasNext()) {
      throw new NoSuchElementException("there are no more records");
    }
    return run.next();
  }

  private boolean nextRun() {
    Run found;
    try {
      found = reader.next();
    } catch (CoscoException error) {
      throw failure(error);
    } finally {
      count();
    }
    if (found == null) {
      end();
      if (!later.isEmpty()) {
        begin(later.remove());
      }
      run = null;
      return reader != null && nextRun();
    }
    metrics.incRecordsRead(found.records);
    run = decoder.records(found);
    return true;
  }

  /** Ends all readers; nothing more is given. */
  void close() {
    run = null;
    end();
    while (!later.isEmpty()) {
      later.remove().close();
    }
  }

  private void end() {
    if (reader != null) {
      count();
      reader.close();
      reader = null;
    }
  }

  private void count() {
    metrics.incRemoteBytesRead(reader.fetchedBytes() - fetchedBytes);
    fetchedBytes = reader.fetchedBytes();
    metrics.incRemoteBlocksFetched(reader.fetches() - fetches);
    fetches = reader.fetches();
    long waitedMs = (reader.waitedNs() - waitedNs) / 1_000_000;
    metrics.incFetchWaitTime(waitedMs);
    waitedNs += waitedMs * 1_000_000;
  }

  /**
   * Returns what to throw: of lost rows what has Spark run their map tasks again.
   *
   * <p>It names no place, as there is no executor to blame: the driver has taken the lost outputs out
   * of its books by then, or does so in the moment that Spark waits.
   */
  RuntimeException failure(CoscoException error) {
    if (error.is("DataLost", "GenerationChanged") && error.isRetriable()) {
      throw Sneaky.unchecked(new FetchFailedException(
          null, shuffleId, -1L, -1, partition, error.toString(), error));
    }
    throw Sneaky.unchecked(error);
  }
}
