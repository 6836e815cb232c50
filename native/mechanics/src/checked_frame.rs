//! Checks a frame whole: see `cosco/shuffle_service/state/buffers/frame_check.py`.

use std::ops::Range;

use crate::block::{BlockHeader, MAX_FRAGMENTS, POSITION_SHIFT, checked_block, parse_header};
use crate::damage::Damage;
use crate::dedupe::{DedupeIndex, MapperAttempt};
use crate::frame::{FRAME_HEADER_BYTES, FrameHeader, parse_frame_header};
use crate::intervals::Interval;

/// Neighbouring blocks of one partition; `start`: where they begin in the frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub partition: u32,
    pub start: usize,
    pub blocks: Range<usize>,
}

/// What is kept of a block: the positions that it covers, and where it ends in the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacedBlock {
    pub positions: Interval,
    pub end: usize,
}

/// Bytes of a frame that are new to a daemon, and how many blocks they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fresh {
    pub start: usize,
    pub end: usize,
    pub blocks: usize,
}

/// A frame every byte of which has been checked.
#[derive(Debug)]
pub struct CheckedFrame {
    pub header: FrameHeader,
    pub mapper_attempt: MapperAttempt,
    pub runs: Vec<Run>,
    pub blocks: Vec<PlacedBlock>,
    /// Where the mark begins that is its last block; it is in no run.
    pub mark: Option<usize>,
}

impl PlacedBlock {
    /// The rows that end in it.
    #[must_use]
    pub fn rows(&self) -> u64 {
        // The last row there may be ends where positions do: so not by the position after it.
        let Interval { first, last } = self.positions;
        (last >> POSITION_SHIFT) + u64::from(last & (MAX_FRAGMENTS - 1) == MAX_FRAGMENTS - 1)
            - (first >> POSITION_SHIFT)
    }
}

impl CheckedFrame {
    /// The rows of a run, those of duplicates among them.
    #[must_use]
    pub fn rows_of(&self, run: &Run) -> u64 {
        self.blocks[run.blocks.clone()].iter().map(PlacedBlock::rows).sum()
    }

    /// Where a run ends in the frame.
    #[must_use]
    pub fn end_of(&self, run: &Run) -> usize {
        self.blocks[run.blocks.end - 1].end
    }

    /// Notes that all of a run is held. The parts that were not are put into `fresh`.
    pub fn claim(&self, run: &Run, dedupe: &mut DedupeIndex, fresh: &mut Vec<Fresh>) {
        fresh.clear();
        let mut claims = dedupe.claims(self.mapper_attempt, run.partition);
        let (mut start, mut count) = (run.start, 0);
        let mut end = run.start;
        for block in &self.blocks[run.blocks.clone()] {
            if claims.claim(block.positions) {
                count += 1;
            } else {
                if count > 0 {
                    fresh.push(Fresh { start, end, blocks: count });
                }
                (start, count) = (block.end, 0);
            }
            end = block.end;
        }
        if count > 0 {
            fresh.push(Fresh { start, end, blocks: count });
        }
    }
}

/// Checks a frame that `mapper_attempt` sent for `exchange`.
///
/// None: the exchange that the frame names, the attempt that its first block does.
pub fn check_frame(
    data: &[u8],
    exchange: Option<u64>,
    mapper_attempt: Option<MapperAttempt>,
) -> Result<CheckedFrame, Damage> {
    let header = parse_frame_header(data)?;
    let exchange = exchange.unwrap_or(header.exchange);
    if header.exchange != exchange {
        let found = header.exchange;
        let text = format!("a frame of exchange {found} on a stream of exchange {exchange}");
        return Err(Damage(text));
    }
    let body = &data[FRAME_HEADER_BYTES..];
    let mapper_attempt = match mapper_attempt {
        Some(given) => given,
        None => sender_of(&parse_header(body, 0)?),
    };
    let mut checking = Checking {
        exchange,
        frame: CheckedFrame {
            header,
            mapper_attempt,
            runs: Vec::new(),
            blocks: Vec::with_capacity(header.blocks as usize),
            mark: None,
        },
    };
    let (mut offset, mut count) = (0, 0_u64);
    while offset < body.len() {
        let block = checked_block(body, offset)?;
        checking.take(&block, FRAME_HEADER_BYTES + offset)?;
        offset += block.block_bytes();
        count += 1;
    }
    if count != u64::from(header.blocks) {
        return Err(Damage(format!("a frame names {} blocks and has {count}", header.blocks)));
    }
    Ok(checking.frame)
}

struct Checking {
    exchange: u64,
    frame: CheckedFrame,
}

impl Checking {
    /// Takes the next block, which begins at `start` of the frame and is whole.
    fn take(&mut self, block: &BlockHeader, start: usize) -> Result<(), Damage> {
        let frame = &mut self.frame;
        let (from, on) = (sender_of(block), frame.mapper_attempt);
        if block.exchange != self.exchange || from != on {
            return Err(Damage(format!(
                "a block of exchange {}, mapper {}, attempt {} on a stream of mapper {}, attempt {}",
                block.exchange, from.mapper, from.attempt, on.mapper, on.attempt
            )));
        }
        if frame.mark.is_some() {
            return Err(Damage::new("a mark that is not the last block of its frame"));
        }
        if block.is_mark() {
            frame.mark = Some(start);
            return Ok(());
        }
        let index = frame.blocks.len();
        match frame.runs.last_mut() {
            Some(run) if run.partition == block.partition => run.blocks.end += 1,
            _ => {
                let blocks = index..index + 1;
                frame.runs.push(Run { partition: block.partition, start, blocks });
            }
        }
        frame
            .blocks
            .push(PlacedBlock { positions: positions_of(block), end: start + block.block_bytes() });
        Ok(())
    }
}

fn sender_of(block: &BlockHeader) -> MapperAttempt {
    MapperAttempt { mapper: block.mapper, attempt: block.attempt }
}

/// The positions of a block that is no mark: each of these covers one or more.
fn positions_of(block: &BlockHeader) -> Interval {
    let last = u64::try_from(block.end() - 1).expect("row ids were checked to be in their range");
    Interval { first: block.position, last }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{CODEC_NONE, FLAG_MARK, append_block};
    use crate::checksum::crc32;
    use crate::little_endian::put_u32;
    use crate::lz4::Compressor;

    fn frame(blocks: &[(u32, u64, u8)]) -> Vec<u8> {
        let mut body = Vec::new();
        for &(partition, row, flags) in blocks {
            let rows = u32::from(flags != FLAG_MARK);
            let header = BlockHeader {
                exchange: 7,
                partition,
                mapper: 1,
                attempt: 2,
                position: row << 16,
                rows,
                codec: CODEC_NONE,
                flags,
                ..Default::default()
            };
            append_block(&mut body, header, b"content", &mut Compressor::new());
        }
        let header = FrameHeader {
            exchange: 7,
            body_bytes: body.len() as u32,
            blocks: blocks.len() as u32,
            ..Default::default()
        };
        [header.encode().as_slice(), &body].concat()
    }

    #[test]
    fn neighbours_of_a_partition_are_one_run_and_only_what_is_new_is_fresh() {
        let data = frame(&[(3, 0, 0), (3, 1, 0), (3, 2, 0), (4, 0, 0), (3, 1, 0), (0, 0, 8)]);
        let checked = check_frame(&data, None, None).unwrap();
        let runs: Vec<_> = checked.runs.iter().map(|r| (r.partition, r.blocks.clone())).collect();
        assert_eq!(runs, [(3, 0..3), (4, 3..4), (3, 4..5)]);
        assert_eq!(checked.mark, Some(48 + 5 * 71));
        let (mut dedupe, mut fresh) = (DedupeIndex::default(), Vec::new());
        dedupe.claim(checked.mapper_attempt, 3, Interval { first: 1 << 16, last: 1 << 16 });
        checked.claim(&checked.runs[0], &mut dedupe, &mut fresh);
        assert_eq!(fresh, [Fresh { start: 48, end: 48 + 3 * 71, blocks: 3 }]);
        checked.claim(&checked.runs[2], &mut dedupe, &mut fresh);
        assert_eq!(fresh, []);
        let mut dedupe = DedupeIndex::default();
        let row = |row: u64| Interval { first: row << 16, last: (row << 16) | 0xffff };
        dedupe.claim(checked.mapper_attempt, 3, row(1));
        checked.claim(&checked.runs[0], &mut dedupe, &mut fresh);
        let [first, last] =
            [48, 48 + 2 * 71].map(|start| Fresh { start, end: start + 71, blocks: 1 });
        assert_eq!(fresh, [first, last]);
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        let data = frame(&[(3, 0, 0), (4, 0, 0)]);
        for index in 0..data.len() {
            let mut changed = data.clone();
            changed[index] ^= 4;
            assert!(check_frame(&changed, Some(7), None).is_err(), "byte {index}");
        }
    }

    /// A number of some row of such numbers, often an extreme one.
    fn drawn(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        match *state % 8 {
            0 => 0,
            1 => u64::MAX,
            2 => *state | 0xffff_ffff_0000_0000,
            3 => *state & 0xffff_0000,
            _ => *state % 5,
        }
    }

    #[test]
    fn whatever_a_block_with_a_good_checksum_says_is_refused_or_taken() {
        let (mut state, mut taken) = (4711, 0);
        for _ in 0..30_000 {
            let mut block = frame(&[(3, 1, 0)])[FRAME_HEADER_BYTES..].to_vec();
            for (offset, length) in [(24, 8), (32, 4), (40, 4), (44, 4), (52, 1), (53, 1)] {
                if drawn(&mut state) % 2 == 0 {
                    let value = drawn(&mut state).to_le_bytes();
                    block[offset..offset + length].copy_from_slice(&value[..length]);
                }
            }
            let crc = crc32(&block[8..]);
            put_u32(&mut block, 4, crc);
            let header =
                FrameHeader { exchange: 7, body_bytes: 71, blocks: 1, ..Default::default() };
            let data = [header.encode().as_slice(), &block].concat();
            let Ok(checked) = check_frame(&data, None, None) else { continue };
            let (mut dedupe, mut fresh) = (DedupeIndex::default(), Vec::new());
            for run in &checked.runs {
                checked.claim(run, &mut dedupe, &mut fresh);
                assert_eq!(fresh, [Fresh { start: 48, end: data.len(), blocks: 1 }]);
                checked.claim(run, &mut dedupe, &mut fresh);
                assert_eq!(fresh, []);
            }
            taken += 1;
        }
        assert!(taken > 500, "{taken}");
    }
}
