//! A buddy pool of pages: see `cosco/shuffle_service/state/buffers/pool.py`.
//!
//! It gives the same pages in the same order: of each size the page that was freed last is used
//! next, as its memory is warm.

use std::fmt::{Display, Formatter, Result as Written};

pub const MIN_PAGE_BYTES: u64 = 4 << 10;
pub const MAX_PAGE_BYTES: u64 = 256 << 10;
const MIN_SHIFT: u32 = MIN_PAGE_BYTES.trailing_zeros();
const ORDERS: usize = (MAX_PAGE_BYTES / MIN_PAGE_BYTES).trailing_zeros() as usize + 1;

/// An allocated piece of the arena, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    pub offset: u64,
    pub size: u64,
}

/// `length` rounded up to whole pages of the smallest size.
#[must_use]
pub fn round_up(length: u64) -> u64 {
    length.next_multiple_of(MIN_PAGE_BYTES)
}

/// Less is free than was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLittle {
    pub wanted: u64,
    pub free: u64,
}

impl Display for TooLittle {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Written {
        write!(formatter, "{} bytes of pages asked for, {} are free", self.wanted, self.free)
    }
}

/// Which parts of a fixed arena are free. It knows offsets, not memory.
pub struct PagePool {
    capacity_bytes: u64,
    free_bytes: u64,
    free: FreePages,
}

impl PagePool {
    /// All of an arena is free. None if it is no multiple of `MAX_PAGE_BYTES`, or empty.
    #[must_use]
    pub fn new(capacity_bytes: u64) -> Option<Self> {
        if capacity_bytes == 0 || capacity_bytes % MAX_PAGE_BYTES != 0 {
            return None;
        }
        let mut free = FreePages::new(capacity_bytes);
        for index in (0..capacity_bytes / MAX_PAGE_BYTES).rev() {
            free.push(ORDERS - 1, index * MAX_PAGE_BYTES);
        }
        Some(Self { capacity_bytes, free_bytes: capacity_bytes, free })
    }

    #[must_use]
    pub fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }

    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        self.free_bytes
    }

    /// Appends pages of `round_up(length)` bytes in total to `pages`, large ones first.
    ///
    /// It allocates nothing if less than that is free.
    pub fn allocate(&mut self, length: u64, pages: &mut Vec<Page>) -> Result<(), TooLittle> {
        let mut rest = round_up(length);
        if rest > self.free_bytes {
            return Err(TooLittle { wanted: rest, free: self.free_bytes });
        }
        self.free_bytes -= rest;
        while rest > 0 {
            let page = self.page_of(order_of(rest.min(MAX_PAGE_BYTES)));
            pages.push(page);
            rest -= page.size;
        }
        Ok(())
    }

    /// A page of `order`, split off a larger one if need be, or else a smaller one.
    fn page_of(&mut self, order: usize) -> Page {
        for found in order..ORDERS {
            if let Some(offset) = self.free.pop(found) {
                for split in (order..found).rev() {
                    self.free.push(split, offset + size_of(split));
                }
                return Page { offset, size: size_of(order) };
            }
        }
        for found in (0..order).rev() {
            if let Some(offset) = self.free.pop(found) {
                return Page { offset, size: size_of(found) };
            }
        }
        unreachable!("free_bytes counts pages that are not there")
    }

    /// Takes a page back, exactly as it was allocated, and joins it with its free buddies.
    pub fn free(&mut self, page: Page) {
        self.free_bytes += page.size;
        let (mut order, mut offset) = (order_of(page.size), page.offset);
        while order < ORDERS - 1 {
            let buddy = offset ^ size_of(order);
            if !self.free.remove(order, buddy) {
                break;
            }
            offset = offset.min(buddy);
            order += 1;
        }
        self.free.push(order, offset);
    }
}

fn size_of(order: usize) -> u64 {
    MIN_PAGE_BYTES << order
}

/// The order of the largest page that is no longer than `size`.
fn order_of(size: u64) -> usize {
    (size >> MIN_SHIFT).ilog2() as usize
}

/// No page; links hold the index of a page plus one, so that memory that was never touched is it.
const NONE: u32 = 0;

/// The free pages of each order, in the order in which they were freed.
///
/// Each list is doubly linked through `links`, which has a place for every page of the smallest
/// size, 12 bytes each: a buddy is found and taken out at once.
struct FreePages {
    last: [u32; ORDERS],
    links: Vec<Link>,
}

/// `order`: of the free page that begins here, plus one; 0 if none does.
#[derive(Clone, Copy, Default)]
struct Link {
    order: u32,
    before: u32,
    after: u32,
}

impl FreePages {
    fn new(capacity_bytes: u64) -> Self {
        let pages = usize::try_from(capacity_bytes >> MIN_SHIFT).expect("an arena is in memory");
        Self { last: [NONE; ORDERS], links: vec![Link::default(); pages] }
    }

    fn push(&mut self, order: usize, offset: u64) {
        let index = (offset >> MIN_SHIFT) as usize;
        let (link, before) = (index as u32 + 1, self.last[order]);
        if before != NONE {
            self.links[before as usize - 1].after = link;
        }
        self.links[index] = Link { order: order as u32 + 1, before, after: NONE };
        self.last[order] = link;
    }

    fn pop(&mut self, order: usize) -> Option<u64> {
        let last = self.last[order];
        if last == NONE {
            return None;
        }
        let offset = u64::from(last - 1) << MIN_SHIFT;
        self.remove(order, offset);
        Some(offset)
    }

    /// Whether a page of this order was free; it is not any more.
    fn remove(&mut self, order: usize, offset: u64) -> bool {
        let index = (offset >> MIN_SHIFT) as usize;
        let Some(&Link { order: found, before, after }) = self.links.get(index) else {
            return false;
        };
        if found != order as u32 + 1 {
            return false;
        }
        if before != NONE {
            self.links[before as usize - 1].after = after;
        }
        if after == NONE {
            self.last[order] = before;
        } else {
            self.links[after as usize - 1].before = before;
        }
        self.links[index] = Link::default();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(pool: &mut PagePool, length: u64) -> Vec<Page> {
        let mut found = Vec::new();
        pool.allocate(length, &mut found).unwrap();
        found
    }

    #[test]
    fn what_is_freed_joins_again() {
        let mut pool = PagePool::new(2 * MAX_PAGE_BYTES).unwrap();
        let small: Vec<_> = (0..128).flat_map(|_| pages(&mut pool, 1)).collect();
        assert_eq!(pool.free_bytes(), 0);
        let refused = pool.allocate(1, &mut Vec::new());
        assert_eq!(refused, Err(TooLittle { wanted: 4096, free: 0 }));
        for page in small.iter().rev().step_by(2).chain(small.iter().step_by(2)) {
            pool.free(*page);
        }
        let sizes: Vec<_> = pages(&mut pool, 2 * MAX_PAGE_BYTES).iter().map(|p| p.size).collect();
        assert_eq!(sizes, [MAX_PAGE_BYTES; 2]);
    }

    #[test]
    fn the_page_that_was_freed_last_is_used_next() {
        let mut pool = PagePool::new(MAX_PAGE_BYTES).unwrap();
        let small: Vec<_> = (0..64).flat_map(|_| pages(&mut pool, 1)).collect();
        for index in [6, 2, 10] {
            pool.free(small[index]);
        }
        let order = [10, 2, 6].map(|index| small[index]);
        assert_eq!([(); 3].map(|()| pages(&mut pool, 1)[0]), order);
    }

    #[test]
    fn a_capacity_of_no_whole_pages_is_refused() {
        assert!(PagePool::new(0).is_none());
        assert!(PagePool::new(MAX_PAGE_BYTES + 1).is_none());
    }
}
