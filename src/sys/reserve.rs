//! Memory set aside for guard's own way to the end: where the kernel has none left for it (RLIMIT_AS and RLIMIT_DATA,
//! `getrlimit(2)`), an allocation that fails would end PID 1, and the container with it.
//!
//! The allocator asks the C library first, and takes from the reserve what that refuses. The reserve is part of the
//! program's zeroed data, so it counts against those limits from the start, and costs no memory until it is used.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr::null_mut;
use std::sync::{Mutex, PoisonError};

/// More than a stop needs: log lines, and the lists of a walk over a thousand leftovers.
const SIZE: usize = 1024 * 1024;

/// The stack that guard is sure to have, in bytes: the kernel does not let it grow past those limits either.
const STACK: usize = 128 * 1024;

#[global_allocator]
static ALLOCATOR: WithReserve =
    WithReserve { memory: Memory(UnsafeCell::new([0; SIZE])), used: Mutex::new(Used::NOTHING) };

struct WithReserve {
    memory: Memory,
    used: Mutex<Used>,
}

#[repr(align(16))]
struct Memory(UnsafeCell<[u8; SIZE]>);

// SAFETY: `used` hands out each part of the memory once at a time.
unsafe impl Sync for Memory {}

/// How much of the reserve is in use. Blocks are taken one behind the other; the last can be given back, and all can once
/// none is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Used {
    blocks: usize,
    /// Where the next block begins, at the earliest.
    end: usize,
}

impl Used {
    const NOTHING: Used = Used { blocks: 0, end: 0 };

    /// The offset of a new block, if there is room for it.
    fn take(&mut self, layout: Layout) -> Option<usize> {
        let start =
            self.end.checked_next_multiple_of(layout.align()).filter(|_| layout.align() <= align_of::<Memory>())?;
        let end = start.checked_add(layout.size()).filter(|&end| end <= SIZE)?;
        *self = Used { blocks: self.blocks + 1, end };
        Some(start)
    }

    /// Gives the block at this offset back.
    fn give_back(&mut self, start: usize, size: usize) {
        self.blocks -= 1;
        if self.blocks == 0 {
            self.end = 0;
        } else if start + size == self.end {
            self.end = start;
        }
    }
}

impl WithReserve {
    fn take(&self, layout: Layout) -> *mut u8 {
        let start = self.used.lock().unwrap_or_else(PoisonError::into_inner).take(layout);
        // SAFETY: the block lies inside of the memory.
        start.map_or(null_mut(), |start| unsafe { self.memory.0.get().cast::<u8>().add(start) })
    }

    /// The offset of a block that is part of the reserve.
    fn offset(&self, block: *mut u8) -> Option<usize> {
        block.addr().checked_sub(self.memory.0.get().addr()).filter(|&offset| offset < SIZE)
    }
}

// SAFETY: a block is the C library's, or a part of the reserve that no other block overlaps, and goes back where it came
// from.
unsafe impl GlobalAlloc for WithReserve {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is passed on.
        let block = unsafe { System.alloc(layout) };
        if block.is_null() { self.take(layout) } else { block }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match self.offset(block) {
            Some(start) => {
                self.used.lock().unwrap_or_else(PoisonError::into_inner).give_back(start, layout.size());
            }
            // SAFETY: the caller's promise is passed on.
            None => unsafe { System.dealloc(block, layout) },
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if self.offset(block).is_none() {
            // SAFETY: the caller's promise is passed on.
            let moved = unsafe { System.realloc(block, layout, size) };
            if !moved.is_null() {
                return moved;
            }
        }
        // SAFETY: the caller promises a valid size; the old block has at least as many bytes as are copied.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !new.is_null() {
                new.copy_from_nonoverlapping(block, layout.size().min(size));
                self.dealloc(block, layout);
            }
            new
        }
    }
}

/// Has std make its list of what a thread leaves behind, with room for more, while there is memory. It asks the C library alone.
pub fn make_room_for_destructors() {
    struct Nothing;
    impl Drop for Nothing {
        fn drop(&mut self) {}
    }
    thread_local!(static NOTHING: Nothing = const { Nothing });
    NOTHING.with(|_| ());
}

/// Makes the stack as large as guard may need it, while it still can grow. Only its far end takes memory.
#[inline(never)]
pub fn grow_stack() {
    let mut stack = std::mem::MaybeUninit::<[u8; STACK]>::uninit();
    // SAFETY: the first byte lies inside of the array.
    unsafe { stack.as_mut_ptr().cast::<u8>().write_volatile(0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).expect("a layout")
    }

    #[test]
    fn blocks_lie_one_behind_the_other() {
        let mut used = Used::NOTHING;
        assert_eq!(
            [layout(3, 1), layout(8, 8), layout(1, 1)].map(|block| used.take(block)),
            [Some(0), Some(8), Some(16)]
        );
        used.give_back(16, 1);
        assert_eq!(used.take(layout(1, 1)), Some(16), "the last one can be given back");
        for (start, size) in [(0, 3), (16, 1), (8, 8)] {
            used.give_back(start, size);
        }
        assert_eq!(used, Used::NOTHING, "all can be once none is in use");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut used = Used::NOTHING;
        assert_eq!(used.take(layout(SIZE, 1)), Some(0));
        assert_eq!(used.take(layout(1, 1)), None);
        assert_eq!(used.take(layout(0, 64)), None);
    }

    #[test]
    fn a_block_moves_with_its_content() {
        static RESERVE: WithReserve =
            WithReserve { memory: Memory(UnsafeCell::new([0; SIZE])), used: Mutex::new(Used::NOTHING) };
        let old = layout(4, 1);
        // SAFETY: blocks of these layouts, each used until it goes back.
        unsafe {
            let block = RESERVE.take(old);
            block.copy_from_nonoverlapping(b"text".as_ptr(), 4);
            let moved = RESERVE.realloc(block, old, 64);
            assert_eq!(std::slice::from_raw_parts(moved, 4), b"text");
            RESERVE.dealloc(moved, layout(64, 1));
        }
        assert_eq!(*RESERVE.used.lock().expect("nobody panics"), Used::NOTHING);
    }
}
