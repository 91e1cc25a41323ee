//! Colours, where there is a terminal that shows them: errors red, text green, numbers cyan, what is not there dim.

use std::io::IsTerminal;

/// Whether text gets colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paint {
    /// Text as it is.
    Plain,
    /// With the terminal's own colours.
    Colours,
}

impl Paint {
    /// Colours where `out` is a terminal and nobody asked for none: `NO_COLOR` (no-color.org), or a terminal called dumb.
    pub(crate) fn detect(out: &impl IsTerminal) -> Paint {
        let says = |name: &str| std::env::var(name).unwrap_or_default();
        Paint::choose(out.is_terminal(), &says("NO_COLOR"), &says("TERM"))
    }

    fn choose(is_terminal: bool, no_color: &str, term: &str) -> Paint {
        if is_terminal && no_color.is_empty() && term != "dumb" { Paint::Colours } else { Paint::Plain }
    }

    fn put(self, code: &str, text: &str) -> String {
        match self {
            Paint::Plain => text.to_owned(),
            Paint::Colours => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }

    /// What went wrong.
    pub(crate) fn error(self, text: &str) -> String {
        self.put("31", text)
    }

    /// A value.
    pub(crate) fn text(self, text: &str) -> String {
        self.put("32", text)
    }

    /// A number.
    pub(crate) fn number(self, text: &str) -> String {
        self.put("36", text)
    }

    /// What is not there, or only helps to read.
    pub(crate) fn dim(self, text: &str) -> String {
        self.put("2", text)
    }

    /// What stands out.
    pub(crate) fn strong(self, text: &str) -> String {
        self.put("1", text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_and_can_be_turned_off() {
        assert_eq!(Paint::choose(true, "", "xterm"), Paint::Colours);
        for (is_terminal, no_color, term) in [(false, "", "xterm"), (true, "1", "xterm"), (true, "", "dumb")]
        {
            assert_eq!(Paint::choose(is_terminal, no_color, term), Paint::Plain);
        }
        assert_eq!(Paint::Plain.error("no"), "no");
        assert_eq!(Paint::Colours.error("no"), "\x1b[31mno\x1b[0m");
    }
}
