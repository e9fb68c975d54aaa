//! Whether the compilers of a configuration see a difference between two versions of a file.
//!
//! Where lines move, the text after them stays what it was unless it asks for its line. Which names do so is known only when the
//! macros of all files that are read with it are.

use std::collections::{HashMap, HashSet};

use super::condition::Autoconf;
use super::lex::Refused;
use super::macros::{Macro, Sensitive, Word, Words, word};
use super::reduce::{Reduced, reduce};

/// The texts that some compiles read.
#[derive(Clone, Debug, Default)]
pub struct Texts {
    config: Autoconf,
    macros: HashSet<Macro>,
    words: Words,
    refused: HashMap<String, Refused>,
    sensitive: Option<Sensitive>,
}

impl Texts {
    /// Under this configuration, which has to doubt whatever one of the texts or commands redefines.
    pub fn new(config: Autoconf) -> Self {
        Self { config, ..Self::default() }
    }

    /// Takes in a version of a file: all that any of the compiles may read have to be given.
    pub fn take(&mut self, path: &str, text: &[u8]) {
        match reduce(text, &self.config) {
            Ok(reduced) => self.add(&reduced),
            Err(why) => drop(self.refused.insert(path.to_owned(), why)),
        }
    }

    /// Takes in the words of a command; gives whether its macros are understood.
    pub fn command<'a>(&mut self, words: impl IntoIterator<Item = &'a str>) -> bool {
        self.sensitive = None;
        let mut understood = true;
        for option in words.into_iter().filter_map(|word| word.strip_prefix("-D")) {
            match Macro::of_option(option) {
                Ok(it) => drop(self.macros.insert(it)),
                Err(_) => understood = false,
            }
            // Values of macros are words too.
            let parts = option.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
            self.words.extend(parts.filter(|part| !part.is_empty()).map(|part| word(part.as_bytes())));
        }
        understood
    }

    /// A version of this file is not understood: nothing can be told of compiles that read it.
    pub fn refuses(&self, path: &str) -> bool {
        self.refused.contains_key(path)
    }

    /// The files of which a version is not understood, and why.
    pub fn refused(&self) -> impl Iterator<Item = (&str, Refused)> {
        self.refused.iter().map(|(path, why)| (path.as_str(), *why))
    }

    /// Whether any file is not understood.
    pub fn refuses_any(&self) -> bool {
        !self.refused.is_empty()
    }

    /// Whether two versions of a file are the same to every compiler. Both are taken in.
    pub fn same(&mut self, path: &str, before: &[u8], after: &[u8]) -> bool {
        let (before, after) = match (reduce(before, &self.config), reduce(after, &self.config)) {
            (Ok(before), Ok(after)) => (before, after),
            (Err(why), _) | (_, Err(why)) => {
                self.refused.insert(path.to_owned(), why);
                return false;
            }
        };
        if before.text() != after.text() {
            self.add(&before);
            self.add(&after);
            return false;
        }
        let sensitive = self.sensitive();
        before.with_lines(sensitive) == after.with_lines(sensitive)
    }

    fn add(&mut self, reduced: &Reduced) {
        self.macros.extend(reduced.macros().iter().cloned());
        self.words.extend(reduced.words().iter().copied());
        self.sensitive = None;
    }

    /// The names that lead to a line.
    pub fn sensitive(&mut self) -> &Sensitive {
        let Self { macros, words, sensitive, .. } = self;
        sensitive.get_or_insert_with(|| {
            let is_word = |it: Word| words.contains(&it);
            Sensitive::of(&macros.iter().collect::<Vec<_>>(), &is_word)
        })
    }
}

/// Whether a command leaves the texts what they are taken for: a dialect without trigraphs, and macros set in plain view.
pub fn understands(argv: &[String]) -> bool {
    const HEADS: &[&str] = &[
        "-ansi",
        "-C",
        "-fdirectives-only",
        "-finput-charset",
        "-fpreprocessed",
        "-std=c",
        "-std=iso",
        "-traditional",
        "-trigraphs",
        "-Xpreprocessor",
        "@",
    ];
    argv.iter().skip(1).all(|word| {
        let lists = word.starts_with("-Wp,-MD,") || word.starts_with("-Wp,-MMD,");
        let alone = word == "-U" || word == "-D";
        !alone && (lists || !word.starts_with("-Wp,")) && !HEADS.iter().any(|head| word.starts_with(head))
    })
}

/// The macros that a command sets or takes back itself.
pub fn set_by<'a>(words: impl IntoIterator<Item = &'a str>) -> impl Iterator<Item = &'a str> {
    let options = words.into_iter().filter_map(|word| word.strip_prefix("-D").or_else(|| word.strip_prefix("-U")));
    options.filter_map(|option| option.split(['=', '(']).next())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(files: &[(&str, &str)]) -> Texts {
        let mut texts = Texts::new(Autoconf::read("#define CONFIG_ON 1\n"));
        files.iter().for_each(|(path, text)| texts.take(path, text.as_bytes()));
        texts
    }

    #[test]
    fn lines_count_where_a_macro_of_any_file_asks_for_them() {
        let (before, after) = ("int a;\nASK(1);\n", "int a;\n\nASK(1);\n");
        let same = |texts: &mut Texts| texts.same("a.c", before.as_bytes(), after.as_bytes());
        assert!(same(&mut texts(&[])));
        assert!(same(&mut texts(&[("a.h", "#define ASK(x) x\n")])));
        assert!(same(&mut texts(&[("a.h", "#ifndef CONFIG_ON\n#define ASK(x) __LINE__\n#endif\n")])));
        assert!(!same(&mut texts(&[("a.h", "#define ASK(x) MORE(x)\n"), ("b.h", "#define MORE(x) __LINE__\n")])));
        let mut given = texts(&[]);
        assert!(given.command(["-DASK(x)=__LINE__"]));
        assert!(!same(&mut given));
        let mut changed = texts(&[("a.h", "#define ASK(x) x\n")]);
        assert!(!changed.same("a.h", b"#define ASK(x) x\n", b"#define ASK(x) __LINE__\n"));
        assert!(!same(&mut changed));
    }

    #[test]
    fn what_is_refused_is_remembered() {
        let mut texts = texts(&[("a.h", "/* not closed\n")]);
        assert!(texts.refuses("a.h") && !texts.refuses("b.h"));
        assert!(!texts.same("b.h", b"int a;\n", b"#pragma once\n"));
        assert!(texts.refuses("b.h"));
    }

    #[test]
    fn commands() {
        for (line, want) in [
            ("gcc -Wp,-MMD,x.d -DA=1 -std=gnu11 -c x.c", true),
            ("gcc -std=c99 -c x.c", false),
            ("gcc -Wp,-DA -c x.c", false),
            ("gcc -D A -c x.c", false),
            ("gcc -U A -c x.c", false),
            ("gcc @more", false),
        ] {
            let argv: Vec<String> = line.split(' ').map(str::to_owned).collect();
            assert_eq!(understands(&argv), want, "{line}");
        }
        assert_eq!(set_by(["-DA=1", "-UB", "-DC(x)=x", "-O2"]).collect::<Vec<_>>(), ["A", "B", "C"]);
        assert!(!Texts::default().command(["-D1"]));
    }
}
