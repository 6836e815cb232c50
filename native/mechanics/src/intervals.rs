//! A set of integers kept as disjoint intervals: see `cosco/format/intervals.py`.

/// All integers from `first` to `last`, both included: so the end of the last position there may
/// be, 2^64, needs no larger type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    pub first: u64,
    pub last: u64,
}

/// Disjoint, sorted, non-adjacent intervals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IntervalSet(Vec<Interval>);

impl IntervalSet {
    /// How many intervals there are, not integers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether every integer of an interval is in the set.
    #[must_use]
    pub fn covers(&self, interval: Interval) -> bool {
        let behind = self.0.partition_point(|one| one.first <= interval.first);
        behind > 0 && self.0[behind - 1].last >= interval.last
    }

    /// Whether any integer of an interval is in the set.
    #[must_use]
    pub fn overlaps(&self, interval: Interval) -> bool {
        let behind = self.0.partition_point(|one| one.first <= interval.last);
        behind > 0 && self.0[behind - 1].last >= interval.first
    }

    /// Adds an interval, joining whatever it touches.
    pub fn add(&mut self, Interval { first, last }: Interval) {
        let held = &mut self.0;
        if let Some(end) = held.last_mut() {
            if end.last.checked_add(1) == Some(first) {
                end.last = last; // rows in order: the last interval grows
                return;
            }
        }
        // What ends right before it, or begins right behind it, touches it.
        let low = held.partition_point(|one| one.last.saturating_add(1) < first);
        let high = held.partition_point(|one| one.first <= last.saturating_add(1));
        let mut joined = Interval { first, last };
        if low < high {
            joined.first = first.min(held[low].first);
            joined.last = last.max(held[high - 1].last);
        }
        held.splice(low..high, [joined]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_touches_is_joined() {
        let mut set = IntervalSet::default();
        for (first, last) in [(10, 19), (30, 39), (0, 4), (50, 59)] {
            set.add(Interval { first, last });
        }
        assert_eq!(set.len(), 4);
        set.add(Interval { first: 20, last: 29 });
        assert_eq!(set.len(), 3);
        assert!(set.covers(Interval { first: 10, last: 39 }));
        assert!(!set.covers(Interval { first: 9, last: 39 }));
        assert!(!set.covers(Interval { first: 39, last: 50 }));
        assert!(set.overlaps(Interval { first: 39, last: 50 }));
        assert!(set.overlaps(Interval { first: 45, last: u64::MAX }));
        assert!(!set.overlaps(Interval { first: 40, last: 49 }));
        assert!(!set.overlaps(Interval { first: 60, last: u64::MAX }));
        set.add(Interval { first: 5, last: u64::MAX });
        assert_eq!(set.len(), 1);
        assert!(set.covers(Interval { first: 0, last: u64::MAX }));
    }

    #[test]
    fn the_last_integer_there_is_has_nothing_behind_it() {
        let mut set = IntervalSet::default();
        set.add(Interval { first: u64::MAX, last: u64::MAX });
        set.add(Interval { first: 0, last: 0 });
        assert_eq!(set.len(), 2);
        assert!(set.covers(Interval { first: 0, last: 0 }));
        set.add(Interval { first: 1, last: u64::MAX - 1 });
        assert_eq!(set.len(), 1);
    }
}
