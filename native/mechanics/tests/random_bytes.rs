//! Every parser on random bytes and on blocks and frames that were damaged: none may panic, and
//! what it takes must be whole. Each test prints its seed, and two variables choose others.

use std::env;
use std::mem::MaybeUninit;

use cosco_mechanics::block::{
    BlockHeader, CODEC_LZ4, CODEC_NONE, FLAG_FRAGMENT, FLAG_LAST, FLAG_LENGTHS, HEADER_BYTES,
    append_block, check_block, checked_block, decode_content, parse_header,
};
use cosco_mechanics::frame::{FRAME_HEADER_BYTES, FrameHeader, parse_frame_header};
use cosco_mechanics::lz4::{Compressor, decompress};
use cosco_mechanics::merging::BlockCount;
use cosco_mechanics::merging::attempts::Attempts;
use cosco_mechanics::rows::{
    Content, MAX_OFFSET, OFFSET_BYTES, check, write_offsets, write_values,
};

/// SplitMix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }

    /// Bytes of which lz4 makes less.
    fn text(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8 & 3).collect()
    }

    fn damage(&mut self, data: &mut Vec<u8>) {
        match self.below(4) {
            0 => data.truncate(self.below(data.len() + 1)),
            1 => data.extend(vec![self.next() as u8; self.below(9)]),
            _ => {
                for _ in 0..=self.below(3) {
                    let (index, bit) = (self.below(data.len()), self.below(8));
                    data[index] ^= 1 << bit;
                }
            }
        }
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    env::var(name).ok().map_or(otherwise, |text| text.parse().expect("a number"))
}

/// Calls `test` with a source of random numbers for each of many seeds.
fn for_seeds(runs: u64, test: impl Fn(&mut Random)) {
    let first = number("COSCO_FUZZ_SEED", 1);
    for seed in first..first + number("COSCO_FUZZ_RUNS", runs) {
        println!("seed {seed}"); // is shown if it fails
        test(&mut Random(seed));
    }
}

/// A block of any place.
fn block(random: &mut Random) -> Vec<u8> {
    let length = 8 + random.below(3000);
    let content = if random.below(2) == 0 { random.bytes(length) } else { random.text(length) };
    let flags = [0, FLAG_LENGTHS, FLAG_FRAGMENT | FLAG_LAST][random.below(3)];
    let header = BlockHeader {
        exchange: random.next(),
        attempt: random.next(),
        position: u64::from(random.next() as u32) << 16,
        partition: random.next() as u32,
        mapper: random.next() as u32,
        rows: 1,
        codec: [CODEC_NONE, CODEC_LZ4][random.below(2)],
        flags,
        ..BlockHeader::default()
    };
    let mut out = Vec::new();
    append_block(&mut out, header, &content, &mut Compressor::new());
    out
}

/// Does with a block all that a reader does. Returns whether it is good.
fn read(data: &[u8]) -> bool {
    let Ok(header) = checked_block(data, 0) else { return false };
    let mut content = vec![MaybeUninit::uninit(); header.raw_bytes as usize];
    let stored = &data[HEADER_BYTES..header.block_bytes()];
    decode_content(&header, stored, &mut content).is_ok()
}

#[test]
fn a_block_is_refused_once_it_is_damaged() {
    for_seeds(2000, |random| {
        let data = block(random);
        assert!(read(&data));
        let mut damaged = data.clone();
        random.damage(&mut damaged);
        assert_eq!(read(&damaged), damaged.starts_with(&data));
    });
}

#[test]
fn any_bytes_may_come_where_a_header_should() {
    for_seeds(20_000, |random| {
        let length = random.below(200);
        let mut data = random.bytes(length);
        if data.len() > 4 && random.below(8) != 0 {
            data[..4].copy_from_slice(b"CBK1");
        }
        if data.len() >= HEADER_BYTES && random.below(8) != 0 {
            // Lengths, codec and flags that may be, so that what comes after them is looked at.
            data[46..52].fill(0);
            data[52] &= 1;
            data[53] &= 15;
            data[54..56].fill(0);
        }
        let offset = [0, random.below(data.len() + 8)][random.below(2)];
        if let Ok(header) = parse_header(&data, offset) {
            let _ = (header.end(), header.row_bytes());
            let _ = check_block(&data, offset, &header);
        }
    });
}

#[test]
fn any_bytes_may_come_where_lz4_should() {
    for_seeds(2000, |random| {
        let mut data = block(random);
        let mut header = parse_header(&data, 0).unwrap();
        random.damage(&mut data);
        // As if the checksum were right: a writer may send anything.
        header.codec = CODEC_LZ4;
        let mut content = vec![MaybeUninit::uninit(); header.raw_bytes as usize];
        let stored = data.get(HEADER_BYTES..).unwrap_or_default();
        let _ = decode_content(&header, stored, &mut content);
        let length = 1 + random.below(500);
        let _ = decompress(&random.bytes(length), &mut content);
    });
}

#[test]
fn any_bytes_may_come_where_a_frame_should() {
    for_seeds(20_000, |random| {
        let body = random.below(300);
        let header = FrameHeader {
            exchange: random.next(),
            incarnation: random.next(),
            sequence: random.next(),
            range_index: random.next() as u32,
            epoch: random.next() as u32,
            body_bytes: if random.below(8) == 0 { random.next() as u32 } else { body as u32 },
            blocks: random.below(8) as u32,
        };
        let mut data = header.encode().to_vec();
        data.extend(random.bytes(body));
        let fits = header.body_bytes as usize == body
            && header.blocks > 0
            && header.blocks as usize <= body / HEADER_BYTES;
        assert_eq!(parse_frame_header(&data).is_ok(), fits);
        data.truncate(random.below(FRAME_HEADER_BYTES));
        assert!(parse_frame_header(&data).is_err());
        assert!(parse_frame_header(&random.bytes(body)).is_err());
    });
}

/// A block of exchange 9, partition 0, of few mappers and rows, which counts more often than not.
fn counted(random: &mut Random) -> Vec<u8> {
    let rows = 1 + random.below(3) as u32;
    let length = 16 + random.below(100);
    let content = random.text(length);
    let header = BlockHeader {
        exchange: 9,
        attempt: 1 + (random.below(6) == 0) as u64,
        position: (random.below(6) as u64) << 16,
        partition: (random.below(20) == 0) as u32,
        mapper: random.below(4) as u32,
        rows,
        codec: [CODEC_NONE, CODEC_LZ4][random.below(2)],
        flags: [0, FLAG_LENGTHS][random.below(2)],
        ..BlockHeader::default()
    };
    let mut out = Vec::new();
    append_block(&mut out, header, &content, &mut Compressor::new());
    out
}

#[test]
fn any_bytes_may_be_counted() {
    let integers = |numbers: &[u8], width: usize| -> Vec<u8> {
        numbers.iter().flat_map(|one| [*one, 0, 0, 0, 0, 0, 0, 0][..width].to_vec()).collect()
    };
    let attempts =
        Attempts::new(&integers(&[0, 1, 2], 4), &integers(&[1, 1, 2], 8), &integers(&[0, 2, 3], 4));
    for_seeds(3000, |random| {
        let mut count = BlockCount::new(9, 0);
        let mut data: Vec<u8> = (0..random.below(8)).flat_map(|_| counted(random)).collect();
        if !data.is_empty() && random.below(2) == 0 {
            random.damage(&mut data);
        }
        let mut offset = 0;
        while offset < data.len() {
            let step = count.plan(&attempts, &data, offset, 1 + random.below(300));
            let mut contents: Vec<_> =
                step.lengths().map(|length| vec![MaybeUninit::uninit(); length]).collect();
            let mut rooms: Vec<&mut [_]> = contents.iter_mut().map(|one| &mut one[..]).collect();
            let taken = count.take(&attempts, &data, step, &mut rooms);
            assert!(offset < taken.end && taken.end <= data.len());
            assert!(taken.found.iter().all(|found| found.room < contents.len()));
            offset = taken.end;
        }
        let whole = count.sums();
        let _ = count.feed_headers(&attempts, &data);
        count.forget_headers();
        assert_eq!(count.sums(), whole);
    });
}

#[test]
fn any_bytes_may_be_joined() {
    for_seeds(3000, |random| {
        let bytes: Vec<Vec<u8>> = (0..random.below(5))
            .map(|_| {
                let (rows, length) = (random.below(4), random.below(20));
                let mut content = ((length as u32).to_le_bytes()).repeat(rows);
                let more = usize::from(random.below(9) == 0);
                content.extend(random.bytes(length * rows + more));
                content
            })
            .collect();
        let contents: Vec<Content> = bytes
            .iter()
            .map(|content| Content {
                mapper: 1,
                rows: [random.below(4) as u64, random.next()][(random.below(9) == 0) as usize],
                content,
                has_lengths: random.below(5) != 0,
            })
            .collect();
        let Ok(extent) = check(&contents) else { return };
        assert!(extent.value_bytes < MAX_OFFSET);
        let mut offsets = vec![MaybeUninit::uninit(); OFFSET_BYTES * (extent.rows as usize + 1)];
        let mut values = vec![MaybeUninit::uninit(); extent.value_bytes as usize];
        write_offsets(&contents, &mut offsets);
        write_values(&contents, &mut values);
    });
}
