//! Values to measure compression with, the same at every run.

/// A value such as services keep: orders of a shop, as JSON.
pub fn orders(random: &mut u64, bytes: usize) -> Vec<u8> {
    const WORDS: [&str; 12] = [
        "blue",
        "table",
        "lamp",
        "small",
        "wooden",
        "chair",
        "set of two",
        "garden",
        "shelf",
        "green",
        "desk",
        "mirror",
    ];
    let mut next = |bound: u64| {
        *random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (*random >> 33) % bound
    };
    let mut value = b"{\"orders\":[".to_vec();
    while value.len() < bytes {
        let order = format!(
            "{{\"id\":\"{:08x}-{:04x}\",\"customer\":{},\"item\":\"{} {}\",\"quantity\":{},\"price\":{}.{:02},\
             \"ordered_at\":\"2025-{:02}-{:02}T{:02}:{:02}:{:02}Z\",\"paid\":{}}},",
            next(1 << 32),
            next(1 << 16),
            next(10_000_000),
            WORDS[next(12) as usize],
            WORDS[next(12) as usize],
            next(9),
            next(500),
            next(100),
            next(12) + 1,
            next(28) + 1,
            next(24),
            next(60),
            next(60),
            next(2) == 0
        );
        value.extend_from_slice(order.as_bytes());
    }
    value.truncate(bytes);
    value
}

/// Bytes that do not compress.
pub fn noise(random: &mut u64, bytes: usize) -> Vec<u8> {
    let mut next = || {
        *random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (*random >> 56) as u8
    };
    (0..bytes).map(|_| next()).collect()
}
