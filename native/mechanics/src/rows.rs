//! The content of blocks of byte rows, joined: see `cosco/client/content/byte_rows.py`.

use std::mem::MaybeUninit;

use crate::block::LENGTH_BYTES;
use crate::damage::Damage;
use crate::little_endian::u32_at;
use crate::room::copy;

/// One array of `binary` ends here.
pub const MAX_OFFSET: u64 = (1 << 31) - 1;
pub const OFFSET_BYTES: usize = 4;

/// The content of a block: `rows` rows of one mapper.
pub struct Content<'a> {
    pub mapper: u32,
    pub rows: u64,
    pub content: &'a [u8],
    /// Whether the content begins with the table of its rows' lengths.
    pub has_lengths: bool,
}

impl<'a> Content<'a> {
    fn table_bytes(&self) -> Option<usize> {
        if !self.has_lengths {
            return Some(0);
        }
        usize::try_from(self.rows).ok()?.checked_mul(LENGTH_BYTES)
    }

    /// The table of lengths, which is empty if there is none, and the bytes of rows behind it.
    fn parts(&self) -> (&'a [u8], &'a [u8]) {
        let table = self.table_bytes().unwrap_or(usize::MAX);
        self.content.split_at(table.min(self.content.len()))
    }

    /// The rows. The content was checked.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &'a [u8]> {
        let (table, values) = self.parts();
        let (has_lengths, mut rest) = (self.has_lengths, values);
        (0..self.rows as usize).map(move |index| {
            let length =
                if has_lengths { u32_at(table, LENGTH_BYTES * index) as usize } else { rest.len() };
            let (row, others) = rest.split_at(length.min(rest.len()));
            rest = others;
            row
        })
    }

    fn misfit(&self) -> Damage {
        let (rows, mapper, length) = (self.rows, self.mapper, self.content.len());
        Damage(format!(
            "the length table of {rows} rows of mapper {mapper} does not fit its content of \
             {length} bytes"
        ))
    }
}

/// How long the joined rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub rows: u64,
    pub value_bytes: u64,
}

/// Checks that the tables of lengths fit their contents. Returns what all of them hold together.
pub fn check(contents: &[Content<'_>]) -> Result<Extent, Damage> {
    let mut extent = Extent { rows: 0, value_bytes: 0 };
    for one in contents {
        if one.table_bytes().is_none_or(|table| table > one.content.len()) {
            return Err(one.misfit());
        }
        if !one.has_lengths && one.rows != 1 {
            let (rows, mapper) = (one.rows, one.mapper);
            let text = format!("{rows} rows of mapper {mapper} come without a length table");
            return Err(Damage(text));
        }
        extent.rows += one.rows;
        extent.value_bytes += one.parts().1.len() as u64;
    }
    for one in contents.iter().filter(|one| one.has_lengths) {
        let (table, values) = one.parts();
        if lengths(table).sum::<u64>() != values.len() as u64 {
            return Err(one.misfit());
        }
    }
    Ok(extent)
}

/// Writes where each row begins in the joined values, and where the last one ends.
///
/// The contents were checked, and reach to `MAX_OFFSET` at most. `room` has an offset for each row,
/// and one more.
pub fn write_offsets(contents: &[Content<'_>], room: &mut [MaybeUninit<u8>]) {
    let (first, mut room) = room.split_at_mut(OFFSET_BYTES);
    copy(&0_u32.to_le_bytes(), first);
    let mut end = 0_u64;
    for one in contents {
        let (table, values) = one.parts();
        let (here, rest) = room.split_at_mut(OFFSET_BYTES * one.rows as usize);
        room = rest;
        if one.has_lengths {
            for (place, length) in here.chunks_exact_mut(OFFSET_BYTES).zip(lengths(table)) {
                end += length;
                copy(&(end as u32).to_le_bytes(), place);
            }
        } else {
            end += values.len() as u64;
            copy(&(end as u32).to_le_bytes(), here);
        }
    }
}

fn lengths(table: &[u8]) -> impl Iterator<Item = u64> {
    table.chunks_exact(LENGTH_BYTES).map(|entry| u64::from(u32_at(entry, 0)))
}

/// Writes the values of all rows, one behind the other. `room` is as long as they are.
pub fn write_values(contents: &[Content<'_>], mut room: &mut [MaybeUninit<u8>]) {
    for one in contents {
        let values = one.parts().1;
        let (here, rest) = room.split_at_mut(values.len());
        copy(values, here);
        room = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table_of(content: &[u8], rows: u64) -> Content<'_> {
        Content { mapper: 3, rows, content, has_lengths: true }
    }

    fn room(length: usize) -> Vec<MaybeUninit<u8>> {
        vec![MaybeUninit::new(0xee); length]
    }

    fn read(room: &[MaybeUninit<u8>]) -> Vec<u8> {
        // SAFETY: `room` wrote something everywhere.
        unsafe { crate::room::filled(room, room.len()) }.to_vec()
    }

    #[test]
    fn rows_lie_one_behind_the_other() {
        let contents = [
            table_of(b"\x01\0\0\0\x02\0\0\0abb", 2),
            Content { mapper: 4, rows: 1, content: b"long", has_lengths: false },
            table_of(b"\0\0\0\0", 1),
        ];
        assert_eq!(check(&contents), Ok(Extent { rows: 4, value_bytes: 7 }));
        let (mut offsets, mut values) = (room(20), room(7));
        write_offsets(&contents, &mut offsets);
        write_values(&contents, &mut values);
        assert_eq!(read(&values), b"abblong");
        assert_eq!(read(&offsets), [0_u32, 1, 3, 7, 7].map(u32::to_le_bytes).concat());
    }

    #[test]
    fn tables_that_do_not_fit_are_told_before_sums() {
        let wrong_sum = table_of(b"\x09\0\0\0a", 1);
        let too_long = table_of(b"\x09\0\0\0a", 2);
        let found = check(&[wrong_sum, too_long]).unwrap_err();
        assert!(found.0.starts_with("the length table of 2 rows of mapper 3"), "{found}");
        assert!(check(&[table_of(b"\x09\0\0\0a", u64::MAX)]).is_err());
    }
}
