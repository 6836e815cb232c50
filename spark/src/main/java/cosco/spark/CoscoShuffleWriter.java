package cosco.spark;

import cosco.client.format.BlockCodec;
import cosco.client.rpc.Services;
import cosco.client.write.ExchangeWriter;
import cosco.client.write.WriterSums;
import cosco.spark.runs.RecordEncoder;
import cosco.spark.runs.RunBuckets;
import cosco.spark.runs.RunBuffer;
import cosco.spark.runs.SerializedEncoder;
import cosco.spark.runs.StreamEncoder;
import cosco.spark.runs.UnsafeRowEncoder;
import java.io.IOException;
import org.apache.spark.Aggregator;
import org.apache.spark.Partitioner;
import org.apache.spark.ShuffleDependency;
import org.apache.spark.TaskContext;
import org.apache.spark.scheduler.MapStatus;
import org.apache.spark.serializer.Serializer;
import org.apache.spark.shuffle.ShuffleWriteMetricsReporter;
import org.apache.spark.shuffle.ShuffleWriter;
import org.apache.spark.util.TaskCompletionListener;
import scala.Option;
import scala.Product2;
import scala.collection.Iterator;

/** Writes what one map task gives, and commits it. */
final class CoscoShuffleWriter<K, V> extends ShuffleWriter<K, V> {
  private final CoscoShuffleHandle<K, V, ?> handle;
  private final Services services;
  private final CoscoOptions options;
  private final TaskContext context;
  private final ShuffleWriteMetricsReporter metrics;
  private final ShuffleDependency<K, V, ?> dependency;
  private final int stageAttempt;
  private final Object[] checksums;
  private ExchangeWriter writer;
  private RunBuckets buckets;
  private RecordEncoder encoder;
  private long[] sizes;
  private MapStatus status;

  CoscoShuffleWriter(
      CoscoShuffleHandle<K, V, ?> handle, Services services, CoscoOptions options,
      TaskContext context, ShuffleWriteMetricsReporter metrics) {
    this.handle = handle;
    this.services = services;
    this.options = options;
    this.context = context;
    this.metrics = metrics;
    dependency = handle.dependency();
    stageAttempt = handle.isIndeterminate ? context.stageAttemptNumber() : 0;
    checksums = SparkVersions.rowChecksums(dependency);
  }

  @Override
  public void write(Iterator<Product2<K, V>> records) throws IOException {
    int partitions = dependency.partitioner().numPartitions();
    writer = new ExchangeWriter(services, handle.capability, handle.exchange,
        handle.mapper(context.partitionId(), stageAttempt),
        options.writer());
    // Where a task is killed while it waits this lets it go; gRPC's threads see an interrupt late.
    context.addTaskCompletionListener((TaskCompletionListener) this::close);
    sizes = new long[partitions];
    buckets = new RunBuckets(context.taskMemoryManager(), partitions, options.blockBytes,
        options.writeMemoryBytes, this::send);
    encoder = encoder(partitions);
    long count = addAll(combined(records));
    buckets.sendAll();
    buckets.close();
    WriterSums sums = writer.commit();
    metrics.incRecordsWritten(count);
    metrics.incBytesWritten(writer.storedBytes());
    metrics.incWriteTime(writer.waitedNs());
    for (int partition = 0; partition < partitions; partition++) {
      // What a partial attempt did not send again was stored before, as long as it is for all we know.
      long stored = sums.storedBytes()[partition];
      sizes[partition] = stored > 0 ? stored : sizes[partition];
    }
    long rowChecksum = checksums.length == 0 ? 0 : new RowChecksums(checksums).value();
    status = SparkVersions.mapStatus(
        MapLocation.of(stageAttempt), sizes, context.taskAttemptId(), rowChecksum);
  }

  @SuppressWarnings({"unchecked", "rawtypes"})
  private Iterator<Product2<Object, Object>> combined(Iterator<Product2<K, V>> records) {
    if (!dependency.mapSideCombine()) {
      return (Iterator) records;
    }
    Aggregator aggregator = (Aggregator) dependency.aggregator().get();
    return aggregator.combineValuesByKey(records, context);
  }

  private long addAll(Iterator<Product2<Object, Object>> records) throws IOException {
    Partitioner partitioner = dependency.partitioner();
    RowChecksums sums = checksums.length == 0 ? null : new RowChecksums(checksums);
    long count = 0;
    while (records.hasNext()) {
      Product2<Object, Object> record = records.next();
      int partition = partitioner.getPartition(record._1());
      encoder.add(partition, record._1(), record._2());
      if (sums != null) {
        sums.add(partition, record._1(), record._2());
      }
      count++;
    }
    return count;
  }

  private RecordEncoder encoder(int partitions) {
    Serializer serializer = dependency.serializer();
    // By its name first: applications of RDDs alone may have no SQL on their class path.
    if (serializer.getClass().getName().endsWith(".UnsafeRowSerializer")) {
      RecordEncoder rows = UnsafeRowEncoder.of(serializer, buckets);
      if (rows != null) {
        return rows;
      }
    }
    return serializer.supportsRelocationOfSerializedObjects()
        ? new SerializedEncoder(serializer.newInstance(), buckets)
        : new StreamEncoder(serializer.newInstance(), buckets, partitions);
  }

  private void send(int partition, RunBuffer run) throws IOException {
    encoder.end(partition, run);
    sizes[partition] += run.length();
    writer.add(partition, run.records, run.bytes, run.position() - run.length()
        - BlockCodec.IDENTITY_BYTES, run.length());
  }

  private void close(TaskContext ended) {
    if (status == null) {
      writer.abort();
    }
    if (buckets != null) {
      buckets.close();
    }
  }

  @Override
  public Option<MapStatus> stop(boolean success) {
    if (!success && writer != null) {
      writer.abort();
    }
    return success ? Option.apply(status) : Option.<MapStatus>empty();
  }

  @Override
  public long[] getPartitionLengths() {
    return sizes;
  }
}
