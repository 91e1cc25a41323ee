//! The calls that most programs need. Start a cluster with `annulet up`, then:
//!
//! ```sh
//! cargo run -p annulet-client --example quickstart [host:port ...]
//! ```

use client::{Client, Error, ReadLevel, SetOptions};
use std::time::Duration;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut seeds: Vec<String> = std::env::args().skip(1).collect();
    if seeds.is_empty() {
        seeds = vec!["127.0.0.1:7101".into(), "127.0.0.1:7102".into()];
    }
    let client = Client::builder().seeds(&seeds).deadline(Duration::from_secs(5)).connect().await?;

    client.set("example:name", "Alice").await?;
    let name = client.get("example:name").await?.unwrap_or_default();
    println!("the name is {}", String::from_utf8_lossy(&name));

    // Only one program gets the lock, and it is free again after ten seconds.
    let once = SetOptions::new().if_absent().expire_after(Duration::from_secs(10));
    println!("got the lock: {}", client.set_with("example:lock", "me", &once).await?);
    println!("it lasts: {:?}", client.ttl("example:lock").await?);

    // Compare and set: only if nobody else changed it.
    println!("renamed: {}", client.compare_and_set("example:name", "Alice", "Bob").await?);

    println!("visits: {}", client.incr_by("example:visits", 1).await?);

    // A stale read asks the nearest copy, and may be a little behind.
    let near = client.with_read_level(ReadLevel::Stale);
    println!("visits, as the nearest copy has them: {:?}", near.get("example:visits").await?);

    // Any other command.
    println!("length of the name: {:?}", client.command(&["STRLEN", "example:name"]).await?);

    let keys = client.scan().matching("example:*").all().await?;
    println!("{} keys here; removed {}", keys.len(), client.del(&keys).await?);
    Ok(())
}
