//! Contents of blocks of byte rows: tables of lengths that a writer may have made up.
#![no_main]

use std::mem::MaybeUninit;

use cosco_fuzz::input::Input;
use cosco_fuzz::memory::bounded;
use cosco_mechanics::room::filled;
use cosco_mechanics::rows::{
    Content, MAX_OFFSET, OFFSET_BYTES, check, write_offsets, write_values,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let mut contents = Vec::new();
    while !input.is_empty() {
        let control = input.byte();
        let rows = if control & 2 == 0 { u64::from(control >> 2) } else { input.number::<8>() };
        let (has_lengths, content) = (control & 1 == 1, input.piece());
        contents.push(Content { mapper: 1, rows, content, has_lengths });
    }
    let Ok(extent) = bounded(4096, || check(&contents)) else { return };
    assert!(extent.value_bytes <= data.len() as u64 && extent.value_bytes <= MAX_OFFSET);
    assert!(extent.rows <= data.len() as u64);
    let mut offsets = vec![MaybeUninit::uninit(); OFFSET_BYTES * (extent.rows as usize + 1)];
    let mut values = vec![MaybeUninit::uninit(); extent.value_bytes as usize];
    write_offsets(&contents, &mut offsets);
    write_values(&contents, &mut values);
    // SAFETY: each has just the room for what was found, and that was written.
    let (offsets, values) =
        unsafe { (filled(&offsets, offsets.len()), filled(&values, values.len())) };
    let mut rows = contents.iter().flat_map(Content::rows);
    let ends = offsets
        .chunks_exact(OFFSET_BYTES)
        .map(|end| u32::from_le_bytes(end.try_into().expect("four bytes")) as usize);
    let (starts, ends) = (ends.clone(), ends.skip(1));
    for (start, end) in starts.zip(ends) {
        assert_eq!(Some(&values[start..end]), rows.next());
    }
    assert_eq!(rows.next(), None);
});
