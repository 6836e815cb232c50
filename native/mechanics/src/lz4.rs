//! lz4 blocks by the C library, so that the bytes are those of its Python binding.

use std::ffi::{c_char, c_int, c_void};
use std::mem::MaybeUninit;

use lz4_sys::LZ4_decompress_safe;

use crate::room::filled;

// Of the same library, which `lz4_sys` links and does not declare: with a state of ours nothing is
// allocated for a block.
unsafe extern "C" {
    fn LZ4_sizeofState() -> c_int;
    fn LZ4_compress_fast_extState(
        state: *mut c_void,
        source: *const c_char,
        target: *mut c_char,
        source_bytes: c_int,
        target_bytes: c_int,
        acceleration: c_int,
    ) -> c_int;
}

/// The state of a compressor, to be used again and again.
pub struct Compressor {
    // Of 8-byte words, as the C library wants the state aligned to 8 bytes.
    state: Vec<u64>,
}

impl Default for Compressor {
    fn default() -> Self {
        Self::new()
    }
}

impl Compressor {
    /// Reserves the state, 16 KiB.
    #[must_use]
    pub fn new() -> Self {
        // SAFETY: the call takes nothing and returns a constant of the library.
        let bytes = unsafe { LZ4_sizeofState() };
        Self { state: vec![0; usize::try_from(bytes).expect("a size").div_ceil(8)] }
    }

    /// Compresses `source` into `target`. Returns the length, or None if `target` is too short.
    pub fn compress(
        &mut self,
        source: &[u8],
        target: &mut [u8],
        acceleration: i32,
    ) -> Option<usize> {
        let (from, room) = (length(source), length(target));
        // SAFETY: the state has the size that the library asked for and is aligned to 8 bytes. It
        // reads `from` bytes of `source` and writes at most `room` to `target`, which do not
        // overlap, as one of them is borrowed mutably.
        let written = unsafe {
            LZ4_compress_fast_extState(
                self.state.as_mut_ptr().cast::<c_void>(),
                source.as_ptr().cast::<c_char>(),
                target.as_mut_ptr().cast::<c_char>(),
                from,
                room,
                acceleration,
            )
        };
        usize::try_from(written).ok().filter(|&bytes| bytes > 0)
    }
}

/// Decompresses `source` into `room`. Returns what came out; None if it does not fit, or is damaged.
pub fn decompress<'room>(source: &[u8], room: &'room mut [MaybeUninit<u8>]) -> Option<&'room [u8]> {
    let (from, most) = (length(source), length(room));
    // SAFETY: it reads at most `from` bytes of `source`, writes at most `most` to `room`, and
    // checks everything that `source` says (that is what "safe" in its name is about).
    let written = unsafe {
        LZ4_decompress_safe(
            source.as_ptr().cast::<c_char>(),
            room.as_mut_ptr().cast::<c_char>(),
            from,
            most,
        )
    };
    let written = usize::try_from(written).ok()?;
    // SAFETY: so many bytes it has written, as it says.
    Some(unsafe { filled(room, written) })
}

/// A length as the C library takes it; blocks are far shorter than its 2 GiB.
fn length<T>(data: &[T]) -> c_int {
    c_int::try_from(data.len()).expect("a block is shorter than 2 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_compressed_comes_back() {
        let source = b"abcabcabcabcabcabcabcabcabcabcabcabc".repeat(100);
        let mut packed = vec![0; source.len()];
        let length = Compressor::new().compress(&source, &mut packed, 8).unwrap();
        assert!(length < source.len() / 10);
        let mut room = vec![MaybeUninit::uninit(); source.len()];
        assert_eq!(decompress(&packed[..length], &mut room), Some(&source[..]));
        assert_eq!(decompress(&packed[..length - 1], &mut room), None);
        assert_eq!(decompress(&packed[..length], &mut room[..source.len() - 1]), None);
    }
}
