//! Blocks as a reader counts them, whoever has sent what.
#![no_main]

use std::mem::MaybeUninit;

use cosco_fuzz::input::Input;
use cosco_fuzz::memory::bounded;
use cosco_fuzz::repair;
use cosco_mechanics::block::{HEADER_BYTES, parse_header};
use cosco_mechanics::merging::attempts::Attempts;
use cosco_mechanics::merging::{BlockCount, Found};
use libfuzzer_sys::fuzz_target;

const EXCHANGE: u64 = 9;
const PARTITION: u32 = 5;
/// Contents that are taken at once, and one block more.
const STEP_BYTES: usize = 64 << 10;

#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    found: Vec<(usize, u32, u32, u8)>,
    bad: Vec<String>,
}

fn read(count: &mut BlockCount, attempts: &Attempts, data: &[u8], most: usize) -> Read {
    let (mut read, mut offset) = (Read::default(), 0);
    while offset < data.len() {
        let step = count.plan(attempts, data, offset, most);
        let mut contents: Vec<_> =
            step.lengths().map(|length| vec![MaybeUninit::uninit(); length]).collect();
        let mut rooms: Vec<&mut [_]> = contents.iter_mut().map(|one| &mut one[..]).collect();
        let taken = count.take(attempts, data, step, &mut rooms);
        assert!(offset < taken.end && taken.end <= data.len());
        for Found { start, mapper, rows, flags, room } in taken.found {
            let header = parse_header(data, start).expect("it was found");
            assert_eq!((header.exchange, header.partition), (EXCHANGE, PARTITION));
            assert_eq!(attempts.committed(mapper), Some(header.attempt));
            let stored = &data[start + HEADER_BYTES..start + header.block_bytes()];
            let content = repair::content_of(&header, stored).expect("its digest was right");
            assert_eq!(contents[room].len(), content.len());
            read.found.push((start, mapper, rows, flags));
        }
        read.bad.extend(taken.bad.into_iter().map(|damage| damage.0));
        offset = taken.end;
    }
    read
}

fn integers(numbers: &[u8], width: usize) -> Vec<u8> {
    numbers.iter().flat_map(|&one| [one, 0, 0, 0, 0, 0, 0, 0][..width].to_vec()).collect()
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let control = input.byte();
    let mut data = input.rest().to_vec();
    if control & 1 == 1 {
        repair::blocks(&mut data);
    }
    let (mappers, ones) = (integers(&[0, 1, 2, 3], 4), integers(&[1, 1, 1, 2], 8));
    let attempts = Attempts::new(&mappers, &ones, &integers(&[0, 2, 3, 9], 4));
    let mut count = BlockCount::new(EXCHANGE, PARTITION);
    // Those of a step, its blocks, and what is told of each.
    let most = STEP_BYTES + (1 << 20) + (1 << 20) + 16 * data.len() + (64 << 10);
    let first = bounded(most, || read(&mut count, &attempts, &data, STEP_BYTES));
    let sums = count.sums();
    assert!(count.intervals() <= data.len() / HEADER_BYTES);

    // However it is cut into steps, it comes to the same.
    let mut other = BlockCount::new(EXCHANGE, PARTITION);
    assert_eq!(read(&mut other, &attempts, &data, 1 + usize::from(control >> 1)), first);
    assert_eq!(other.sums(), sums);

    // What has come counts once, and headers can be taken back.
    let again = read(&mut count, &attempts, &data, STEP_BYTES);
    assert_eq!(again.found, []);
    assert_eq!(again.bad.is_empty(), first.bad.is_empty());
    assert_eq!(count.sums(), sums);
    let _ = count.feed_headers(&attempts, &data);
    count.forget_headers();
    assert_eq!(count.sums(), sums);
});
