//! Makes checksums right, as who means harm would: behind them a fuzzer would never come.

use std::mem::MaybeUninit;

use cosco_mechanics::block::{self, BlockHeader, HEADER_BYTES, decode_content, parse_header};
use cosco_mechanics::checksum::crc32;
use cosco_mechanics::frame::{self, FRAME_HEADER_BYTES};

const DIGEST_AT: usize = 56;
const CRC_AT: usize = 4;
const COVERED_AT: usize = 8;

/// Gives all blocks that lie one behind the other their magic, digest and checksum.
pub fn blocks(mut data: &mut [u8]) {
    while data.len() >= HEADER_BYTES {
        data[..4].copy_from_slice(block::MAGIC);
        let Ok(header) = parse_header(data, 0) else { return };
        let length = header.block_bytes();
        if length > data.len() {
            return;
        }
        let (this, rest) = data.split_at_mut(length);
        if let Some(digest) = digest_of(&header, &this[HEADER_BYTES..]) {
            this[DIGEST_AT..HEADER_BYTES].copy_from_slice(&digest.to_le_bytes());
        }
        let crc = crc32(&this[COVERED_AT..]);
        this[CRC_AT..COVERED_AT].copy_from_slice(&crc.to_le_bytes());
        data = rest;
    }
}

/// Does the same with a frame: with its header, which gets the right length, and all its blocks.
pub fn frame(data: &mut [u8]) {
    if data.len() < FRAME_HEADER_BYTES {
        return;
    }
    let (header, body) = data.split_at_mut(FRAME_HEADER_BYTES);
    header[..4].copy_from_slice(frame::MAGIC);
    header[40..44].copy_from_slice(&(body.len() as u32).to_le_bytes());
    let crc = crc32(&header[COVERED_AT..]);
    header[CRC_AT..COVERED_AT].copy_from_slice(&crc.to_le_bytes());
    blocks(body);
}

/// The digest that a block should have; None if its content cannot be had.
fn digest_of(header: &BlockHeader, stored: &[u8]) -> Option<u64> {
    let mut room = vec![MaybeUninit::uninit(); header.raw_bytes as usize];
    if header.codec == block::CODEC_NONE {
        return (stored.len() == room.len()).then(|| header.digest_of(stored));
    }
    let content = cosco_mechanics::lz4::decompress(stored, &mut room)?;
    (content.len() == header.raw_bytes as usize).then(|| header.digest_of(content))
}

/// The content of a block; None if it is damaged.
#[must_use]
pub fn content_of(header: &BlockHeader, stored: &[u8]) -> Option<Vec<u8>> {
    let mut room = vec![MaybeUninit::uninit(); header.raw_bytes as usize];
    decode_content(header, stored, &mut room).ok().map(<[u8]>::to_vec)
}
