//! Compressed bytes of others, and what is compressed here.
#![no_main]

use std::mem::MaybeUninit;

use cosco_fuzz::input::Input;
use cosco_mechanics::lz4::{Compressor, decompress};
use libfuzzer_sys::fuzz_target;

/// What is behind the room that is given.
const GUARD: [MaybeUninit<u8>; 64] = [MaybeUninit::new(0xa5); 64];

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let length = input.number::<2>() as usize;
    let data = input.rest();
    let mut room = vec![MaybeUninit::new(0); length];
    room.extend_from_slice(&GUARD);
    if let Some(content) = decompress(data, &mut room[..length]) {
        assert!(content.len() <= length);
        there_and_back(content);
    }
    for byte in &room[length..] {
        // SAFETY: the guard was written above, and nothing makes memory unwritten.
        assert_eq!(unsafe { byte.assume_init() }, 0xa5);
    }
    there_and_back(data);
});

fn there_and_back(source: &[u8]) {
    let mut packed = vec![0; source.len()];
    let Some(length) = Compressor::new().compress(source, &mut packed, 8) else { return };
    let mut room = vec![MaybeUninit::uninit(); source.len()];
    assert_eq!(decompress(&packed[..length], &mut room), Some(source));
}
