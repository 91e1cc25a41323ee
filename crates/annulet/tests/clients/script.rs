//! Golden scripts: commands and their replies, a pair a line, run by a client at a node.
//!
//! ```text
//! SET a 1      -> OK
//! GET a        -> "1"
//! INCR a       -> 2
//! MGET a none  -> ["2" nil]
//! GET          -> !ERR wrong number of arguments for 'get' command
//! ```
//!
//! A reply's end may be left open with `...`. Maps are shown as in RESP2: a list of what they hold, in turn.

use redis::{ConnectionLike, RedisError, Value};

/// A reply as scripts show it.
pub fn shown(reply: &Result<Value, RedisError>) -> String {
    match reply {
        Ok(value) => shown_value(value),
        Err(error) => match error.code() {
            Some(code) => format!("!{code} {}", error.detail().unwrap_or_default()).trim_end().to_owned(),
            None => format!("!{error}"),
        },
    }
}

fn shown_value(value: &Value) -> String {
    let list = |values: &[Value]| {
        let shown: Vec<String> = values.iter().map(shown_value).collect();
        format!("[{}]", shown.join(" "))
    };
    match value {
        Value::Nil => "nil".to_owned(),
        Value::Int(number) => number.to_string(),
        Value::BulkString(bytes) => format!("\"{}\"", bytes.escape_ascii()),
        Value::SimpleString(text) => text.clone(),
        Value::Okay => "OK".to_owned(),
        Value::Array(values) | Value::Set(values) => list(values),
        Value::Map(pairs) => {
            let flat: Vec<Value> =
                pairs.iter().flat_map(|(key, value)| [key.clone(), value.clone()]).collect();
            list(&flat)
        }
        Value::VerbatimString { text, .. } => format!("\"{}\"", text.as_bytes().escape_ascii()),
        Value::ServerError(error) => format!("!{} {}", error.code(), error.details().unwrap_or_default()),
        other => format!("{other:?}"),
    }
}

/// Runs one command, its words between blanks. `''` is an empty word.
pub fn say(connection: &mut dyn ConnectionLike, line: &str) -> Result<Value, RedisError> {
    let mut words = line.split_whitespace().map(|word| if word == "''" { "" } else { word });
    let mut command = redis::cmd(words.next().unwrap_or_default());
    words.for_each(|word| {
        command.arg(word);
    });
    connection.req_command(&command)
}

/// Runs a script, and shows every line whose reply is another than it says.
pub fn play(connection: &mut dyn ConnectionLike, script: &str, whereabouts: &str) {
    let mut wrong = Vec::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (command, expected) = line.split_once(" -> ").expect("`command -> reply`");
        let expected = expected.trim();
        let got = shown(&say(connection, command)).trim_end().to_owned();
        let fits = match expected.strip_suffix("...") {
            Some(start) => got.starts_with(start),
            None => got == expected,
        };
        if !fits {
            wrong.push(format!("{command}\n    expected {expected}\n    got      {got}"));
        }
    }
    assert!(wrong.is_empty(), "{whereabouts}:\n{}", wrong.join("\n"));
}
