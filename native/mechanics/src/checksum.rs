//! CRC-32 as zlib defines it.

/// The CRC-32 of some bytes.
#[must_use]
pub fn crc32(data: &[u8]) -> u32 {
    crc32fast::hash(data)
}
