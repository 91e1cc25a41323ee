//! Bounds that the protocol layers keep, so that no allocation follows a length that was only declared.

/// The largest key, in bytes (Redis allows 512 MiB; a key that long helps nobody).
pub const KEY_BYTES_MAX: usize = 64 * 1024;
/// The largest value, in bytes: Redis' `proto-max-bulk-len`.
pub const VALUE_BYTES_MAX: usize = 512 * 1024 * 1024;
/// The most arguments of one command.
pub const ARGUMENTS_MAX: usize = 1024 * 1024;
/// The longest inline command, in bytes, as in Redis.
pub const INLINE_BYTES_MAX: usize = 64 * 1024;
/// The largest request before the connection has authenticated, in bytes.
pub const UNAUTHENTICATED_BYTES_MAX: usize = 16 * 1024;
/// The most arguments before the connection has authenticated.
pub const UNAUTHENTICATED_ARGUMENTS_MAX: usize = 10;
/// The largest frame between peers, in bytes: a value, its key and room for what surrounds them.
pub const PEER_FRAME_BYTES_MAX: usize = VALUE_BYTES_MAX + 1024 * 1024;
/// The most that one request changes in one partition, and the most that it, or its reply, has when nodes pass it on, in bytes: a frame
/// has to hold it. That is the largest value, two keys, and some.
pub const RECORD_BYTES_MAX: usize = PEER_FRAME_BYTES_MAX - 64 * 1024;

/// Of a request or a frame there is room for at most so many times what has come of it: room for all of it is made once so much has come,
/// so that what has come of a large one is moved while it is little, and memory never follows a length that was only declared.
pub const ROOM_AHEAD: usize = 16;
