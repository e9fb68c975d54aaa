//! What a text says on its own, under any configuration: its includes, the options that it names, what it reads unseen.
//!
//! Directives count in every group, taken or not, and in no comment.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};

use super::condition::is_sacred;
use super::lex::{self, Logical, Refused, Sink, clean, is_blank, is_word};
use super::symbols::config_symbols;

/// An include directive that names its file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Include {
    /// As named.
    pub name: String,
    /// The form with quotes.
    pub quoted: bool,
    /// `#include_next`.
    pub next: bool,
}

/// What a text says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Options that it names, without `CONFIG_`.
    pub symbols: BTreeSet<String>,
    /// What it includes, each once, in order of appearance.
    pub includes: Vec<Include>,
    /// It includes what a macro names.
    pub computed_includes: bool,
    /// What its text has the assembler include (`.include "name"`).
    pub assembler: BTreeSet<String>,
    /// Names of the configuration (`CONFIG_...`, `IS_ENABLED`...) that it defines or undefines itself.
    pub redefines: BTreeSet<String>,
    unknown: Option<&'static str>,
}

/// Words by which an assembler or a compiler reads a file, or asks for one, that no dependency list names.
const READS: &[(&str, &str)] = &[
    (".incbin", "it may read a file by .incbin"),
    ("__has_include", "it asks which headers there are"),
    ("#embed", "it embeds a file"),
];

impl Facts {
    /// Reads a text.
    pub fn of(text: &[u8]) -> Self {
        let mut facts = Self { symbols: config_symbols(text), ..Self::default() };
        let reads = |text: &[u8]| READS.iter().find(|(word, _)| contains(text, word.as_bytes())).map(|(_, why)| *why);
        // Such words are rare, and most of them stand in comments.
        let said = match reads(text).is_some() || contains(text, b".include") {
            true => Cow::Owned(without_comments(text)),
            false => Cow::Borrowed(text),
        };
        facts.unknown = reads(&said);
        match included_by_assembler(&said) {
            Some(names) => facts.assembler = names,
            None => facts.unknown = Some("it may read a file by the assembler's .include"),
        }
        let mut reader = Reader { text, facts: &mut facts, seen: HashSet::new(), buffer: Vec::new() };
        if lex::no_control_bytes(text).and_then(|()| lex::scan(text, &mut reader)).is_err() {
            facts.unknown = Some("its text is not understood");
        }
        facts
    }

    /// Why a compile that reads it may depend on more than the files that its dependency list names.
    pub fn reads_unknown(&self) -> Option<&'static str> {
        self.unknown
    }
}

/// The text without its `/* comments */`.
///
/// Errs on the side of text: other comments are kept, and what looks like one behind a quote that is not closed in its line.
fn without_comments(text: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(text.len());
    let mut at = 0;
    // The quote of a literal that is open, or the `/` of a comment that goes to the end of the line.
    let mut open: Option<u8> = None;
    while let Some(&byte) = text.get(at) {
        let next = text.get(at + 1);
        match (byte, open) {
            // What is escaped ends nothing, the end of a line neither.
            (b'\\', Some(_)) => {
                kept.extend(text.get(at..(at + 2).min(text.len())).unwrap_or_default());
                at += 2;
                continue;
            }
            (b'\n', _) => open = None,
            (b'"' | b'\'', None) => open = Some(byte),
            (_, Some(quote)) if quote == byte && byte != b'/' => open = None,
            (b'/', None) if next == Some(&b'/') => open = Some(byte),
            (b'/', None) if next == Some(&b'*') => {
                let end = text[at + 2..].windows(2).position(|two| two == b"*/");
                kept.push(b' ');
                at = end.map_or(text.len(), |end| at + 2 + end + 2);
                continue;
            }
            _ => {}
        }
        kept.push(byte);
        at += 1;
    }
    kept
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    let Some(first) = word.first() else { return true };
    let mut at = 0;
    while let Some(found) = text.get(at..).and_then(|rest| rest.iter().position(|byte| byte == first)) {
        if text[at + found..].starts_with(word) {
            return true;
        }
        at += found + 1;
    }
    false
}

/// What follows `.include` where it is a word of its own; `None`: it is not a plain name in quotes.
///
/// In a string of C the quotes have a backslash before them.
fn included_by_assembler(text: &[u8]) -> Option<BTreeSet<String>> {
    let word = b".include";
    let mut names = BTreeSet::new();
    for at in 0..text.len().saturating_sub(word.len()) {
        if text[at] != b'.' || !text[at..].starts_with(word) {
            continue;
        }
        let before = at.checked_sub(1).map(|before| text[before]);
        let rest = &text[at + word.len()..];
        if before.is_some_and(is_word) || !rest.first().is_some_and(|byte| is_blank(*byte)) {
            continue;
        }
        let rest = rest.trim_ascii_start();
        let rest = rest.strip_prefix(b"\\").unwrap_or(rest).strip_prefix(b"\"")?;
        let name = &rest[..rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | b'\n'))?];
        let end = &rest[name.len()..];
        let plain = |byte: &u8| is_word(*byte) || b"/.-+".contains(byte);
        if name.is_empty() || !name.iter().all(plain) || !end.strip_prefix(b"\\").unwrap_or(end).starts_with(b"\"") {
            return None;
        }
        names.insert(String::from_utf8_lossy(name).into_owned());
    }
    Some(names)
}

struct Reader<'a> {
    text: &'a [u8],
    facts: &'a mut Facts,
    seen: HashSet<Include>,
    buffer: Vec<u8>,
}

impl Sink for Reader<'_> {
    fn word(&mut self, _from: usize, _to: usize, _line: u32) {}

    fn byte(&mut self, _byte: u8, _at: usize, _line: u32) {}

    fn end(&mut self, line: &Logical<'_>) -> Result<(), Refused> {
        let Some(hash) = line.hash else { return Ok(()) };
        let mut buffer = std::mem::take(&mut self.buffer);
        clean(&self.text[hash + 1..line.to], &mut buffer);
        self.directive(&buffer);
        self.buffer = buffer;
        Ok(())
    }
}

impl Reader<'_> {
    fn directive(&mut self, text: &[u8]) {
        let text = text.trim_ascii();
        let length = text.iter().take_while(|byte| is_word(**byte)).count();
        let (word, rest) = text.split_at(length);
        let rest = rest.trim_ascii();
        match word {
            b"include" | b"include_next" | b"import" => self.include(rest, word == b"include_next"),
            b"define" | b"undef" => {
                let length = rest.iter().take_while(|byte| is_word(**byte)).count();
                if let Ok(name) = std::str::from_utf8(&rest[..length])
                    && is_sacred(name)
                {
                    self.facts.redefines.insert(name.to_owned());
                }
            }
            _ => {}
        }
    }

    fn include(&mut self, rest: &[u8], next: bool) {
        let end = match rest.first() {
            Some(b'<') => b'>',
            Some(b'"') => b'"',
            Some(_) | None => {
                self.facts.computed_includes = true;
                return;
            }
        };
        let name = &rest[1..];
        let length = name.iter().position(|byte| *byte == end);
        match length.and_then(|length| std::str::from_utf8(&name[..length]).ok()) {
            Some(name) => {
                let include = Include { name: name.to_owned(), quoted: end == b'"', next };
                if self.seen.insert(include.clone()) {
                    self.facts.includes.push(include);
                }
            }
            None => self.facts.unknown = Some("an include is not understood"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn includes_in_every_form() {
        let text = "#include <linux/a.h> /* x */\n # include \"b.h\"\n#if 0\n#include_next <c.h>\n#endif\n/*\n#include <d.h>\n*/\n\
                    #include /* y */ <e.h>\n#inc\\\n//\nint x; #include <f.h>\n#include <linux/a.h>\n#  import \"g.h\" // z\n";
        let facts = Facts::of(text.replace("#inc\\\n//\n", "").as_bytes());
        let names: Vec<String> = facts
            .includes
            .iter()
            .map(|it| {
                format!("{}{}{}", if it.next { "next " } else { "" }, if it.quoted { "own " } else { "" }, it.name)
            })
            .collect();
        assert_eq!(names, ["linux/a.h", "own b.h", "next c.h", "e.h", "own g.h"]);
        assert!(!facts.computed_includes && facts.reads_unknown().is_none(), "{facts:?}");
        assert!(Facts::of(b"#include MACRO(x)\n").computed_includes);
    }

    #[test]
    fn what_is_read_unseen_is_said() {
        for (text, known) in [
            ("asm(\".incbin \\\"x\\\"\");\n", false),
            ("\t.include \"x.S\"\n", true),
            ("\t.include \\name\n", false),
            ("/* asm(\".include <x.h>\") or .incbin or __has_include */\nint a;\n", true),
            ("char *a = \"/*\"; asm(\".incbin \\\"x\\\"\"); /* \" */\n", false),
            ("x = '/*'\n.incbin \"x\" /* */\n", false),
            ("\"\\\"/*\"\n.incbin \"x\"\n/* */\n", false),
            ("/* a */ .incbin \"x\"\n", false),
            ("// .incbin \"x\"\n", false),
            ("// see /*\n.incbin \"x\" /* */\n", false),
            ("// see \\\n/*\n.incbin \"x\" /* */\n", false),
            ("a = '\"'; b = \"/*\";\n.incbin \"x\" /* */\n", false),
            ("don't /*\n.incbin \"x\" /* */\n", false),
            ("\t.include \"x\\y\"\n", false),
            ("\t.include \"x\n\"\n", false),
            ("#if __has_include(<x.h>)\n#endif\n", false),
            ("#include <x\n", false),
            ("/* not closed\n", false),
            ("a\u{1}b\n", false),
            ("#include \"x.include\"\nint include;\n", true),
        ] {
            assert_eq!(Facts::of(text.as_bytes()).reads_unknown().is_none(), known, "{text}");
        }
    }

    #[test]
    fn files_that_the_assembler_includes() {
        let text =
            b"asm(\".include \\\"asm/vx-insn.h\\\"\\n\");\n\t.include \"m.S\"\n#include <a.include>\nx.include y\n";
        let facts = Facts::of(text);
        assert_eq!(facts.assembler.iter().map(String::as_str).collect::<Vec<_>>(), ["asm/vx-insn.h", "m.S"]);
        assert_eq!(facts.reads_unknown(), None);
    }

    #[test]
    fn options_that_are_named_and_those_that_are_defined() {
        let facts = Facts::of(
            b"#ifdef CONFIG_SMP\n#define CONFIG_X 1\n#undef IS_ENABLED\n#define OTHER CONFIG_Y_MODULE\n#endif\n",
        );
        assert_eq!(facts.symbols.iter().map(String::as_str).collect::<Vec<_>>(), ["SMP", "X", "Y"]);
        assert_eq!(facts.redefines.iter().map(String::as_str).collect::<Vec<_>>(), ["CONFIG_X", "IS_ENABLED"]);
    }

    proptest! {
        #[test]
        fn any_text_gives_an_answer(text in "(#|include|<|>|\"|define|CONFIG_|A|/\\*|\\*/|\\\\\n|\n| ){0,40}|.{0,60}") {
            let _ = Facts::of(text.as_bytes());
        }
    }
}
