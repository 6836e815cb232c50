//! The block: see `cosco/format/block.py`, which describes its layout.

use std::mem::MaybeUninit;

use xxhash_rust::xxh3::Xxh3;

use crate::checksum::crc32;
use crate::damage::Damage;
use crate::little_endian::{put_u32, put_u64, u32_at, u64_at};
use crate::lz4::{Compressor, decompress};
use crate::room::copy;

pub const MAGIC: &[u8; 4] = b"CBK1";
pub const HEADER_BYTES: usize = 64;
/// A writer cuts content at this length; a daemon refuses what is longer.
pub const MAX_CONTENT_BYTES: usize = 1 << 20;
pub const MAX_BLOCK_BYTES: usize = HEADER_BYTES + MAX_CONTENT_BYTES;
pub const POSITION_SHIFT: u32 = 16;
pub const MAX_FRAGMENTS: u64 = 1 << POSITION_SHIFT;
pub const MAX_ROWS: u64 = 1 << (64 - POSITION_SHIFT);
/// Of one entry of the table of lengths that a content may begin with.
pub const LENGTH_BYTES: usize = 4;

pub const CODEC_NONE: u8 = 0;
pub const CODEC_LZ4: u8 = 1;

pub const FLAG_FRAGMENT: u8 = 1;
pub const FLAG_LAST: u8 = 2;
pub const FLAG_LENGTHS: u8 = 4;
pub const FLAG_MARK: u8 = 8;

const LZ4_ACCELERATION: i32 = 8;

/// The parsed header of a block; lengths in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockHeader {
    pub crc: u32,
    pub exchange: u64,
    pub attempt: u64,
    pub position: u64,
    pub partition: u32,
    pub mapper: u32,
    pub rows: u32,
    pub raw_bytes: u32,
    pub stored_bytes: u32,
    pub codec: u8,
    pub flags: u8,
    pub digest: u64,
}

impl BlockHeader {
    /// The length of the whole block, header included.
    #[must_use]
    pub fn block_bytes(&self) -> usize {
        HEADER_BYTES + self.stored_bytes as usize
    }

    #[must_use]
    pub fn first_row(&self) -> u64 {
        self.position >> POSITION_SHIFT
    }

    /// The position after the last one that this block covers.
    ///
    /// Of 128 bits, since the last row there may be ends at 2^64.
    #[must_use]
    pub fn end(&self) -> u128 {
        if self.flags & FLAG_FRAGMENT == 0 {
            return u128::from(self.position) + (u128::from(self.rows) << POSITION_SHIFT);
        }
        if self.flags & FLAG_LAST == 0 {
            return u128::from(self.position) + 1;
        }
        (u128::from(self.first_row()) + u128::from(self.rows)) << POSITION_SHIFT
    }

    /// The length of the content without its table of lengths, if it has one.
    #[must_use]
    pub fn row_bytes(&self) -> u64 {
        let table = if self.flags & FLAG_LENGTHS == 0 { 0 } else { LENGTH_BYTES as u64 };
        u64::from(self.raw_bytes) - table * u64::from(self.rows)
    }

    #[must_use]
    pub fn is_mark(&self) -> bool {
        self.flags == FLAG_MARK
    }

    /// The XXH3-64 of the identity in the header and of the uncompressed content.
    #[must_use]
    pub fn digest_of(&self, content: &[u8]) -> u64 {
        let mut identity = [0; 41];
        put_u64(&mut identity, 0, self.exchange);
        put_u64(&mut identity, 8, self.attempt);
        put_u64(&mut identity, 16, self.position);
        put_u32(&mut identity, 24, self.partition);
        put_u32(&mut identity, 28, self.mapper);
        put_u32(&mut identity, 32, self.rows);
        put_u32(&mut identity, 36, self.raw_bytes);
        identity[40] = self.flags;
        let mut hasher = Xxh3::new();
        hasher.update(&identity);
        hasher.update(content);
        hasher.digest()
    }

    fn write_to(&self, header: &mut [u8]) {
        header[..4].copy_from_slice(MAGIC);
        put_u32(header, 4, self.crc);
        put_u64(header, 8, self.exchange);
        put_u64(header, 16, self.attempt);
        put_u64(header, 24, self.position);
        put_u32(header, 32, self.partition);
        put_u32(header, 36, self.mapper);
        put_u32(header, 40, self.rows);
        put_u32(header, 44, self.raw_bytes);
        put_u32(header, 48, self.stored_bytes);
        header[52] = self.codec;
        header[53] = self.flags;
        header[54..56].fill(0);
        put_u64(header, 56, self.digest);
    }
}

/// Parses and range-checks the header at `offset`. The CRC is not checked here.
pub fn parse_header(data: &[u8], offset: usize) -> Result<BlockHeader, Damage> {
    let Some(bytes) = data.get(offset..offset.saturating_add(HEADER_BYTES)) else {
        return Err(Damage::new(format!("a block header is cut short at byte {}", data.len())));
    };
    if &bytes[..4] != MAGIC {
        return Err(Damage::new(format!("no block begins at byte {offset}")));
    }
    let header = BlockHeader {
        crc: u32_at(bytes, 4),
        exchange: u64_at(bytes, 8),
        attempt: u64_at(bytes, 16),
        position: u64_at(bytes, 24),
        partition: u32_at(bytes, 32),
        mapper: u32_at(bytes, 36),
        rows: u32_at(bytes, 40),
        raw_bytes: u32_at(bytes, 44),
        stored_bytes: u32_at(bytes, 48),
        codec: bytes[52],
        flags: bytes[53],
        digest: u64_at(bytes, 56),
    };
    let has_zero = bytes[54] == 0 && bytes[55] == 0;
    check_header(&header, has_zero)?;
    Ok(header)
}

fn check_header(header: &BlockHeader, has_zero: bool) -> Result<(), Damage> {
    let BlockHeader { rows, raw_bytes, stored_bytes, codec, flags, position, .. } = *header;
    if raw_bytes as usize > MAX_CONTENT_BYTES || stored_bytes > raw_bytes {
        let text = format!("impossible block lengths: raw {raw_bytes}, stored {stored_bytes}");
        return Err(Damage(text));
    }
    if codec > CODEC_LZ4 || !matches!(flags, 0 | 1 | 3 | FLAG_LENGTHS | FLAG_MARK) || !has_zero {
        return Err(Damage(format!("unknown block codec {codec} or flags {flags}")));
    }
    if flags & FLAG_FRAGMENT != 0 {
        if rows != u32::from(flags & FLAG_LAST != 0) {
            return Err(Damage(format!("a fragment with {rows} rows")));
        }
    } else if flags == FLAG_MARK {
        if rows != 0 || position != 0 {
            let text = format!("a mark with {rows} rows, or one that is not at the beginning");
            return Err(Damage(text));
        }
    } else if rows == 0 || position & (MAX_FRAGMENTS - 1) != 0 {
        return Err(Damage::new("a block without rows, or one that begins inside a row"));
    } else if flags & FLAG_LENGTHS != 0 && rows as usize * LENGTH_BYTES > raw_bytes as usize {
        return Err(Damage(format!("a length table of {rows} rows in {raw_bytes} bytes")));
    }
    if (position >> POSITION_SHIFT) + u64::from(rows) > MAX_ROWS {
        return Err(Damage::new("row ids beyond their range"));
    }
    Ok(())
}

/// Checks that the whole block at `offset` lies in `data`, and its CRC.
pub fn check_block(data: &[u8], offset: usize, header: &BlockHeader) -> Result<(), Damage> {
    let length = header.block_bytes();
    let Some(covered) = data.get(offset + 8..offset + length) else {
        return Err(Damage(format!("a block of {length} bytes is cut short")));
    };
    if crc32(covered) != header.crc {
        return Err(Damage(format!("checksum of {} does not match", place_of(header))));
    }
    Ok(())
}

/// Parses and checks the block at `offset`.
pub fn checked_block(data: &[u8], offset: usize) -> Result<BlockHeader, Damage> {
    let header = parse_header(data, offset)?;
    check_block(data, offset, &header)?;
    Ok(header)
}

/// Appends a block to `out`: `header` with all that follows from its content.
///
/// `content` is at most `MAX_CONTENT_BYTES` long. Returns the header as it was written.
pub fn append_block(
    out: &mut Vec<u8>,
    header: BlockHeader,
    content: &[u8],
    compressor: &mut Compressor,
) -> BlockHeader {
    let start = out.len();
    out.resize(start + HEADER_BYTES + content.len(), 0);
    let written = write_block(&mut out[start..], header, content, compressor);
    out.truncate(start + written.block_bytes());
    written
}

/// Writes a block to the beginning of `target`: `header` with all that follows from its content.
///
/// `content` is at most `MAX_CONTENT_BYTES` long, and `target` has room for it uncompressed. What
/// is behind the block in `target` afterwards is anything. Returns the header as it was written.
pub fn write_block(
    target: &mut [u8],
    mut header: BlockHeader,
    content: &[u8],
    compressor: &mut Compressor,
) -> BlockHeader {
    assert!(content.len() <= MAX_CONTENT_BYTES, "block content of {} bytes", content.len());
    header.raw_bytes = content.len() as u32;
    header.digest = header.digest_of(content);
    let stored = &mut target[HEADER_BYTES..HEADER_BYTES + content.len()];
    // What is not shorter compressed than raw is stored raw: so no more room than that is given.
    let packed = match header.codec {
        CODEC_LZ4 if content.len() > 1 => {
            let room = content.len() - 1;
            compressor.compress(content, &mut stored[..room], LZ4_ACCELERATION)
        }
        _ => None,
    };
    let stored_bytes = packed.unwrap_or(content.len());
    if packed.is_none() {
        header.codec = CODEC_NONE;
        stored.copy_from_slice(content);
    }
    header.stored_bytes = stored_bytes as u32;
    header.write_to(&mut target[..HEADER_BYTES]);
    header.crc = crc32(&target[8..HEADER_BYTES + stored_bytes]);
    put_u32(target, 4, header.crc);
    header
}

/// Decompresses a block's stored bytes into `room`, and checks the digest.
///
/// `room` has just the length of content that the header names. Returns it, filled.
pub fn decode_content<'room>(
    header: &BlockHeader,
    stored: &[u8],
    room: &'room mut [MaybeUninit<u8>],
) -> Result<&'room [u8], Damage> {
    let named = room.len();
    let content = if header.codec == CODEC_LZ4 {
        let Some(content) = decompress(stored, room) else {
            return Err(Damage(format!("{} does not decompress", place_of(header))));
        };
        content
    } else {
        copy(stored, room)
    };
    if content.len() != named || header.digest_of(content) != header.digest {
        return Err(Damage(format!("digest of {} does not match", place_of(header))));
    }
    Ok(content)
}

fn place_of(header: &BlockHeader) -> String {
    let (mapper, partition, row) = (header.mapper, header.partition, header.first_row());
    format!("a block of mapper {mapper}, partition {partition}, row {row}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(content: &[u8], codec: u8) -> (Vec<u8>, BlockHeader) {
        let header = BlockHeader {
            exchange: 7,
            mapper: 3,
            partition: 5,
            rows: 2,
            codec,
            ..Default::default()
        };
        let mut out = Vec::new();
        let written = append_block(&mut out, header, content, &mut Compressor::new());
        (out, written)
    }

    #[test]
    fn a_block_comes_back_as_it_was_written() {
        for (content, codec, kept) in [
            (&b"ab".repeat(500)[..], CODEC_LZ4, CODEC_LZ4),
            (b"xy", CODEC_LZ4, CODEC_NONE),
            (b"xy", CODEC_NONE, CODEC_NONE),
        ] {
            let (data, written) = block(content, codec);
            let header = checked_block(&data, 0).unwrap();
            assert_eq!(header, written);
            assert_eq!(header.codec, kept);
            let mut room = Vec::with_capacity(content.len());
            let room = &mut room.spare_capacity_mut()[..content.len()];
            assert_eq!(decode_content(&header, &data[HEADER_BYTES..], room).unwrap(), content);
        }
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        let (data, _) = block(&b"ab".repeat(50), CODEC_LZ4);
        for index in 0..data.len() {
            let mut changed = data.clone();
            changed[index] ^= 1;
            assert!(checked_block(&changed, 0).is_err(), "byte {index}");
        }
        assert!(checked_block(&data[..data.len() - 1], 0).is_err());
    }

    #[test]
    fn the_last_row_there_may_be_ends_beyond_64_bits() {
        let header = BlockHeader {
            position: (MAX_ROWS - 1) << POSITION_SHIFT,
            rows: 1,
            ..Default::default()
        };
        assert_eq!(header.end(), 1 << 64);
    }
}
