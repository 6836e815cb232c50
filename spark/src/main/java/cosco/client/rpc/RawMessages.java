package cosco.client.rpc;

import io.grpc.KnownLength;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;

/** Messages as the bytes that they are on the wire. */
final class RawMessages implements MethodDescriptor.Marshaller<byte[]> {
  @Override
  public InputStream stream(byte[] message) {
    return new ByteArrayInputStream(message);
  }

  @Override
  public byte[] parse(InputStream stream) {
    try {
      if (stream instanceof KnownLength) {
        byte[] message = new byte[stream.available()];
        int length = 0;
        while (length < message.length) {
          int read = stream.read(message, length, message.length - length);
          if (read < 0) {
            throw new IOException("a message is cut short");
          }
          length += read;
        }
        return message;
      }
      ByteArrayOutputStream out = new ByteArrayOutputStream();
      byte[] piece = new byte[8192];
      for (int read = stream.read(piece); read >= 0; read = stream.read(piece)) {
        out.write(piece, 0, read);
      }
      return out.toByteArray();
    } catch (IOException error) {
      throw Status.INTERNAL.withDescription("a message cannot be read").withCause(error)
          .asRuntimeException();
    }
  }
}
