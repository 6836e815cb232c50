package cosco.client.rpc;

import cosco.client.CoscoException;
import io.grpc.ChannelCredentials;
import io.grpc.ConnectivityState;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.TlsChannelCredentials;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import java.io.File;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/** The connections of this process: one an address, and few of them, however many tasks there are. */
final class Channels {
  /** Beyond, the one that was used longest ago is closed when its calls have ended. */
  private static final int MAX_CHANNELS = 4096;

  private static final int MAX_MESSAGE_BYTES = 64 << 20;
  /** Of each stream; what is not read of one keeps no other one away. More is no faster. */
  private static final int WINDOW_BYTES = 2 << 20;
  private static final Map<String, ManagedChannel> OPEN = new LinkedHashMap<>(16, 0.75f, true);

  private Channels() {}

  /**
   * Returns the channel to host:port.
   *
   * @throws CoscoException InvalidArgument for files of TLS that cannot be used
   */
  static ManagedChannel to(ServiceAddress how, String where) throws CoscoException {
    String key = where + " " + how.ca + " " + how.cert + " " + how.key;
    synchronized (OPEN) {
      ManagedChannel channel = OPEN.get(key);
      if (channel == null) {
        channel = open(how, where);
        OPEN.put(key, channel);
        if (OPEN.size() > MAX_CHANNELS) {
          String oldest = OPEN.keySet().iterator().next();
          OPEN.remove(oldest).shutdown();
        }
      } else if (channel.getState(false) == ConnectivityState.TRANSIENT_FAILURE) {
        channel.resetConnectBackoff(); // who calls again pauses, and a service may be back by now
      }
      if (channel.getState(false) == ConnectivityState.TRANSIENT_FAILURE) {
        // Callers pause between tries themselves; gRPC would not try for up to two minutes.
        channel.resetConnectBackoff();
      }
      return channel;
    }
  }

  private static ManagedChannel open(ServiceAddress how, String where) throws CoscoException {
    ChannelCredentials credentials = InsecureChannelCredentials.create();
    if (how.isTls()) {
      try {
        TlsChannelCredentials.Builder tls =
            TlsChannelCredentials.newBuilder().trustManager(new File(how.ca));
        if (!how.cert.isEmpty()) {
          tls.keyManager(new File(how.cert), new File(how.key));
        }
        credentials = tls.build();
      } catch (IOException | RuntimeException error) {
        throw new CoscoException(
            "InvalidArgument", "the files of TLS cannot be used: " + error.getMessage(), false, error);
      }
    }
    InetSocketAddress address =
        new InetSocketAddress(ServiceAddress.host(where), ServiceAddress.port(where));
    return NettyChannelBuilder.forAddress(address, credentials)
        .maxInboundMessageSize(MAX_MESSAGE_BYTES)
        .flowControlWindow(WINDOW_BYTES)
        .keepAliveTime(10, TimeUnit.SECONDS)
        .keepAliveTimeout(5, TimeUnit.SECONDS)
        .idleTimeout(60, TimeUnit.SECONDS)
        .build();
  }
}
