//! Rows of Arrow batches that are sorted by partition, and the messages of their blocks.

use crate::block::MAX_CONTENT_BYTES;
use crate::packing::blocks::Contents;
use crate::packing::columns::{Column, Kind, bit_at};
use crate::packing::message::{Message, Template};

/// All values of a column. A vector may be longer than what is in use, so that it is not cleared
/// when it is used again.
#[derive(Default)]
struct SortedColumn {
    /// A byte each, 1 for valid; without any if all are valid.
    validity: Vec<u8>,
    /// Values one behind the other; bits as a byte each.
    values: Vec<u8>,
    used: usize,
    /// How many bytes each value has, where they differ.
    lengths: Vec<usize>,
}

/// Neighbouring rows of one partition.
#[derive(Clone, Copy)]
struct Piece {
    partition: u32,
    first: usize,
    rows: usize,
    /// Where its figures begin in `starts`.
    starts: usize,
}

/// A part of a piece; the whole one as a rule.
struct Span {
    piece: Piece,
    /// The rows of the piece that come before.
    skipped: usize,
    rows: usize,
}

impl Span {
    fn first(&self) -> usize {
        self.piece.first + self.skipped
    }
}

/// Rows sorted by partition, in the order in which they came.
pub struct SortedColumns {
    kinds: Vec<Kind>,
    template: Template,
    columns: Vec<SortedColumn>,
    rows: usize,
    pieces: Vec<Piece>,
    /// By piece and column: where its first value begins, for values of any number of bytes.
    starts: Vec<usize>,
    /// About how many bytes all rows take.
    plain_bytes: u64,
    sure_bytes: f64,
    next: usize,
}

impl SortedColumns {
    pub(super) fn new(kinds: Vec<Kind>, template: Template) -> Self {
        Self {
            columns: kinds.iter().map(|_| SortedColumn::default()).collect(),
            kinds,
            template,
            rows: 0,
            pieces: Vec::new(),
            starts: Vec::new(),
            plain_bytes: 0,
            sure_bytes: 0.0,
            next: 0,
        }
    }

    // --- adding ---------------------------------------------------------------------------------

    /// How many pieces there are, also of rows that were taken.
    #[must_use]
    pub fn piece_count(&self) -> usize {
        self.pieces.len()
    }

    /// Makes place for rows. Returns the first one's.
    pub(super) fn begin_rows(&mut self, rows: usize) -> usize {
        let first = self.rows;
        self.rows += rows;
        first
    }

    /// Counts about how many bytes rows will take.
    pub(super) fn count_bytes(&mut self, bytes: usize) {
        self.plain_bytes += bytes as u64;
    }

    /// Makes memory for `bytes` of a column's values, if it has none.
    pub(super) fn reserve(&mut self, index: usize, bytes: usize) {
        let values = &mut self.columns[index].values;
        if values.is_empty() {
            // Memory that the kernel clears when it is touched, and that is not cleared again.
            *values = vec![0; bytes];
        }
    }

    pub(super) fn push_piece(&mut self, partition: u32, first: usize, rows: usize) {
        let starts = self.starts.len();
        self.starts.resize(starts + self.kinds.len(), 0);
        self.pieces.push(Piece { partition, first, rows, starts });
    }

    pub(super) fn add_fixed(
        &mut self,
        index: usize,
        column: &Column<'_>,
        width: usize,
        places: &[u32],
    ) {
        self.make_room(index, places.len() * width);
        let start = column.offset * width;
        let values = &column.values[start..start + places.len() * width];
        let target = &mut self.columns[index].values;
        match width {
            1 => scatter::<1>(target, values, places),
            2 => scatter::<2>(target, values, places),
            4 => scatter::<4>(target, values, places),
            8 => scatter::<8>(target, values, places),
            16 => scatter::<16>(target, values, places),
            _ => {
                for (value, &place) in values.chunks_exact(width).zip(places) {
                    let at = place as usize * width;
                    target[at..at + width].copy_from_slice(value);
                }
            }
        }
        if column.validity.is_some() {
            for (row, &place) in places.iter().enumerate() {
                if !column.is_valid(row) {
                    let at = place as usize * width;
                    target[at..at + width].fill(0);
                }
            }
        }
    }

    pub(super) fn add_bits(&mut self, index: usize, column: &Column<'_>, places: &[u32]) {
        self.make_room(index, places.len());
        let target = &mut self.columns[index].values;
        for (row, &place) in places.iter().enumerate() {
            let is_set = column.is_valid(row) && bit_at(column.values, column.offset + row);
            target[place as usize] = u8::from(is_set);
        }
    }

    /// Adds which values are valid, after the values.
    pub(super) fn add_validity(&mut self, index: usize, column: &Column<'_>, places: &[u32]) {
        let validity = &mut self.columns[index].validity;
        if column.validity.is_none() && validity.is_empty() {
            return;
        }
        validity.resize(self.rows, 1);
        if column.validity.is_none() {
            return;
        }
        for (row, &place) in places.iter().enumerate() {
            validity[place as usize] = u8::from(column.is_valid(row));
        }
    }

    /// The lengths of a column's values, with place for all rows.
    pub(super) fn lengths(&mut self, index: usize) -> &mut [usize] {
        let lengths = &mut self.columns[index].lengths;
        if lengths.len() < self.rows {
            lengths.resize(self.rows, 0);
        }
        lengths
    }

    /// Makes place for `bytes` of values. Returns where it begins.
    pub(super) fn make_room(&mut self, index: usize, bytes: usize) -> usize {
        let column = &mut self.columns[index];
        let start = column.used;
        column.used += bytes;
        if column.values.len() < column.used {
            let more = column.values.len() / 4;
            column.values.resize(column.used.max(column.values.len() + more), 0);
        }
        start
    }

    pub(super) fn values(&mut self, index: usize) -> &mut [u8] {
        &mut self.columns[index].values
    }

    /// Says where the values of each piece from `first_piece` on begin.
    pub(super) fn set_starts(
        &mut self,
        index: usize,
        first_piece: usize,
        mut start_of: impl FnMut(u32) -> usize,
    ) {
        for piece in &self.pieces[first_piece..] {
            self.starts[piece.starts + index] = start_of(piece.partition);
        }
    }

    pub(super) fn is_without_memory(&self) -> bool {
        self.pieces.is_empty() && self.columns.iter().all(|one| one.values.is_empty())
    }

    pub(super) fn clear(&mut self) {
        for column in &mut self.columns {
            column.validity.clear();
            column.used = 0;
        }
        self.rows = 0;
        self.pieces.clear();
        self.starts.clear();
        self.plain_bytes = 0;
        self.next = 0;
    }

    /// Brings the pieces into the order of partitions.
    pub(super) fn begin(&mut self, sure_bytes: usize) {
        // Stable, so that the pieces of a partition stay in their order.
        self.pieces.sort_by_key(|piece| piece.partition);
        self.sure_bytes = sure_bytes as f64;
    }

    // --- taking ---------------------------------------------------------------------------------

    /// Removes all rows, with their memory, and what else there is. Returns it.
    pub fn remove(&mut self) -> Self {
        let empty = Self::new(self.kinds.clone(), self.template.clone());
        std::mem::replace(self, empty)
    }

    /// About how many bytes a row takes.
    #[must_use]
    pub fn row_bytes(&self) -> f64 {
        self.plain_bytes as f64 / self.rows.max(1) as f64
    }

    /// Passes all rows of the next partition. Returns the first of their pieces, and how many
    /// pieces and rows they are.
    pub fn take(&mut self) -> (usize, usize, usize) {
        let (first, count, rows) = self.group();
        self.next = first + count;
        (first, count, rows)
    }

    /// Writes the message of some rows of some pieces to `content`, over what was there: of `rows`
    /// rows behind the first `skipped`.
    pub fn encode(
        &self,
        pieces: (usize, usize),
        skipped: usize,
        rows: usize,
        content: &mut Vec<u8>,
    ) {
        let spans = self.spans(pieces, skipped, rows);
        let mut message = Message::begin(&self.template, content, rows);
        for (index, (kind, column)) in self.kinds.iter().zip(&self.columns).enumerate() {
            let nulls = column.nulls(&spans);
            message.put_column(rows, nulls);
            message.put_buffer(|out| {
                if nulls > 0 {
                    pack_bits(out, rows, &column.validity, &spans);
                }
            });
            match *kind {
                Kind::Bits => {
                    message.put_buffer(|out| pack_bits(out, rows, &column.values, &spans));
                }
                Kind::Fixed(width) => {
                    message.put_buffer(|out| column.put_fixed(out, width, &spans))
                }
                Kind::Variable(width) => {
                    message.put_buffer(|out| column.put_offsets(out, width, &spans));
                    message.put_buffer(|out| self.put_values(out, index, &spans));
                }
            }
        }
        message.finish();
    }

    /// About how many bytes some rows of some pieces take: see `encode`, and
    /// `cosco.client.content.row_costs.batch_bytes`.
    #[must_use]
    pub fn plain_bytes_of(&self, pieces: (usize, usize), skipped: usize, rows: usize) -> usize {
        let spans = self.spans(pieces, skipped, rows);
        let mut bytes = 0;
        for (kind, column) in self.kinds.iter().zip(&self.columns) {
            bytes += rows * kind.value_bytes();
            if let Kind::Variable(width) = kind {
                let bitmap = if column.validity.is_empty() { 0 } else { rows.div_ceil(8) };
                let values: usize = column.lengths_of(&spans).sum();
                bytes += width + bitmap + values;
            }
        }
        bytes
    }

    /// The bytes of memory of all values.
    pub(super) fn held_bytes(&self) -> usize {
        self.columns.iter().map(|one| one.values.capacity()).sum()
    }

    fn group(&self) -> (usize, usize, usize) {
        let first = self.next;
        let partition = self.partition();
        let (mut count, mut rows) = (0, 0);
        for piece in &self.pieces[first..] {
            if Some(piece.partition) != partition {
                break;
            }
            count += 1;
            rows += piece.rows;
        }
        (first, count, rows)
    }

    fn spans(&self, pieces: (usize, usize), skipped: usize, rows: usize) -> Vec<Span> {
        let mut spans = Vec::with_capacity(pieces.1);
        let (mut skipped, mut rest) = (skipped, rows);
        for &piece in &self.pieces[pieces.0..pieces.0 + pieces.1] {
            let skips = skipped.min(piece.rows);
            let takes = rest.min(piece.rows - skips);
            skipped -= skips;
            rest -= takes;
            if takes > 0 {
                spans.push(Span { piece, skipped: skips, rows: takes });
            }
        }
        spans
    }

    fn put_values(&self, out: &mut Vec<u8>, index: usize, spans: &[Span]) {
        let column = &self.columns[index];
        for span in spans {
            let (first, middle) = (span.piece.first, span.first());
            let before: usize = column.lengths[first..middle].iter().sum();
            let bytes: usize = column.lengths[middle..middle + span.rows].iter().sum();
            let start = self.starts[span.piece.starts + index] + before;
            out.extend_from_slice(&column.values[start..start + bytes]);
        }
    }
}

impl Contents for SortedColumns {
    const FLAGS: u8 = 0;

    fn partition(&self) -> Option<u32> {
        self.pieces.get(self.next).map(|piece| piece.partition)
    }

    fn next_block<'a>(&'a mut self, content: &'a mut Vec<u8>) -> Option<(u32, &'a [u8])> {
        let (first, count, rows) = self.group();
        if rows != 1 && rows as f64 * self.row_bytes() > self.sure_bytes {
            return None;
        }
        // A bit counts as a byte there, so this is surely no block, and not worth the memory.
        if self.plain_bytes_of((first, count), 0, rows) > 8 * MAX_CONTENT_BYTES {
            return None;
        }
        self.encode((first, count), 0, rows, content);
        if content.len() > MAX_CONTENT_BYTES {
            return None;
        }
        self.next = first + count;
        Some((rows as u32, content))
    }
}

impl SortedColumn {
    fn nulls(&self, spans: &[Span]) -> usize {
        if self.validity.is_empty() {
            return 0;
        }
        let valid = |span: &Span| {
            let flags = &self.validity[span.first()..span.first() + span.rows];
            flags.iter().map(|&one| usize::from(one)).sum::<usize>()
        };
        spans.iter().map(|span| span.rows - valid(span)).sum()
    }

    fn lengths_of<'a>(&'a self, spans: &'a [Span]) -> impl Iterator<Item = usize> + 'a {
        spans.iter().flat_map(|span| &self.lengths[span.first()..span.first() + span.rows]).copied()
    }

    fn put_fixed(&self, out: &mut Vec<u8>, width: usize, spans: &[Span]) {
        for span in spans {
            let start = span.first() * width;
            out.extend_from_slice(&self.values[start..start + span.rows * width]);
        }
    }

    fn put_offsets(&self, out: &mut Vec<u8>, width: usize, spans: &[Span]) {
        let start = out.len() + width;
        let rows: usize = spans.iter().map(|span| span.rows).sum();
        out.resize(start + width * rows, 0);
        let mut offset = 0_u64;
        let lengths = self.lengths_of(spans);
        if width == 4 {
            for (target, length) in out[start..].chunks_exact_mut(4).zip(lengths) {
                offset += length as u64;
                target.copy_from_slice(&(offset as u32).to_le_bytes());
            }
        } else {
            for (target, length) in out[start..].chunks_exact_mut(8).zip(lengths) {
                offset += length as u64;
                target.copy_from_slice(&offset.to_le_bytes());
            }
        }
    }
}

fn scatter<const WIDTH: usize>(target: &mut [u8], values: &[u8], places: &[u32]) {
    for (value, &place) in values.chunks_exact(WIDTH).zip(places) {
        let at = place as usize * WIDTH;
        target[at..at + WIDTH].copy_from_slice(value);
    }
}

/// Appends flags, of a byte each, as bits.
fn pack_bits(out: &mut Vec<u8>, rows: usize, flags: &[u8], spans: &[Span]) {
    let start = out.len();
    out.resize(start + rows.div_ceil(8), 0);
    let bits = &mut out[start..];
    let mut row = 0;
    for span in spans {
        for &flag in &flags[span.first()..span.first() + span.rows] {
            bits[row / 8] |= flag << (row % 8);
            row += 1;
        }
    }
}
