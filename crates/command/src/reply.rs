//! What a command answers: a tree that knows nothing of RESP2, RESP3, HTTP or gRPC. The codecs write it.

use crate::blob::Blob;
use crate::error::CommandError;
use crate::list::List;
use crate::neutral;
pub use crate::neutral::Corrupt;
use std::borrow::Cow;
use storage::{Sink, Tailed};

/// A reply. It may borrow the value that it shows from the table.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply<'a> {
    /// A status line such as `OK`.
    Simple(Cow<'static, str>),
    /// An error.
    Error(CommandError),
    /// A signed integer.
    Integer(i64),
    /// Bytes.
    Bulk(Blob<'a>),
    /// Nothing where a value might be.
    Null,
    /// Nothing where an array might be. RESP2 tells the two apart.
    NullArray,
    /// A sequence.
    Array(Vec<Reply<'a>>),
    /// A sequence of byte strings, packed, since they may be millions.
    List(List),
    /// Pairs; RESP2 shows them as one flat sequence.
    Map(Vec<(Reply<'a>, Reply<'a>)>),
    /// A sequence without order; RESP2 shows an array.
    Set(Vec<Reply<'a>>),
    /// A floating-point number; RESP2 shows its text.
    Double(f64),
    /// A truth value; RESP2 shows 1 or 0.
    Boolean(bool),
    /// Text for people; RESP2 shows bytes.
    Verbatim(String),
}

impl<'a> Reply<'a> {
    /// `OK`.
    pub fn ok() -> Reply<'static> {
        Reply::Simple(Cow::Borrowed("OK"))
    }

    /// A status line.
    pub fn simple(text: &'static str) -> Reply<'static> {
        Reply::Simple(Cow::Borrowed(text))
    }

    /// Bytes of its own.
    pub fn bulk(bytes: impl Into<Vec<u8>>) -> Reply<'static> {
        Reply::Bulk(Blob::Owned(bytes.into()))
    }

    /// 1 or 0.
    pub fn flag(flag: bool) -> Reply<'static> {
        Reply::Integer(i64::from(flag))
    }

    /// A count of things.
    pub fn count(count: usize) -> Reply<'static> {
        Reply::Integer(i64::try_from(count).unwrap_or(i64::MAX))
    }

    /// The same reply without a borrow.
    pub fn into_owned(self) -> Reply<'static> {
        let all = |items: Vec<Reply<'a>>| items.into_iter().map(Reply::into_owned).collect();
        match self {
            Reply::Bulk(bytes) => Reply::Bulk(bytes.without_borrow()),
            Reply::Array(items) => Reply::Array(all(items)),
            Reply::Set(items) => Reply::Set(all(items)),
            Reply::Map(pairs) => {
                Reply::Map(pairs.into_iter().map(|(k, v)| (k.into_owned(), v.into_owned())).collect())
            }
            Reply::List(list) => Reply::List(list),
            Reply::Simple(text) => Reply::Simple(text),
            Reply::Error(error) => Reply::Error(error),
            Reply::Integer(value) => Reply::Integer(value),
            Reply::Null => Reply::Null,
            Reply::NullArray => Reply::NullArray,
            Reply::Double(value) => Reply::Double(value),
            Reply::Boolean(value) => Reply::Boolean(value),
            Reply::Verbatim(text) => Reply::Verbatim(text),
        }
    }

    /// Appends the bytes in which nodes pass replies to each other.
    pub fn encode_neutral(&self, out: &mut impl Sink) {
        neutral::encode(self, out);
    }

    /// Reads what [`Reply::encode_neutral`] wrote: one reply, and nothing behind it.
    pub fn decode_neutral(bytes: &Tailed) -> Result<Reply<'static>, Corrupt> {
        neutral::decode(bytes)
    }
}

impl From<CommandError> for Reply<'static> {
    fn from(error: CommandError) -> Self {
        Reply::Error(error)
    }
}

impl<'a> From<Result<Reply<'a>, CommandError>> for Reply<'a> {
    fn from(result: Result<Reply<'a>, CommandError>) -> Self {
        result.unwrap_or_else(Reply::Error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::neutral::DEPTH_MAX;
    use proptest::prelude::*;

    fn any_reply() -> impl Strategy<Value = Reply<'static>> {
        let leaf = prop_oneof![
            ".*".prop_map(|text| Reply::Simple(Cow::Owned(text))),
            Just(Reply::ok()),
            any::<i64>().prop_map(Reply::Integer),
            any::<Vec<u8>>().prop_map(Reply::bulk),
            Just(Reply::Null),
            Just(Reply::NullArray),
            (-1e9..1e9).prop_map(Reply::Double),
            any::<bool>().prop_map(Reply::Boolean),
            ".*".prop_map(Reply::Verbatim),
            Just(Reply::Error(CommandError::Syntax)),
            ".*".prop_map(|text| Reply::Error(CommandError::Other(text))),
            (any::<u16>(), ".*").prop_map(|(slot, address)| CommandError::Moved { slot, address }.into()),
        ];
        leaf.prop_recursive(4, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Reply::Array),
                prop::collection::vec(inner.clone(), 0..8).prop_map(Reply::Set),
                prop::collection::vec((inner.clone(), inner), 0..8).prop_map(Reply::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_reply_reads_back(reply in any_reply()) {
            let mut bytes = Vec::new();
            reply.encode_neutral(&mut bytes);
            prop_assert_eq!(Reply::decode_neutral(&bytes.clone().into()), Ok(reply));
            bytes.push(0);
            prop_assert_eq!(Reply::decode_neutral(&bytes.into()), Err(Corrupt));
        }

        #[test]
        fn a_cut_reply_is_corrupt(reply in any_reply(), cut: prop::sample::Index) {
            let mut bytes = Vec::new();
            reply.encode_neutral(&mut bytes);
            let cut = cut.index(bytes.len());
            prop_assert_eq!(Reply::decode_neutral(&bytes[..cut].to_vec().into()), Err(Corrupt));
        }

        #[test]
        fn random_bytes_do_no_harm(bytes: Vec<u8>) {
            let _ = Reply::decode_neutral(&bytes.into());
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth| {
            let mut bytes = Vec::new();
            (0..depth).fold(Reply::Null, |inner, _| Reply::Array(vec![inner])).encode_neutral(&mut bytes);
            Reply::decode_neutral(&bytes.into())
        };
        assert!(nested(DEPTH_MAX).is_ok());
        assert_eq!(nested(DEPTH_MAX + 1), Err(Corrupt));
        // An array in an array in an array ...
        assert_eq!(Reply::decode_neutral(&[7, 1].repeat(1_000_000).into()), Err(Corrupt));
        // A declared length of 2^63 items.
        let mut huge = vec![7];
        neutral::write_number(1 << 63, &mut huge);
        assert_eq!(Reply::decode_neutral(&huge.into()), Err(Corrupt));
    }
}
