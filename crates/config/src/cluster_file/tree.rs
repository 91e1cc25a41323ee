//! TOML or JSON as one kind of tree, in which everything knows where it stands, as far as its format tells.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::fmt;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A name and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub name: String,
    /// From 1; JSON does not tell.
    pub line: Option<usize>,
    pub value: Value,
}

/// What a name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    /// A whole number.
    Number(i64),
    List(Vec<Item>),
    Table(Vec<Entry>),
    /// Something of which a cluster file has none, in words.
    Other(&'static str),
}

/// One of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub line: Option<usize>,
    pub value: Value,
}

impl Value {
    /// What kind of thing it is, in words.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "text",
            Value::Number(_) => "a number",
            Value::List(_) => "a list",
            Value::Table(_) => "a section",
            Value::Other(kind) => kind,
        }
    }
}

/// The entries of a TOML file, or why it is none.
pub(super) fn of_toml(text: &str) -> Result<Vec<Entry>, String> {
    let table = DeTable::parse(text).map_err(|error| error.to_string())?;
    let lines = Lines::of(text);
    Ok(lines.entries(table.get_ref()))
}

/// The entries of a JSON file, or why it is none.
pub(super) fn of_json(text: &str) -> Result<Vec<Entry>, String> {
    match serde_json::from_str(text).map_err(|error| error.to_string())? {
        Value::Table(entries) => Ok(entries),
        other => Err(format!("the whole is {}, and has to be an object", other.kind())),
    }
}

/// Where lines start.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Lines {
        Lines(text.match_indices('\n').map(|(at, _)| at + 1).collect())
    }

    fn at(&self, byte: usize) -> Option<usize> {
        Some(self.0.partition_point(|start| *start <= byte) + 1)
    }

    fn entries(&self, table: &DeTable<'_>) -> Vec<Entry> {
        let mut entries: Vec<(usize, Entry)> = table
            .iter()
            .map(|(name, value)| {
                let start = name.span().start;
                let (name, value) = (name.get_ref().to_string(), self.value(value));
                (start, Entry { name, line: self.at(start), value })
            })
            .collect();
        // In the order of the file, so that the first mistake is the first that is told.
        entries.sort_by_key(|(start, _)| *start);
        entries.into_iter().map(|(_, entry)| entry).collect()
    }

    fn value(&self, value: &Spanned<DeValue<'_>>) -> Value {
        match value.get_ref() {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or(Value::Other("a number that is too large"), Value::Number),
            DeValue::Float(_) => Value::Other("a number with a fraction"),
            DeValue::Boolean(_) => Value::Other("true or false"),
            DeValue::Datetime(_) => Value::Other("a date"),
            DeValue::Array(items) => {
                let item = |item| Item { line: self.at(Spanned::span(item).start), value: self.value(item) };
                Value::List(items.iter().map(item).collect())
            }
            DeValue::Table(table) => Value::Table(self.entries(table)),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(OfJson)
    }
}

/// Keeps names that stand twice, which serde_json's own values would not.
struct OfJson;

impl<'de> Visitor<'de> for OfJson {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(i64::try_from(number).map_or(Value::Other("a number that is too large"), Value::Number))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Other("a number with a fraction"))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
        Ok(Value::Other("true or false"))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Other("null"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(value) = list.next_element()? {
            items.push(Item { line: None, value });
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some((name, value)) = map.next_entry()? {
            entries.push(Entry { name, line: None, value });
        }
        Ok(Value::Table(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without_lines(entries: Vec<Entry>) -> Vec<Entry> {
        let plain = |value| match value {
            Value::Table(entries) => Value::Table(without_lines(entries)),
            Value::List(items) => Value::List(
                items
                    .into_iter()
                    .map(|item| match item.value {
                        Value::Table(entries) => {
                            Item { line: None, value: Value::Table(without_lines(entries)) }
                        }
                        value => Item { line: None, value },
                    })
                    .collect(),
            ),
            other => other,
        };
        entries.into_iter().map(|entry| Entry { line: None, value: plain(entry.value), ..entry }).collect()
    }

    #[test]
    fn both_formats_make_the_same_tree() {
        let toml = of_toml("copies = 2\ndir = \"x\"\n\n[[nodes]]\nid = 1\nf = 1.5\nb = true\n").unwrap();
        let json = r#"{"copies": 2, "dir": "x", "nodes": [{"id": 1, "f": 1.5, "b": true}]}"#;
        assert_eq!(without_lines(toml.clone()), of_json(json).unwrap());
        let lines: Vec<_> = toml.iter().map(|entry| entry.line).collect();
        assert_eq!(lines, [Some(1), Some(2), Some(4)]);
        let Value::List(nodes) = &toml[2].value else { panic!("{toml:?}") };
        let Value::Table(node) = &nodes[0].value else { panic!("{nodes:?}") };
        assert_eq!((node[0].name.as_str(), node[0].line), ("id", Some(5)));
    }

    #[test]
    fn what_is_neither_is_told_with_its_line() {
        assert!(of_toml("copies = 2\ndir = \n").unwrap_err().contains("line 2"));
        assert!(of_json("{\"copies\": 2,\n \"dir\": }").unwrap_err().contains("line 2"));
        assert_eq!(of_json("[1]").unwrap_err(), "the whole is a list, and has to be an object");
    }

    #[test]
    fn a_name_that_stands_twice_is_not_lost() {
        assert_eq!(of_json(r#"{"copies": 2, "copies": 3}"#).unwrap().len(), 2);
        assert!(of_toml("copies = 2\ncopies = 3\n").unwrap_err().contains("duplicate"));
    }
}
