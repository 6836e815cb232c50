//! What tests break on purpose, to see that it is noticed: see `tests/sim/breaks.py`. Only a crate
//! that was built with the feature `breaks` can be broken; in others all of this comes to nothing.

#[cfg(feature = "breaks")]
use std::sync::atomic::{AtomicBool, Ordering};

/// One thing that is wrong, by the name that it has in tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    NoCrc,
    NoReaderDedupe,
    AnyAttempt,
    HeadersForRows,
}

/// Each, with its name.
pub const BREAKS: [(&str, Break); 4] = [
    ("no-crc", Break::NoCrc),
    ("no-reader-dedupe", Break::NoReaderDedupe),
    ("any-attempt", Break::AnyAttempt),
    ("headers-for-rows", Break::HeadersForRows),
];

#[cfg(feature = "breaks")]
static BROKEN: [AtomicBool; BREAKS.len()] = [const { AtomicBool::new(false) }; BREAKS.len()];

/// Breaks something for the rest of the process. Returns false if there is nothing of this name.
#[cfg(feature = "breaks")]
pub fn break_on_purpose(name: &str) -> bool {
    let found = BREAKS.iter().find(|(known, _)| *known == name);
    if let Some((_, broken)) = found {
        BROKEN[*broken as usize].store(true, Ordering::Relaxed);
    }
    found.is_some()
}

/// Whether something was broken.
#[must_use]
pub fn is_broken(what: Break) -> bool {
    #[cfg(feature = "breaks")]
    return BROKEN[what as usize].load(Ordering::Relaxed);
    #[cfg(not(feature = "breaks"))]
    {
        let _ = what;
        false
    }
}
