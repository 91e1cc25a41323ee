//! One entry as one heap piece: header, version, expiry, key and value in one allocation. The head of [`super`] draws
//! its bytes. A value that is shared ([`crate::lent`]) is an allocation of its own, and the piece has its address.

use super::entry::{Entry, Value};
use super::word::ADDRESS_BITS;
use crate::garbage::{self, LARGE_BYTES};
use bytes::Bytes;
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use types::Version;

/// The bytes that the allocator gives for a request of `bytes`: jemalloc's size classes, which are near enough
/// those of others. Multiples of 16 up to 128, then four to each doubling.
pub(super) fn size_class(bytes: usize) -> usize {
    if bytes <= 128 {
        return bytes.next_multiple_of(16).max(16);
    }
    bytes.next_multiple_of(bytes.next_power_of_two() / 8)
}

const HAS_EXPIRY: u8 = 1 << 3;
const KIND_BITS: u8 = 0b111;
const KIND_STRING: u8 = 0;
const KIND_SHARED_STRING: u8 = 1;
/// What stands for a shared value.
const SHARED_BYTES: usize = size_of::<usize>();
const VERSION_AT: usize = 1;
const EXPIRY_AT: usize = 9;

/// log2 of the bytes that a length takes.
fn width_log(length: usize) -> u8 {
    match length {
        0..=0xff => 0,
        0x100..=0xffff => 1,
        0x1_0000..=0xffff_ffff => 2,
        _ => 3,
    }
}

/// Where the parts of a piece lie.
#[derive(Clone, Copy)]
struct Shape {
    head: u8,
    key_len: usize,
    value_len: usize,
}

impl Shape {
    fn new(key_len: usize, value: Value<'_>, has_expiry: bool) -> Shape {
        let (kind, value_len) = match value {
            Value::String(bytes) => (KIND_STRING, bytes.len()),
        };
        Shape::of(kind, key_len, value_len, has_expiry)
    }

    fn sharing(key_len: usize, has_expiry: bool) -> Shape {
        Shape::of(KIND_SHARED_STRING, key_len, SHARED_BYTES, has_expiry)
    }

    fn of(kind: u8, key_len: usize, value_len: usize, has_expiry: bool) -> Shape {
        let expiry = if has_expiry { HAS_EXPIRY } else { 0 };
        let head = kind | expiry | width_log(key_len) << 4 | width_log(value_len) << 6;
        Shape { head, key_len, value_len }
    }

    fn has_expiry(self) -> bool {
        self.head & HAS_EXPIRY != 0
    }

    fn is_shared(self) -> bool {
        self.head & KIND_BITS == KIND_SHARED_STRING
    }

    fn key_len_at(self) -> usize {
        if self.has_expiry() { EXPIRY_AT + 8 } else { EXPIRY_AT }
    }

    fn value_len_at(self) -> usize {
        self.key_len_at() + (1 << (self.head >> 4 & 3))
    }

    fn key_at(self) -> usize {
        self.value_len_at() + (1 << (self.head >> 6))
    }

    fn value_at(self) -> usize {
        self.key_at() + self.key_len
    }

    fn class(self) -> usize {
        size_class(self.value_at() + self.value_len)
    }

    fn layout(class: usize) -> Layout {
        // Slices are at most isize::MAX bytes, and no address space holds one near it.
        Layout::from_size_align(class, 1).expect("a piece fits the address space")
    }
}

/// What the piece of such an entry takes, as the allocator rounds it.
pub(super) fn piece_bytes(key_len: usize, value: Value<'_>, has_expiry: bool) -> usize {
    Shape::new(key_len, value, has_expiry).class()
}

/// What the piece of an entry takes whose value is shared, with the value, as if nobody else had it.
pub(super) fn shared_piece_bytes(key_len: usize, value: &Bytes, has_expiry: bool) -> usize {
    Shape::sharing(key_len, has_expiry).class() + value.len()
}

/// A key's heap piece, owned. As large as the class of its shape says.
pub(crate) struct Piece(pub(super) NonNull<u8>);

// SAFETY: a piece is plain bytes that nothing else points to, so it may change threads like a `Box<[u8]>`.
unsafe impl Send for Piece {}
// SAFETY: through a shared piece bytes are only read.
unsafe impl Sync for Piece {}

impl Drop for Piece {
    fn drop(&mut self) {
        let shape = self.shape();
        let class = shape.class();
        if self.view().bytes() >= LARGE_BYTES && garbage::put_off(|| Piece(self.0)) {
            return;
        }
        if let Some(shared) = self.view().shared_at() {
            // SAFETY: the piece got the address from a box and is its one owner; nobody asks the piece for it again.
            drop(unsafe { Box::from_raw(shared) });
        }
        let layout = Shape::layout(class);
        // SAFETY: the piece was allocated with this very layout, and whatever rewrote it kept its class.
        unsafe { dealloc(self.0.as_ptr(), layout) }
    }
}

/// A piece that was replaced and is kept for a while. By the time that it is freed it has left the cache, so its class, which
/// the allocator asks for, is kept beside it.
#[derive(Debug)]
pub(crate) struct Replaced {
    piece: ManuallyDrop<Piece>,
    /// 0: only the piece tells.
    class: u32,
}

impl From<Piece> for Replaced {
    fn from(piece: Piece) -> Replaced {
        let shape = piece.shape();
        let class = shape.class();
        let class = if class < LARGE_BYTES && !shape.is_shared() { class as u32 } else { 0 };
        Replaced { piece: ManuallyDrop::new(piece), class }
    }
}

impl Replaced {
    /// The piece, to be put back.
    pub fn into_piece(self) -> Piece {
        let mut replaced = ManuallyDrop::new(self);
        // SAFETY: it is taken once, since nothing else looks at what it is taken from, and that is not dropped.
        unsafe { ManuallyDrop::take(&mut replaced.piece) }
    }
}

impl std::ops::Deref for Replaced {
    type Target = Piece;

    fn deref(&self) -> &Piece {
        &self.piece
    }
}

impl Drop for Replaced {
    fn drop(&mut self) {
        if self.class == 0 {
            // SAFETY: this is the only place that drops it, once.
            return unsafe { ManuallyDrop::drop(&mut self.piece) };
        }
        let layout = Shape::layout(self.class as usize);
        // SAFETY: the piece was allocated with this very layout: nobody writes to it any more, so it has kept its class.
        unsafe { dealloc(self.piece.0.as_ptr(), layout) }
    }
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.entry().fmt(f)
    }
}

impl Piece {
    pub fn new(key: &[u8], value: Value<'_>, expire_at_ms: Option<u64>, version: Version) -> Piece {
        let shape = Shape::new(key.len(), value, expire_at_ms.is_some());
        let mut piece = Piece::with_key(shape, key, expire_at_ms, version);
        piece.write_value(shape, value);
        piece
    }

    /// One whose value is shared.
    pub fn sharing(key: &[u8], value: Bytes, expire_at_ms: Option<u64>, version: Version) -> Piece {
        let shape = Shape::sharing(key.len(), expire_at_ms.is_some());
        let mut piece = Piece::with_key(shape, key, expire_at_ms, version);
        let address = Box::into_raw(Box::new(value)).expose_provenance();
        piece.write(shape.value_at(), &address.to_ne_bytes());
        piece
    }

    /// One with key and value of another.
    pub fn again(entry: Entry<'_>, expire_at_ms: Option<u64>, version: Version) -> Piece {
        match entry.shared {
            None => Piece::new(entry.key, entry.value, expire_at_ms, version),
            Some(shared) => Piece::sharing(entry.key, shared.clone(), expire_at_ms, version),
        }
    }

    /// One whose value is still to be written.
    #[inline]
    fn with_key(shape: Shape, key: &[u8], expire_at_ms: Option<u64>, version: Version) -> Piece {
        let layout = Shape::layout(shape.class());
        // SAFETY: a class is never zero bytes.
        let Some(start) = NonNull::new(unsafe { alloc(layout) }) else { handle_alloc_error(layout) };
        assert!(start.as_ptr().addr() >> ADDRESS_BITS == 0, "an address above 48 bits");
        let mut piece = Piece(start);
        piece.write_head(shape, expire_at_ms, version);
        piece.write(shape.key_at(), key);
        piece
    }

    /// Copies bytes into the piece, which has to have room for them.
    fn write(&mut self, at: usize, bytes: &[u8]) {
        // SAFETY: callers write within the class of the shape that the piece is allocated for, and `bytes` are
        // borrowed from elsewhere, since nobody else can borrow from a piece that is borrowed mutably.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.0.as_ptr().add(at), bytes.len()) }
    }

    fn write_head(&mut self, shape: Shape, expire_at_ms: Option<u64>, version: Version) {
        self.write(0, &[shape.head]);
        self.write(VERSION_AT, &version.0.to_le_bytes());
        if let Some(at_ms) = expire_at_ms {
            self.write(EXPIRY_AT, &at_ms.to_le_bytes());
        }
        let (key_len, value_len) = (shape.key_len as u64, shape.value_len as u64);
        self.write(shape.key_len_at(), &key_len.to_le_bytes()[..1 << (shape.head >> 4 & 3)]);
        self.write(shape.value_len_at(), &value_len.to_le_bytes()[..1 << (shape.head >> 6)]);
    }

    fn write_value(&mut self, shape: Shape, value: Value<'_>) {
        match value {
            Value::String(bytes) => self.write(shape.value_at(), bytes),
        }
    }

    /// Writes another value and expiry over the piece, if they need the same class. The key stays. Never over a shared value.
    pub(super) fn rewrite(&mut self, value: Value<'_>, expire_at_ms: Option<u64>, version: Version) -> bool {
        let old = self.shape();
        let new = Shape::new(old.key_len, value, expire_at_ms.is_some());
        if new.class() != old.class() || old.is_shared() {
            return false;
        }
        self.move_bytes(old.key_at(), new.key_at(), old.key_len);
        self.write_head(new, expire_at_ms, version);
        self.write_value(new, value);
        true
    }

    /// Writes another expiry over the piece, if that needs the same class. Key and value stay.
    pub(super) fn rewrite_expiry(&mut self, expire_at_ms: Option<u64>, version: Version) -> bool {
        let old = self.shape();
        let expiry = if expire_at_ms.is_some() { HAS_EXPIRY } else { 0 };
        let new = Shape { head: old.head & !HAS_EXPIRY | expiry, ..old };
        if new.class() != old.class() {
            return false;
        }
        self.move_bytes(old.key_at(), new.key_at(), old.key_len + old.value_len);
        self.write_head(new, expire_at_ms, version);
        true
    }

    fn move_bytes(&mut self, from: usize, to: usize, bytes: usize) {
        if from == to {
            return;
        }
        let start = self.0.as_ptr();
        // SAFETY: both ranges lie within the piece: `from` by its old shape, `to` by a shape of the same class.
        unsafe { std::ptr::copy(start.add(from), start.add(to), bytes) }
    }

    pub(super) fn view(&self) -> View<'_> {
        View { start: self.0, piece: PhantomData }
    }

    fn shape(&self) -> Shape {
        self.view().shape()
    }

    pub fn key(&self) -> &[u8] {
        self.view().key()
    }

    pub fn entry(&self) -> Entry<'_> {
        self.view().entry()
    }
}

/// The entry whose piece [`View::written`] was copied from.
///
/// # Panics
///
/// Panics where the bytes are not those of a whole piece, or of one whose value was shared, which has one owner.
pub(crate) fn copied_entry(bytes: &[u8]) -> Entry<'_> {
    let head = Shape { head: bytes[0], key_len: 0, value_len: 0 };
    assert!(head.key_at() <= bytes.len(), "the head of a piece");
    let view = View { start: NonNull::from(bytes).cast(), piece: PhantomData };
    let shape = view.shape();
    assert!(!shape.is_shared(), "a shared value has one owner");
    assert!(shape.value_at() + shape.value_len == bytes.len(), "a whole piece");
    view.entry()
}

/// A piece that somebody else owns, to be read.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) start: NonNull<u8>,
    pub(super) piece: PhantomData<&'a Piece>,
}

impl<'a> View<'a> {
    #[inline]
    fn read(self, at: usize, bytes: usize) -> &'a [u8] {
        // SAFETY: callers read what the piece's shape says was written, and the borrow of the owner keeps it from
        // being changed or freed.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(at), bytes) }
    }

    #[inline]
    fn read_u64(self, at: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(self.read(at, 8));
        u64::from_le_bytes(bytes)
    }

    #[inline]
    fn read_length(self, at: usize, log: u8) -> usize {
        match (log, self.read(at, 1 << log)) {
            (0, &[a]) => a as usize,
            (1, &[a, b]) => u16::from_le_bytes([a, b]) as usize,
            (2, &[a, b, c, d]) => u32::from_le_bytes([a, b, c, d]) as usize,
            _ => self.read_u64(at) as usize,
        }
    }

    #[inline]
    fn shape(self) -> Shape {
        let head = self.read(0, 1)[0];
        let mut shape = Shape { head, key_len: 0, value_len: 0 };
        shape.key_len = self.read_length(shape.key_len_at(), head >> 4 & 3);
        shape.value_len = self.read_length(shape.value_len_at(), head >> 6);
        shape
    }

    /// All that was written of it.
    pub(super) fn written(self) -> &'a [u8] {
        let shape = self.shape();
        self.read(0, shape.value_at() + shape.value_len)
    }

    /// The bytes that it takes on the heap.
    #[inline]
    pub(super) fn bytes(self) -> usize {
        self.shape().class() + self.shared().map_or(0, Bytes::len)
    }

    /// Whether its value is shared: then what was written of it must not be copied.
    #[inline]
    pub(super) fn is_shared(self) -> bool {
        self.shape().is_shared()
    }

    /// Where the value lies that is shared.
    #[inline]
    fn shared_at(self) -> Option<*mut Bytes> {
        let shape = self.shape();
        if !shape.is_shared() {
            return None;
        }
        let mut address = [0; SHARED_BYTES];
        address.copy_from_slice(self.read(shape.value_at(), SHARED_BYTES));
        Some(std::ptr::with_exposed_provenance_mut(usize::from_ne_bytes(address)))
    }

    /// The value that is shared.
    #[inline]
    fn shared(self) -> Option<&'a Bytes> {
        // SAFETY: it was a box's address, which lives as long as the piece, and that is borrowed for so long.
        self.shared_at().map(|shared| unsafe { &*shared })
    }

    #[inline]
    pub(super) fn key(self) -> &'a [u8] {
        let shape = self.shape();
        self.read(shape.key_at(), shape.key_len)
    }

    #[inline]
    pub(super) fn entry(self) -> Entry<'a> {
        let shape = self.shape();
        debug_assert!(shape.head & KIND_BITS <= KIND_SHARED_STRING);
        let shared = self.shared();
        let bytes = match shared {
            None => self.read(shape.value_at(), shape.value_len),
            Some(shared) => shared,
        };
        Entry {
            key: self.read(shape.key_at(), shape.key_len),
            value: Value::String(bytes),
            shared,
            expire_at_ms: if shape.has_expiry() { Some(self.read_u64(EXPIRY_AT)) } else { None },
            version: Version(self.read_u64(VERSION_AT)),
        }
    }

    pub(super) fn has_expiry(self) -> bool {
        self.shape().has_expiry()
    }
}
