//! What stands in a request's address: keys and parameters, percent-encoded bytes.

use super::problem::Problem;
use std::collections::BTreeMap;

/// The bytes of a percent-encoded text. In a query a plus is a space, as forms write it.
pub fn decoded(text: &str, is_query: bool) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
                let (Some(high), Some(low)) = (digit(), digit()) else {
                    return Err(Problem::bad(
                        "a % in the address is to be followed by two hex digits; % itself is %25",
                    ));
                };
                bytes.push((high * 16 + low) as u8);
            }
            b'+' if is_query => bytes.push(b' '),
            other => bytes.push(other),
        }
    }
    Ok(bytes)
}

/// The parameters of a query. One that is not `known`, or comes twice, is refused: what is misspelt should not go unnoticed.
pub fn parameters(
    query: Option<&str>,
    known: &[&'static str],
) -> Result<BTreeMap<&'static str, Vec<u8>>, Problem> {
    let mut found = BTreeMap::new();
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let Some(name) = known.iter().find(|known| **known == name) else {
            return Err(Problem::bad(format!("unknown parameter '{name}': there are {}", known.join(", "))));
        };
        if found.insert(*name, decoded(value, true)?).is_some() {
            return Err(Problem::bad(format!("'{name}' comes twice")));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_decoded() {
        assert_eq!(decoded("a%2Fb%ff+%41", false).unwrap(), b"a/b\xff+A");
        assert_eq!(decoded("a+b%2B", true).unwrap(), b"a b+");
        for bad in ["%", "%1", "a%zz", "%\u{fc}1"] {
            assert!(decoded(bad, false).is_err(), "{bad}");
        }
    }

    #[test]
    fn parameters_are_known_and_come_once() {
        let known = ["ttl", "consistency"];
        let found = parameters(Some("ttl=60&&consistency=st%61le"), &known).unwrap();
        assert_eq!(found["ttl"], b"60");
        assert_eq!(found["consistency"], b"stale");
        assert!(parameters(None, &known).unwrap().is_empty());
        let refused = |query: &str| parameters(Some(query), &known).unwrap_err().detail;
        assert_eq!(refused("tll=60"), "unknown parameter 'tll': there are ttl, consistency");
        assert_eq!(refused("ttl=60&ttl=61"), "'ttl' comes twice");
    }
}
