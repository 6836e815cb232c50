//! Descriptors that a forked child closes, in a list that is changed without a lock.
//!
//! A child has its parent's descriptors. As long as it has one of a connection, its parent's end of
//! that connection does not count as closed. It may not look into what the parent's threads were
//! changing as it was forked, so the descriptors are kept here as well.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, Ordering};

const NONE: i32 = -1;
/// More descriptors than this are not listed, and a child keeps them.
const MAX: usize = 1024;

static OPEN: [AtomicI32; MAX] = [const { AtomicI32::new(NONE) }; MAX];

/// A descriptor's place in the list. To be dropped before the descriptor is closed: by then it may
/// be another one's.
pub struct Listed(usize);

impl Listed {
    /// Lists an open descriptor. Returns None if the list is full.
    pub fn new(descriptor: RawFd) -> Option<Self> {
        let free = |place: &AtomicI32| {
            place.compare_exchange(NONE, descriptor, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        };
        OPEN.iter().position(free).map(Self)
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        OPEN[self.0].store(NONE, Ordering::Release);
    }
}

/// Closes all that are listed, and lists none; for a forked child. The connections of its parent
/// are not touched, as these close only with their last descriptor.
pub fn close_inherited() {
    for place in &OPEN {
        let descriptor = place.swap(NONE, Ordering::AcqRel);
        if descriptor != NONE {
            // SAFETY: it was open in the parent as this process was forked, so it is here; whoever
            // owned it was left there, and nothing of it is used or dropped here.
            unsafe { libc::close(descriptor) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_used_again() {
        let first = Listed::new(1_000_000).unwrap();
        let place = first.0;
        assert_eq!(OPEN[place].load(Ordering::Relaxed), 1_000_000);
        drop(first);
        assert_eq!(OPEN[place].load(Ordering::Relaxed), NONE);
    }
}
