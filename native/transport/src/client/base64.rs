//! Base64, in which metadata carries bytes.

/// Decodes with padding or without. Returns None for what is no base64.
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let length = text.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last + 1);
    let mut out = Vec::with_capacity(length * 3 / 4);
    for group in text[..length].chunks(4) {
        let mut bits = 0;
        for byte in group {
            bits = bits << 6 | value_of(*byte)?;
        }
        match group.len() {
            4 => out.extend_from_slice(&bits.to_be_bytes()[1..]),
            3 => out.extend_from_slice(&(bits >> 2).to_be_bytes()[2..]),
            2 => out.push((bits >> 4) as u8),
            _ => return None,
        }
    }
    Some(out)
}

fn value_of(byte: u8) -> Option<u32> {
    let value = match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(u32::from(value))
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn bytes_come_back() {
        for (text, meant) in [
            ("", ""),
            ("Zg", "f"),
            ("Zg==", "f"),
            ("Zm8", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg==", "foob"),
        ] {
            assert_eq!(decode(text.as_bytes()).unwrap(), meant.as_bytes());
        }
        assert_eq!(decode(b"+/8A").unwrap(), [0xfb, 0xff, 0x00]);
    }

    #[test]
    fn nonsense_is_told() {
        for text in ["Z", "Zg=a", "Z g=", "\u{e4}\u{f6}"] {
            assert_eq!(decode(text.as_bytes()), None, "{text}");
        }
    }
}
