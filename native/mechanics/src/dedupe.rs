//! Which blocks of an assignment a daemon holds: see `DedupeIndex` in
//! `cosco/shuffle_service/state/buffers/dedupe.py`. What is forgotten when is decided there.

use std::collections::BTreeMap;

use crate::intervals::{Interval, IntervalSet};

/// A run of a mapper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MapperAttempt {
    pub mapper: u32,
    pub attempt: u64,
}

/// The blocks held of one assignment.
#[derive(Default)]
pub struct DedupeIndex {
    /// Intervals of all sets, none of which is empty.
    entries: usize,
    attempts: BTreeMap<MapperAttempt, Known>,
    /// By when they were first known.
    order: BTreeMap<u64, MapperAttempt>,
    next_order: u64,
}

/// What is held of one attempt, by partition.
struct Known {
    order: u64,
    partitions: BTreeMap<u32, IntervalSet>,
}

impl DedupeIndex {
    #[must_use]
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// Notes that positions are held. Returns false if all of them were already.
    pub fn claim(&mut self, attempt: MapperAttempt, partition: u32, positions: Interval) -> bool {
        self.claims(attempt, partition).claim(positions)
    }

    /// What is held of one partition of an attempt.
    pub fn claims(&mut self, attempt: MapperAttempt, partition: u32) -> Claims<'_> {
        let known = self.attempts.entry(attempt).or_insert_with(|| {
            let order = self.next_order;
            self.next_order += 1;
            self.order.insert(order, attempt);
            Known { order, partitions: BTreeMap::new() }
        });
        Claims { held: known.partitions.entry(partition).or_default(), entries: &mut self.entries }
    }

    /// Forgets an attempt, if it is known.
    pub fn forget(&mut self, attempt: MapperAttempt) {
        if let Some(known) = self.attempts.remove(&attempt) {
            self.order.remove(&known.order);
            self.entries -= known.partitions.values().map(IntervalSet::len).sum::<usize>();
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    #[must_use]
    pub fn knows(&self, attempt: MapperAttempt) -> bool {
        self.attempts.contains_key(&attempt)
    }

    /// The attempt that has been known longest.
    #[must_use]
    pub fn oldest(&self) -> Option<MapperAttempt> {
        self.order.first_key_value().map(|(_, attempt)| *attempt)
    }
}

/// What is held of one partition of an attempt.
pub struct Claims<'a> {
    held: &'a mut IntervalSet,
    entries: &'a mut usize,
}

impl Claims<'_> {
    /// Notes that positions are held. Returns false if all of them were already.
    pub fn claim(&mut self, positions: Interval) -> bool {
        if self.held.covers(positions) {
            return false;
        }
        let before = self.held.len();
        self.held.add(positions);
        *self.entries = *self.entries + self.held.len() - before;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: MapperAttempt = MapperAttempt { mapper: 0, attempt: 9 };
    const B: MapperAttempt = MapperAttempt { mapper: 0, attempt: 2 };

    #[test]
    fn the_oldest_is_the_one_that_was_known_first() {
        let mut index = DedupeIndex::default();
        for (partition, attempt) in [(1, A), (1, B), (2, A)] {
            assert!(index.claim(attempt, partition, Interval { first: 0, last: 9 }));
            assert!(!index.claim(attempt, partition, Interval { first: 2, last: 9 }));
        }
        assert_eq!((index.entries(), index.oldest()), (3, Some(A)));
        index.forget(A);
        assert_eq!((index.entries(), index.oldest()), (1, Some(B)));
        assert!(index.claim(A, 1, Interval { first: 0, last: 0 }));
        assert_eq!(index.oldest(), Some(B));
        index.clear();
        assert_eq!((index.entries(), index.oldest(), index.knows(A)), (0, None, false));
    }
}
