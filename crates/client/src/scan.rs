//! Every key of the cluster, a page at a time.
//!
//! A node's plain door speaks for the whole cluster, and a cursor means the same at every node. So when one dies, the scan goes
//! on at another where it stopped.

use crate::client::Client;
use crate::error::Error;
use crate::request::plan;
use command::Reply;

/// A scan under way. Made by [`Client::scan`].
///
/// A key that is there from beginning to end is shown at least once, maybe more often; one that comes or goes meanwhile may be
/// shown or not.
#[derive(Debug)]
pub struct Scan {
    client: Client,
    pattern: Option<Vec<u8>>,
    page_keys: u32,
    /// Where to go on; none at the end.
    cursor: Option<Vec<u8>>,
}

impl Client {
    /// Begins to go through all keys. Nothing is sent yet.
    pub fn scan(&self) -> Scan {
        Scan { client: self.clone(), pattern: None, page_keys: 1000, cursor: Some(b"0".to_vec()) }
    }
}

impl Scan {
    /// Shows only keys that match a pattern, as `KEYS` has it: `*`, `?`, `[a-z]`.
    #[must_use]
    pub fn matching(mut self, pattern: impl Into<Vec<u8>>) -> Scan {
        self.pattern = Some(pattern.into());
        self
    }

    /// About how many keys to look at for a page, up to 10,000. 1000 by default.
    #[must_use]
    pub fn page_keys(mut self, keys: u32) -> Scan {
        self.page_keys = keys.max(1);
        self
    }

    /// The next keys; none at the end. A page may be empty where others follow. After an error the same page can be asked again.
    ///
    /// # Errors
    ///
    /// As [`Client::get`].
    pub async fn next_page(&mut self) -> Result<Option<Vec<Vec<u8>>>, Error> {
        let Some(cursor) = &self.cursor else { return Ok(None) };
        let count = self.page_keys.to_string();
        let mut args: Vec<&[u8]> = vec![&b"SCAN"[..], cursor, b"COUNT", count.as_bytes()];
        if let Some(pattern) = &self.pattern {
            args.extend([&b"MATCH"[..], pattern.as_slice()]);
        }
        let reply = self.client.run_plan(plan(&args)?).await?;
        let Some((next, keys)) = page(&reply) else { return Err(Error::unexpected(&reply)) };
        self.cursor = (next != b"0").then_some(next);
        Ok(Some(keys))
    }

    /// All keys that are left, at once.
    ///
    /// # Errors
    ///
    /// As [`Scan::next_page`]; the keys of earlier pages are then lost.
    pub async fn all(mut self) -> Result<Vec<Vec<u8>>, Error> {
        let mut all = Vec::new();
        while let Some(page) = self.next_page().await? {
            all.extend(page);
        }
        Ok(all)
    }
}

/// `[cursor, [key, ...]]`.
fn page(reply: &Reply<'_>) -> Option<(Vec<u8>, Vec<Vec<u8>>)> {
    let bytes = |reply: &Reply<'_>| match reply {
        Reply::Bulk(bytes) => Some(bytes.to_vec()),
        _ => None,
    };
    let Reply::Array(fields) = reply else { return None };
    let [cursor, Reply::Array(keys)] = &fields[..] else { return None };
    Some((bytes(cursor)?, keys.iter().map(bytes).collect::<Option<Vec<_>>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_a_cursor_and_keys() {
        let keys = Reply::Array(vec![Reply::bulk("a"), Reply::bulk("b")]);
        let reply = Reply::Array(vec![Reply::bulk("17"), keys]);
        assert_eq!(page(&reply), Some((b"17".to_vec(), vec![b"a".to_vec(), b"b".to_vec()])));
        for wrong in
            [Reply::Null, Reply::Array(vec![Reply::bulk("0")]), Reply::Array(vec![Reply::Null, Reply::Null])]
        {
            assert_eq!(page(&wrong), None);
        }
    }
}
