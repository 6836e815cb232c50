package cosco.spark;

import cosco.client.CoscoException;
import cosco.client.read.ReaderOptions;
import cosco.client.rpc.ServiceAddress;
import cosco.client.write.WriterOptions;
import java.util.Arrays;
import java.util.List;
import java.util.TreeSet;
import org.apache.spark.SparkConf;
import scala.Tuple2;

/** The options `spark.cosco.*`, checked; docs/spark.md tells of each. */
final class CoscoOptions {
  static final String PREFIX = "spark.cosco.";
  static final String FALLBACK_SORT = "sort";
  static final String FALLBACK_FAIL = "fail";

  private static final int MAX_FRAMES = 1024;

  private static final List<String> NAMES = Arrays.asList(
      "metadata", "replicas", "codec", "leaseS", "fallback", "serviceTimeoutS", "tls.ca",
      "tls.cert", "tls.key", "tokenFile", "write.memory", "write.block", "write.window",
      "read.prefetch");

  /** How the services are reached from this process. */
  final ServiceAddress address;

  final int replicas;
  final String codec;
  final double leaseS;
  final String fallback;
  /** A file with the token of the driver; empty: nobody asks for one. */
  final String tokenFile;

  /** Of one task: memory for runs that wait, of one run, and of frames under way. */
  final long writeMemoryBytes;

  final int blockBytes;
  final long windowBytes;
  /** Of one task: what may have come and was not yet asked for. */
  final long prefetchBytes;

  private final SparkConf conf;

  /** Throws IllegalArgumentException: which option, what is wrong with it, what to do. */
  CoscoOptions(SparkConf conf) {
    this.conf = conf;
    checkNames();
    replicas = number("replicas", 2, 1, 2);
    codec = oneOf("codec", "lz4", "none");
    fallback = oneOf("fallback", FALLBACK_SORT, FALLBACK_FAIL);
    leaseS = number("leaseS", 300, 10, 604_800);
    tokenFile = text("tokenFile", "");
    writeMemoryBytes = size("write.memory", "64m", 1 << 20, 4L << 30);
    blockBytes = (int) size("write.block", "128k", 4 << 10, 1 << 20);
    windowBytes = size("write.window", "16m", 1 << 20, 1L << 30);
    prefetchBytes = size("read.prefetch", "32m", 1 << 20, 1L << 30);
    try {
      address = new ServiceAddress(text("metadata", "127.0.0.1:7070"), text("tls.ca", ""),
          text("tls.cert", ""), text("tls.key", ""), number("serviceTimeoutS", 300, 1, 86_400));
    } catch (CoscoException error) {
      throw new IllegalArgumentException(
          PREFIX + "metadata, " + PREFIX + "tls.*: " + error.getMessage(), error);
    }
  }

  /** Returns how a task writes. */
  WriterOptions writer() throws CoscoException {
    return WriterOptions.DEFAULT.withCodec(codec).withWindow(windowBytes, MAX_FRAMES);
  }

  /** Returns how a task reads. reusesRuns: what is made of a run is done with before the next. */
  ReaderOptions reader(boolean reusesRuns) {
    ReaderOptions reader = new ReaderOptions();
    reader.reusesRuns = reusesRuns;
    reader.prefetchBytes = prefetchBytes;
    return reader;
  }

  private void checkNames() {
    for (Tuple2<String, String> one : conf.getAllWithPrefix(PREFIX)) {
      if (!NAMES.contains(one._1())) {
        throw new IllegalArgumentException(
            "there is no option " + PREFIX + one._1() + "; there are " + new TreeSet<>(NAMES));
      }
    }
  }

  private String text(String name, String usual) {
    return conf.get(PREFIX + name, usual).trim();
  }

  private String oneOf(String name, String... values) {
    String value = text(name, values[0]);
    if (!Arrays.asList(values).contains(value)) {
      throw wrong(name, value, "give one of " + String.join(", ", values));
    }
    return value;
  }

  private int number(String name, int usual, int least, int most) {
    String value = text(name, String.valueOf(usual));
    if (!value.matches("[0-9]{1,9}") || Integer.parseInt(value) < least
        || Integer.parseInt(value) > most) {
      throw wrong(name, value, "give a whole number from " + least + " to " + most);
    }
    return Integer.parseInt(value);
  }

  private long size(String name, String usual, long least, long most) {
    long bytes;
    try {
      bytes = conf.getSizeAsBytes(PREFIX + name, usual);
    } catch (RuntimeException error) {
      throw wrong(name, text(name, usual), "give a size as 64m");
    }
    if (bytes < least || bytes > most) {
      throw wrong(name, text(name, usual), "give from " + least + " to " + most + " bytes");
    }
    return bytes;
  }

  private static IllegalArgumentException wrong(String name, String value, String remedy) {
    return new IllegalArgumentException(PREFIX + name + "=" + value + ": " + remedy);
  }
}
