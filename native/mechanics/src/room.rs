//! Memory that nobody has written to yet, and so must not be read: the room that content goes to.

use std::mem::MaybeUninit;

/// Copies as much of `source` as there is room for. Returns the copy.
pub fn copy<'room>(source: &[u8], room: &'room mut [MaybeUninit<u8>]) -> &'room [u8] {
    for (to, from) in room.iter_mut().zip(source) {
        to.write(*from);
    }
    let length = source.len().min(room.len());
    // SAFETY: so many bytes were written right above.
    unsafe { filled(room, length) }
}

/// Returns the first bytes of `room`.
///
/// # Safety
///
/// They were written.
pub unsafe fn filled(room: &[MaybeUninit<u8>], length: usize) -> &[u8] {
    let written = &room[..length];
    // SAFETY: the caller has seen to it that they were, and a byte is as long either way.
    unsafe { std::slice::from_raw_parts(written.as_ptr().cast::<u8>(), length) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_copied() {
        for (source, room, copied) in
            [(&b"abc"[..], 3, &b"abc"[..]), (b"abc", 2, b"ab"), (b"a", 2, b"a")]
        {
            let mut room = vec![MaybeUninit::uninit(); room];
            assert_eq!(copy(source, &mut room), copied);
        }
    }
}
