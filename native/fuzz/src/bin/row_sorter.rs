//! Rows of bytes in the memory of a caller, wherever that says that they lie.
#![no_main]

use cosco_fuzz::input::Input;
use cosco_fuzz::repair;
use cosco_mechanics::block::{BlockHeader, HEADER_BYTES, MAX_CONTENT_BYTES, checked_block};
use cosco_mechanics::packing::blocks::{BlockWriter, Contents};
use cosco_mechanics::packing::integers::Integers;
use cosco_mechanics::packing::misuse::Misuse;
use cosco_mechanics::packing::row_sorter::{MAX_BLOCK_ROW_BYTES, RowRun, RowSorter};
use cosco_mechanics::rows::{Content, check};
use libfuzzer_sys::fuzz_target;

const WIDTHS: [usize; 4] = [1, 2, 4, 8];
/// Long enough for rows that are too long for a block.
static LONG: [u8; 3 * MAX_CONTENT_BYTES] = [9; 3 * MAX_CONTENT_BYTES];

type Rows = Vec<Vec<Vec<u8>>>;

/// The rows that were added, if the caller's arguments were right.
fn expected(run: RowRun<'_>, mut take: impl FnMut(usize, &[u8])) {
    for row in 0..run.offsets.len().saturating_sub(1) {
        let (start, end) = (run.offsets.at(row) as usize, run.offsets.at(row + 1) as usize);
        take(row, &run.data[start..end]);
    }
}

/// Looks whether all rows come out, of each partition in order.
fn drained(sorter: &mut RowSorter, model: &mut Rows, room: usize) {
    let mut rows = sorter.drain();
    let mut blocks = BlockWriter::new(BlockHeader::default(), model.len());
    let mut found: Rows = vec![Vec::new(); model.len()];
    while let Some(partition) = rows.partition() {
        blocks.clear();
        if blocks.fill(&mut rows, partition + 1, room) == 0 {
            assert!(rows.skip_long_row());
            let row = &model[partition as usize][found[partition as usize].len()];
            assert!(row.len() > MAX_BLOCK_ROW_BYTES);
            found[partition as usize].push(row.clone());
        }
        let (data, mut at) = (blocks.written(), 0);
        while at < data.len() {
            let header = checked_block(data, at).expect("it was just written");
            let stored = &data[at + HEADER_BYTES..at + header.block_bytes()];
            let content = repair::content_of(&header, stored).expect("its content");
            let content = Content {
                mapper: 0,
                rows: header.rows.into(),
                content: &content,
                has_lengths: true,
            };
            check(std::slice::from_ref(&content)).expect("a table that fits");
            found[header.partition as usize].extend(content.rows().map(<[u8]>::to_vec));
            at += header.block_bytes();
        }
    }
    assert!(found == *model, "other rows have come out");
    model.iter_mut().for_each(Vec::clear);
    sorter.reuse(rows);
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let (partitions, limit) = (1 + input.below(8), input.number::<2>() as usize);
    let mut sorter = RowSorter::new(partitions, limit);
    let mut model: Rows = vec![Vec::new(); partitions];
    for _ in 0..20 {
        if input.is_empty() {
            break;
        }
        let control = input.byte();
        let width = WIDTHS[usize::from(control >> 3) % 4];
        let offsets = Integers::new(input.piece(), width).expect("a width");
        let data = if control & 0x80 == 0 { input.piece() } else { &LONG };
        let run = RowRun { offsets, data };
        let result = match control & 7 {
            0..=2 => {
                let width = WIDTHS[usize::from(control >> 5) % 4];
                let row_partitions = Integers::new(input.piece(), width).expect("a width");
                let result = sorter.append(row_partitions, run);
                if result.is_ok() {
                    expected(run, |row, bytes| {
                        model[row_partitions.at(row) as usize].push(bytes.to_vec());
                    });
                }
                result.map(Some)
            }
            3 => {
                let partition = u32::from(input.byte());
                let result = sorter.append_sorted(partition, run);
                if result.is_ok() {
                    expected(run, |_, bytes| model[partition as usize].push(bytes.to_vec()));
                }
                result.map(Some)
            }
            4 | 5 => apart(&mut sorter, &mut model, &mut input, data).map(|()| None),
            6 => {
                drained(&mut sorter, &mut model, 1 + (usize::from(control) << 12));
                Ok(None)
            }
            _ => {
                sorter.reset(partitions, limit);
                model.iter_mut().for_each(Vec::clear);
                Ok(None)
            }
        };
        match result {
            Ok(Some(long_rows)) => expected(run, |row, bytes| {
                assert_eq!(long_rows.contains(&row), bytes.len() > MAX_BLOCK_ROW_BYTES);
            }),
            Ok(None) => {}
            Err(_) => {
                // Some of them may have been added; those must be whole all the same.
                let mut rows = sorter.drain();
                let mut blocks = BlockWriter::new(BlockHeader::default(), partitions);
                while rows.partition().is_some() {
                    blocks.clear();
                    if blocks.fill(&mut rows, u32::MAX, 1) == 0 {
                        assert!(rows.skip_long_row());
                    }
                }
                model.iter_mut().for_each(Vec::clear);
            }
        }
    }
    drained(&mut sorter, &mut model, 1 << 20);
});

/// Adds rows that lie apart. Errors: there is no such partition.
fn apart(
    sorter: &mut RowSorter,
    model: &mut Rows,
    input: &mut Input<'_>,
    data: &[u8],
) -> Result<(), Misuse> {
    let rows: Vec<&[u8]> = (0..input.below(6))
        .map(|_| &data[..data.len().min(input.number::<2>() as usize)])
        .collect();
    let partitions: Vec<u32> = rows.iter().map(|_| u32::from(input.byte() & 15)).collect();
    if sorter.append_rows(&partitions, rows.iter().copied())? {
        for (&partition, row) in partitions.iter().zip(&rows) {
            model[partition as usize].push(row.to_vec());
        }
    }
    Ok(())
}
