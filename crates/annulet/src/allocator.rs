//! The allocator of this process: jemalloc, with its options, and with huge pages for large pieces.
//!
//! A value of many megabytes passes through several buffers on each node that it crosses. Most of the time for that is the system's, which
//! hands memory out in pages of 4 KiB, one fault each; in pages of 2 MiB the same took a seventh where it was measured. Small pieces get none: getting a huge
//! page may take a millisecond, and a table that grows gets many.

use rustix::mm::{Advice, madvise};
use std::alloc::{GlobalAlloc, Layout};
use tikv_jemallocator::Jemalloc;

/// What is free goes back to the system by a thread of the allocator's own, not by whoever freed it. A thread keeps more of what it
/// frees than it would by default: what thousands of writes under way have replaced is freed at once, and soon wanted again.
// SAFETY: the allocator reads a pointer to text that ends with a zero byte under this name, before main.
#[unsafe(export_name = "_rjem_malloc_conf")]
static OPTIONS: &[u8; 75] = b"background_thread:true,tcache_nslots_small_max:2048,lg_tcache_nslots_mul:3\0";

/// From how many bytes on a piece is large. It is where jemalloc's `oversize_threshold` stands, too: those pieces have memory of their own, so
/// that no small ones come to lie in huge pages later.
const LARGE: usize = 8 << 20;
/// Bytes of a page; advice is for whole ones.
const PAGE: usize = 4096;

/// See the [module](self).
pub struct Allocator;

// SAFETY: all memory is jemalloc's, given and taken back by its own rules; a piece that is moved here is copied whole before that.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: passed on.
        let piece = unsafe { Jemalloc.alloc(layout) };
        if layout.size() >= LARGE {
            advise(piece, layout.size());
        }
        piece
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: passed on.
        let piece = unsafe { Jemalloc.alloc_zeroed(layout) };
        if layout.size() >= LARGE {
            advise(piece, layout.size());
        }
        piece
    }

    #[inline]
    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        // SAFETY: passed on.
        unsafe { Jemalloc.dealloc(piece, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        if bytes < LARGE || bytes <= layout.size() {
            // SAFETY: passed on.
            return unsafe { Jemalloc.realloc(piece, layout, bytes) };
        }
        // SAFETY: passed on to whoever calls.
        unsafe { grow(piece, layout, bytes) }
    }
}

/// Moves a piece to a larger one, which is advised before it is written to.
///
/// # Safety
///
/// As [`GlobalAlloc::realloc`], and `bytes` is more than the layout's.
#[cold]
unsafe fn grow(piece: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
    // SAFETY: the caller keeps `realloc`'s rules, by which this size and alignment make a layout.
    let larger = unsafe { Layout::from_size_align_unchecked(bytes, layout.align()) };
    // SAFETY: its size is not 0.
    let moved = unsafe { Allocator.alloc(larger) };
    if !moved.is_null() {
        // SAFETY: both hold so many bytes, the second is new, and the first is the caller's to give back.
        unsafe {
            std::ptr::copy_nonoverlapping(piece, moved, layout.size());
            Jemalloc.dealloc(piece, layout);
        }
    }
    moved
}

/// Asks for huge pages under what is whole pages of a piece.
#[cold]
fn advise(piece: *mut u8, bytes: usize) {
    if piece.is_null() {
        return;
    }
    let skipped = piece.align_offset(PAGE).min(bytes);
    let bytes = (bytes - skipped) / PAGE * PAGE;
    // SAFETY: the pages are within a piece that was just handed out; the advice changes none of its bytes. Where the system has no
    // huge pages it says so, and all is as it was.
    let _ = unsafe { madvise(piece.wrapping_add(skipped).cast(), bytes, Advice::LinuxHugepage) };
}
