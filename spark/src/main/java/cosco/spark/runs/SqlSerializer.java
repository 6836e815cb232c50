package cosco.spark.runs;

import java.lang.reflect.Field;
import org.apache.spark.sql.execution.UnsafeRowSerializer;

/** What Spark's serializer of rows of SQL knows, and does not say. */
final class SqlSerializer {
  private SqlSerializer() {}

  /** Returns a private field; null for a version without it: its own serializer does all then. */
  static Field field(String name) {
    try {
      Field field = UnsafeRowSerializer.class.getDeclaredField(name);
      field.setAccessible(true);
      return field;
    } catch (NoSuchFieldException error) {
      return null;
    }
  }
}
