//! Glob patterns as Redis matches them: `*`, `?`, `[abc]`, `[^a-z]`, `\x`.
//!
//! One star at most is ever tried again, so the work is bounded by the product of the two lengths, whatever a stranger's
//! pattern looks like; the recursion of the original takes exponential time on `*a*a*a*b`.

/// Whether the whole of `text` matches `pattern`.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    run(pattern, text, false)
}

/// The same for ASCII letters of either case.
pub fn matches_ignoring_case(pattern: &[u8], text: &[u8]) -> bool {
    run(pattern, text, true)
}

fn run(pattern: &[u8], text: &[u8], ignore_case: bool) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on if the present attempt fails: what follows the last star, and the text it is tried on next.
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                p += 1;
                if p == pattern.len() {
                    return true;
                }
                retry = Some((p, t));
                continue;
            }
            Some(_) => {
                let (matched, next) = element(pattern, p, text[t], ignore_case);
                if matched {
                    (p, t) = (next, t + 1);
                    continue;
                }
            }
            None => {}
        }
        let Some((after_star, from)) = &mut retry else { return false };
        *from += 1;
        (p, t) = (*after_star, *from);
    }
    // A later attempt would have less text still, so this one decides.
    pattern[p.min(pattern.len())..].iter().all(|&byte| byte == b'*')
}

/// Whether the element of the pattern at `at` matches `byte`, and where the next element starts.
fn element(pattern: &[u8], at: usize, byte: u8, ignore_case: bool) -> (bool, usize) {
    let fold = |byte: u8| if ignore_case { byte.to_ascii_lowercase() } else { byte };
    match pattern[at] {
        b'?' => (true, at + 1),
        b'[' => class(pattern, at + 1, byte, fold),
        b'\\' if at + 1 < pattern.len() => (fold(pattern[at + 1]) == fold(byte), at + 2),
        literal => (fold(literal) == fold(byte), at + 1),
    }
}

/// A class in brackets, from behind the opening one. One that is never closed ends with the pattern.
fn class(pattern: &[u8], mut at: usize, byte: u8, fold: impl Fn(u8) -> u8) -> (bool, usize) {
    let negated = pattern.get(at) == Some(&b'^');
    at += usize::from(negated);
    let mut matched = false;
    loop {
        match &pattern[at.min(pattern.len())..] {
            [] => return (matched != negated, pattern.len()),
            [b'\\', literal, ..] => {
                matched |= *literal == byte;
                at += 2;
            }
            [b']', ..] => return (matched != negated, at + 1),
            [from, b'-', to, ..] => {
                let (from, to) = (fold(*from.min(to)), fold(*from.max(to)));
                matched |= (from..=to).contains(&fold(byte));
                at += 3;
            }
            [literal, ..] => {
                matched |= fold(*literal) == fold(byte);
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_match_as_in_redis() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "anything", true),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h*llo", "heeeello", true),
            ("h[ae]llo", "hallo", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-b]llo", "hbllo", true),
            ("h[b-a]llo", "hbllo", true),
            ("h[a-b]llo", "hcllo", false),
            ("h\\?llo", "h?llo", true),
            ("h\\?llo", "hello", false),
            ("[\\]]", "]", true),
            ("[abc", "b", true),
            ("[", "x", false),
            ("[^", "x", true),
            ("a\\", "a\\", true),
            ("*a?", "aab", true),
            ("*.txt", "a.txt.txt", true),
            ("a*b*c", "aXbXbXc", true),
            ("a*b*c", "aXbXbX", false),
            ("foo:*:bar", "foo:1:2:bar", true),
            ("***a", "ba", true),
            ("HELLO", "hello", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} on {text}");
        }
        assert!(matches_ignoring_case(b"MAX[A-C]*", b"maxclients"));
    }

    #[test]
    fn hostile_patterns_take_no_exponential_time() {
        let pattern = "*a".repeat(2000) + "b";
        let text = "a".repeat(20_000);
        assert!(!matches(pattern.as_bytes(), text.as_bytes()));
    }

    /// The definition, by recursion, for patterns of stars, question marks and letters.
    fn slow(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => slow(rest, text) || (!text.is_empty() && slow(pattern, &text[1..])),
            ([b'?', rest @ ..], [_, tail @ ..]) => slow(rest, tail),
            ([a, rest @ ..], [b, tail @ ..]) if a == b => slow(rest, tail),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "[ab*?]{0,8}", text in "[ab]{0,10}") {
            prop_assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), slow(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn any_bytes_end(pattern: Vec<u8>, text: Vec<u8>) {
            matches(&pattern, &text);
            matches_ignoring_case(&pattern, &text);
        }
    }
}
