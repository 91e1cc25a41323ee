//! Many requests at once, and how much that saves. Start a cluster with `annulet up`, then:
//!
//! ```sh
//! cargo run --release -p annulet-client --example pipeline [host:port ...]
//! ```

use client::{Client, Error, Reply};
use std::time::Instant;

const KEYS: usize = 5_000;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut seeds: Vec<String> = std::env::args().skip(1).collect();
    if seeds.is_empty() {
        seeds = vec!["127.0.0.1:7101".into(), "127.0.0.1:7102".into()];
    }
    let client = Client::builder().seeds(&seeds).connect().await?;
    let keys: Vec<String> = (0..KEYS).map(|number| format!("pipeline:{number}")).collect();

    let started = Instant::now();
    for key in keys.iter().take(KEYS / 10) {
        client.set(key, "one by one").await?;
    }
    println!("{} writes, one after the other: {:?}", KEYS / 10, started.elapsed());

    // Split by primary, sent in order to each, and a result for each.
    let started = Instant::now();
    let mut pipeline = client.pipeline();
    for (number, key) in keys.iter().enumerate() {
        pipeline.set(key, number.to_string()).incr_by(key, 1);
    }
    let results = pipeline.run().await;
    println!("{} writes in one pipeline: {:?}", results.len(), started.elapsed());
    let mut failed = 0;
    for (at, result) in results.iter().enumerate() {
        match result {
            Ok(Reply::Integer(number)) => assert_eq!(*number, (at / 2 + 1) as i64),
            Ok(reply) => assert_eq!(*reply, Reply::ok()),
            Err(error) => {
                failed += 1;
                println!("request {at}: {error}");
            }
        }
    }
    println!("{failed} failed");

    let started = Instant::now();
    let values = client.mget(&keys).await?;
    println!("{} values by mget: {:?}", values.iter().flatten().count(), started.elapsed());
    println!("removed {}", client.del(&keys).await?);
    Ok(())
}
