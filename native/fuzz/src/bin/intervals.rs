//! Positions of blocks, as a set of intervals, beside one flag for each.
#![no_main]

use cosco_fuzz::input::Input;
use cosco_mechanics::dedupe::{DedupeIndex, MapperAttempt};
use cosco_mechanics::intervals::{Interval, IntervalSet};
use libfuzzer_sys::fuzz_target;

const COUNT: usize = 64;
const ATTEMPT: MapperAttempt = MapperAttempt { mapper: 1, attempt: 2 };

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    // At the beginning of all integers, or at their end.
    let base = [0, u64::MAX - (COUNT as u64 - 1)][input.below(2)];
    let (mut set, mut held) = (IntervalSet::default(), [false; COUNT]);
    let mut index = DedupeIndex::default();
    while !input.is_empty() {
        let (one, other) = (input.below(COUNT), input.below(COUNT));
        let (first, last) = (one.min(other), one.max(other));
        let interval = Interval { first: base + first as u64, last: base + last as u64 };
        let range = &mut held[first..=last];
        assert_eq!(set.covers(interval), range.iter().all(|&one| one));
        assert_eq!(set.overlaps(interval), range.iter().any(|&one| one));
        assert_eq!(index.claim(ATTEMPT, 3, interval), !range.iter().all(|&one| one));
        set.add(interval);
        range.fill(true);
        let begins = (0..COUNT).filter(|&at| held[at] && (at == 0 || !held[at - 1])).count();
        assert_eq!((set.len(), index.entries()), (begins, begins));
    }
    index.forget(ATTEMPT);
    assert_eq!((index.entries(), index.oldest()), (0, None));
});
