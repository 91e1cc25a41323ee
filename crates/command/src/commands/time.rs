//! TIME: the cluster's time, by which keys expire.

use crate::{Categories, Command, Flags, Handler, Reply};

/// TIME
pub(crate) const COMMAND: Command = Command {
    name: "time",
    flags: Flags::LOADING.with(Flags::STALE).with(Flags::FAST),
    group: "server",
    since: "2.6.0",
    summary: "The cluster's time, by which keys expire: Unix seconds, and the microseconds of the present one.",
    categories: Categories::FAST,
    handler: Handler::Session(|_, host, _| {
        let now_us = host.now_us();
        let number = |number: u64| Reply::bulk(number.to_string());
        Ok(Reply::Array(vec![number(now_us / 1_000_000), number(now_us % 1_000_000)]))
    }),
    ..Command::BASE
};

#[cfg(test)]
mod tests {
    use crate::testing::check;

    #[test]
    fn time() {
        check(&[
            ("", "time", "['1700000000', '12345']"),
            ("", "time x", "(error) ERR wrong number of arguments for 'time' command"),
        ]);
    }
}
