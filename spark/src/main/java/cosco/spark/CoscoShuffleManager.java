package cosco.spark;

import cosco.client.CoscoException;
import cosco.client.rpc.Services;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.spark.ShuffleDependency;
import org.apache.spark.SparkConf;
import org.apache.spark.TaskContext;
import org.apache.spark.shuffle.ShuffleHandle;
import org.apache.spark.shuffle.ShuffleReadMetricsReporter;
import org.apache.spark.shuffle.ShuffleReader;
import org.apache.spark.shuffle.ShuffleWriteMetricsReporter;
import org.apache.spark.shuffle.ShuffleWriter;
import org.apache.spark.shuffle.sort.SortShuffleManager;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Spark's shuffles by Cosco: `spark.shuffle.manager=cosco.spark.CoscoShuffleManager`.
 *
 * <p>One in the driver and in each executor; docs/spark.md tells of it. It is a sort shuffle manager
 * to Spark, and does as one for what Cosco cannot take. Spark SQL copies each row for any other
 * manager, as that might keep rows: this one's writer has written a row down when it asks for the next.
 */
public final class CoscoShuffleManager extends SortShuffleManager {
  private static final Logger LOG = LoggerFactory.getLogger(CoscoShuffleManager.class);
  private static final String DATA_IO = "spark.shuffle.sort.io.plugin.class";

  private final CoscoOptions options;
  private final Services services;
  private final DriverSide driver;
  /** Shuffles that Cosco could not take. */
  private final Set<Integer> sorted = ConcurrentHashMap.newKeySet();

  /**
   * Checks the options, without a call.
   *
   * <p>Throws IllegalArgumentException: what, which, what to do.
   */
  public CoscoShuffleManager(SparkConf conf, boolean isDriver) {
    super(conf);
    options = new CoscoOptions(conf);
    if (conf.getBoolean("spark.io.encryption.enabled", false)) {
      throw new IllegalArgumentException(
          "spark.io.encryption.enabled is not supported by Cosco, whose daemons store rows as they "
              + "come: turn it off, use TLS (spark.cosco.tls.*) and encrypted disks, or another "
              + "spark.shuffle.manager");
    }
    if (isDriver && !CoscoDataIO.class.getName().equals(conf.get(DATA_IO, ""))) {
      throw new IllegalArgumentException("with Cosco set " + DATA_IO + "="
          + CoscoDataIO.class.getName() + ": so Spark knows that rows outlive their executors");
    }
    services = new Services(options.address);
    services.setMet();
    driver = isDriver ? new DriverSide(options, conf.get("spark.app.name", "spark")) : null;
  }

  @Override
  public <K, V, C> ShuffleHandle registerShuffle(
      int shuffleId, ShuffleDependency<K, V, C> dependency) {
    try {
      return driver.register(shuffleId, dependency);
    } catch (CoscoException error) {
      boolean mayPass = error.is("CapacityExceeded", "QuotaExceeded", "ServiceUnavailable");
      if (!mayPass || options.fallback.equals(CoscoOptions.FALLBACK_FAIL)) {
        throw new IllegalStateException("Cosco cannot take shuffle " + shuffleId + ": "
            + error, error);
      }
      LOG.warn("Shuffle {} is left to Spark's own, as Cosco cannot take it: {}", shuffleId,
          error.toString());
      sorted.add(shuffleId);
      return super.registerShuffle(shuffleId, dependency);
    }
  }

  @Override
  public <K, V> ShuffleWriter<K, V> getWriter(
      ShuffleHandle handle, long mapId, TaskContext context,
      ShuffleWriteMetricsReporter metrics) {
    if (!(handle instanceof CoscoShuffleHandle)) {
      sorted.add(handle.shuffleId());
      return super.getWriter(handle, mapId, context, metrics);
    }
    @SuppressWarnings("unchecked")
    CoscoShuffleHandle<K, V, ?> ours = (CoscoShuffleHandle<K, V, ?>) handle;
    return new CoscoShuffleWriter<>(ours, services, options, context, metrics);
  }

  @Override
  public <K, C> ShuffleReader<K, C> getReader(
      ShuffleHandle handle, int startMap, int endMap, int startPartition, int endPartition,
      TaskContext context, ShuffleReadMetricsReporter metrics) {
    if (!(handle instanceof CoscoShuffleHandle)) {
      return super.getReader(
          handle, startMap, endMap, startPartition, endPartition, context, metrics);
    }
    @SuppressWarnings("unchecked")
    CoscoShuffleHandle<K, ?, C> ours = (CoscoShuffleHandle<K, ?, C>) handle;
    MapRange maps = new MapRange(startMap, Math.min(endMap, ours.mappers));
    return new CoscoShuffleReader<>(
        ours, services, options, maps, startPartition, endPartition, context, metrics);
  }

  @Override
  public boolean unregisterShuffle(int shuffleId) {
    if (sorted.remove(shuffleId)) {
      return super.unregisterShuffle(shuffleId);
    }
    if (driver != null) {
      driver.unregister(shuffleId);
    }
    return true;
  }

  @Override
  public void stop() {
    if (driver != null) {
      driver.stop();
    }
    super.stop();
  }
}
