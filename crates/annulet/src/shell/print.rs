//! Replies as text: like redis-cli for people, raw, or JSON.

use super::paint::Paint;
use crate::quoting::quote;
use client::Reply;
use command::List;
use serde_json::Value;

/// How replies are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// `"value"`, `(integer) 1`, `(nil)`, numbered lists, in colours or without.
    Readable(Paint),
    /// Values as they are, one a line.
    Raw,
    /// One JSON value a line.
    Json,
}

/// A reply as bytes to print, with a newline at the end.
pub(crate) fn reply(reply: &Reply<'_>, style: Style) -> Vec<u8> {
    let mut out = match style {
        Style::Readable(paint) => readable(reply, 0, paint).into_bytes(),
        Style::Raw => {
            let mut out = Vec::new();
            raw(reply, &mut out);
            out
        }
        Style::Json => json(reply).to_string().into_bytes(),
    };
    if out.last() != Some(&b'\n') || matches!(reply, Reply::Bulk(_)) {
        out.push(b'\n');
    }
    out
}

fn readable(reply: &Reply<'_>, indent: usize, paint: Paint) -> String {
    let inner = |item: &Reply<'_>, indent| readable(item, indent, paint);
    match reply {
        Reply::Simple(text) => text.to_string(),
        Reply::Error(error) => paint.error(&format!("(error) {error}")),
        Reply::Integer(value) => format!("{} {}", paint.dim("(integer)"), paint.number(&value.to_string())),
        Reply::Bulk(bytes) => paint.text(&quote(bytes)),
        Reply::Null | Reply::NullArray => paint.dim("(nil)"),
        Reply::Double(value) => format!("{} {}", paint.dim("(double)"), paint.number(&value.to_string())),
        Reply::Boolean(value) => paint.number(&format!("({value})")),
        Reply::Verbatim(text) => text.trim_end_matches(['\r', '\n']).to_owned(),
        Reply::List(list) => readable(&as_array(list), indent, paint),
        Reply::Array(items) if items.is_empty() => paint.dim("(empty array)"),
        Reply::Set(items) if items.is_empty() => paint.dim("(empty set)"),
        Reply::Map(pairs) if pairs.is_empty() => paint.dim("(empty hash)"),
        Reply::Array(items) => numbered(items.iter(), items.len(), (')', indent, paint), inner),
        Reply::Set(items) => numbered(items.iter(), items.len(), ('~', indent, paint), inner),
        Reply::Map(pairs) => {
            numbered(pairs.iter(), pairs.len(), ('#', indent, paint), |(key, value), indent| {
                let (key, shown) = (inner(key, indent), inner(value, indent));
                // A value of several items starts on a line of its own, where its key starts.
                let gap = if has_items(value) { format!("\n{}", " ".repeat(indent)) } else { String::new() };
                format!("{key} => {gap}{shown}")
            })
        }
    }
}

fn as_array(list: &List) -> Reply<'_> {
    Reply::Array(list.iter().map(|item| Reply::Bulk(item.into())).collect())
}

fn has_items(reply: &Reply<'_>) -> bool {
    match reply {
        Reply::Array(items) | Reply::Set(items) => !items.is_empty(),
        Reply::Map(pairs) => !pairs.is_empty(),
        Reply::List(list) => !list.is_empty(),
        _ => false,
    }
}

/// Items a line, numbered, the numbers right-aligned; what follows the first is indented as it is.
fn numbered<T>(
    items: impl Iterator<Item = T>,
    count: usize,
    (mark, indent, paint): (char, usize, Paint),
    show: impl Fn(T, usize) -> String,
) -> String {
    let width = count.to_string().len();
    let inner = indent + width + 2;
    let number = |at: usize| paint.dim(&format!("{:>width$}{mark}", at + 1));
    let lines = items.enumerate().map(|(at, item)| format!("{} {}", number(at), show(item, inner)));
    lines.collect::<Vec<_>>().join(&format!("\n{}", " ".repeat(indent)))
}

fn raw(reply: &Reply<'_>, out: &mut Vec<u8>) {
    let mut list = |items: &mut dyn Iterator<Item = &Reply<'_>>| {
        for (at, item) in items.enumerate() {
            if at > 0 {
                out.push(b'\n');
            }
            raw(item, out);
        }
    };
    match reply {
        Reply::List(items) => raw(&as_array(items), out),
        Reply::Array(items) | Reply::Set(items) => list(&mut items.iter()),
        Reply::Map(pairs) => list(&mut pairs.iter().flat_map(|(key, value)| [key, value])),
        Reply::Bulk(bytes) => out.extend_from_slice(bytes),
        Reply::Simple(text) => out.extend_from_slice(text.as_bytes()),
        Reply::Verbatim(text) => out.extend_from_slice(text.as_bytes()),
        Reply::Error(error) => out.extend_from_slice(error.to_string().as_bytes()),
        Reply::Integer(value) => out.extend_from_slice(value.to_string().as_bytes()),
        Reply::Double(value) => out.extend_from_slice(value.to_string().as_bytes()),
        Reply::Boolean(value) => out.extend_from_slice(value.to_string().as_bytes()),
        Reply::Null | Reply::NullArray => {}
    }
}

/// Bytes that are not UTF-8 are shown quoted and escaped: JSON has no bytes.
fn json(reply: &Reply<'_>) -> Value {
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).map_or_else(|_| quote(bytes), str::to_owned);
    match reply {
        Reply::Simple(value) => Value::String(value.to_string()),
        Reply::Error(error) => serde_json::json!({ "error": error.to_string() }),
        Reply::Integer(value) => Value::from(*value),
        Reply::Bulk(bytes) => Value::String(text(bytes)),
        Reply::Null | Reply::NullArray => Value::Null,
        Reply::Double(value) => Value::from(*value),
        Reply::Boolean(value) => Value::Bool(*value),
        Reply::Verbatim(value) => Value::String(value.clone()),
        Reply::List(list) => json(&as_array(list)),
        Reply::Array(items) | Reply::Set(items) => items.iter().map(json).collect(),
        Reply::Map(pairs) => {
            let name = |key: &Reply<'_>| match json(key) {
                Value::String(text) => text,
                other => other.to_string(),
            };
            pairs.iter().map(|(key, value)| (name(key), json(value))).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use command::CommandError;

    fn shown(value: &Reply<'_>, style: Style) -> String {
        String::from_utf8(reply(value, style)).unwrap()
    }

    fn bulk(text: &str) -> Reply<'static> {
        Reply::bulk(text.as_bytes())
    }

    fn nested() -> Reply<'static> {
        let inner = Reply::Array(vec![bulk("x"), Reply::Integer(2)]);
        let mut items = vec![bulk("a"), inner, Reply::Null];
        items.extend((4..=10).map(Reply::Integer));
        Reply::Array(items)
    }

    #[test]
    fn replies_look_as_in_redis_cli() {
        let readable = |value: &Reply<'_>| shown(value, Style::Readable(Paint::Plain));
        assert_eq!(readable(&Reply::ok()), "OK\n");
        assert_eq!(readable(&Reply::Integer(1)), "(integer) 1\n");
        assert_eq!(readable(&Reply::Null), "(nil)\n");
        assert_eq!(readable(&bulk("a\n\"b\"")), "\"a\\n\\\"b\\\"\"\n");
        assert_eq!(readable(&Reply::Error(CommandError::Syntax)), "(error) ERR syntax error\n");
        assert_eq!(readable(&Reply::Array(vec![])), "(empty array)\n");
        assert_eq!(
            readable(&nested()),
            " 1) \"a\"\n 2) 1) \"x\"\n    2) (integer) 2\n 3) (nil)\n 4) (integer) 4\n 5) (integer) 5\n 6) (integer) 6\n \
             7) (integer) 7\n 8) (integer) 8\n 9) (integer) 9\n10) (integer) 10\n"
        );
        let map = Reply::Map(vec![
            (bulk("k"), Reply::Boolean(true)),
            (bulk("l"), Reply::Array(vec![Reply::Double(1.5), Reply::Null])),
        ]);
        assert_eq!(readable(&map), "1# \"k\" => (true)\n2# \"l\" => \n   1) (double) 1.5\n   2) (nil)\n");
        assert_eq!(readable(&Reply::Verbatim("one\ntwo\n".into())), "one\ntwo\n");
    }

    #[test]
    fn colours_change_no_character() {
        let map = Reply::Map(vec![(bulk("k"), nested()), (bulk("e"), Reply::Error(CommandError::Syntax))]);
        for reply in [nested(), map, Reply::Array(vec![]), Reply::Double(0.5)] {
            let coloured = shown(&reply, Style::Readable(Paint::Colours));
            assert!(coloured.contains("\x1b["), "{coloured}");
            let pieces = coloured.split('\x1b').map(|piece| match piece.strip_prefix('[') {
                Some(code) => code.split_once('m').map_or("", |(_, text)| text),
                None => piece,
            });
            let plain: String = pieces.collect();
            assert_eq!(plain, shown(&reply, Style::Readable(Paint::Plain)));
        }
    }

    #[test]
    fn raw_is_bytes_and_json_is_json() {
        assert_eq!(shown(&bulk("a b"), Style::Raw), "a b\n");
        assert_eq!(shown(&Reply::Array(vec![bulk("a"), Reply::Integer(1)]), Style::Raw), "a\n1\n");
        assert_eq!(reply(&Reply::bulk(vec![0xff, b'\n']), Style::Raw), [0xff, b'\n', b'\n']);
        let map = Reply::Map(vec![(bulk("k"), Reply::Array(vec![Reply::Null, Reply::bulk(vec![0xff])]))]);
        assert_eq!(shown(&map, Style::Json), "{\"k\":[null,\"\\\"\\\\xff\\\"\"]}\n");
    }
}
