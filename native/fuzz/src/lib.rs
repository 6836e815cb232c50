//! What fuzz targets share.
//!
//! A target is a file of `src/bin`. It takes any bytes, and holds more than that nothing panics:
//! what was accepted must be whole, two ways to the same must agree, and memory has its bound.

pub mod calls;
pub mod http2;
pub mod input;
pub mod memory;
pub mod repair;
