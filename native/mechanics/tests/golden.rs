//! The golden files of `tests/golden`: each case is made again, and what others made is read.
//!
//! How they are written is told in `tests/support/golden.py`. What lz4 makes of a content is not the
//! same in all implementations, so what this crate makes is in `by-rust.txt`, for the others to
//! read; `COSCO_GOLDEN=write cargo test --test golden` writes it anew.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::mem::MaybeUninit;
use std::path::PathBuf;

use cosco_mechanics::block::{
    BlockHeader, CODEC_LZ4, CODEC_NONE, FLAG_MARK, HEADER_BYTES, POSITION_SHIFT, append_block,
    checked_block, decode_content,
};
use cosco_mechanics::checked_frame::check_frame;
use cosco_mechanics::chunk::{CHUNK_HEADER_BYTES, ChunkHeader, padded};
use cosco_mechanics::damage::Damage;
use cosco_mechanics::frame::{FrameHeader, parse_frame_header};
use cosco_mechanics::lz4::Compressor;
use cosco_mechanics::merging::BlockCount;
use cosco_mechanics::merging::attempts::Attempts;
use cosco_mechanics::packing::blocks::BlockWriter;

/// A case, by the names of its lines.
struct Case(BTreeMap<String, String>);

impl Case {
    fn text(&self, name: &str) -> &str {
        self.0.get(name).unwrap_or_else(|| panic!("a case without {name}"))
    }

    fn number<Number: TryFrom<u64>>(&self, name: &str) -> Number {
        let value: u64 = self.text(name).parse().expect(name);
        Number::try_from(value).ok().expect(name)
    }

    fn members(&self, name: &str) -> Vec<&str> {
        let text = self.text(name);
        if text == "-" { Vec::new() } else { text.split(' ').collect() }
    }

    fn numbers(&self, name: &str) -> Vec<u64> {
        self.members(name).iter().map(|one| one.parse().expect(name)).collect()
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        let text = self.text(name);
        let pieces = text.split('+').filter(|piece| *piece != "-");
        pieces
            .flat_map(|piece| {
                let (once, times) = piece.split_once('*').unwrap_or((piece, "1"));
                let digits = |at: usize| u8::from_str_radix(&once[at..at + 2], 16).expect("digits");
                let bytes: Vec<u8> = (0..once.len()).step_by(2).map(digits).collect();
                bytes.repeat(times.parse().expect("a count"))
            })
            .collect()
    }
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(format!("{name}.txt"))
}

/// The cases of a file with their names, in order.
fn golden(name: &str) -> Vec<(String, Case)> {
    let text = fs::read_to_string(path(name)).expect("a golden file");
    let mut cases: Vec<(String, Case)> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (key, value) = line.split_once(' ').expect("a name and a value");
        if key == "case" {
            cases.push((value.to_owned(), Case(BTreeMap::new())));
        } else {
            let (_, case) = cases.last_mut().expect("a case before its lines");
            case.0.insert(key.to_owned(), value.to_owned());
        }
    }
    assert!(!cases.is_empty());
    cases
}

/// Whole blocks by their names.
fn blocks() -> BTreeMap<String, (Case, Vec<u8>)> {
    golden("blocks")
        .into_iter()
        .map(|(name, case)| {
            let block = case.bytes("block");
            (name, (case, block))
        })
        .collect()
}

/// The blocks of the attempt, in its order: those before the mark.
fn attempt() -> Vec<(String, Case)> {
    golden("blocks").into_iter().take_while(|(name, _)| name != "mark").collect()
}

fn body(blocks: &BTreeMap<String, (Case, Vec<u8>)>, names: &[&str]) -> Vec<u8> {
    names.iter().flat_map(|name| blocks[*name].1.clone()).collect()
}

/// What a case says of its header, but for what follows from the content.
fn identity(case: &Case) -> BlockHeader {
    let row: u64 = case.number("row");
    BlockHeader {
        exchange: case.number("exchange"),
        attempt: case.number("attempt"),
        position: row << POSITION_SHIFT | case.number::<u64>("fragment"),
        partition: case.number("partition"),
        mapper: case.number("mapper"),
        rows: case.number("rows"),
        flags: case.number("flags"),
        codec: if case.text("codec") == "lz4" { CODEC_LZ4 } else { CODEC_NONE },
        ..BlockHeader::default()
    }
}

/// Reads a block, every byte of which is checked.
fn read(block: &[u8]) -> Result<(BlockHeader, Vec<u8>), Damage> {
    let header = checked_block(block, 0)?;
    let mut room = vec![MaybeUninit::uninit(); header.raw_bytes as usize];
    let content = decode_content(&header, &block[HEADER_BYTES..header.block_bytes()], &mut room)?;
    Ok((header, content.to_vec()))
}

/// Checks that a block is the one of a case, but for how it is compressed.
fn check(name: &str, case: &Case, block: &[u8]) {
    let (header, content) = read(block).expect(name);
    assert_eq!(content, case.bytes("content"), "{name}");
    assert_eq!(header.block_bytes(), block.len(), "{name}");
    assert_eq!(header.digest, case.number::<u64>("digest"), "{name}");
    assert_eq!(header.end(), u128::from(case.number::<u64>("end")), "{name}");
    let golden = checked_block(&case.bytes("block"), 0).expect(name);
    let BlockHeader { crc, stored_bytes, .. } = header;
    assert_eq!(header, BlockHeader { crc, stored_bytes, ..golden }, "{name}");
    let raw_bytes = u32::try_from(content.len()).expect("a length");
    let BlockHeader { digest, codec, .. } = golden;
    let said = BlockHeader { crc, stored_bytes, raw_bytes, digest, codec, ..identity(case) };
    assert_eq!(header, said, "{name}");
    if header.codec == CODEC_NONE {
        assert_eq!(block, case.bytes("block"), "{name}");
    } else {
        assert!(header.stored_bytes < header.raw_bytes, "{name}");
    }
}

#[test]
fn blocks_are_made_and_read() {
    let mut text = String::from(
        "# Blocks of blocks.txt as the Rust crate compresses them; the others are the same.\n\
         # Made by: cd native && COSCO_GOLDEN=write cargo test --test golden\n",
    );
    for (name, case) in golden("blocks") {
        let mut made = Vec::new();
        let content = case.bytes("content");
        let header = append_block(&mut made, identity(&case), &content, &mut Compressor::new());
        check(&name, &case, &made);
        check(&name, &case, &case.bytes("block"));
        if header.codec == CODEC_LZ4 {
            let digits = made.iter().fold(String::new(), |mut text, byte| {
                write!(text, "{byte:02x}").expect("room");
                text
            });
            writeln!(text, "\ncase {name}\nblock {digits}").expect("room");
        }
    }
    if std::env::var("COSCO_GOLDEN").as_deref() == Ok("write") {
        fs::write(path("by-rust"), &text).expect("a file that may be written");
    }
    assert_eq!(fs::read_to_string(path("by-rust")).expect("by-rust.txt"), text);
}

#[test]
fn blocks_of_others_are_read() {
    let blocks = blocks();
    for by in ["by-java", "by-rust"] {
        let made = golden(by).into_iter().filter(|(_, case)| case.0.contains_key("block"));
        let count =
            made.inspect(|(name, case)| check(name, &blocks[name].0, &case.bytes("block"))).count();
        assert_eq!(count, 2, "{by}");
    }
}

#[test]
fn an_attempt_gets_its_row_ids_its_mark_and_its_sums() {
    let cases = attempt();
    let mut writer =
        BlockWriter::new(BlockHeader { rows: 0, flags: 0, ..identity(&cases[0].1) }, 4);
    for (name, case) in &cases {
        writer.clear();
        let (partition, rows) = (case.number("partition"), case.number("rows"));
        let (flags, fragment) = (case.number("flags"), case.number("fragment"));
        writer.write(partition, rows, &case.bytes("content"), flags, fragment);
        check(name, case, writer.written());
    }
    writer.clear();
    writer.mark(0, 4).expect("partitions that there are");
    assert_eq!(writer.written(), blocks()["mark"].1);
    let [(_, sums)] = &golden("sums")[..] else { panic!("one case") };
    for (at, found) in writer.sums().iter().enumerate() {
        assert_eq!(found.rows, sums.numbers("rows")[at]);
        assert_eq!(found.row_bytes, sums.numbers("bytes")[at]);
        assert_eq!(found.digest, sums.numbers("digests")[at]);
    }
}

#[test]
fn what_is_stored_adds_up() {
    let (cases, blocks) = (attempt(), blocks());
    let identity = identity(&cases[0].1);
    let mapper = identity.mapper.to_le_bytes();
    let attempts = Attempts::new(&mapper, &identity.attempt.to_le_bytes(), &[]);
    let [(_, sums)] = &golden("sums")[..] else { panic!("one case") };
    for partition in 0..4 {
        let named: Vec<&str> = cases
            .iter()
            .filter(|(_, case)| case.number::<u32>("partition") == partition)
            .map(|(name, _)| name.as_str())
            .collect();
        let run = body(&blocks, &named);
        let mut count = BlockCount::new(identity.exchange, partition);
        let step = count.plan(&attempts, &run, 0, usize::MAX);
        let taken = count.take(&attempts, &run, step, &mut []);
        assert_eq!((taken.end, taken.bad), (run.len(), Vec::new()));
        let (found, at) = (count.sums(), partition as usize);
        assert_eq!(found.rows, sums.numbers("rows")[at]);
        assert_eq!(found.row_bytes, sums.numbers("bytes")[at]);
        assert_eq!(found.digest, sums.numbers("digests")[at]);
        assert_eq!(run.len() as u64, sums.numbers("stored")[at]);
    }
}

#[test]
fn what_is_no_block_is_refused() {
    for (name, case) in golden("refused") {
        assert!(read(&case.bytes("block")).is_err(), "{name}");
    }
}

#[test]
fn frames_are_made_and_read() {
    let blocks = blocks();
    for (name, case) in golden("frames") {
        let header = FrameHeader {
            exchange: case.number("exchange"),
            incarnation: case.number("incarnation"),
            sequence: case.number("sequence"),
            range_index: case.number("range_index"),
            epoch: case.number("epoch"),
            body_bytes: case.number("body_bytes"),
            blocks: case.number("blocks"),
        };
        assert_eq!(header.encode().as_slice(), case.bytes("header"), "{name}");
        let named = case.members("of");
        let frame = [case.bytes("header"), body(&blocks, &named)].concat();
        assert_eq!(parse_frame_header(&frame).expect(&name), header);
        let checked = check_frame(&frame, None, None).expect(&name);
        assert_eq!(checked.mark.is_some(), named.contains(&"mark"), "{name}");
        let rows: u64 = checked.runs.iter().map(|run| checked.rows_of(run)).sum();
        let said: u64 = named.iter().map(|name| blocks[*name].0.number::<u64>("rows")).sum();
        assert_eq!(rows, said, "{name}");
    }
}

#[test]
fn chunks_are_made() {
    let blocks = blocks();
    for (name, case) in golden("segments") {
        let segment = case.bytes("segment");
        let mut offset = 0;
        for partition in case.numbers("partitions") {
            let named = case.members(&format!("of-{partition}"));
            let body = body(&blocks, &named);
            let header = ChunkHeader {
                exchange: case.number("exchange"),
                incarnation: case.number("incarnation"),
                offset: offset as u64,
                range_index: case.number("range_index"),
                epoch: case.number("epoch"),
                partition: u32::try_from(partition).expect("a partition"),
                blocks: u32::try_from(named.len()).expect("a count"),
                body_bytes: body.len() as u64,
            };
            let mut chunk = [header.encode().as_slice(), &body].concat();
            assert_eq!(chunk.len(), CHUNK_HEADER_BYTES + body.len());
            chunk.resize(usize::try_from(padded(chunk.len() as u64)).expect("a length"), 0);
            assert_eq!(segment[offset..offset + chunk.len()], chunk, "{name}");
            offset += chunk.len();
        }
    }
}

#[test]
fn a_mark_is_of_no_rows() {
    let (header, _) = read(&blocks()["mark"].1).expect("a mark");
    assert!(header.is_mark());
    assert_eq!((header.flags, header.rows), (FLAG_MARK, 0));
}
