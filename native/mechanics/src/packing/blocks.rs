//! Blocks of one attempt, written one behind the other, and what they add up to by partition.

use crate::block::{
    BlockHeader, CODEC_NONE, FLAG_MARK, HEADER_BYTES, MAX_CONTENT_BYTES, POSITION_SHIFT,
    write_block,
};
use crate::lz4::Compressor;
use crate::packing::misuse::Misuse;

/// What the blocks of one partition add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub rows: u64,
    pub row_bytes: u64,
    pub stored_bytes: u64,
    pub digest: u64,
}

/// Sorted rows that blocks are made of.
pub trait Contents {
    /// The flags of their blocks.
    const FLAGS: u8;

    /// The partition of the next rows; None if there are no more.
    fn partition(&self) -> Option<u32>;

    /// Takes the rows of the partition's next block, perhaps by way of `scratch`.
    ///
    /// Returns how many they are, and the content; None if there are none, or the next rows are for
    /// the caller to cut.
    fn next_block<'a>(&'a mut self, scratch: &'a mut Vec<u8>) -> Option<(u32, &'a [u8])>;
}

/// Writes the blocks of one attempt.
pub struct BlockWriter {
    /// Exchange, attempt, mapper and codec of all of them.
    identity: BlockHeader,
    sums: Vec<Sums>,
    compressor: Compressor,
    /// The blocks written last, and memory behind them that is used again without being cleared.
    memory: Vec<u8>,
    used: usize,
    scratch: Vec<u8>,
}

impl BlockWriter {
    /// Begins with row 0 of each partition. `identity`: exchange, attempt, mapper and codec.
    #[must_use]
    pub fn new(identity: BlockHeader, partitions: usize) -> Self {
        Self {
            identity,
            sums: vec![Sums::default(); partitions],
            compressor: Compressor::new(),
            memory: Vec::new(),
            used: 0,
            scratch: Vec::new(),
        }
    }

    /// By partition: what its blocks add up to.
    #[must_use]
    pub fn sums(&self) -> &[Sums] {
        &self.sums
    }

    /// The blocks that were written since `clear`.
    #[must_use]
    pub fn written(&self) -> &[u8] {
        &self.memory[..self.used]
    }

    /// Begins anew behind no block.
    pub fn clear(&mut self) {
        self.used = 0;
    }

    /// Writes a block of the next rows of `partition`: of `rows` that end in it.
    ///
    /// Panics for a partition that there is not, or a content that is too long.
    pub fn write(&mut self, partition: u32, rows: u32, content: &[u8], flags: u8, fragment: u16) {
        let sums = &mut self.sums[partition as usize];
        let header = BlockHeader {
            position: sums.rows << POSITION_SHIFT | u64::from(fragment),
            partition,
            rows,
            flags,
            ..self.identity
        };
        let most = self.used + HEADER_BYTES + content.len();
        if self.memory.len() < most {
            self.memory.resize(most, 0);
        }
        let target = &mut self.memory[self.used..most];
        let written = write_block(target, header, content, &mut self.compressor);
        self.used += written.block_bytes();
        sums.rows += u64::from(rows);
        sums.row_bytes += written.row_bytes();
        sums.stored_bytes += written.block_bytes() as u64;
        sums.digest = sums.digest.wrapping_add(written.digest);
    }

    /// Writes the mark of the partitions `first` to `end`: see `cosco/protocol/mark.py`.
    pub fn mark(&mut self, first: u32, end: u32) -> Result<(), Misuse> {
        let sums = self.sums.get(first as usize..end as usize).ok_or(Misuse::Partition)?;
        let fields: [fn(&Sums) -> u64; 3] = [|one| one.rows, |one| one.row_bytes, |one| one.digest];
        let content: Vec<u8> = fields
            .iter()
            .flat_map(|field| sums.iter().flat_map(|one| field(one).to_le_bytes()))
            .collect();
        if content.len() > MAX_CONTENT_BYTES {
            return Err(Misuse::Count);
        }
        let header =
            BlockHeader { partition: first, flags: FLAG_MARK, codec: CODEC_NONE, ..self.identity };
        self.memory.resize(self.memory.len().max(self.used + HEADER_BYTES + content.len()), 0);
        let target = &mut self.memory[self.used..];
        self.used += write_block(target, header, &content, &mut self.compressor).block_bytes();
        Ok(())
    }

    /// Writes blocks of sorted rows until `room` bytes are written or more, or the next rows are of
    /// `end_partition` or later, or for the caller to cut. Returns how many blocks.
    pub fn fill<Rows: Contents>(
        &mut self,
        rows: &mut Rows,
        end_partition: u32,
        room: usize,
    ) -> usize {
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut blocks = 0;
        while self.used < room {
            let Some(partition) = rows.partition().filter(|&one| one < end_partition) else {
                break;
            };
            let Some((count, content)) = rows.next_block(&mut scratch) else { break };
            self.write(partition, count, content, Rows::FLAGS, 0);
            blocks += 1;
        }
        self.scratch = scratch;
        blocks
    }
}
