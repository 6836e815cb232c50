package cosco.client.format;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.LinkedHashMap;
import java.util.Map;

/** Reads the files of tests/golden, as tests/support/golden.py says how they are written. */
final class GoldenFiles {
  private GoldenFiles() {}

  /** One case: the values of its lines by their names. */
  static final class Case extends LinkedHashMap<String, String> {
    private static final long serialVersionUID = 1;

    int number(String name) {
      return Integer.parseInt(get(name));
    }

    long unsigned(String name) {
      return Long.parseUnsignedLong(get(name));
    }

    String[] members(String name) {
      return get(name).equals("-") ? new String[0] : get(name).split(" ");
    }

    long[] numbers(String name) {
      String[] members = members(name);
      long[] numbers = new long[members.length];
      for (int i = 0; i < numbers.length; i++) {
        numbers[i] = Long.parseUnsignedLong(members[i]);
      }
      return numbers;
    }

    byte[] bytes(String name) {
      ByteArrayOutputStream out = new ByteArrayOutputStream();
      for (String piece : get(name).equals("-") ? new String[0] : get(name).split("\\+")) {
        int star = piece.indexOf('*');
        String once = star < 0 ? piece : piece.substring(0, star);
        int times = star < 0 ? 1 : Integer.parseInt(piece.substring(star + 1));
        byte[] bytes = unhex(once);
        for (int i = 0; i < times; i++) {
          out.write(bytes, 0, bytes.length);
        }
      }
      return out.toByteArray();
    }
  }

  static Path path(String name) {
    return Paths.get("..", "tests", "golden", name + ".txt"); // Maven runs tests in its project
  }

  /** Returns the cases of a file, by their names. */
  static Map<String, Case> read(String name) throws IOException {
    Map<String, Case> cases = new LinkedHashMap<>();
    Case present = null;
    for (String line : Files.readAllLines(path(name), StandardCharsets.UTF_8)) {
      if (line.isEmpty() || line.startsWith("#")) {
        continue;
      }
      int blank = line.indexOf(' ');
      String key = line.substring(0, blank);
      if (key.equals("case")) {
        present = new Case();
        cases.put(line.substring(blank + 1), present);
      } else {
        present.put(key, line.substring(blank + 1));
      }
    }
    return cases;
  }

  static String hex(byte[] bytes) {
    StringBuilder text = new StringBuilder();
    for (byte one : bytes) {
      text.append(Character.forDigit(one >> 4 & 15, 16)).append(Character.forDigit(one & 15, 16));
    }
    return text.length() == 0 ? "-" : text.toString();
  }

  private static byte[] unhex(String text) {
    byte[] bytes = new byte[text.length() / 2];
    for (int i = 0; i < bytes.length; i++) {
      bytes[i] = (byte) Integer.parseInt(text.substring(2 * i, 2 * i + 2), 16);
    }
    return bytes;
  }
}
