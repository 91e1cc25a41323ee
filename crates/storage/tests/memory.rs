//! What a table takes from the allocator, and that it gives all of it back.
//!
//! Counts the allocations of the test's own thread, since the test harness allocates beside it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use storage::{Hasher, Table, Value};
use types::Version;

struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
}

fn held() -> isize {
    HELD.get()
}

// SAFETY: hands every call on to the system's allocator, unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.set(HELD.get() + layout.size() as isize);
        // SAFETY: the caller's promises are those that the system asks for.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        HELD.set(HELD.get() - layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.dealloc(start, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_table_says_what_it_takes_and_gives_it_back() {
    let hasher = Hasher::new(1);
    let before = held();
    let mut table = Table::new(hasher);
    let mut per_key_sum = 0.0;
    let put = |table: &mut Table, key: u64, value_bytes: usize, expire_at_ms| {
        let name = u128::from(key).to_le_bytes();
        let value = [7; 64];
        table.put(
            hasher.hash(&name),
            &name,
            Value::String(&value[..value_bytes]),
            expire_at_ms,
            Version(key),
        );
    };
    for key in 0..20_000 {
        put(&mut table, key, 64, None);
        assert_eq!(held() - before, table.bytes() as isize);
        if key >= 10_000 {
            per_key_sum += table.bytes() as f64 / table.len() as f64;
        }
    }
    let per_key = per_key_sum / 10_000.0;
    assert!(per_key < 106.0, "{per_key}");
    for key in (0..20_000).step_by(3) {
        put(&mut table, key, key as usize % 60, Some(key));
        let name = u128::from(key + 1).to_le_bytes();
        table.remove(hasher.hash(&name), &name);
        assert_eq!(held() - before, table.bytes() as isize);
    }
    assert!(table.volatile_len() > 6000);
    drop(table);
    assert_eq!(held(), before);
    println!(
        "16-byte key, 64-byte value: {per_key:.1} bytes a key on average between 10,000 and 20,000 keys"
    );
}
