//! Gives the lines of a reduced text that may be expanded to their number that number.
//!
//! A name that leads to a line makes its own line count, and every line up to the end of the parentheses that follow it, and the
//! line after that: compilers differ in whether a call over several lines has the line of its name or of its last parenthesis,
//! and a name alone on a line may be called in the next. A macro's definition is expanded where the macro is used, so the lines of
//! `#define` do not count. Where it is not clear what is open, more lines count than need to.

use super::lex::is_word;
use super::macros::{Sensitive, word};
use super::reduce::Reduced;

/// The byte that begins a number; no source holds it.
const NUMBER: u8 = 2;

/// The text with numbers.
pub(super) fn number(reduced: &Reduced, sensitive: &Sensitive) -> Vec<u8> {
    if !sensitive.meets(reduced.words()) {
        return reduced.text.clone();
    }
    let mut out = Vec::with_capacity(reduced.text.len());
    let mut state = State::default();
    for (index, line) in reduced.text.split_inclusive(|byte| *byte == b'\n').enumerate() {
        if state.counts(line, sensitive) {
            let number = reduced.lines.get(index).copied().unwrap_or(0);
            out.push(NUMBER);
            out.extend_from_slice(number.to_string().as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(line);
    }
    out
}

#[derive(Default)]
struct State {
    /// Parentheses that are open since a name that leads to a line.
    open: u32,
    /// The line before ended such a call, or holds the name alone.
    behind: bool,
    comment: bool,
    /// Within the lines of a `#define`.
    define: bool,
}

impl State {
    fn counts(&mut self, line: &[u8], sensitive: &Sensitive) -> bool {
        let goes_on = line.trim_ascii_end().ends_with(b"\\");
        if self.define || (!self.comment && is_define(line)) {
            self.define = goes_on;
            // Within a call nobody should guess what a definition does.
            return self.open > 0;
        }
        let mut counts = self.open > 0 || self.behind;
        let was_behind = std::mem::take(&mut self.behind);
        let mut tokens = false;
        let mut at = 0;
        while let Some(&byte) = line.get(at) {
            if self.comment {
                self.comment = !line[at..].starts_with(b"*/");
                at += if self.comment { 1 } else { 2 };
            } else if line[at..].starts_with(b"/*") {
                self.comment = true;
                at += 2;
            } else if line[at..].starts_with(b"//") {
                break;
            } else if matches!(byte, b'"' | b'\'') {
                tokens = true;
                at = skip_literal(line, at);
            } else if is_word(byte) {
                tokens = true;
                let to = at + line[at..].iter().take_while(|byte| is_word(**byte)).count();
                if sensitive.has(word(&line[at..to])) {
                    counts = true;
                    self.behind = true;
                }
                at = to;
            } else {
                tokens |= !byte.is_ascii_whitespace();
                match byte {
                    b'(' if self.behind || self.open > 0 || was_behind => self.open += 1,
                    b')' => {
                        self.open = self.open.saturating_sub(1);
                        self.behind |= counts;
                    }
                    _ => {}
                }
                at += 1;
            }
        }
        // A line without a token ends nothing.
        self.behind |= self.open > 0 || (was_behind && !tokens);
        counts
    }
}

fn is_define(line: &[u8]) -> bool {
    let Some(rest) = line.trim_ascii_start().strip_prefix(b"#") else { return false };
    rest.trim_ascii_start().starts_with(b"define")
}

fn skip_literal(line: &[u8], from: usize) -> usize {
    let mut at = from + 1;
    while at < line.len() && line[at] != line[from] {
        at += if line[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(line.len())
}

#[cfg(test)]
mod tests {
    use super::super::condition::Autoconf;
    use super::super::macros::leads_to_line;
    use super::super::reduce::reduce;

    /// The numbers of the lines that count.
    fn counted(text: &str) -> Vec<String> {
        let reduced = reduce(text.as_bytes(), &Autoconf::unknown()).unwrap();
        let macros: Vec<_> = reduced.macros().iter().collect();
        let sensitive = leads_to_line(&macros, &|it| reduced.words().contains(&it));
        let text = String::from_utf8(reduced.with_lines(&sensitive)).unwrap();
        text.lines().filter_map(|line| Some(line.strip_prefix('\u{2}')?.split(' ').next()?.to_owned())).collect()
    }

    #[test]
    fn which_lines_count() {
        for (text, want) in [
            ("int a;\nint b = __LINE__;\nint c;\n", vec!["2", "3"]),
            ("#define W(x) f(x, __LINE__)\nint a;\nW(\n1,\n2);\nint b;\nint c;\n", vec!["3", "4", "5", "6"]),
            ("#define W(x) f(x, __LINE__)\n#define V W(1)\nint a;\nint b; V;\nint c;\nint d;\n", vec!["4", "5"]),
            ("#define W(x) f(x, __LINE__)\nW\n(1);\nint c;\nint d;\n", vec!["2", "3", "4"]),
            ("#define W(x) f(x, __LINE__)\nW(\")\",\n1);\nint c;\nint d;\n", vec!["2", "3", "4"]),
            ("#define W \\\n __LINE__\nint c;\n", vec![]),
            ("int c(\nint d);\n", vec![]),
        ] {
            assert_eq!(counted(text), want, "{text}");
        }
    }

    #[test]
    fn blank_lines_matter_before_lines_that_count_only() {
        let reduced = |text: &str| {
            let reduced = reduce(text.as_bytes(), &Autoconf::unknown()).unwrap();
            let sensitive = leads_to_line(&[], &|_| true);
            reduced.digest(&sensitive)
        };
        assert_eq!(reduced("int a;\nint b;\n"), reduced("int a;\n\n/* x */\nint b;\n"));
        assert_ne!(reduced("int a;\nint b = __LINE__;\n"), reduced("int a;\n\nint b = __LINE__;\n"));
        assert_eq!(
            reduced("int b = __LINE__;\n\nint a;\nint c;\n"),
            reduced("int b = __LINE__;\n\nint a;\n\nint c;\n")
        );
    }
}
