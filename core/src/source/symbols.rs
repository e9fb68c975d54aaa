//! Which options of the configuration a text names, and the part of the configuration that they make.
//!
//! The rule is that of the kernel's `scripts/basic/fixdep.c`, comments and all: a word that follows `CONFIG_`, where no
//! word character stands before it, and without `_MODULE` at its end.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::lex::is_word;

const PREFIX: &[u8] = b"CONFIG_";
const SUFFIX: &str = "_MODULE";

/// The options that a text names, without `CONFIG_`. Names that a macro puts together are not seen, as kbuild does not.
pub fn config_symbols(text: &[u8]) -> BTreeSet<String> {
    let mut symbols = BTreeSet::new();
    let mut at = 0;
    while let Some(found) = find(text, at) {
        let from = found + PREFIX.len();
        at = from;
        if found > 0 && is_word(text[found - 1]) {
            continue;
        }
        let length = text[from..].iter().take_while(|byte| is_word(**byte)).count();
        at += length;
        if let Ok(word) = std::str::from_utf8(&text[from..at]) {
            let symbol = word.strip_suffix(SUFFIX).unwrap_or(word);
            if !symbol.is_empty() && !symbols.contains(symbol) {
                symbols.insert(symbol.to_owned());
            }
        }
    }
    symbols
}

fn find(text: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        at += text.get(at..)?.iter().position(|byte| *byte == b'C')?;
        if text[at..].starts_with(PREFIX) {
            return Some(at);
        }
        at += 1;
    }
}

/// `#define CONFIG_X VALUE`, taken apart into `CONFIG_X` and the value.
pub(super) fn definition(line: &str) -> Option<(&str, &str)> {
    let rest = line.strip_prefix("#define ")?.trim();
    let (name, value) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
    name.starts_with("CONFIG_").then(|| (name, value.trim()))
}

/// A generated `autoconf.h`, read once to make many parts of it.
#[derive(Debug, Default)]
pub struct Options {
    /// The definitions, sorted.
    lines: Vec<Box<str>>,
    /// The lines of each option.
    places: HashMap<Box<str>, Vec<u32>>,
}

/// Lines of an [`Options`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chosen(Vec<u64>);

impl Chosen {
    /// Adds these.
    pub fn add(&mut self, lines: &[u32]) {
        for line in lines {
            let (word, bit) = ((line / 64) as usize, line % 64);
            if self.0.len() <= word {
                self.0.resize(word + 1, 0);
            }
            self.0[word] |= 1 << bit;
        }
    }

    fn has(&self, line: usize) -> bool {
        self.0.get(line / 64).is_some_and(|word| word >> (line % 64) & 1 == 1)
    }
}

impl Options {
    /// Reads it.
    pub fn read(autoconf: &str) -> Self {
        let defined = autoconf.lines().filter_map(definition);
        let lines: BTreeMap<String, &str> =
            defined.map(|(name, value)| (format!("#define {name} {value}\n"), name)).collect();
        let mut places: HashMap<Box<str>, Vec<u32>> = HashMap::new();
        for (place, name) in (0..).zip(lines.values()) {
            if let Some(symbol) = name.strip_prefix("CONFIG_") {
                places.entry(bare(symbol).into()).or_default().push(place);
            }
        }
        Self { lines: lines.into_keys().map(String::into_boxed_str).collect(), places }
    }

    /// Where it defines an option.
    pub fn lines(&self, symbol: &str) -> &[u32] {
        self.places.get(bare(symbol)).map(Vec::as_slice).unwrap_or_default()
    }

    /// What it says of these options: its definitions, sorted, and nothing else, so that the same values
    /// give the same bytes.
    ///
    /// An option counts with every `_MODULE` taken off its end: macros append that word too.
    pub fn project<'a>(&self, symbols: impl IntoIterator<Item = &'a str>) -> String {
        let mut chosen = Chosen::default();
        symbols.into_iter().for_each(|symbol| chosen.add(self.lines(symbol)));
        self.text(&chosen)
    }

    /// These lines.
    pub fn text(&self, chosen: &Chosen) -> String {
        let lines = self.lines.iter().enumerate().filter(|(place, _)| chosen.has(*place));
        lines.map(|(_, line)| &**line).collect()
    }
}

/// A symbol with every `_MODULE` taken off its end.
fn bare(mut name: &str) -> &str {
    while let Some(shorter) = name.strip_suffix(SUFFIX) {
        name = shorter;
    }
    name
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn project(autoconf: &str, symbols: &BTreeSet<String>) -> String {
        Options::read(autoconf).project(symbols.iter().map(String::as_str))
    }

    #[test]
    fn words_after_config() {
        for (text, want) in [
            ("#ifdef CONFIG_SMP", vec!["SMP"]),
            ("IS_ENABLED(CONFIG_A) CONFIG_A CONFIG_B_MODULE", vec!["A", "B"]),
            ("/* CONFIG_IN_COMMENT */ \"CONFIG_IN_TEXT\"", vec!["IN_COMMENT", "IN_TEXT"]),
            ("MY_CONFIG_A xCONFIG_B 0CONFIG_C", vec![]),
            ("$CONFIG_A,CONFIG_B-CONFIG_C", vec!["A", "B", "C"]),
            ("CONFIG_ CONFIG_##x CONFIG__MODULE", vec![]),
            ("config_a Config_B", vec![]),
            ("CONFIG_CONFIG_A", vec!["CONFIG_A"]),
            ("CONFIG_64BIT CONFIG_a", vec!["64BIT", "a"]),
            ("CONFIG_X_MODULE_MODULE", vec!["X_MODULE"]),
            ("CCONFIG_A CCCONFIG_ CONFIG", vec![]),
            ("", vec![]),
        ] {
            let want: BTreeSet<String> = want.into_iter().map(str::to_owned).collect();
            assert_eq!(config_symbols(text.as_bytes()), want, "{text}");
        }
        assert!(config_symbols(b"\xff\xfeCONFIG_A\xff").contains("A"));
    }

    #[test]
    fn the_part_of_a_configuration() {
        let autoconf = "/*\n * Automatically generated file; DO NOT EDIT.\n * Linux/x86 6.1.187 Kernel Configuration\n */\n\
                        #define CONFIG_B 1\n#define CONFIG_A_MODULE 1\n#define CONFIG_NAME \"a b\"\n#define CONFIG_C 1\n";
        let symbols: BTreeSet<String> = ["A", "B", "NAME", "OFF"].map(str::to_owned).into();
        assert_eq!(
            project(autoconf, &symbols),
            "#define CONFIG_A_MODULE 1\n#define CONFIG_B 1\n#define CONFIG_NAME \"a b\"\n"
        );
        assert_eq!(project(autoconf, &BTreeSet::new()), "");
    }

    #[test]
    fn an_option_whose_name_ends_with_module_is_kept() {
        let symbols: BTreeSet<String> = config_symbols(b"defined(CONFIG_X_MODULE)");
        assert_eq!(project("#define CONFIG_X_MODULE 1\n", &symbols), "#define CONFIG_X_MODULE 1\n");
        assert_eq!(project("#define CONFIG_X_MODULE_MODULE 1\n", &symbols), "#define CONFIG_X_MODULE_MODULE 1\n");
    }

    proptest! {
        #[test]
        fn any_text_gives_an_answer(text in "(CONFIG_|_MODULE|[A-C_ ]){0,12}") {
            let symbols = config_symbols(text.as_bytes());
            let named = symbols.iter().all(|symbol| text.contains(&["CONFIG_", symbol].concat()));
            prop_assert!(named);
            let projected = project(&text, &symbols);
            prop_assert_eq!(project(&projected, &symbols), projected);
        }
    }
}
