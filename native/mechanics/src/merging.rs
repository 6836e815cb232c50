//! Which committed blocks of a partition have come, and what they add up to: see
//! `cosco/client/read/state/block_count.py`. When a partition is complete is decided there.

pub mod attempts;

use std::collections::BTreeMap;
use std::mem::MaybeUninit;

use crate::block::{
    BlockHeader, CODEC_NONE, HEADER_BYTES, check_block, decode_content, parse_header,
};
use crate::breaks::{Break, is_broken};
use crate::damage::Damage;
use crate::intervals::{Interval, IntervalSet};
use attempts::Attempts;

/// What some blocks add up to; `digest` modulo 2^64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub rows: u64,
    pub row_bytes: u64,
    pub digest: u64,
}

impl Sums {
    fn add(&mut self, header: &BlockHeader) {
        self.rows = self.rows.wrapping_add(u64::from(header.rows));
        self.row_bytes = self.row_bytes.wrapping_add(header.row_bytes());
        self.digest = self.digest.wrapping_add(header.digest);
    }

    fn take_back(&mut self, other: Sums) {
        self.rows = self.rows.wrapping_sub(other.rows);
        self.row_bytes = self.row_bytes.wrapping_sub(other.row_bytes);
        self.digest = self.digest.wrapping_sub(other.digest);
    }
}

/// Some blocks of a run that are taken at once, by their headers: nothing is counted yet.
#[derive(Debug, Default)]
pub struct Step {
    blocks: Vec<Planned>,
    /// Where the next step begins.
    end: usize,
    /// Why there is no next step.
    damage: Option<Damage>,
}

#[derive(Debug)]
struct Planned {
    start: usize,
    header: BlockHeader,
    /// Whether its content may be wanted, and so needs room.
    has_room: bool,
}

impl Step {
    /// Where it ends in the run.
    #[must_use]
    pub fn end(&self) -> usize {
        self.end
    }

    /// How long each content is that needs room.
    pub fn lengths(&self) -> impl Iterator<Item = usize> {
        let with_room = self.blocks.iter().filter(|block| block.has_room);
        with_room.map(|block| block.header.raw_bytes as usize)
    }
}

/// A block that was not seen before, of a mapper whose rows are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where it begins in the run.
    pub start: usize,
    pub mapper: u32,
    pub rows: u32,
    pub flags: u8,
    /// The room that its content went to, by number.
    pub room: usize,
}

/// What came of a step.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Where the next step begins.
    pub end: usize,
    pub found: Vec<Found>,
    /// Why blocks were refused, in their order.
    pub bad: Vec<Damage>,
}

/// The distinct committed blocks of one partition that have come.
#[derive(Debug, Default)]
pub struct BlockCount {
    exchange: u64,
    partition: u32,
    seen: BTreeMap<u32, IntervalSet>,
    bare_seen: BTreeMap<u32, IntervalSet>,
    sums: Sums,
    bare: Sums,
}

impl BlockCount {
    #[must_use]
    pub fn new(exchange: u64, partition: u32) -> Self {
        Self { exchange, partition, ..Self::default() }
    }

    #[must_use]
    pub fn sums(&self) -> Sums {
        self.sums
    }

    /// How many intervals are kept of blocks that have come whole.
    #[must_use]
    pub fn intervals(&self) -> usize {
        self.seen.values().map(IntervalSet::len).sum()
    }

    /// Looks which blocks from `offset` on are to be taken at once: until their contents have
    /// `most` bytes or more, which is not 0.
    #[must_use]
    pub fn plan(&self, attempts: &Attempts, data: &[u8], offset: usize, most: usize) -> Step {
        let mut step = Step { end: offset, ..Step::default() };
        let mut content_bytes = 0;
        while step.end < data.len() && content_bytes < most {
            match parse_header(data, step.end) {
                Ok(header) => {
                    let has_room = self.may_be_wanted(attempts, &header);
                    step.blocks.push(Planned { start: step.end, header, has_room });
                    content_bytes += header.raw_bytes as usize;
                    step.end += header.block_bytes();
                }
                Err(damage) => {
                    step.damage = Some(damage);
                    step.end = data.len();
                }
            }
        }
        step
    }

    /// Takes the blocks of a step: checks and counts them, and fills `rooms` with the contents of
    /// those that are wanted.
    pub fn take(
        &mut self,
        attempts: &Attempts,
        data: &[u8],
        step: Step,
        rooms: &mut [&mut [MaybeUninit<u8>]],
    ) -> Taken {
        let mut taken = Taken { end: step.end, ..Taken::default() };
        let mut rooms = rooms.iter_mut().enumerate();
        for Planned { start, header, has_room } in step.blocks {
            if let Err(damage) = checked(data, start, &header) {
                // Its length cannot be trusted, and so nothing behind it.
                taken.bad.push(damage);
                taken.end = data.len();
                return taken;
            }
            let room = if has_room { rooms.next() } else { None };
            let number = room.as_ref().map(|(number, _)| *number);
            let stored = &data[start + HEADER_BYTES..start + header.block_bytes()];
            match self.accept(attempts, &header, stored, room.map(|(_, room)| &mut **room)) {
                Ok(true) => taken.found.extend(number.map(|room| Found {
                    start,
                    mapper: header.mapper,
                    rows: header.rows,
                    flags: header.flags,
                    room,
                })),
                Ok(false) => {}
                Err(damage) => taken.bad.push(damage),
            }
        }
        taken.bad.extend(step.damage);
        taken
    }

    /// Adds up headers of blocks that nobody named. Returns why some were refused.
    pub fn feed_headers(&mut self, attempts: &Attempts, data: &[u8]) -> Vec<Damage> {
        let offsets = (0..data.len()).step_by(HEADER_BYTES);
        offsets.filter_map(|offset| self.accept_bare(attempts, data, offset).err()).collect()
    }

    /// Takes back what headers have added up.
    pub fn forget_headers(&mut self) {
        self.sums.take_back(std::mem::take(&mut self.bare));
        self.bare_seen.clear();
    }

    /// Whether a block may turn out to be new, and its content wanted.
    fn may_be_wanted(&self, attempts: &Attempts, header: &BlockHeader) -> bool {
        attempts.wants(header.mapper) && matches!(self.is_new(attempts, header), Ok(true))
    }

    /// Counts a block whose CRC matched. Returns whether it was new.
    fn accept(
        &mut self,
        attempts: &Attempts,
        header: &BlockHeader,
        stored: &[u8],
        room: Option<&mut [MaybeUninit<u8>]>,
    ) -> Result<bool, Damage> {
        if !self.is_new(attempts, header)? {
            return Ok(false);
        }
        if let Some(room) = room {
            decoded(header, stored, room)?;
        }
        self.seen.entry(header.mapper).or_default().add(covered(header));
        self.sums.add(header);
        Ok(true)
    }

    fn accept_bare(
        &mut self,
        attempts: &Attempts,
        data: &[u8],
        offset: usize,
    ) -> Result<(), Damage> {
        let header = parse_header(data, offset)?;
        let mapper = header.mapper;
        if attempts.wants(mapper) && !is_broken(Break::HeadersForRows) {
            return Err(Damage(format!("a block of mapper {mapper} came as its header alone")));
        }
        if self.is_new(attempts, &header)? {
            self.bare_seen.entry(mapper).or_default().add(covered(&header));
            self.sums.add(&header);
            self.bare.add(&header);
        }
        Ok(())
    }

    /// Whether a block is of a committed attempt, and was not seen.
    fn is_new(&self, attempts: &Attempts, header: &BlockHeader) -> Result<bool, Damage> {
        let BlockHeader { exchange, partition, mapper, .. } = *header;
        if exchange != self.exchange || partition != self.partition {
            return Err(Damage(format!(
                "a block of exchange {exchange}, partition {partition} lies among those of exchange \
                 {}, partition {}",
                self.exchange, self.partition
            )));
        }
        if header.is_mark() {
            return Err(Damage(format!("a mark of mapper {mapper} lies among blocks")));
        }
        let committed = attempts.committed(mapper);
        let any = is_broken(Break::AnyAttempt) && committed.is_some();
        if committed != Some(header.attempt) && !any {
            return Ok(false);
        }
        Ok(self.is_unseen(&self.seen, header)? && self.is_unseen(&self.bare_seen, header)?)
    }

    fn is_unseen(
        &self,
        all_seen: &BTreeMap<u32, IntervalSet>,
        header: &BlockHeader,
    ) -> Result<bool, Damage> {
        let positions = covered(header);
        let Some(seen) = all_seen.get(&header.mapper) else { return Ok(true) };
        if !seen.overlaps(positions) || is_broken(Break::NoReaderDedupe) {
            return Ok(true);
        }
        if seen.covers(positions) {
            return Ok(false);
        }
        let (mapper, row) = (header.mapper, header.first_row());
        Err(Damage(format!(
            "a block of mapper {mapper}, partition {}, row {row} overlaps another one",
            self.partition
        )))
    }
}

/// Checks a block that was planned.
fn checked(data: &[u8], start: usize, header: &BlockHeader) -> Result<(), Damage> {
    let found = check_block(data, start, header);
    let is_there = start + header.block_bytes() <= data.len();
    if is_broken(Break::NoCrc) && is_there { Ok(()) } else { found }
}

/// Fills `room` with the content of a block.
fn decoded(
    header: &BlockHeader,
    stored: &[u8],
    room: &mut [MaybeUninit<u8>],
) -> Result<(), Damage> {
    let is_all_filled = header.codec == CODEC_NONE && stored.len() == room.len();
    let found = decode_content(header, stored, room);
    if is_broken(Break::NoCrc) && is_all_filled { Ok(()) } else { found.map(|_| ()) }
}

/// The positions that a block covers, which is no mark and so covers one at least.
fn covered(header: &BlockHeader) -> Interval {
    Interval { first: header.position, last: (header.end() - 1) as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{CODEC_LZ4, append_block};
    use crate::lz4::Compressor;

    fn block(mapper: u32, first_row: u64, content: &[u8]) -> Vec<u8> {
        let position = first_row << 16;
        let header = BlockHeader {
            exchange: 9,
            attempt: 1,
            position,
            mapper,
            rows: 1,
            codec: CODEC_LZ4,
            ..BlockHeader::default()
        };
        let mut out = Vec::new();
        append_block(&mut out, header, content, &mut Compressor::new());
        out
    }

    fn attempts() -> Attempts {
        let (mappers, ones) = ([4_u32, 5].map(u32::to_le_bytes), [1_u64, 1].map(u64::to_le_bytes));
        Attempts::new(&mappers.concat(), &ones.concat(), &4_u32.to_le_bytes())
    }

    fn feed(count: &mut BlockCount, data: &[u8]) -> Taken {
        let attempts = attempts();
        let step = count.plan(&attempts, data, 0, usize::MAX);
        let mut contents: Vec<_> =
            step.lengths().map(|length| vec![MaybeUninit::uninit(); length]).collect();
        let mut rooms: Vec<&mut [_]> = contents.iter_mut().map(|one| &mut one[..]).collect();
        count.take(&attempts, data, step, &mut rooms)
    }

    #[test]
    fn each_block_counts_once_and_those_of_others_have_no_content() {
        let mut count = BlockCount::new(9, 0);
        let data = [block(4, 0, b"abc"), block(5, 0, b"xy"), block(4, 0, b"abc")].concat();
        let taken = feed(&mut count, &data);
        assert_eq!(taken.end, data.len());
        assert_eq!(taken.bad, []);
        let found = Found { start: 0, mapper: 4, rows: 1, flags: 0, room: 0 };
        assert_eq!(taken.found, [found]);
        assert_eq!((count.sums().rows, count.sums().row_bytes), (2, 5));
        assert_eq!(feed(&mut count, &data).found, []);
        assert_eq!(count.intervals(), 2);
    }

    #[test]
    fn headers_are_taken_back() {
        let mut count = BlockCount::new(9, 0);
        let block = block(5, 0, b"xy");
        assert_eq!(count.feed_headers(&attempts(), &block[..HEADER_BYTES]), []);
        assert_eq!(count.sums().row_bytes, 2);
        feed(&mut count, &block); // it is there already
        assert_eq!(count.sums().row_bytes, 2);
        count.forget_headers();
        assert_eq!(count.sums(), Sums::default());
        feed(&mut count, &block);
        assert_eq!(count.sums().row_bytes, 2);
    }

    #[test]
    fn behind_a_broken_checksum_nothing_is_believed() {
        let mut count = BlockCount::new(9, 0);
        let mut data = [block(4, 0, b"abc"), block(4, 1, b"de"), block(4, 2, b"f")].concat();
        let (first, second) = (HEADER_BYTES + 3, 2 * HEADER_BYTES + 5);
        data[second - 1] ^= 1;
        let taken = feed(&mut count, &data);
        assert_eq!((taken.end, taken.found.len(), taken.bad.len()), (data.len(), 1, 1));
        data[second - 1] ^= 1;
        data[first] ^= 1; // no block begins there
        let taken = feed(&mut count, &data);
        assert_eq!((taken.end, taken.found.len(), taken.bad.len()), (data.len(), 0, 1));
    }
}
