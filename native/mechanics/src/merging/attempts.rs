//! Whose blocks count, and whose rows are wanted.

use crate::little_endian::{u32_at, u64_at};

/// The committed attempts of a snapshot, and the mappers that a reader names.
#[derive(Debug, Default)]
pub struct Attempts {
    /// By mapper.
    committed: Vec<(u32, u64)>,
    /// Ascending.
    named: Vec<u32>,
}

impl Attempts {
    /// Takes arrays of little-endian integers: mappers of 32 bits, with their attempts of 64, in any
    /// order; of a mapper that is there twice the last one counts. named: mappers of 32 bits.
    #[must_use]
    pub fn new(mappers: &[u8], attempts: &[u8], named: &[u8]) -> Self {
        let all = mappers.chunks_exact(4).zip(attempts.chunks_exact(8));
        let mut committed: Vec<(u32, u64)> =
            all.map(|(mapper, attempt)| (u32_at(mapper, 0), u64_at(attempt, 0))).collect();
        committed.reverse(); // so that the last one is the first of those that are alike
        committed.sort_by_key(|one| one.0);
        committed.dedup_by_key(|one| one.0);
        let mut named: Vec<u32> = named.chunks_exact(4).map(|one| u32_at(one, 0)).collect();
        named.sort_unstable();
        Self { committed, named }
    }

    /// The attempt of a mapper that has committed.
    #[must_use]
    pub fn committed(&self, mapper: u32) -> Option<u64> {
        // Mappers are numbered from 0, mostly: then each is at its own place.
        if let Some((here, attempt)) = self.committed.get(mapper as usize) {
            if *here == mapper {
                return Some(*attempt);
            }
        }
        let place = self.committed.binary_search_by_key(&mapper, |one| one.0).ok()?;
        Some(self.committed[place].1)
    }

    /// Whether a reader names a mapper.
    #[must_use]
    pub fn wants(&self, mapper: u32) -> bool {
        self.named.get(mapper as usize) == Some(&mapper)
            || self.named.binary_search(&mapper).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes<const N: usize>(numbers: &[u64]) -> Vec<u8> {
        numbers.iter().flat_map(|one| one.to_le_bytes()[..N].to_vec()).collect()
    }

    #[test]
    fn mappers_are_found_wherever_they_are() {
        let found = Attempts::new(
            &bytes::<4>(&[7, 1, 0, 1, 1 << 31]),
            &bytes::<8>(&[70, 10, 5, 11, u64::MAX]),
            &bytes::<4>(&[3, 1, 9]),
        );
        let committed: Vec<_> = [0, 1, 2, 7, 1 << 31].iter().map(|&m| found.committed(m)).collect();
        assert_eq!(committed, [Some(5), Some(11), None, Some(70), Some(u64::MAX)]);
        let wanted: Vec<_> = (0..10).filter(|&mapper| found.wants(mapper)).collect();
        assert_eq!(wanted, [1, 3, 9]);
    }
}
