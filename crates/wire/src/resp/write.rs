//! Replies and requests as bytes.

use command::number::{format_f64, write_i64};
use command::{Blob, Chunk, Reply};
use storage::Sink;

/// Appends a reply in RESP2 or, where `protocol` is 3, RESP3.
pub fn write(reply: &Reply<'_>, protocol: u8, sink: &mut impl Sink) {
    let resp3 = protocol >= 3;
    let out = sink.bytes();
    match reply {
        Reply::Bulk(Blob::Shared(bytes)) => {
            write_number(b'$', bytes.len() as i64, out);
            sink.put(bytes);
            sink.bytes().extend_from_slice(b"\r\n");
        }
        Reply::Bulk(bytes) => write_bulk(bytes, out),
        Reply::Simple(text) if text == "OK" => out.extend_from_slice(b"+OK\r\n"),
        Reply::Simple(text) => write_line(b'+', text, out),
        Reply::Integer(value) => write_number(b':', *value, out),
        Reply::Error(error) => write_line(b'-', &error.to_string(), out),
        Reply::Null => out.extend_from_slice(if resp3 { b"_\r\n" } else { b"$-1\r\n" }),
        Reply::NullArray => out.extend_from_slice(if resp3 { b"_\r\n" } else { b"*-1\r\n" }),
        Reply::Array(items) => write_items(b'*', items, protocol, sink),
        Reply::List(list) => {
            write_list_head(list.len(), out);
            list.iter().for_each(|item| write_bulk(item, out));
        }
        Reply::Set(items) => write_items(if resp3 { b'~' } else { b'*' }, items, protocol, sink),
        Reply::Map(pairs) => {
            match resp3 {
                true => write_number(b'%', pairs.len() as i64, out),
                false => write_number(b'*', 2 * pairs.len() as i64, out),
            }
            for (key, value) in pairs {
                write(key, protocol, sink);
                write(value, protocol, sink);
            }
        }
        Reply::Double(value) => {
            let text = format_f64(*value);
            match resp3 {
                true => write_line(b',', &text, out),
                false => write_bulk(text.as_bytes(), out),
            }
        }
        Reply::Boolean(value) => out.extend_from_slice(match (resp3, value) {
            (true, true) => b"#t\r\n",
            (true, false) => b"#f\r\n",
            (false, true) => b":1\r\n",
            (false, false) => b":0\r\n",
        }),
        Reply::Verbatim(text) if resp3 => {
            write_number(b'=', text.len() as i64 + 4, out);
            out.extend_from_slice(b"txt:");
            out.extend_from_slice(text.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Reply::Verbatim(text) => write_bulk(text.as_bytes(), out),
    }
}

/// Appends what stands before the items of a list. Both protocols have the same bytes for it, and for the items.
pub fn write_list_head(count: usize, out: &mut Vec<u8>) {
    write_number(b'*', count as i64, out);
}

/// Appends some items of a list.
pub fn write_list_items(items: &Chunk, out: &mut Vec<u8>) {
    items.iter().for_each(|item| write_bulk(item, out));
}

/// Appends a request.
pub fn encode_request(args: &[&[u8]], out: &mut Vec<u8>) {
    out.reserve(args.iter().map(|arg| arg.len() + 16).sum::<usize>() + 16);
    write_number(b'*', args.len() as i64, out);
    args.iter().for_each(|arg| write_bulk(arg, out));
}

fn write_items(kind: u8, items: &[Reply<'_>], protocol: u8, sink: &mut impl Sink) {
    write_number(kind, items.len() as i64, sink.bytes());
    items.iter().for_each(|item| write(item, protocol, sink));
}

/// Most numbers are lengths of one to three digits: such a line is put as one piece.
#[inline]
fn write_number(kind: u8, value: i64, out: &mut Vec<u8>) {
    let digit = |unit: i64| b'0' + (value / unit % 10) as u8;
    match value {
        0..10 => out.extend_from_slice(&[kind, digit(1), b'\r', b'\n']),
        10..100 => out.extend_from_slice(&[kind, digit(10), digit(1), b'\r', b'\n']),
        100..1000 => out.extend_from_slice(&[kind, digit(100), digit(10), digit(1), b'\r', b'\n']),
        _ => {
            out.push(kind);
            write_i64(value, out);
            out.extend_from_slice(b"\r\n");
        }
    }
}

fn write_bulk(bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(bytes.len() + 16);
    write_number(b'$', bytes.len() as i64, out);
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// A line holds no line's end, whatever a stranger had put into the text: it becomes a blank.
fn write_line(kind: u8, text: &str, out: &mut Vec<u8>) {
    out.push(kind);
    out.extend(text.bytes().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }));
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use command::{CommandError, List};
    use std::borrow::Cow;

    #[test]
    fn numbers_of_every_length() {
        let tens = (0..19).map(|digits| 10i64.pow(digits));
        for value in
            tens.flat_map(|ten| [ten - 1, ten, ten + 1, 7 * (ten / 9), -ten]).chain([i64::MAX, i64::MIN])
        {
            let mut out = Vec::new();
            write(&Reply::Integer(value), 2, &mut out);
            assert_eq!(String::from_utf8(out), Ok(format!(":{value}\r\n")));
        }
    }

    #[test]
    fn each_kind_in_both_versions() {
        let map = Reply::Map(vec![(Reply::bulk("a"), Reply::Integer(1))]);
        let mut list = List::default();
        list.push(b"a");
        list.push(b"");
        let set = Reply::Set(vec![Reply::simple("x"), Reply::Null]);
        for (reply, resp2, resp3) in [
            (Reply::ok(), "+OK\r\n", "+OK\r\n"),
            (Reply::simple("PONG"), "+PONG\r\n", "+PONG\r\n"),
            (Reply::Error(CommandError::Syntax), "-ERR syntax error\r\n", "-ERR syntax error\r\n"),
            (Reply::Integer(-42), ":-42\r\n", ":-42\r\n"),
            (Reply::bulk("hello"), "$5\r\nhello\r\n", "$5\r\nhello\r\n"),
            (Reply::bulk(""), "$0\r\n\r\n", "$0\r\n\r\n"),
            (Reply::Null, "$-1\r\n", "_\r\n"),
            (Reply::NullArray, "*-1\r\n", "_\r\n"),
            (Reply::Array(vec![]), "*0\r\n", "*0\r\n"),
            (Reply::List(list), "*2\r\n$1\r\na\r\n$0\r\n\r\n", "*2\r\n$1\r\na\r\n$0\r\n\r\n"),
            (map, "*2\r\n$1\r\na\r\n:1\r\n", "%1\r\n$1\r\na\r\n:1\r\n"),
            (set, "*2\r\n+x\r\n$-1\r\n", "~2\r\n+x\r\n_\r\n"),
            (Reply::Double(1.5), "$3\r\n1.5\r\n", ",1.5\r\n"),
            (Reply::Double(f64::NEG_INFINITY), "$4\r\n-inf\r\n", ",-inf\r\n"),
            (Reply::Boolean(true), ":1\r\n", "#t\r\n"),
            (Reply::Boolean(false), ":0\r\n", "#f\r\n"),
            (Reply::Verbatim("hi".into()), "$2\r\nhi\r\n", "=6\r\ntxt:hi\r\n"),
            (Reply::Simple(Cow::Borrowed("a\r\nb")), "+a  b\r\n", "+a  b\r\n"),
            (Reply::Error(CommandError::Other("ERR a\nb".into())), "-ERR a b\r\n", "-ERR a b\r\n"),
        ] {
            let text = |protocol| {
                let mut out = Vec::new();
                write(&reply, protocol, &mut out);
                String::from_utf8(out).expect("these replies are text")
            };
            assert_eq!((text(2).as_str(), text(3).as_str()), (resp2, resp3));
        }
    }
}
