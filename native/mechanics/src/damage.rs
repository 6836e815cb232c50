//! What is wrong with bytes that came from the network or a store.

use std::fmt::{Display, Formatter, Result};

/// Why some bytes are not what they should be. Its text is that of `cosco.errors.DataCorrupted`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage(pub String);

impl Damage {
    /// With a text in the words of the Python twin.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl Display for Damage {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Damage {}
