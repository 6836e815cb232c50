//! Columns of Arrow batches in the memory of a caller, however that lays them out.
#![no_main]

use cosco_fuzz::input::Input;
use cosco_mechanics::packing::blocks::Contents;
use cosco_mechanics::packing::column_sorter::ColumnSorter;
use cosco_mechanics::packing::columns::{Column, Kind, bit_at};
use cosco_mechanics::packing::integers::Integers;
use cosco_mechanics::packing::message::Template;
use libfuzzer_sys::fuzz_target;

const MAX_COLUMNS: usize = 3;
const NODES_AT: usize = 16;
const BUFFERS_AT: usize = NODES_AT + 16 * MAX_COLUMNS;
const HEAD_BYTES: usize = BUFFERS_AT + 16 * 3 * MAX_COLUMNS;
const WIDTHS: [usize; 4] = [1, 2, 4, 8];

/// A row: of each column its bytes, of a bit one; None if it is null.
type Row = Vec<Option<Vec<u8>>>;

fn kind_of(input: &mut Input<'_>) -> Kind {
    match input.below(8) {
        0 => Kind::Bits,
        1 | 2 => Kind::Variable(4),
        3 => Kind::Variable(8),
        width => Kind::Fixed([1, 3, 8, 16][width - 4]),
    }
}

fn column_of<'a>(kind: Kind, input: &mut Input<'a>) -> Column<'a> {
    let control = input.byte();
    let validity = (control & 1 == 1).then(|| input.piece());
    let offset =
        if control & 2 == 0 { usize::from(control >> 4) } else { input.number::<8>() as usize };
    let offsets = match kind {
        Kind::Variable(width) => {
            let width =
                if control & 4 == 0 { width } else { WIDTHS[usize::from(control >> 3) % 4] };
            Integers::new(input.piece(), width)
        }
        _ => None,
    };
    Column { validity, offset, offsets, values: input.piece() }
}

/// What a row of columns has, which were found to be right.
fn row_of(kinds: &[Kind], columns: &[Column<'_>], row: usize) -> Row {
    let value = |(column, kind): (&Column<'_>, &Kind)| {
        let at = column.offset + row;
        column.is_valid(row).then(|| match *kind {
            Kind::Bits => vec![u8::from(bit_at(column.values, at))],
            Kind::Fixed(width) => column.values[at * width..(at + 1) * width].to_vec(),
            Kind::Variable(_) => {
                let offsets = column.offsets.expect("it was checked");
                column.values[offsets.at(at) as usize..offsets.at(at + 1) as usize].to_vec()
            }
        })
    };
    columns.iter().zip(kinds).map(value).collect()
}

fn long_at(data: &[u8], at: usize) -> usize {
    u64::from_le_bytes(data[at..at + 8].try_into().expect("eight bytes")) as usize
}

/// The rows of a message, by the figures in its head.
fn rows_of(kinds: &[Kind], message: &[u8]) -> Vec<Row> {
    let (count, body) = (long_at(message, 0), &message[HEAD_BYTES..]);
    assert_eq!(long_at(message, 8), body.len());
    assert_eq!(body.len() % 8, 0);
    let mut rows = vec![Row::new(); count];
    let mut buffer = 0;
    let mut next = || {
        let at = BUFFERS_AT + 16 * buffer;
        buffer += 1;
        let start = long_at(message, at);
        &body[start..start + long_at(message, at + 8)]
    };
    for (index, kind) in kinds.iter().enumerate() {
        let node = NODES_AT + 16 * index;
        assert_eq!(long_at(message, node), count);
        let (validity, values) = (next(), next());
        let nulls =
            (0..count).filter(|&row| !validity.is_empty() && !bit_at(validity, row)).count();
        assert_eq!(long_at(message, node + 8), nulls);
        let variable = if let Kind::Variable(_) = kind { next() } else { &[] };
        for (row, columns) in rows.iter_mut().enumerate() {
            let value = match *kind {
                Kind::Bits => vec![u8::from(bit_at(values, row))],
                Kind::Fixed(width) => values[row * width..(row + 1) * width].to_vec(),
                Kind::Variable(width) => {
                    let offsets = Integers::new(values, width).expect("a width");
                    variable[offsets.at(row) as usize..offsets.at(row + 1) as usize].to_vec()
                }
            };
            let is_valid = validity.is_empty() || bit_at(validity, row);
            assert!(is_valid || value.iter().all(|&byte| byte == 0), "a null with a value");
            columns.push(is_valid.then_some(value));
        }
    }
    rows
}

fn drained(sorter: &mut ColumnSorter, kinds: &[Kind], model: &mut [Vec<Row>], sure: usize) {
    let mut sorted = sorter.drain(sure);
    let mut content = Vec::new();
    while let Some(partition) = sorted.partition() {
        let found = if let Some((rows, message)) = sorted.next_block(&mut content) {
            assert_eq!(rows as usize, model[partition as usize].len());
            rows_of(kinds, message)
        } else {
            let (first, pieces, rows) = sorted.take();
            let _ = sorted.plain_bytes_of((first, pieces), rows / 2, rows);
            let mut found = Vec::new();
            for (skipped, some) in [(0, rows / 2), (rows / 2, rows - rows / 2)] {
                sorted.encode((first, pieces), skipped, some, &mut content);
                found.extend(rows_of(kinds, &content));
            }
            found
        };
        assert_eq!(found, std::mem::take(&mut model[partition as usize]));
    }
    assert!(model.iter().all(Vec::is_empty));
    sorter.reuse(sorted);
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let partitions = 1 + input.below(8);
    let kinds: Vec<Kind> = (0..1 + input.below(MAX_COLUMNS)).map(|_| kind_of(&mut input)).collect();
    let any = Template {
        head: vec![0; usize::from(input.byte())],
        rows_at: input.number::<8>() as usize,
        ..Template::default()
    };
    let _ = ColumnSorter::new(partitions, 9, kinds.clone(), any);
    let template = Template {
        head: vec![0; HEAD_BYTES],
        rows_at: 0,
        body_at: 8,
        nodes_at: NODES_AT,
        buffers_at: BUFFERS_AT,
    };
    let mut sorter =
        ColumnSorter::new(partitions, 4096, kinds.clone(), template).expect("there is room");
    let mut model: Vec<Vec<Row>> = vec![Vec::new(); partitions];
    for _ in 0..20 {
        if input.is_empty() {
            break;
        }
        let control = input.byte();
        if control & 3 == 0 {
            drained(&mut sorter, &kinds, &mut model, usize::from(control) << 6);
            continue;
        }
        let columns: Vec<Column<'_>> =
            kinds.iter().map(|&kind| column_of(kind, &mut input)).collect();
        let one_partition = (control & 3 == 1).then(|| u32::from(input.byte() & 15));
        let width = WIDTHS[usize::from(control >> 2) % 4];
        let row_partitions = Integers::new(input.piece(), width).expect("a width");
        let result = match one_partition {
            Some(one) => sorter.append_sorted(one, row_partitions.len(), &columns),
            None => sorter.append(row_partitions, &columns),
        };
        if result.is_err() {
            let mut sorted = sorter.drain(0); // some of them may have been added
            while sorted.partition().is_some() {
                sorted.take();
            }
            model.iter_mut().for_each(Vec::clear);
            continue;
        }
        for row in 0..row_partitions.len() {
            let partition = one_partition.map_or_else(|| row_partitions.at(row), u64::from);
            model[partition as usize].push(row_of(&kinds, &columns, row));
        }
    }
    drained(&mut sorter, &kinds, &mut model, 1 << 20);
});
