//! Blocks: headers, checksums, contents.
#![no_main]

use cosco_fuzz::input::Input;
use cosco_fuzz::memory::bounded;
use cosco_fuzz::repair;
use cosco_mechanics::block::{
    CODEC_NONE, HEADER_BYTES, MAX_CONTENT_BYTES, append_block, check_block, checked_block,
    parse_header,
};
use cosco_mechanics::lz4::Compressor;
use cosco_mechanics::section_rows::SectionRows;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let control = input.byte();
    let offset = usize::from(control >> 4);
    let mut data = input.rest().to_vec();
    if control & 1 == 1 {
        repair::blocks(data.get_mut(offset..).unwrap_or_default());
    }
    rows_of_pieces(&data, usize::from(control));
    bounded(4 * MAX_CONTENT_BYTES + (256 << 10), || read(&data, offset));
});

fn rows_of_pieces(data: &[u8], at: usize) {
    let (first, second) = data.split_at(at.min(data.len()));
    let mut pieces = SectionRows::default();
    let rows = pieces.feed(first) + pieces.feed(second);
    assert_eq!(rows, SectionRows::default().feed(data));
}

fn read(data: &[u8], offset: usize) {
    let _ = parse_header(data, data.len() - data.len().min(offset));
    let _ = parse_header(data, usize::MAX - offset);
    let Ok(header) = parse_header(data, offset) else {
        assert!(checked_block(data, offset).is_err());
        return;
    };
    assert!(header.raw_bytes as usize <= MAX_CONTENT_BYTES);
    assert!(
        header.end() <= 1 << 64 && header.end() > u128::from(header.position) || header.is_mark()
    );
    assert!(header.row_bytes() <= u64::from(header.raw_bytes));
    if check_block(data, offset, &header).is_err() {
        return;
    }
    let whole = &data[offset..offset + header.block_bytes()];
    let Some(content) = repair::content_of(&header, &whole[HEADER_BYTES..]) else { return };
    let mut again = Vec::new();
    let written = append_block(&mut again, header, &content, &mut Compressor::new());
    assert_eq!(written.digest, header.digest);
    assert_eq!(checked_block(&again, 0).as_ref(), Ok(&written));
    if header.codec == CODEC_NONE {
        assert_eq!(again, whole);
    }
    assert_eq!(repair::content_of(&written, &again[HEADER_BYTES..]), Some(content));
}
