//! The frame: see `cosco/format/frame.py`, which describes its layout.

use crate::block::{HEADER_BYTES, MAX_BLOCK_BYTES};
use crate::checksum::crc32;
use crate::damage::Damage;
use crate::little_endian::{put_u32, put_u64, u32_at, u64_at};

pub const MAGIC: &[u8; 4] = b"CFR1";
pub const FRAME_HEADER_BYTES: usize = 48;
/// A writer closes a frame once it is this long.
pub const TARGET_FRAME_BYTES: usize = 1 << 20;
/// A daemon refuses a longer one. A frame of the target length takes one more block.
pub const MAX_FRAME_BYTES: usize = FRAME_HEADER_BYTES + TARGET_FRAME_BYTES + MAX_BLOCK_BYTES;

/// The parsed header of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameHeader {
    pub exchange: u64,
    pub incarnation: u64,
    pub sequence: u64,
    pub range_index: u32,
    pub epoch: u32,
    pub body_bytes: u32,
    pub blocks: u32,
}

impl FrameHeader {
    /// The 48 bytes that come before the blocks.
    #[must_use]
    pub fn encode(&self) -> [u8; FRAME_HEADER_BYTES] {
        let mut data = [0; FRAME_HEADER_BYTES];
        data[..4].copy_from_slice(MAGIC);
        put_u64(&mut data, 8, self.exchange);
        put_u64(&mut data, 16, self.incarnation);
        put_u64(&mut data, 24, self.sequence);
        put_u32(&mut data, 32, self.range_index);
        put_u32(&mut data, 36, self.epoch);
        put_u32(&mut data, 40, self.body_bytes);
        put_u32(&mut data, 44, self.blocks);
        let crc = crc32(&data[8..]);
        put_u32(&mut data, 4, crc);
        data
    }
}

/// Parses and checks the header of a whole frame.
pub fn parse_frame_header(data: &[u8]) -> Result<FrameHeader, Damage> {
    let length = data.len();
    if length < FRAME_HEADER_BYTES {
        return Err(Damage(format!("a frame of {length} bytes is shorter than its header")));
    }
    if length > MAX_FRAME_BYTES {
        return Err(Damage(format!("a frame of {length} bytes, the limit is {MAX_FRAME_BYTES}")));
    }
    if &data[..4] != MAGIC || crc32(&data[8..FRAME_HEADER_BYTES]) != u32_at(data, 4) {
        return Err(Damage::new("the header of a frame fails its checksum"));
    }
    let header = FrameHeader {
        exchange: u64_at(data, 8),
        incarnation: u64_at(data, 16),
        sequence: u64_at(data, 24),
        range_index: u32_at(data, 32),
        epoch: u32_at(data, 36),
        body_bytes: u32_at(data, 40),
        blocks: u32_at(data, 44),
    };
    let FrameHeader { body_bytes, blocks, .. } = header;
    let body = length - FRAME_HEADER_BYTES;
    if body_bytes as usize != body {
        return Err(Damage(format!(
            "a frame has {body} bytes of blocks and names {body_bytes}: it was cut short or glued"
        )));
    }
    if blocks == 0 || blocks as usize > body / HEADER_BYTES {
        return Err(Damage(format!("a frame of {body_bytes} bytes names {blocks} blocks")));
    }
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_changed_byte_is_noticed() {
        let header = FrameHeader {
            exchange: 1,
            sequence: 2,
            body_bytes: 64,
            blocks: 1,
            ..Default::default()
        };
        let mut data = header.encode().to_vec();
        data.resize(FRAME_HEADER_BYTES + 64, 0);
        assert_eq!(parse_frame_header(&data), Ok(header));
        for index in 0..FRAME_HEADER_BYTES {
            let mut changed = data.clone();
            changed[index] ^= 1;
            assert!(parse_frame_header(&changed).is_err(), "byte {index}");
        }
        assert!(parse_frame_header(&data[..data.len() - 1]).is_err());
    }
}
