package cosco.client.rpc;

import cosco.client.CoscoException;
import java.io.File;
import java.io.Serializable;

/** How services are reached: host:port of the metadata service, or several, and files of TLS. */
public final class ServiceAddress implements Serializable {
  private static final long serialVersionUID = 1;

  /** The metadata service, or those that may be it, in the order in which they are tried. */
  public final String[] metadata;
  /** A file of PEM each; empty: none. */
  public final String ca;
  public final String cert;
  public final String key;
  /** How long a service that was met is waited for. */
  public final double serviceTimeoutS;

  /**
   * Checks what can be checked without a call.
   *
   * @throws CoscoException InvalidArgument: what, which, what to do
   */
  public ServiceAddress(String metadata, String ca, String cert, String key, double serviceTimeoutS)
      throws CoscoException {
    this.metadata = metadata.trim().split("\\s*,\\s*", -1);
    for (String one : this.metadata) {
      split(one);
    }
    this.ca = readable("ca", ca);
    this.cert = readable("cert", cert);
    this.key = readable("key", key);
    this.serviceTimeoutS = serviceTimeoutS;
    if (cert.isEmpty() != key.isEmpty()) {
      throw invalid("a certificate and its key are given together, or neither");
    }
    if (!cert.isEmpty() && ca.isEmpty()) {
      throw invalid("a certificate without a CA: services are asked for theirs as well");
    }
  }

  /** Whether the services speak TLS. */
  public boolean isTls() {
    return !ca.isEmpty();
  }

  static String host(String address) throws CoscoException {
    String host = address.substring(0, split(address));
    return host.startsWith("[") && host.endsWith("]") ? host.substring(1, host.length() - 1) : host;
  }

  static int port(String address) throws CoscoException {
    return Integer.parseInt(address.substring(split(address) + 1));
  }

  private static int split(String address) throws CoscoException {
    int colon = address.lastIndexOf(':');
    String port = address.substring(colon + 1);
    if (colon < 1 || !port.matches("[0-9]{1,5}") || Integer.parseInt(port) > 65535) {
      throw invalid("`" + address + "` is no address: give host:port");
    }
    return colon;
  }

  private static String readable(String name, String path) throws CoscoException {
    if (!path.isEmpty() && !new File(path).canRead()) {
      throw invalid("the file of " + name + " cannot be read: " + path);
    }
    return path;
  }

  private static CoscoException invalid(String what) {
    return new CoscoException("InvalidArgument", what);
  }
}
