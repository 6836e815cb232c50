//! Messages of Arrow: the metadata of one with other figures.

use crate::little_endian::put_u64;

/// The metadata of a message with a batch, and where in it the figures are.
#[derive(Clone, Debug, Default)]
pub struct Template {
    /// What comes before the body.
    pub head: Vec<u8>,
    /// Where the number of rows is, and the length of the body.
    pub rows_at: usize,
    pub body_at: usize,
    /// Where the first column's rows and nulls are, and the first buffer's place and length.
    pub nodes_at: usize,
    pub buffers_at: usize,
}

impl Template {
    /// Whether all figures of `nodes` columns and `buffers` buffers lie in the metadata.
    #[must_use]
    pub fn has_room(&self, nodes: usize, buffers: usize) -> bool {
        let ends = [
            self.rows_at.checked_add(8),
            self.body_at.checked_add(8),
            self.nodes_at.checked_add(16 * nodes),
            self.buffers_at.checked_add(16 * buffers),
        ];
        ends.iter().all(|end| end.is_some_and(|end| end <= self.head.len()))
    }
}

/// A message that is being written, over what was in `content`.
pub struct Message<'a> {
    template: &'a Template,
    content: &'a mut Vec<u8>,
    nodes: usize,
    buffers: usize,
}

impl<'a> Message<'a> {
    /// Begins a message of `rows` rows.
    pub fn begin(template: &'a Template, content: &'a mut Vec<u8>, rows: usize) -> Self {
        content.clear();
        content.extend_from_slice(&template.head);
        put_u64(content, template.rows_at, rows as u64);
        Self { template, content, nodes: 0, buffers: 0 }
    }

    /// Says what the next column has.
    pub fn put_column(&mut self, rows: usize, nulls: usize) {
        let at = self.template.nodes_at + 16 * self.nodes;
        put_u64(self.content, at, rows as u64);
        put_u64(self.content, at + 8, nulls as u64);
        self.nodes += 1;
    }

    /// Adds a buffer, which `write` appends.
    pub fn put_buffer(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let (head, start) = (self.template.head.len(), self.content.len());
        write(self.content);
        let at = self.template.buffers_at + 16 * self.buffers;
        put_u64(self.content, at, (start - head) as u64);
        let length = self.content.len() - start;
        put_u64(self.content, at + 8, length as u64);
        self.content.resize(start + length.next_multiple_of(8), 0);
        self.buffers += 1;
    }

    /// Ends the message.
    pub fn finish(self) {
        let body = self.content.len() - self.template.head.len();
        put_u64(self.content, self.template.body_at, body as u64);
    }
}
