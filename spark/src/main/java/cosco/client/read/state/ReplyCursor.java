package cosco.client.read.state;

import com.google.protobuf.CodedInputStream;
import com.google.protobuf.WireFormat;
import cosco.v1.FetchReply;
import cosco.v1.PartEnd;
import cosco.v1.Section;
import java.io.IOException;

/**
 * Goes through the replies of one message of a fetch, a FetchReply, by hand: so that the bytes of
 * rows stay where they were received.
 */
final class ReplyCursor {
  enum Kind { SECTION, DATA, END }

  private static final int SECTION = tag(FetchReply.SECTION_FIELD_NUMBER);
  private static final int DATA = tag(FetchReply.DATA_FIELD_NUMBER);
  private static final int END = tag(FetchReply.END_FIELD_NUMBER);
  private static final int PACKED = tag(FetchReply.PACKED_FIELD_NUMBER);

  final byte[] message;
  Kind kind;
  /** Of a SECTION. */
  Section section;
  /** Where DATA lies in the message. */
  int at;
  int end;
  /** Of an END. */
  int part;
  int partition;

  private final CodedInputStream in;

  /** Begins before the first reply. */
  ReplyCursor(byte[] message) {
    this.message = message;
    in = CodedInputStream.newInstance(message);
  }

  /**
   * Goes to the next reply.
   *
   * @return false: there is none
   * @throws BrokenStream if that is no message
   */
  boolean next() throws BrokenStream {
    try {
      while (!in.isAtEnd()) {
        int tag = in.readTag();
        if (tag == PACKED) {
          int outer = in.pushLimit(in.readRawVarint32());
          boolean found = false;
          while (!in.isAtEnd()) {
            found |= reply(in.readTag());
          }
          in.popLimit(outer);
          if (found) {
            return true;
          }
        } else if (reply(tag)) {
          return true;
        }
      }
      return false;
    } catch (IOException error) {
      throw BrokenStream.nonsense("a reply does not parse: " + error.getMessage());
    }
  }

  private boolean reply(int tag) throws IOException {
    if (tag == SECTION || tag == DATA || tag == END) {
      int length = in.readRawVarint32();
      at = in.getTotalBytesRead();
      in.skipRawBytes(length);
      end = at + length;
      if (tag == DATA) {
        kind = Kind.DATA;
      } else if (tag == SECTION) {
        kind = Kind.SECTION;
        section = Section.parser().parseFrom(message, at, length);
      } else {
        kind = Kind.END;
        PartEnd parsed = PartEnd.parser().parseFrom(message, at, length);
        part = parsed.getPart();
        partition = parsed.getPartition();
      }
      return true;
    }
    in.skipField(tag);
    return false;
  }

  private static int tag(int field) {
    return field << 3 | WireFormat.WIRETYPE_LENGTH_DELIMITED;
  }
}
