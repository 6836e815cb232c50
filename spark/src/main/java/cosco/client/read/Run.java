package cosco.client.read;

/** Records of one mapper and one partition, back to back, as one block or one long row has them. */
public final class Run {
  /** Holds the content from `at` on, `length` bytes of it; nobody else uses it. */
  public final byte[] data;
  public final int at;
  public final int length;
  public final int partition;
  public final int mapper;
  /** How many rows it counts for. */
  public final int records;
  /** Whether a table of the lengths of its rows, 4 bytes each, stands before them. */
  public final boolean hasLengths;

  /** Takes the array, and copies nothing. */
  public Run(
      byte[] data, int at, int length, int partition, int mapper, int records, boolean hasLengths) {
    this.data = data;
    this.at = at;
    this.length = length;
    this.partition = partition;
    this.mapper = mapper;
    this.records = records;
    this.hasLengths = hasLengths;
  }
}
