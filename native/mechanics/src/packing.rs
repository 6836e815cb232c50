//! Packing: rows sorted by partition, cut into blocks, and blocks written one behind the other.
//!
//! Which rows are buffered together, which blocks are a frame, and what ends it, is said by the
//! caller: `cosco/client/write/state`.

pub mod blocks;
pub mod column_sorter;
pub mod columns;
pub mod integers;
pub mod message;
pub mod misuse;
pub mod row_sorter;
pub mod sorted_columns;
pub mod sorted_rows;
