//! Counts without a pause for half a minute, and tells every wait and every error. Start a cluster with `annulet up`, run this,
//! and kill a node meanwhile:
//!
//! ```sh
//! cargo run --release -p annulet-client --example failover [seconds] [host:port ...]
//! ```

use client::{Client, Error};
use std::time::{Duration, Instant};

const KEYS: usize = 300;
/// A call that takes longer is told.
const LONG: Duration = Duration::from_millis(100);

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let seconds = args.next().and_then(|seconds| seconds.parse().ok()).unwrap_or(30);
    let mut seeds: Vec<String> = args.collect();
    if seeds.is_empty() {
        seeds = vec!["127.0.0.1:7101".into(), "127.0.0.1:7102".into(), "127.0.0.1:7103".into()];
    }
    let client = Client::builder().seeds(&seeds).connect().await?;
    let keys: Vec<String> = (0..KEYS).map(|number| format!("failover:{number}")).collect();
    client.del(&keys).await?;

    let (mut counted, mut unknown, mut longest) = (vec![0i64; KEYS], vec![0i64; KEYS], Duration::ZERO);
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(seconds) {
        for (at, key) in keys.iter().enumerate() {
            let asked = Instant::now();
            let result = client.incr_by(key, 1).await;
            let took = asked.elapsed();
            longest = longest.max(took);
            if took > LONG {
                println!("{:>6.1?} s: {key} took {took:?}", started.elapsed().as_secs_f64());
            }
            match result {
                Ok(_) => counted[at] += 1,
                Err(error) if error.is_outcome_unknown() => {
                    unknown[at] += 1;
                    println!("{:>6.1?} s: {key}: {error}", started.elapsed().as_secs_f64());
                }
                Err(error) => {
                    println!("{:>6.1?} s: {key} was not counted: {error}", started.elapsed().as_secs_f64())
                }
            }
        }
    }

    // Nothing that was acknowledged is lost, and nothing was done twice.
    let values = client.mget(&keys).await?;
    let mut wrong = 0;
    for (at, value) in values.iter().enumerate() {
        let text = String::from_utf8_lossy(value.as_deref().unwrap_or(b"0")).into_owned();
        let value: i64 = text.parse().unwrap_or(-1);
        if !(counted[at]..=counted[at] + unknown[at]).contains(&value) {
            wrong += 1;
            println!("{} is {value}: counted {}, unknown {}", keys[at], counted[at], unknown[at]);
        }
    }
    let (sum, unknown): (i64, i64) = (counted.iter().sum(), unknown.iter().sum());
    println!("{sum} counted, {unknown} unknown, longest wait {longest:?}, {wrong} keys wrong");
    client.del(&keys).await?;
    Ok(())
}
