package cosco.client;

import java.io.IOException;

/** What failed, which, and what to do, in one line; of a kind that the services know. */
public final class CoscoException extends IOException {
  private final String kind;
  private final boolean retriable;

  /** kind: as a class of cosco.errors is called, e.g. "ExchangeClosed". */
  public CoscoException(String kind, String message, boolean retriable, Throwable cause) {
    super(message, cause);
    this.kind = kind;
    this.retriable = retriable;
  }

  /** Of no cause, and not worth another try. */
  public CoscoException(String kind, String message) {
    this(kind, message, false, null);
  }

  /** Returns the class of cosco.errors. */
  public String kind() {
    return kind;
  }

  /** Returns whether the same call may succeed later. */
  public boolean isRetriable() {
    return retriable;
  }

  /** Returns whether the error is of one of these kinds. */
  public boolean is(String... kinds) {
    for (String one : kinds) {
      if (one.equals(kind)) {
        return true;
      }
    }
    return false;
  }

  @Override
  public String toString() {
    return kind + ": " + getMessage();
  }
}
