//! The header of a chunk: see `cosco/format/chunk.py`, which describes its layout.

use crate::checksum::crc32;
use crate::little_endian::{put_u32, put_u64};

pub const MAGIC: &[u8; 4] = b"CCK1";
pub const CHUNK_HEADER_BYTES: usize = 64;
pub const ALIGNMENT: u64 = 4096;

/// What stands before the blocks of a chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChunkHeader {
    pub exchange: u64,
    pub incarnation: u64,
    pub offset: u64,
    pub range_index: u32,
    pub epoch: u32,
    pub partition: u32,
    pub blocks: u32,
    pub body_bytes: u64,
}

impl ChunkHeader {
    /// The 64 bytes that come before the blocks.
    #[must_use]
    pub fn encode(&self) -> [u8; CHUNK_HEADER_BYTES] {
        let mut data = [0; CHUNK_HEADER_BYTES];
        data[..4].copy_from_slice(MAGIC);
        put_u64(&mut data, 8, self.exchange);
        put_u64(&mut data, 16, self.incarnation);
        put_u64(&mut data, 24, self.offset);
        put_u32(&mut data, 32, self.range_index);
        put_u32(&mut data, 36, self.epoch);
        put_u32(&mut data, 40, self.partition);
        put_u32(&mut data, 44, self.blocks);
        put_u64(&mut data, 48, self.body_bytes);
        let crc = crc32(&data[8..]);
        put_u32(&mut data, 4, crc);
        data
    }
}

/// `length` rounded up to a multiple of `ALIGNMENT`.
#[must_use]
pub fn padded(length: u64) -> u64 {
    length.next_multiple_of(ALIGNMENT)
}
