//! The mechanics of Cosco's row path: formats, checks and copies, without Python.
//!
//! Nothing here decides, waits, or knows the time; nothing owns a thread, a socket or a file. Each
//! call has a twin in Python that gives the same bytes, and tests compare the two.

pub mod block;
pub mod checksum;
pub mod damage;
pub mod frame;
mod little_endian;
pub mod lz4;
pub mod packing;
