package cosco.spark.runs;

/** Throws what Scala's signatures do not name. */
public final class Sneaky {
  private Sneaky() {}

  /** Throws the error as it is; never returns. */
  @SuppressWarnings("unchecked")
  public static <E extends Throwable> RuntimeException unchecked(Throwable error) throws E {
    throw (E) error;
  }
}
