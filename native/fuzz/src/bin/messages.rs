//! Messages of gRPC, put together from pieces of any length.
#![no_main]

use bytes::Bytes;
use cosco_fuzz::input::Input;
use cosco_fuzz::memory::bounded;
use cosco_transport::assembly::{Assembly, Step, parts_of};
use libfuzzer_sys::fuzz_target;

/// What came: messages, how long the last one is to be, and whether one is compressed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    messages: Vec<Vec<u8>>,
    declared: Option<usize>,
    is_compressed: bool,
    is_amid: bool,
}

fn put_together(data: &Bytes, cut: usize) -> Found {
    let (mut assembly, mut found) = (Assembly::default(), Found::default());
    let mut rest = data.clone();
    while !rest.is_empty() {
        assembly.put(rest.split_to(cut.min(rest.len())));
        loop {
            match assembly.step() {
                Step::Whole(parts) => {
                    assert_eq!(found.declared.take(), Some(parts.iter().map(Bytes::len).sum()));
                    found.messages.push(parts.concat());
                }
                Step::Declared(length) => found.declared = Some(length),
                Step::Compressed => {
                    found.is_compressed = true;
                    return found; // nothing further is asked of it
                }
                Step::More => break,
            }
        }
        assert!(!assembly.has_rest());
    }
    found.is_amid = assembly.is_amid();
    found
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let cut = 1 + usize::from(input.byte());
    let data = Bytes::copy_from_slice(input.rest());
    // What a message is to have is never reserved before it has come.
    let found = bounded(4096 + 64 * data.len(), || put_together(&data, usize::MAX));
    assert_eq!(put_together(&data, cut), found);
    let again: Vec<u8> = found
        .messages
        .iter()
        .flat_map(|one| parts_of(Bytes::copy_from_slice(one)).expect("it is short").concat())
        .collect();
    assert!(data.starts_with(&again));
    assert_eq!(found.is_compressed || found.is_amid, again.len() < data.len());
});
