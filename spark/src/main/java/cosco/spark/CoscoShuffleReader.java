package cosco.spark;

import cosco.client.CoscoException;
import cosco.client.read.ExchangeReader;
import cosco.client.rpc.Services;
import cosco.spark.runs.RunDecoder;
import cosco.spark.runs.UnsafeRowDecoder;
import java.io.ByteArrayInputStream;
import java.util.List;
import java.util.TreeSet;
import org.apache.spark.Aggregator;
import org.apache.spark.InterruptibleIterator;
import org.apache.spark.ShuffleDependency;
import org.apache.spark.SparkEnv;
import org.apache.spark.TaskContext;
import org.apache.spark.serializer.Serializer;
import org.apache.spark.serializer.SerializerInstance;
import org.apache.spark.shuffle.ShuffleReadMetricsReporter;
import org.apache.spark.shuffle.ShuffleReader;
import org.apache.spark.storage.BlockId;
import org.apache.spark.storage.BlockManagerId;
import org.apache.spark.util.TaskCompletionListener;
import scala.Option;
import scala.Product2;
import scala.Tuple2;
import scala.Tuple3;
import scala.collection.Iterator;
import scala.collection.Seq;
import scala.math.Ordering;

/** Reads a range of partitions, of all map tasks or some, for one reduce task. */
final class CoscoShuffleReader<K, C> implements ShuffleReader<K, C> {
  private final CoscoShuffleHandle<K, ?, C> handle;
  private final Services services;
  private final CoscoOptions options;
  private final MapRange maps;
  private final int startPartition;
  private final int endPartition;
  private final TaskContext context;
  private final ShuffleReadMetricsReporter metrics;

  CoscoShuffleReader(
      CoscoShuffleHandle<K, ?, C> handle, Services services, CoscoOptions options, MapRange maps,
      int startPartition, int endPartition, TaskContext context,
      ShuffleReadMetricsReporter metrics) {
    this.handle = handle;
    this.services = services;
    this.options = options;
    this.maps = maps;
    this.startPartition = startPartition;
    this.endPartition = endPartition;
    this.context = context;
    this.metrics = metrics;
  }

  @Override
  @SuppressWarnings({"unchecked", "rawtypes"})
  public Iterator<Product2<K, C>> read() {
    ShuffleDependency<K, ?, C> dependency = handle.dependency();
    RecordIterator records = open(dependency.serializer());
    Iterator found = new InterruptibleIterator(context, records);
    if (dependency.aggregator().isDefined()) {
      Aggregator aggregator = (Aggregator) dependency.aggregator().get();
      found = dependency.mapSideCombine()
          ? aggregator.combineCombinersByKey(found, context)
          : aggregator.combineValuesByKey(found, context);
    }
    if (dependency.keyOrdering().isDefined()) {
      Option<Ordering<K>> ordering = dependency.keyOrdering();
      found = SparkVersions.<K, C>sorter(context, ordering, dependency.serializer())
          .insertAllAndUpdateMetrics(found);
    }
    // Aggregation and sorting may have taken all of it without a look at whether the task goes on.
    return found instanceof InterruptibleIterator ? found
        : new InterruptibleIterator(context, found);
  }

  private RecordIterator open(Serializer serializer) {
    RunDecoder decoder = decoder(serializer);
    RecordIterator records = new RecordIterator(
        decoder, metrics, handle.shuffleId(), startPartition);
    context.addTaskCompletionListener((TaskCompletionListener) ended -> records.close());
    try {
      if (handle.isIndeterminate) {
        for (MapRange one : ofBooks()) {
          records.add(reader(one, one, decoder));
        }
      } else if (maps.end > maps.start && endPartition > startPartition) {
        records.add(reader(new MapRange(0, handle.mappers), maps, decoder));
      }
    } catch (CoscoException error) {
      throw records.failure(error);
    }
    return records;
  }

  private static RunDecoder decoder(Serializer serializer) {
    // By its name first: applications of RDDs alone may have no SQL on their class path.
    if (serializer.getClass().getName().endsWith(".UnsafeRowSerializer")) {
      RunDecoder rows = UnsafeRowDecoder.of(serializer);
      if (rows != null) {
        return rows;
      }
    }
    SerializerInstance instance = serializer.newInstance();
    return run -> instance
        .deserializeStream(new ByteArrayInputStream(run.data, run.at, run.length))
        .asKeyValueIterator();
  }

  /** Returns a reader of the rows of wanted mappers; all of `committed` must have committed. */
  private ExchangeReader reader(MapRange committed, MapRange wanted, RunDecoder decoder)
      throws CoscoException {
    return new ExchangeReader(services, handle.capability, handle.number, handle.exchange,
        committed.start, committed.end, wanted.start, wanted.end, startPartition, endPartition,
        options.reader(decoder.reusesRuns()));
  }

  /**
   * Returns the mappers whose rows are those of Spark's books, without those that wrote none here.
   *
   * <p>Mostly all are of one attempt of the stage. Spark 4.1 and later may run a part of it again,
   * where checksums of rows tell it that they are the same.
   */
  private List<MapRange> ofBooks() throws CoscoException {
    Iterator<Tuple2<BlockManagerId, Seq<Tuple3<BlockId, Object, Object>>>> books =
        SparkEnv.get().mapOutputTracker().getMapSizesByExecutorId(
            handle.shuffleId(), maps.start, maps.end, startPartition, endPartition);
    TreeSet<Integer> mappers = new TreeSet<>();
    while (books.hasNext()) {
      Tuple2<BlockManagerId, Seq<Tuple3<BlockId, Object, Object>>> one = books.next();
      int attempt = MapLocation.stageAttempt(one._1());
      Iterator<Tuple3<BlockId, Object, Object>> blocks = one._2().iterator();
      while (blocks.hasNext()) {
        mappers.add(handle.mapper((Integer) blocks.next()._3(), attempt));
      }
    }
    return MapRange.of(mappers);
  }
}
