//! What callers must not do.

use std::fmt::{Display, Formatter, Result};

/// What is wrong with the arguments of a call, which the caller has not checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misuse {
    Offsets,
    Partition,
    Count,
    Buffers,
}

impl Display for Misuse {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        formatter.write_str(match self {
            Self::Offsets => "a row ends before it begins, or beyond the data",
            Self::Partition => "there is no such partition",
            Self::Count => "there is not one partition for each row",
            Self::Buffers => "the rows of a column do not lie in its buffers",
        })
    }
}

impl std::error::Error for Misuse {}
