package cosco.client.read.state;

import cosco.client.CoscoException;

/** The messages of one fetch. */
public interface Messages {
  /**
   * Waits for the next message; null at the end.
   *
   * @throws BrokenStream if the call failed on its way, or stalled
   * @throws CoscoException what the daemon means, or ClientClosed
   */
  byte[] next() throws BrokenStream, CoscoException;
}
