//! What `#if` says when only the configuration is known.
//!
//! A condition is decided only if every part of it is: numbers, `defined(X)`, `CONFIG_` options and the macros that ask for
//! one (`IS_ENABLED`...), joined by `!`, `&&`, `||`, comparisons and parentheses. Any other macro makes the whole condition
//! open, even beside `0 &&`: its text may be `1 || 1`, and expansion knows no parentheses. `defined(X)` of an unknown X is
//! a value that is not known, and `0 && defined(X)` is 0.

use std::collections::{BTreeMap, BTreeSet};

use super::lex::is_word;
use super::symbols;
use crate::target::config::Config;

/// The macros that ask for the value of an option, and those they are made of (the kernel's `include/linux/kconfig.h`).
const HELPERS: &[&str] = &[
    "IS_BUILTIN",
    "IS_ENABLED",
    "IS_MODULE",
    "IS_REACHABLE",
    "__ARG_PLACEHOLDER_1",
    "____and",
    "____is_defined",
    "____or",
    "___and",
    "___is_defined",
    "___or",
    "__and",
    "__is_defined",
    "__or",
    "__take_second_arg",
];

/// Whether a definition of this name by a source would make the configuration mean something else.
pub(super) fn is_sacred(name: &str) -> bool {
    name.starts_with("CONFIG_") || HELPERS.contains(&name)
}

/// What the preprocessor knows of the configuration: the macros of `include/generated/autoconf.h`, complete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Autoconf {
    /// `None`: nothing is known, so nothing is decided.
    defines: Option<BTreeMap<String, String>>,
    doubted: BTreeSet<String>,
}

/// What is known of one macro.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known<'a> {
    Unknown,
    Undefined,
    Defined(&'a str),
}

impl Autoconf {
    /// Nothing is known: for files that are read before the configuration is, and for sources that have none.
    pub fn unknown() -> Self {
        Self::default()
    }

    /// From the text of a generated `autoconf.h`.
    pub fn read(text: &str) -> Self {
        let define = |line: &str| {
            let (name, value) = symbols::definition(line)?;
            Some((name.to_owned(), value.to_owned()))
        };
        Self { defines: Some(text.lines().filter_map(define).collect()), doubted: BTreeSet::new() }
    }

    /// From a `.config`, by the rules by which Kconfig makes `autoconf.h` of it.
    pub fn of_config(config: &Config) -> Self {
        let define = |(symbol, value): (&String, &String)| match value.as_str() {
            "n" => None,
            "y" => Some((format!("CONFIG_{symbol}"), "1".to_owned())),
            "m" => Some((format!("CONFIG_{symbol}_MODULE"), "1".to_owned())),
            _ => Some((format!("CONFIG_{symbol}"), value.clone())),
        };
        Self { defines: Some(config.iter().filter_map(define).collect()), doubted: BTreeSet::new() }
    }

    /// Leaves open what these names mean: a source defines them too (`Facts::redefines`).
    #[must_use]
    pub fn doubting<'a>(mut self, names: impl IntoIterator<Item = &'a String>) -> Self {
        self.doubted.extend(names.into_iter().cloned());
        self
    }

    fn of(&self, name: &str) -> Known<'_> {
        let Some(defines) =
            self.defines.as_ref().filter(|_| name.starts_with("CONFIG_") && !self.doubted.contains(name))
        else {
            return Known::Unknown;
        };
        defines.get(name).map_or(Known::Undefined, |value| Known::Defined(value))
    }

    fn helpers(&self) -> bool {
        self.defines.is_some() && !HELPERS.iter().any(|name| self.doubted.contains(*name))
    }

    /// `#ifdef NAME`; `None`: not known.
    pub(super) fn is_defined(&self, name: &[u8]) -> Option<bool> {
        match self.of(std::str::from_utf8(name).ok()?) {
            Known::Unknown => None,
            Known::Undefined => Some(false),
            Known::Defined(_) => Some(true),
        }
    }

    /// The value of a condition, given without comments and in one line; `None`: not known.
    pub(super) fn decide(&self, condition: &[u8]) -> Option<bool> {
        let mut reader = Reader { text: condition, at: 0, depth: 0, config: self };
        let value = reader.any()?;
        if reader.peek().is_some() {
            return None;
        }
        value.map(|it| it != 0)
    }
}

/// Parentheses and negations in each other, beyond which a condition is left open.
const MAX_DEPTH: u32 = 40;

/// Outer `None`: not a condition that is understood. Inner `None`: a value that is not known.
type Value = Option<Option<i64>>;

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    depth: u32,
    config: &'a Autoconf,
}

impl<'a> Reader<'a> {
    fn peek(&mut self) -> Option<u8> {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    fn eat(&mut self, token: &[u8]) -> bool {
        self.peek();
        let found = self.text[self.at..].starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn word(&mut self) -> &'a [u8] {
        self.peek();
        let from = self.at;
        while self.text.get(self.at).copied().is_some_and(is_word) {
            self.at += 1;
        }
        &self.text[from..self.at]
    }

    fn any(&mut self) -> Value {
        let mut value = self.all()?;
        while self.eat(b"||") {
            value = match (value, self.all()?) {
                (Some(left), _) | (_, Some(left)) if left != 0 => Some(1),
                (Some(_), Some(_)) => Some(0),
                _ => None,
            };
        }
        Some(value)
    }

    fn all(&mut self) -> Value {
        let mut value = self.equal()?;
        while self.eat(b"&&") {
            value = match (value, self.equal()?) {
                (Some(0), _) | (_, Some(0)) => Some(0),
                (Some(_), Some(_)) => Some(1),
                _ => None,
            };
        }
        Some(value)
    }

    fn equal(&mut self) -> Value {
        let mut value = self.compared()?;
        loop {
            let compare: fn(i64, i64) -> bool = if self.eat(b"==") {
                |left, right| left == right
            } else if self.eat(b"!=") {
                |left, right| left != right
            } else {
                return Some(value);
            };
            value = value.zip(self.compared()?).map(|(left, right)| i64::from(compare(left, right)));
        }
    }

    fn compared(&mut self) -> Value {
        let mut value = self.single()?;
        loop {
            if self.eat(b"<<") || self.eat(b">>") {
                return None;
            }
            let compare: fn(i64, i64) -> bool = if self.eat(b"<=") {
                |left, right| left <= right
            } else if self.eat(b">=") {
                |left, right| left >= right
            } else if self.eat(b"<") {
                |left, right| left < right
            } else if self.eat(b">") {
                |left, right| left > right
            } else {
                return Some(value);
            };
            value = value.zip(self.single()?).map(|(left, right)| i64::from(compare(left, right)));
        }
    }

    fn single(&mut self) -> Value {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        let value = match self.peek()? {
            b'!' => {
                self.at += 1;
                self.single()?.map(|it| i64::from(it == 0))
            }
            b'(' => {
                self.at += 1;
                let value = self.any()?;
                if !self.eat(b")") {
                    return None;
                }
                value
            }
            byte if byte.is_ascii_digit() => Some(number(self.word())?),
            _ => self.macro_value()?,
        };
        self.depth -= 1;
        Some(value)
    }

    fn macro_value(&mut self) -> Value {
        let name = self.word();
        if name == b"defined" {
            let parenthesis = self.eat(b"(");
            let asked = self.word();
            if asked.first().is_none_or(u8::is_ascii_digit) || (parenthesis && !self.eat(b")")) {
                return None;
            }
            return Some(self.config.is_defined(asked).map(i64::from));
        }
        let name = std::str::from_utf8(name).ok()?;
        if matches!(name, "IS_ENABLED" | "IS_BUILTIN" | "IS_MODULE") && self.config.helpers() {
            if !self.eat(b"(") {
                return None;
            }
            let option = std::str::from_utf8(self.word()).ok()?;
            if !option.starts_with("CONFIG_") || !self.eat(b")") {
                return None;
            }
            let is_set = |option: &str| match self.config.of(option) {
                Known::Undefined => Some(false),
                Known::Defined("1") => Some(true),
                Known::Unknown | Known::Defined(_) => None,
            };
            let builtin = is_set(option)?;
            let module = is_set(&format!("{option}_MODULE"))?;
            let value = match name {
                "IS_BUILTIN" => builtin,
                "IS_MODULE" => module,
                _ => builtin || module,
            };
            return Some(Some(i64::from(value)));
        }
        match self.config.of(name) {
            Known::Defined(value) => Some(Some(number(value.as_bytes())?)),
            // An undefined name counts as 0, but compilers may warn of it (-Wundef): the line must stay.
            Known::Undefined | Known::Unknown => None,
        }
    }
}

/// A number that means the same with and without a sign.
fn number(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let digits = text.trim_end_matches(['u', 'U', 'l', 'L']);
    let suffix = text.strip_prefix(digits)?;
    let text = digits;
    if !matches!(
        suffix.replace('U', "u").as_str(),
        "" | "u" | "l" | "L" | "ul" | "uL" | "lu" | "Lu" | "ll" | "LL" | "ull" | "uLL" | "llu" | "LLu"
    ) {
        return None;
    }
    let value = if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        i64::from_str_radix(digits, 16)
    } else if text.len() > 1 && text.starts_with('0') {
        i64::from_str_radix(text, 8)
    } else {
        text.parse()
    };
    value.ok().filter(|_| text.bytes().all(|it| it.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AUTOCONF: &str = "/* Linux/x86 6.1.187 Kernel Configuration */\n#define CONFIG_ON 1\n#define CONFIG_MOD_MODULE 1\n\
                            #define CONFIG_HZ 250\n#define CONFIG_START 0x1000000\n#define CONFIG_NAME \"x\"\n";

    #[test]
    fn conditions_by_what_is_known() {
        let config = Autoconf::read(AUTOCONF);
        for (condition, want) in [
            ("0", Some(false)),
            ("1", Some(true)),
            ("defined(CONFIG_ON)", Some(true)),
            ("defined CONFIG_OFF", Some(false)),
            ("!defined CONFIG_OFF", Some(true)),
            ("defined(CONFIG_MOD)", Some(false)),
            ("defined(CONFIG_MOD_MODULE)", Some(true)),
            ("IS_ENABLED(CONFIG_ON) && !IS_ENABLED( CONFIG_OFF )", Some(true)),
            ("IS_ENABLED(CONFIG_MOD) && IS_MODULE(CONFIG_MOD) && !IS_BUILTIN(CONFIG_MOD)", Some(true)),
            ("IS_BUILTIN(CONFIG_ON) && !IS_MODULE(CONFIG_ON)", Some(true)),
            ("CONFIG_HZ > 100 && CONFIG_HZ <= 250", Some(true)),
            ("CONFIG_HZ == 1000", Some(false)),
            ("CONFIG_HZ != 1000U", Some(true)),
            ("CONFIG_START >= 0x1000000UL", Some(true)),
            ("CONFIG_ON", Some(true)),
            ("010 == 8", Some(true)),
            ("defined(CONFIG_OFF) && defined(FOO)", Some(false)),
            ("defined(FOO) || defined(CONFIG_ON)", Some(true)),
            ("defined(FOO) && defined(CONFIG_ON)", None),
            ("!defined(FOO)", None),
            ("(defined(FOO) && 0) == 0", Some(true)),
            // An undefined number may bring a warning.
            ("CONFIG_OFF", None),
            ("CONFIG_OFF > 3", None),
            ("CONFIG_NAME", None),
            // The text of a macro may hold `||`.
            ("IS_ENABLED(CONFIG_OFF) && FOO", None),
            ("FOO && 0", None),
            ("IS_REACHABLE(CONFIG_OFF)", None),
            ("IS_ENABLED(CONFIG_NAME)", None),
            ("IS_ENABLED(OPTION)", None),
            ("IS_ENABLED", None),
            ("__has_include(<a.h>)", None),
            ("CONFIG_HZ + 1", None),
            ("-1 < 0", None),
            ("1 << 3", None),
            ("1 ? 2 : 3", None),
            ("0x", None),
            ("1ull && 2LLU", Some(true)),
            ("1lul", None),
            ("1lL", None),
            ("08", None),
            ("1 2", None),
            ("(1", None),
            ("", None),
            ("defined", None),
            ("defined(", None),
        ] {
            assert_eq!(config.decide(condition.as_bytes()), want, "{condition}");
        }
        assert_eq!(config.decide("(".repeat(100_000).as_bytes()), None);
        assert_eq!(config.decide("!".repeat(100_000).as_bytes()), None);
    }

    #[test]
    fn what_a_source_defines_is_left_open() {
        let config = Autoconf::read(AUTOCONF);
        let doubting = |name: &str| config.clone().doubting(&[name.to_owned()]);
        assert_eq!(doubting("CONFIG_ON").decide(b"defined(CONFIG_ON)"), None);
        assert_eq!(doubting("CONFIG_ON").decide(b"defined(CONFIG_OFF)"), Some(false));
        assert_eq!(doubting("CONFIG_ON_MODULE").decide(b"IS_ENABLED(CONFIG_ON)"), None);
        assert_eq!(doubting("IS_ENABLED").decide(b"IS_ENABLED(CONFIG_OFF)"), None);
        assert_eq!(doubting("__or").decide(b"IS_ENABLED(CONFIG_OFF)"), None);
        assert_eq!(doubting("__or").decide(b"defined(CONFIG_OFF)"), Some(false));
        assert_eq!(Autoconf::unknown().decide(b"defined(CONFIG_ON)"), None);
        assert_eq!(Autoconf::unknown().decide(b"IS_ENABLED(CONFIG_ON)"), None);
    }

    #[test]
    fn a_config_file_gives_the_same() {
        let config = crate::target::config::read(
            "CONFIG_ON=y\nCONFIG_MOD=m\n# CONFIG_OFF is not set\nCONFIG_HZ=250\nCONFIG_START=0x1000000\nCONFIG_NAME=\"x\"\n",
        );
        assert_eq!(Autoconf::of_config(&config), Autoconf::read(AUTOCONF));
    }

    proptest! {
        #[test]
        fn any_text_gives_an_answer(text in "[01!&|()<>= ]{0,20}|(defined|CONFIG_ON|IS_ENABLED|[(!&|) ]){0,20}|.{0,40}") {
            let _ = Autoconf::read(AUTOCONF).decide(text.as_bytes());
        }
    }
}
