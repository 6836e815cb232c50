//! The mechanics of Cosco's row path: formats, checks and copies, without Python.
//!
//! Nothing here decides, waits, or knows the time; nothing owns a thread, a socket or a file. Each
//! call has a twin in Python that gives the same bytes, and tests compare the two.

pub mod block;
pub mod breaks;
pub mod checked_frame;
pub mod checksum;
pub mod chunk;
pub mod chunk_pages;
pub mod damage;
pub mod dedupe;
pub mod frame;
pub mod intervals;
mod little_endian;
pub mod lz4;
pub mod merging;
pub mod packing;
pub mod pool;
pub mod room;
pub mod rows;
pub mod section_rows;
