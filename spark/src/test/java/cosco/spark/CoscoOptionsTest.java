package cosco.spark;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.apache.spark.SparkConf;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

final class CoscoOptionsTest {
  private static SparkConf conf(String... pairs) {
    SparkConf conf = new SparkConf(false);
    for (int i = 0; i < pairs.length; i += 2) {
      conf.set("spark.cosco." + pairs[i], pairs[i + 1]);
    }
    return conf;
  }

  @Test
  void whatIsUsual() throws Exception {
    CoscoOptions options = new CoscoOptions(conf());
    assertEquals("127.0.0.1:7070", options.address.metadata[0]);
    assertEquals(2, options.replicas);
    assertEquals("sort", options.fallback);
    assertEquals(64 << 20, options.writeMemoryBytes);
    assertEquals(16 << 20, options.writer().windowBytes);
    assertEquals(32 << 20, options.reader(false).prefetchBytes);
  }

  @Test
  void whatIsSaid() throws Exception {
    CoscoOptions options = new CoscoOptions(conf(
        "metadata", "a:1, [::1]:2", "replicas", "1", "codec", "none", "write.block", "64k",
        "leaseS", "20", "fallback", "fail"));
    assertEquals(2, options.address.metadata.length);
    assertEquals("[::1]:2", options.address.metadata[1]);
    assertEquals(1, options.replicas);
    assertEquals("none", options.writer().codec);
    assertEquals(64 << 10, options.blockBytes);
    assertEquals(20, options.leaseS);
    assertEquals("fail", options.fallback);
  }

  @ParameterizedTest
  @CsvSource({
    "replica, 2, there is no option spark.cosco.replica",
    "replicas, 3, give a whole number from 1 to 2",
    "replicas, two, spark.cosco.replicas=two",
    "codec, zstd, 'give one of lz4, none'",
    "fallback, maybe, 'give one of sort, fail'",
    "leaseS, 5, from 10 to 604800",
    "write.memory, lots, give a size as 64m",
    "write.block, 2m, give from 4096 to 1048576 bytes",
    "metadata, host, give host:port",
    "metadata, 'host:1,', is no address",
    "tls.ca, /no/such/file, cannot be read",
  })
  void whatCannotBeIsRefused(String name, String value, String said) {
    String message = assertThrows(
        IllegalArgumentException.class, () -> new CoscoOptions(conf(name, value))).getMessage();
    assertTrue(message.contains(said), message);
  }

  @Test
  void encryptionOfFilesIsRefused() {
    SparkConf conf = conf().set("spark.io.encryption.enabled", "true");
    String message = assertThrows(
        IllegalArgumentException.class, () -> new CoscoShuffleManager(conf, true)).getMessage();
    assertTrue(message.startsWith("spark.io.encryption.enabled is not supported"), message);
  }

  @Test
  void sparkIsToldThatRowsOutliveExecutors() {
    String message = assertThrows(
        IllegalArgumentException.class, () -> new CoscoShuffleManager(conf(), true)).getMessage();
    assertTrue(message.contains("set spark.shuffle.sort.io.plugin.class=cosco.spark.CoscoDataIO"),
        message);
    assertTrue(new CoscoDataIO(conf()).driver().supportsReliableStorage());
  }
}
