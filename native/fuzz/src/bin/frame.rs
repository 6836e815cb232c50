//! Frames: every byte of one is checked before any is believed.
#![no_main]

use cosco_fuzz::input::Input;
use cosco_fuzz::memory::bounded;
use cosco_fuzz::repair;
use cosco_mechanics::block::{HEADER_BYTES, checked_block};
use cosco_mechanics::checked_frame::{CheckedFrame, check_frame};
use cosco_mechanics::dedupe::MapperAttempt;
use cosco_mechanics::frame::FRAME_HEADER_BYTES;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let control = input.byte();
    let mut data = input.rest().to_vec();
    if control & 1 == 1 {
        repair::frame(&mut data);
    }
    let blocks = data.len() / HEADER_BYTES;
    // Of each block its place is kept, and at most one run; a vector that grows is there twice.
    let Ok(frame) = bounded(4096 + blocks * 512, || check_frame(&data, None, None)) else {
        return;
    };
    whole(&data, &frame);
    let (exchange, sender) = (frame.header.exchange, frame.mapper_attempt);
    let again = check_frame(&data, Some(exchange), Some(sender)).expect("it is good");
    assert_eq!((&again.runs, &again.blocks, again.mark), (&frame.runs, &frame.blocks, frame.mark));
    assert!(check_frame(&data, Some(exchange ^ 1), None).is_err());
    let other = MapperAttempt { attempt: sender.attempt ^ 1, ..sender };
    assert!(check_frame(&data, None, Some(other)).is_err());
});

/// What was found is the whole body, block by block.
fn whole(data: &[u8], frame: &CheckedFrame) {
    assert_eq!(frame.header.encode(), data[..FRAME_HEADER_BYTES]);
    let (mut at, mut count) = (FRAME_HEADER_BYTES, 0);
    for run in &frame.runs {
        assert_eq!((run.start, run.blocks.start), (at, count));
        assert!(!run.blocks.is_empty());
        for placed in &frame.blocks[run.blocks.clone()] {
            let header = checked_block(data, at).expect("it was checked");
            assert_eq!(
                (header.exchange, header.mapper),
                (frame.header.exchange, frame.mapper_attempt.mapper)
            );
            assert_eq!(header.partition, run.partition);
            assert_eq!(placed.positions.first, header.position);
            assert_eq!(u128::from(placed.positions.last) + 1, header.end());
            at += header.block_bytes();
            assert_eq!(placed.end, at);
        }
        count = run.blocks.end;
        assert_eq!(frame.end_of(run), at);
    }
    assert_eq!(count, frame.blocks.len());
    if let Some(mark) = frame.mark {
        assert_eq!(mark, at);
        let header = checked_block(data, at).expect("it was checked");
        assert!(header.is_mark());
        at += header.block_bytes();
        count += 1;
    }
    assert_eq!((at, count), (data.len(), frame.header.blocks as usize));
}
