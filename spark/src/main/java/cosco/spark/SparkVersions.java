package cosco.spark;

import java.lang.invoke.MethodHandle;
import java.lang.invoke.MethodHandles;
import java.lang.invoke.MethodType;
import java.lang.reflect.Array;
import java.lang.reflect.Constructor;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import org.apache.spark.ShuffleDependency;
import org.apache.spark.TaskContext;
import org.apache.spark.scheduler.MapStatus;
import org.apache.spark.scheduler.MapStatus$;
import org.apache.spark.serializer.Serializer;
import org.apache.spark.storage.BlockManagerId;
import org.apache.spark.util.collection.ExternalSorter;
import scala.Option;

/** What is not the same in all versions of Spark: looked up once, by what is there. */
final class SparkVersions {
  /** From 4.1 on a status has a checksum of its rows as well. */
  private static final Method MAP_STATUS = named(MapStatus$.class, "apply");

  private static final Constructor<?> SORTER = ExternalSorter.class.getConstructors()[0];
  private static final Method CHECKSUMS = named(ShuffleDependency.class, "rowBasedChecksums");

  private SparkVersions() {}

  /** Returns the status of a map task. rowChecksum: left out by versions that know none. */
  static MapStatus mapStatus(
      BlockManagerId location, long[] sizes, long taskAttemptId, long rowChecksum) {
    Object[] arguments = MAP_STATUS.getParameterCount() == 3
        ? new Object[] {location, sizes, taskAttemptId}
        : new Object[] {location, sizes, taskAttemptId, rowChecksum};
    return (MapStatus) call(MAP_STATUS, MapStatus$.MODULE$, arguments);
  }

  /** Returns what sorts combined records by key, on disk where memory is short. */
  @SuppressWarnings("unchecked")
  static <K, C> ExternalSorter<K, C, C> sorter(
      TaskContext context, Option<scala.math.Ordering<K>> ordering, Serializer serializer) {
    Class<?>[] types = SORTER.getParameterTypes();
    Object[] arguments = new Object[types.length];
    arguments[0] = context;
    arguments[1] = Option.empty();
    arguments[2] = Option.empty();
    arguments[3] = ordering;
    arguments[4] = serializer;
    if (types.length > 5) {
      arguments[5] = Array.newInstance(types[5].getComponentType(), 0);
    }
    try {
      return (ExternalSorter<K, C, C>) SORTER.newInstance(arguments);
    } catch (ReflectiveOperationException error) {
      throw new IllegalStateException("this version of Spark sorts in another way", error);
    }
  }

  /** Returns one checksum a partition that Spark wants of the rows written; often none. */
  static Object[] rowChecksums(ShuffleDependency<?, ?, ?> dependency) {
    return CHECKSUMS == null ? new Object[0] : (Object[]) call(CHECKSUMS, dependency);
  }

  /** Returns what adds a record, (checksum, key, value), to a checksum of `rowChecksums`. */
  static MethodHandle checksumUpdate(Object checksum) {
    try {
      return MethodHandles.publicLookup().unreflect(named(checksum.getClass(), "update"))
          .asType(MethodType.methodType(void.class, Object.class, Object.class, Object.class));
    } catch (IllegalAccessException error) {
      throw new IllegalStateException("update", error);
    }
  }

  /** Returns the public method of a name that has most parameters; null if there is none. */
  static Method named(Class<?> type, String name) {
    Method found = null;
    for (Method one : type.getMethods()) {
      boolean isMore = found == null || one.getParameterCount() > found.getParameterCount();
      if (one.getName().equals(name) && !one.isBridge() && isMore) {
        found = one;
      }
    }
    return found;
  }

  static Object call(Method method, Object of, Object... arguments) {
    try {
      return method.invoke(of, arguments);
    } catch (InvocationTargetException error) {
      if (error.getCause() instanceof RuntimeException) {
        throw (RuntimeException) error.getCause();
      }
      throw new IllegalStateException(method.getName(), error.getCause());
    } catch (IllegalAccessException error) {
      throw new IllegalStateException(method.getName(), error);
    }
  }
}
