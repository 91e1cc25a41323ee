//! Huge values that are kept where they came in: in the buffer of a request, of a frame, or of a record.
//!
//! Who keeps a part of a buffer keeps all of it. So a value is shared only where it is huge ([`is_huge`]) and at least half
//! of its buffer; others are copied.

use crate::rope::Parts;
use bytes::Bytes;
use std::cell::Cell;

/// What has more bytes is shared instead of copied, and never compressed: either would take a hundredth of a second, for which
/// everybody else of the shard would have to wait.
pub const HUGE_BYTES: usize = 4 << 20;

/// So many times what is huge is enough for a batch.
const BATCH_IN_HUGE: usize = 16;

thread_local! {
    static ABOVE: Cell<usize> = const { Cell::new(HUGE_BYTES) };
}

/// Whether so many bytes are better shared than copied.
#[inline]
pub fn is_huge(bytes: usize) -> bool {
    bytes > ABOVE.get()
}

/// Whether a batch of so many bytes is enough for one write of the log on disk, so that what comes next begins another: 64 MiB.
#[inline]
pub fn is_batch_enough(bytes: usize) -> bool {
    bytes > ABOVE.get().saturating_mul(BATCH_IN_HUGE)
}

/// On this thread more bytes than these are huge, so that the simulator, whose values are small, meets huge ones.
pub fn huge_above(bytes: usize) {
    ABOVE.set(bytes);
}

/// Where the values of a command may lie, to be shared.
#[derive(Clone, Copy, Debug)]
pub enum Lent<'a> {
    /// In the buffer of a request.
    Buffer(&'a Bytes),
    /// Each argument by itself.
    Args(&'a [Bytes]),
    /// In what was sent or logged: the body of a record, a chunk of a snapshot, a reply.
    Parts(Parts<'a>),
}

impl Lent<'_> {
    /// A value that lies there, shared; `None`: it has to be copied.
    #[inline]
    pub fn share(&self, value: &[u8]) -> Option<Bytes> {
        if is_huge(value.len()) { self.share_huge(value) } else { None }
    }

    #[cold]
    fn share_huge(&self, value: &[u8]) -> Option<Bytes> {
        match *self {
            Lent::Buffer(buffer) => within(buffer, value, buffer.len()),
            Lent::Args(args) => {
                let all = args.iter().map(Bytes::len).sum();
                args.iter().find_map(|arg| within(arg, value, all))
            }
            Lent::Parts(parts) => parts.shareable().find_map(|part| within(part, value, part.len())),
        }
    }
}

/// What may stand around a value that is shared, however small that is: a command's name, a key.
const AROUND_BYTES: usize = 64;

/// The value as a part of the buffer, where it is that, and about half of all that is kept with it, or more.
fn within(buffer: &Bytes, value: &[u8], kept: usize) -> Option<Bytes> {
    let (buffer_at, value_at) = (buffer.as_ptr().addr(), value.as_ptr().addr());
    let is_within = buffer_at <= value_at && value_at + value.len() <= buffer_at + buffer.len();
    (is_within && value.len() + AROUND_BYTES >= kept / 2).then(|| buffer.slice_ref(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_most_of_its_buffer_is_shared() {
        let buffer = Bytes::from(vec![1; 3 * HUGE_BYTES]);
        let lent = Lent::Buffer(&buffer);
        let value = &buffer[HUGE_BYTES..];
        assert_eq!(lent.share(value).map(|shared| shared.as_ptr()), Some(value.as_ptr()));
        assert_eq!(lent.share(&buffer[..HUGE_BYTES + 1]), None, "a third of it");
        assert_eq!(lent.share(&buffer[..10]), None);
        assert_eq!(lent.share(&vec![1; 2 * HUGE_BYTES]), None, "it lies elsewhere");
    }

    #[test]
    fn an_argument_counts_beside_the_others() {
        let large = Bytes::from(vec![1; HUGE_BYTES + 1]);
        let two = [Bytes::from_static(b"set"), large.clone()];
        assert!(Lent::Args(&two).share(&two[1]).is_some());
        let three = [large.clone(), large.clone(), large];
        assert!(Lent::Args(&three).share(&three[1]).is_none());
        assert!(Lent::Parts(Parts::from(&two[1])).share(&two[1]).is_some());
    }
}
