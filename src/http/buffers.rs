//! Memory for chunks of bodies, used again and again.
//!
//! A chunk of fresh memory costs more than reading into it: the system hands out and clears every page of it.
//!
//! 1. A thread keeps [`KEPT`] bytes of idle buffers at most; more than that goes back to the system.
//! 2. Of a buffer only what was read into it is ever seen.

use std::cell::RefCell;

use actix_web::web::Bytes;

/// Idle bytes that a thread keeps: a few of the largest chunks.
const KEPT: usize = 4 << 20;

thread_local! {
    static IDLE: RefCell<Idle> = const { RefCell::new(Idle { buffers: Vec::new(), bytes: 0 }) };
}

/// Buffers that nobody uses.
struct Idle {
    buffers: Vec<Box<[u8]>>,
    bytes: usize,
}

impl Idle {
    /// The smallest that is large enough, and not so large that it would be wasted.
    fn take(&mut self, length: usize) -> Option<Box<[u8]>> {
        let fits = length..=length.saturating_mul(2);
        let fitting = self.buffers.iter().enumerate().filter(|(_, buffer)| fits.contains(&buffer.len()));
        let (place, _) = fitting.min_by_key(|(_, buffer)| buffer.len())?;
        let buffer = self.buffers.swap_remove(place);
        self.bytes -= buffer.len();
        Some(buffer)
    }

    fn put(&mut self, buffer: Box<[u8]>) {
        if self.bytes + buffer.len() <= KEPT {
            self.bytes += buffer.len();
            self.buffers.push(buffer);
        }
    }
}

/// Memory to read into.
#[derive(Debug)]
pub(super) struct Buffer {
    memory: Box<[u8]>,
    length: usize,
}

impl Buffer {
    /// Room for `length` bytes. What is in it is anybody's guess.
    pub(super) fn new(length: usize) -> Self {
        let idle = IDLE.with_borrow_mut(|idle| idle.take(length));
        Self { memory: idle.unwrap_or_else(|| vec![0; length].into_boxed_slice()), length }
    }

    /// The room.
    pub(super) fn room(&mut self) -> &mut [u8] {
        let length = self.length.min(self.memory.len());
        &mut self.memory[..length]
    }

    /// The first bytes of it, which were read into it.
    pub(super) fn filled(mut self, length: usize) -> Bytes {
        self.length = self.length.min(length);
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.memory[..self.length.min(self.memory.len())]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        // A thread that ends keeps nothing.
        IDLE.try_with(|idle| idle.borrow_mut().put(memory)).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Other tests may have run on this thread.
    fn afresh() {
        IDLE.set(Idle { buffers: Vec::new(), bytes: 0 });
    }

    fn idle() -> usize {
        IDLE.with_borrow(|idle| {
            assert_eq!(idle.bytes, idle.buffers.iter().map(|buffer| buffer.len()).sum::<usize>());
            idle.bytes
        })
    }

    #[test]
    fn a_buffer_is_used_again_when_its_bytes_are_gone() {
        afresh();
        let mut buffer = Buffer::new(1000);
        buffer.room().fill(7);
        let bytes = buffer.filled(10);
        let other = bytes.slice(2..4);
        assert_eq!((&bytes[..], &other[..]), (&[7; 10][..], &[7; 2][..]));
        drop(bytes);
        assert_eq!(idle(), 0, "a part of it is still read");
        drop(other);
        assert_eq!(idle(), 1000);
        assert_eq!(Buffer::new(600).room().len(), 600);
        let _used = Buffer::new(600);
        assert_eq!(idle(), 0);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        afresh();
        let many: Vec<Buffer> = (0..10).map(|_| Buffer::new(1 << 20)).collect();
        drop(many);
        assert_eq!(idle(), KEPT);
    }

    #[test]
    fn a_small_chunk_does_not_hold_a_large_buffer() {
        afresh();
        drop(Buffer::new(1 << 20));
        assert_eq!(Buffer::new(1000).memory.len(), 1000);
    }

    #[test]
    fn no_more_is_seen_than_was_read() {
        let buffer = Buffer::new(10);
        assert_eq!(buffer.filled(0).len(), 0);
        assert_eq!(Buffer::new(10).filled(11).len(), 10);
    }
}
