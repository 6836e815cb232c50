//! Columns of Arrow rows: their kinds, and where those of a caller lie.

use crate::packing::integers::Integers;
use crate::packing::misuse::Misuse;

/// How the values of a column lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A bit each.
    Bits,
    /// So many bytes each.
    Fixed(usize),
    /// Bytes of any number, between offsets of so many bytes.
    Variable(usize),
}

impl Kind {
    /// About how many bytes a value takes besides what is of any number: see
    /// `cosco.client.content.row_costs`.
    #[must_use]
    pub fn value_bytes(&self) -> usize {
        match *self {
            Self::Bits => 1,
            Self::Fixed(width) | Self::Variable(width) => width,
        }
    }
}

/// A column of a batch, as Arrow lays it out: its items begin at `offset` in each buffer.
#[derive(Clone, Copy)]
pub struct Column<'a> {
    /// A bit each; None if all values are valid.
    pub validity: Option<&'a [u8]>,
    pub offset: usize,
    /// Where values of any number of bytes begin and end.
    pub offsets: Option<Integers<'a>>,
    pub values: &'a [u8],
}

impl Column<'_> {
    /// The same column from an item on.
    #[must_use]
    pub fn from(&self, item: usize) -> Self {
        Self { offset: self.offset + item, ..*self }
    }

    /// Whether an item is valid.
    #[must_use]
    pub fn is_valid(&self, item: usize) -> bool {
        self.validity.is_none_or(|bits| bit_at(bits, self.offset + item))
    }

    /// How many bytes `rows` values take, for values of any number without their offsets.
    #[must_use]
    pub fn value_bytes(&self, kind: Kind, rows: usize) -> usize {
        let Some(offsets) = self.offsets else { return rows * kind.value_bytes() };
        let length = |row| {
            let (start, end) = (offsets.at(self.offset + row), offsets.at(self.offset + row + 1));
            (end - start) as usize
        };
        if self.validity.is_some() {
            return (0..rows).filter(|&row| self.is_valid(row)).map(length).sum();
        }
        (offsets.at(self.offset + rows) - offsets.at(self.offset)) as usize
    }

    /// About how many bytes `rows` rows take: see `cosco.client.content.row_costs.batch_bytes`.
    #[must_use]
    pub fn plain_bytes(&self, kind: Kind, rows: usize) -> usize {
        let bytes = self.value_bytes(kind, rows);
        let Kind::Variable(width) = kind else { return bytes };
        let bitmap = if self.validity.is_some() { rows.div_ceil(8) } else { 0 };
        bytes + width * (rows + 1) + bitmap
    }

    /// Checks that all of `rows` items lie in the buffers.
    pub fn check(&self, kind: Kind, rows: usize) -> Result<(), Misuse> {
        let end = self.offset.checked_add(rows).ok_or(Misuse::Buffers)?;
        if self.validity.is_some_and(|bits| bits.len() < end.div_ceil(8)) {
            return Err(Misuse::Buffers);
        }
        let fits = match kind {
            Kind::Bits => self.values.len() >= end.div_ceil(8),
            Kind::Fixed(width) => end.checked_mul(width).is_some_and(|n| n <= self.values.len()),
            Kind::Variable(width) => self.offsets.is_some_and(|all| {
                all.width() == width && all.len() > end && self.are_in_order(all, end)
            }),
        };
        if fits { Ok(()) } else { Err(Misuse::Buffers) }
    }

    fn are_in_order(&self, offsets: Integers<'_>, end: usize) -> bool {
        let (mut last, mut is_right) = (offsets.at(self.offset), true);
        offsets.each(self.offset + 1, end + 1, |one| {
            is_right &= one >= last;
            last = one;
            true
        });
        is_right && last <= self.values.len() as u64
    }
}

/// The bit at `index`, counted from the lowest one of each byte.
#[must_use]
pub fn bit_at(bits: &[u8], index: usize) -> bool {
    bits[index / 8] >> (index % 8) & 1 == 1
}
