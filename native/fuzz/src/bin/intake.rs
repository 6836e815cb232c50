//! Frames on their way to the pages of a daemon: what is new of them is there, once, and no page
//! has two owners.
#![no_main]

use std::collections::BTreeMap;

use cosco_fuzz::input::Input;
use cosco_fuzz::repair;
use cosco_mechanics::block::{BlockHeader, POSITION_SHIFT, append_block};
use cosco_mechanics::checked_frame::check_frame;
use cosco_mechanics::chunk::{CHUNK_HEADER_BYTES, padded};
use cosco_mechanics::chunk_pages::ChunkPages;
use cosco_mechanics::dedupe::DedupeIndex;
use cosco_mechanics::frame::FrameHeader;
use cosco_mechanics::lz4::Compressor;
use cosco_mechanics::pool::{MAX_PAGE_BYTES, PagePool};
use libfuzzer_sys::fuzz_target;

const ARENA_BYTES: u64 = 2 * MAX_PAGE_BYTES;

struct Daemon {
    pool: PagePool,
    dedupe: DedupeIndex,
    arena: Vec<u8>,
    /// By partition: its chunk, and what should be in it.
    chunks: BTreeMap<u32, (ChunkPages, Vec<u8>)>,
}

impl Daemon {
    fn take_in(&mut self, data: &[u8], extra: u64) {
        let Ok(frame) = check_frame(data, None, None) else { return };
        let (mut fresh, mut pieces) = (Vec::new(), Vec::new());
        for run in &frame.runs {
            let (chunk, content) = self.chunks.entry(run.partition).or_default();
            let length = (frame.end_of(run) - run.start) as u64;
            let need = chunk.room_needed(length);
            if need > self.pool.free_bytes() {
                break;
            }
            frame.claim(run, &mut self.dedupe, &mut fresh);
            for part in &fresh {
                let length = (part.end - part.start) as u64;
                let need = chunk.room_needed(length);
                if need > 0 {
                    let spare = extra.min(self.pool.free_bytes() - need);
                    chunk.grow(&mut self.pool, need, spare).expect("so much is free");
                }
                chunk.append(part.start, length, &mut pieces);
                content.extend_from_slice(&data[part.start..part.end]);
            }
            frame.claim(run, &mut self.dedupe, &mut fresh);
            assert_eq!(fresh, []); // it is held now
        }
        for piece in pieces {
            let (at, length) = (piece.target.offset as usize, piece.target.length as usize);
            self.arena[at..at + length].copy_from_slice(&data[piece.source..piece.source + length]);
        }
    }

    fn check(&self) {
        let mut pages: Vec<_> =
            self.chunks.values().flat_map(|(chunk, _)| chunk.pages.iter().copied()).collect();
        pages.sort_by_key(|page| page.offset);
        let held: u64 = pages.iter().map(|page| page.size).sum();
        assert_eq!(self.pool.free_bytes() + held, ARENA_BYTES);
        assert!(pages.windows(2).all(|two| two[0].offset + two[0].size <= two[1].offset));
        assert!(pages.last().is_none_or(|page| page.offset + page.size <= ARENA_BYTES));
        for (chunk, content) in self.chunks.values() {
            assert_eq!(chunk.length, (CHUNK_HEADER_BYTES + content.len()) as u64);
            let spans = chunk.spans(CHUNK_HEADER_BYTES as u64, chunk.length);
            let there: Vec<u8> = spans
                .flat_map(|span| &self.arena[span.offset as usize..][..span.length as usize])
                .copied()
                .collect();
            assert_eq!(&there, content);
            let end = padded(chunk.length).min(chunk.capacity);
            let all: u64 = chunk.spans(0, end).map(|span| span.length).sum();
            assert_eq!(all, end);
        }
    }
}

/// A frame of blocks that are longer than an input: some pages are filled by them.
fn long_frame(input: &mut Input<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    let blocks = 1 + input.below(8);
    for _ in 0..blocks {
        let header = BlockHeader {
            partition: u32::from(input.byte() & 3),
            position: (input.byte() as u64) << POSITION_SHIFT,
            rows: 1 + u32::from(input.byte() & 3),
            ..BlockHeader::default()
        };
        let length = input.number::<2>() % 6000; // of a page and a half, at most
        let content: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        append_block(&mut body, header, &content, &mut Compressor::new());
    }
    let body_bytes = body.len() as u32;
    let header = FrameHeader { body_bytes, blocks: blocks as u32, ..FrameHeader::default() };
    [&header.encode()[..], &body].concat()
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let mut daemon = Daemon {
        pool: PagePool::new(ARENA_BYTES).expect("whole pages"),
        dedupe: DedupeIndex::default(),
        arena: vec![0; ARENA_BYTES as usize],
        chunks: BTreeMap::new(),
    };
    while !input.is_empty() {
        let control = input.byte();
        if control & 1 == 1 {
            // A flush of the chunk of one partition.
            let place = input.below(8).min(daemon.chunks.len().saturating_sub(1));
            if let Some(partition) = daemon.chunks.keys().nth(place).copied() {
                let (mut chunk, _) = daemon.chunks.remove(&partition).expect("it is there");
                chunk.release(&mut daemon.pool);
            }
        } else {
            let mut frame =
                if control & 2 == 0 { input.piece().to_vec() } else { long_frame(&mut input) };
            repair::frame(&mut frame);
            daemon.take_in(&frame, u64::from(control) << 9);
        }
        daemon.check();
    }
    for (mut chunk, _) in std::mem::take(&mut daemon.chunks).into_values() {
        chunk.release(&mut daemon.pool);
    }
    let mut pages = Vec::new();
    daemon.pool.allocate(ARENA_BYTES, &mut pages).expect("all is free");
    assert_eq!(pages.len() as u64, ARENA_BYTES / MAX_PAGE_BYTES); // it has joined again
});
