//! Room `wire`: bytes to requests and messages, and back. No sockets, no clocks, no state but what a stream needs.

pub mod line;
pub mod peer;
pub mod resp;

/// For how many more bytes to make room where `has` have come of `declared`: all that are left, once an eighth is there, so that what
/// is large is not moved again and again as it grows. A length that is only declared makes nobody allocate.
pub fn room_for_rest(has: usize, declared: usize) -> usize {
    if has >= declared / 8 { declared.saturating_sub(has) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::room_for_rest;

    #[test]
    fn room_is_made_once_an_eighth_has_come() {
        assert_eq!(room_for_rest(0, 1 << 20), 0);
        assert_eq!(room_for_rest((1 << 17) - 1, 1 << 20), 0);
        assert_eq!(room_for_rest(1 << 17, 1 << 20), 7 << 17);
        assert_eq!(room_for_rest(1 << 21, 1 << 20), 0);
        assert_eq!(room_for_rest(5, 0), 0, "nothing is declared");
    }
}
