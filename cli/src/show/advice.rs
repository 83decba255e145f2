//! Advice: commands that run as they are printed, quoted for the shell.
//!
//! 1. A command is complete: it contains the book, the record and the server, and no placeholders.
//! 2. A command that may be pasted at once only shows something, or repeats what the person asked
//!    for. A command that decides something for a person is printed behind a `#`, so pasting it
//!    does nothing. Each command is a line.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use super::plain::is_hidden;

/// Stands for the book of the present command.
pub(crate) const BOOK: &str = "\0book";

/// Lines of advice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Advice(Vec<Line>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Line {
    Words(String),
    Run(Vec<OsString>),
    Choose(Vec<OsString>),
}

impl Advice {
    /// Adds a command that may be pasted at once.
    pub(crate) fn run(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.0.push(Line::Run(args.into_iter().map(Into::into).collect()));
        self
    }

    /// Adds a command that decides something. A person chooses it.
    pub(crate) fn choose(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.0.push(Line::Choose(args.into_iter().map(Into::into).collect()));
        self
    }

    /// Adds a comment above commands.
    pub(crate) fn words(mut self, words: impl Into<String>) -> Self {
        self.0.push(Line::Words(words.into()));
        self
    }

    /// Adds other advice, without the lines that are there already.
    pub(crate) fn and(mut self, other: Self) -> Self {
        for line in other.0 {
            if !self.0.contains(&line) {
                self.0.push(line);
            }
        }
        self
    }

    /// Returns whether it has no lines.
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the lines as they are printed. A shell accepts each of them. Without a book, the
    /// commands that name it are left out.
    pub(crate) fn lines(&self, book: Option<&Path>) -> Vec<String> {
        let shown = |args: &[OsString]| command(args, book);
        let lines = self.0.iter().filter_map(|line| match line {
            Line::Words(words) => Some(format!("# {}", super::plain(words))),
            Line::Run(args) => shown(args),
            Line::Choose(args) => Some(format!("# {}", shown(args)?)),
        });
        lines.collect()
    }
}

/// Returns a command as a person types it.
fn command(args: &[OsString], book: Option<&Path>) -> Option<String> {
    let mut words = vec!["fieldbook".to_owned()];
    for arg in args {
        words.push(if arg == BOOK { quoted_path(book?) } else { quoted(arg) });
    }
    Some(words.join(" "))
}

/// Returns a path as one word of a command. A path that begins with a hyphen would be read as an
/// option.
pub(crate) fn quoted_path(path: &Path) -> String {
    if path.as_os_str().as_encoded_bytes().starts_with(b"-") {
        return quoted(Path::new(".").join(path).as_os_str());
    }
    quoted(path.as_os_str())
}

/// Returns text as one word for a POSIX shell, with hidden characters escaped.
pub(crate) fn quoted(word: impl AsRef<OsStr>) -> String {
    let word = word.as_ref();
    match word.to_str() {
        Some(text) if !text.is_empty() && text.bytes().all(is_plain) => text.to_owned(),
        // The shell expands a variable in double quotes.
        Some(SERVER) => format!("\"{SERVER}\""),
        Some(text) if !text.chars().any(is_hidden) => format!("'{}'", text.replace('\'', r"'\''")),
        _ => format!("\"$(printf '{}')\"", octal(word.as_encoded_bytes())),
    }
}

/// The server's address, which only the environment contains.
pub(crate) const SERVER: &str = "$FIELDBOOK_SERVER";

const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'_' | b'-' | b'.' | b'/' | b':' | b'@' | b'+' | b'=' | b',')
}

/// Returns bytes as a format of `printf`, for single quotes.
fn octal(bytes: &[u8]) -> String {
    let each = bytes.iter().map(|byte| match byte {
        b'%' => "%%".to_owned(),
        byte if is_plain(*byte) || *byte == b' ' => char::from(*byte).to_string(),
        byte => format!("\\{byte:03o}"),
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_the_shell_and_hide_nothing() {
        for (word, wanted) in [
            ("lead/42", "lead/42"),
            ("", "''"),
            ("a b", "'a b'"),
            ("it's", r"'it'\''s'"),
            ("$(rm -rf x)|`y`;&", "'$(rm -rf x)|`y`;&'"),
            ("lead/\u{202e}1%", r#""$(printf 'lead/\342\200\2561%%')""#),
            ("a\nb", r#""$(printf 'a\012b')""#),
        ] {
            assert_eq!(quoted(word), wanted);
            let echoed = std::process::Command::new("sh")
                .args(["-c", &format!("printf %s {wanted}")])
                .output();
            assert_eq!(String::from_utf8(echoed.unwrap().stdout).unwrap(), word);
        }
        assert_eq!(quoted_path(Path::new("-rf")), "./-rf");
    }

    #[test]
    fn what_decides_stands_behind_a_mark_and_what_needs_a_book_is_left_out_without_one() {
        let advice = Advice::default().run(["ls", BOOK]).words("or").choose(["rm", BOOK, "lead/1"]);
        assert_eq!(
            advice.lines(Some(Path::new("my book"))),
            ["fieldbook ls 'my book'", "# or", "# fieldbook rm 'my book' lead/1"]
        );
        assert_eq!(advice.lines(None), ["# or"]);
    }
}
