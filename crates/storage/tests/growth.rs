//! Tables of one thread do not grow all at once: a client waits for all that grow in one batch of its requests.

use std::collections::VecDeque;
use storage::{Hasher, Table, Value};
use types::Version;

const TABLES: u64 = 256;
/// Insertions of a batch, as a client's pipeline has.
const BATCH: usize = 64;
/// A growth of fewer keys takes no time.
const MANY: usize = 1000;

#[test]
fn tables_that_fill_alike_take_turns_to_grow() {
    let hasher = Hasher::new(1);
    let mut tables: Vec<Table> = (0..TABLES).map(|_| Table::new(hasher)).collect();
    let mut window = VecDeque::from([0; BATCH]);
    let (mut moved, mut most, mut growths) = (0, 0, 0);
    for key in 0..4000 * TABLES {
        let name = u128::from(key).to_le_bytes();
        let table = &mut tables[(key % TABLES) as usize];
        let before = table.bytes();
        table.put(hasher.hash(&name), &name, Value::String(&[7; 64]), None, Version(key));
        // A piece takes 96 bytes. What is more is the index.
        let grew = table.bytes() - before > 96 && table.len() > MANY;
        let now = if grew { table.len() } else { 0 };
        growths += usize::from(grew);
        moved += now;
        window.push_back(now);
        moved -= window.pop_front().expect("it is full");
        most = most.max(moved);
    }
    println!(
        "{growths} growths of more than {MANY} keys; at most {most} keys were moved in {BATCH} insertions"
    );
    assert!(growths as u64 > 4 * TABLES, "{growths}");
    assert!(most <= 2 * 4000, "{most} keys were moved in {BATCH} insertions");
}
