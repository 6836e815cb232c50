//! Integers of any width in memory of others, which need not be aligned.

/// Integers one after another, in the byte order of the machine.
#[derive(Clone, Copy, Debug)]
pub enum Integers<'a> {
    Bytes1(&'a [u8]),
    Bytes2(&'a [u8]),
    Bytes4(&'a [u8]),
    Bytes8(&'a [u8]),
}

impl<'a> Integers<'a> {
    /// Integers of `width` bytes. Returns None if there are none of that width.
    #[must_use]
    pub fn new(data: &'a [u8], width: usize) -> Option<Self> {
        match width {
            1 => Some(Self::Bytes1(data)),
            2 => Some(Self::Bytes2(data)),
            4 => Some(Self::Bytes4(data)),
            8 => Some(Self::Bytes8(data)),
            _ => None,
        }
    }

    /// How many bytes each has.
    #[must_use]
    pub fn width(&self) -> usize {
        match self {
            Self::Bytes1(_) => 1,
            Self::Bytes2(_) => 2,
            Self::Bytes4(_) => 4,
            Self::Bytes8(_) => 8,
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes1(data) => data.len(),
            Self::Bytes2(data) => data.len() / 2,
            Self::Bytes4(data) => data.len() / 4,
            Self::Bytes8(data) => data.len() / 8,
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The one at `index`, taken for unsigned; panics beyond the end.
    #[must_use]
    pub fn at(&self, index: usize) -> u64 {
        match self {
            Self::Bytes1(data) => u64::from(data[index]),
            Self::Bytes2(data) => u64::from(u16::from_ne_bytes(item(data, index))),
            Self::Bytes4(data) => u64::from(u32::from_ne_bytes(item(data, index))),
            Self::Bytes8(data) => u64::from_ne_bytes(item(data, index)),
        }
    }

    /// Calls `take` with each of `first..end`, taken for unsigned, until it returns false; panics
    /// beyond the end.
    pub fn each(&self, first: usize, end: usize, mut take: impl FnMut(u64) -> bool) {
        match self {
            Self::Bytes1(data) => {
                let _ = data[first..end].iter().all(|&one| take(u64::from(one)));
            }
            Self::Bytes2(data) => {
                let _ = items(data, first, end).all(|one| take(u64::from(u16::from_ne_bytes(one))));
            }
            Self::Bytes4(data) => {
                let _ = items(data, first, end).all(|one| take(u64::from(u32::from_ne_bytes(one))));
            }
            Self::Bytes8(data) => {
                let _ = items(data, first, end).all(|one| take(u64::from_ne_bytes(one)));
            }
        }
    }
}

fn item<const WIDTH: usize>(data: &[u8], index: usize) -> [u8; WIDTH] {
    let mut bytes = [0; WIDTH];
    bytes.copy_from_slice(&data[index * WIDTH..(index + 1) * WIDTH]);
    bytes
}

fn items<const WIDTH: usize>(
    data: &[u8],
    first: usize,
    end: usize,
) -> impl Iterator<Item = [u8; WIDTH]> {
    data[first * WIDTH..end * WIDTH].chunks_exact(WIDTH).map(|one| item(one, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_any_width_are_read_where_they_lie() {
        let mut data = vec![0];
        for value in [1_u32, 70_000, u32::MAX] {
            data.extend(value.to_ne_bytes());
        }
        let found = Integers::new(&data[1..], 4).unwrap();
        assert_eq!(found.len(), 3);
        assert_eq!(found.at(2), u64::from(u32::MAX));
        let mut taken = Vec::new();
        found.each(0, 3, |one| {
            taken.push(one);
            one < 70_000
        });
        assert_eq!(taken, [1, 70_000]);
        assert_eq!(Integers::new(&data, 1).unwrap().len(), 13);
        assert!(Integers::new(&data, 3).is_none());
    }
}
