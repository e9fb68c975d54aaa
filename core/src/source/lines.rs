//! Gives the lines of a reduced text that may be expanded to their number that number.
//!
//! A name that leads to a line may be expanded to its own line, or to the first or the last line of the call that it names or
//! stands in: compilers differ. So all lines of the outermost parentheses around it count, with the names before them, and
//! those that follow; and the line of the next token, which says whether the name is called. A macro's definition is expanded where the
//! macro is used, so the lines of `#define` do not count. Where it is not clear what is open, more lines count than need to.

use super::macros::{Sensitive, Word};
use super::reduce::Reduced;

/// The byte that begins a number; no source holds it.
const NUMBER: u8 = 2;

/// How many macros are looked at for one text.
const BUDGET: u32 = 5_000_000;

/// A token, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Its physical line, from 1.
    pub(super) line: u32,
    pub(super) what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Word(Word),
    Open,
    Close,
    Other,
    /// A directive that goes to this line.
    Directive {
        kind: Kind,
        to: u32,
    },
    /// A word of the directive before it.
    Asked(Word),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    If,
    /// `#elif` too.
    Else,
    Endif,
    Include,
    Other,
}

impl Mark {
    /// What it is within a directive that takes no part in the code around it.
    pub(super) fn in_directive(self) -> Option<Self> {
        match self.what {
            What::Word(it) | What::Asked(it) => Some(Self { what: What::Asked(it), ..self }),
            What::Open | What::Close | What::Other | What::Directive { .. } => None,
        }
    }
}

/// The text with numbers.
pub(super) fn number(reduced: &Reduced, sensitive: &Sensitive) -> Vec<u8> {
    let ranges = counting(&reduced.marks, sensitive);
    if ranges.is_empty() {
        return reduced.text.clone();
    }
    let mut out = Vec::with_capacity(reduced.text.len() + 8 * ranges.len());
    for (index, line) in reduced.text.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let number = reduced.lines.get(index).copied().unwrap_or(0);
        let place = ranges.partition_point(|(_, to)| *to < number);
        if ranges.get(place).is_some_and(|(from, _)| *from <= number) && number > 0 {
            out.push(NUMBER);
            out.extend_from_slice(number.to_string().as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(line);
    }
    out
}

/// The ranges of lines that count, in order, apart from each other.
fn counting(marks: &[Mark], sensitive: &Sensitive) -> Vec<(u32, u32)> {
    let mut walk = Walk { budget: BUDGET, ..Walk::default() };
    for mark in marks {
        walk.take(*mark, sensitive);
    }
    walk.asked(sensitive);
    walk.ends(u32::MAX, sensitive);
    let mut ranges = walk.ranges;
    ranges.sort_unstable();
    let mut apart: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
    for (from, to) in ranges {
        match apart.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(to),
            Some(_) | None => apart.push((from, to)),
        }
    }
    apart
}

#[derive(Default)]
struct Walk {
    budget: u32,
    now: Open,
    groups: Vec<Group>,
    ranges: Vec<(u32, u32)>,
    /// The words of what is open; those of all groups of a condition within it together.
    words: Vec<Word>,
    /// The lines of a directive, and its words.
    directive: Option<(u32, u32, Vec<Word>)>,
}

/// What is open at a place.
#[derive(Clone, Copy, Default)]
struct Open {
    /// Parentheses.
    depth: u32,
    /// Where what may be called begins, or what is called.
    from: Option<u32>,
    /// A file is included in it.
    counts: bool,
    /// A macro opened a parenthesis: it is not known what closes it.
    unclear: bool,
}

impl Open {
    fn or(self, other: Self) -> Self {
        Self {
            depth: self.depth.max(other.depth),
            from: self.from.into_iter().chain(other.from).min(),
            counts: self.counts || other.counts,
            unclear: self.unclear || other.unclear,
        }
    }
}

/// A condition that is not decided.
struct Group {
    at_start: Open,
    /// At the ends of its groups so far.
    at_ends: Open,
    /// How many words belong to what was open at its start.
    words: usize,
}

impl Walk {
    fn take(&mut self, mark: Mark, sensitive: &Sensitive) {
        let line = mark.line;
        if let What::Asked(it) = mark.what {
            if let Some((.., words)) = &mut self.directive {
                words.push(it);
            }
            return;
        }
        self.asked(sensitive);
        match mark.what {
            What::Directive { kind, to } => {
                self.directive = Some((line, to, Vec::new()));
                self.directive(kind, line, sensitive);
            }
            What::Word(it) => {
                if self.now.depth == 0 {
                    self.ends(line, sensitive);
                    self.now.from = Some(line);
                }
                self.words.push(it);
                if sensitive.opens(it) {
                    self.now.depth += 1;
                    self.now.unclear = true;
                }
            }
            What::Open => {
                self.now.depth += 1;
                self.now.from.get_or_insert(line);
            }
            What::Close if self.now.depth > 1 || (self.now.depth == 1 && !self.now.unclear) => self.now.depth -= 1,
            What::Close | What::Other | What::Asked(_) => {
                if self.now.depth == 0 {
                    self.ends(line, sensitive);
                }
            }
        }
    }

    /// A directive has ended.
    fn asked(&mut self, sensitive: &Sensitive) {
        if let Some((from, to, words)) = self.directive.take()
            && sensitive.become_of(&words, &mut self.budget).line
        {
            self.ranges.push((from, to));
        }
    }

    /// A token on this line calls nothing; so what came before is a whole.
    fn ends(&mut self, line: u32, sensitive: &Sensitive) {
        let Some(from) = self.now.from.take() else { return };
        let made = sensitive.become_of(&self.words, &mut self.budget);
        let counts = self.now.counts || made.line;
        // What closes the parenthesis that a join opens is not known.
        let opens = made.opens && !self.now.unclear;
        if counts || opens {
            self.ranges.push((from, if opens { u32::MAX } else { line }));
        }
        self.words.truncate(self.groups.last().map_or(0, |group| group.words));
        self.now.counts = false;
    }

    fn directive(&mut self, kind: Kind, line: u32, sensitive: &Sensitive) {
        // A name is not called across a directive.
        if self.now.depth == 0 {
            self.ends(line, sensitive);
        }
        match kind {
            Kind::If => {
                self.groups.push(Group { at_start: self.now, at_ends: Open::default(), words: self.words.len() });
            }
            Kind::Else => {
                if let Some(group) = self.groups.last_mut() {
                    // What this group leaves open may be closed behind the condition.
                    if self.now.depth > 0 {
                        group.words = self.words.len();
                    }
                    group.at_ends = group.at_ends.or(self.now);
                    self.now = group.at_start;
                }
            }
            Kind::Endif => {
                if let Some(group) = self.groups.pop() {
                    self.now = self.now.or(group.at_ends).or(group.at_start);
                }
            }
            // The file may hold a part of a call.
            Kind::Include => self.now.counts |= self.now.depth > 0,
            Kind::Other => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::condition::Autoconf;
    use super::super::macros::Sensitive;
    use super::super::reduce::reduce;

    /// The numbers of the lines that count.
    fn counted(text: &str) -> Vec<String> {
        let reduced = reduce(text.as_bytes(), &Autoconf::unknown()).unwrap();
        let macros: Vec<_> = reduced.macros().iter().collect();
        let sensitive = Sensitive::of(&macros, &|it| reduced.words().contains(&it));
        let text = String::from_utf8(reduced.with_lines(&sensitive)).unwrap();
        text.lines().filter_map(|line| Some(line.strip_prefix('\u{2}')?.split(' ').next()?.to_owned())).collect()
    }

    #[test]
    fn which_lines_count() {
        for (text, want) in [
            ("int a;\nint b = __LINE__;\nint c;\n", vec!["2"]),
            ("#define W(x) f(x, __LINE__)\nint a;\nW(\n1,\n2);\nint b;\nint c;\n", vec!["3", "4", "5"]),
            ("#define W(x) f(x, __LINE__)\n#define V W(1)\nint a;\nint b; V;\nint c;\nint d;\n", vec!["4"]),
            ("#define W(x) f(x, __LINE__)\nW\n(1);\nint c;\nint d;\n", vec!["2", "3"]),
            ("#define W(x) f(x, __LINE__)\nW(\")\",\n1);\nint c;\nint d;\n", vec!["2", "3"]),
            ("#define W \\\n __LINE__\nint c;\n", vec![]),
            ("int c(\nint d);\n", vec![]),
            // The whole call around it, and what follows that.
            ("int a;\nf(1,\n2,\n__LINE__,\n3\n);\nint c;\n", vec!["2", "3", "4", "5", "6"]),
            ("int a;\nf\n(__LINE__)\n(2)\n;\n", vec!["2", "3", "4", "5"]),
            ("__LINE__\n", vec!["1"]),
            // A text over several lines.
            ("f(\"a\\\n__LINE__\", __LINE__,\n'\"', 1);\nint c;\n", vec!["1", "2", "3"]),
            ("a = \"a \\\n \\\" b\"; __LINE__; \"\n__LINE__\n", vec!["2", "3"]),
            ("// a \\\n/* b\n__LINE__\n", vec!["3"]),
            // Directives.
            ("#if __LINE__ > \\\n4\nint a;\n#endif\nint b;\n", vec!["1", "2"]),
            ("#if A\nf(1,\n#else\ng(1,\n#endif\n__LINE__);\nint b;\n", vec!["2", "3", "4", "5", "6"]),
            ("#if A\nf(__LINE__,\n#else\ng(1,\n#endif\n2);\nint b;\n", vec!["2", "3", "4", "5", "6"]),
            ("#if A\n)\n#endif\n__LINE__;\nint b;\n", vec!["4"]),
            ("f(1,\n#include \"a.h\"\n2\n);\nint b;\n", vec!["1", "2", "3", "4"]),
            ("#if A(\n#endif\nint b;\n__LINE__;\nint c;\n", vec!["4"]),
            // What is joined: of the words of one call, and of what these words lead to.
            ("#define C(a, b) a##b\nC(__LI, NE__);\nC(a, b);\n__LI;\nNE__;\n", vec!["2"]),
            ("#define W __LINE__\n#define C(a, b) a##b\nC(W, x);\nC(y, W);\nC(, W);\n", vec!["3", "4", "5"]),
            ("#define WARN __LINE__\n#define C(a, b) a##b\n#define D(a, b) C(a, b)\nD(WA, RN);\nD(1, 2);\n", vec!["4"]),
            ("#define WARN __LINE__\n#define C(a) WA##a\nC(RN);\nC(1);\n", vec!["3"]),
            ("#define WARN __LINE__\n#define C(a, b) a##b\nC(C(W, A), C(R, N));\nC(1, 2);\n", vec!["3"]),
            (
                "#define W1 __LINE__\n#define AB W\n#define C(a, b) a##b\n#define D(a, b) C(a, b)\nD(C(A, B), 1);\nD(1, 2);\n",
                vec!["5"],
            ),
            ("#define W1 __LINE__\n#define C(a, b) a##b\n#define D C\nD\n(W, 1);\n1;\n", vec!["4", "5"]),
            ("#define W1 __LINE__\n#define C(a, b) a##b\n#define I(x) x\nI(C)(W, 1);\n1;\n", vec!["4"]),
            ("#define L __LINE__\n#define X(x...) __VA_OPT__(x)##L\nX(1);\n1;\n", vec!["3"]),
            ("#define AL __LINE__\n#define X(x...) __VA_OPT__(A)##L\nX(1);\n1;\n", vec!["3"]),
            // The comma of `, ## args` joins no words.
            ("#define P(x...) f(1, ##x)\nP(__LI, NE__);\n", vec![]),
            ("#define O f(\n#define C(a, b) a##b\nC(P, Q);\n1;\nC(O, X);\n1;\n", vec![]),
            ("#define PQ f(\n#define C(a, b) a##b\nC(P, Q);\n1;\n", vec!["3", "4"]),
            // Parameters are no names, texts neither.
            (
                "#define A(__LINE__) __LINE__\n#define B \"__LINE__\" '__LINE__'\n#define C(x) #x\nA(1) B C(1);\n",
                vec![],
            ),
            ("#define A(x...) __LINE__ x\n#define B(a, ...) A(__VA_ARGS__)\nB(1);\n", vec!["3"]),
            ("#define A __builtin_LINE()\nA;\n", vec!["2"]),
            ("#define A B\n#define B A\nA;\n", vec![]),
            ("W\n#if A\n(1)\n#endif\n", vec![]),
            ("f(1,\n#if A\n__LINE__\n#else\n2\n#endif\n);\n1;\n", vec!["1", "2", "3", "4", "5", "6", "7"]),
            ("#ifdef __LINE__\n#undef __LINE__\n#endif\n", vec![]),
            // A macro that opens a parenthesis.
            ("#define O f(\n#define P O\nint a;\nP 1,\n__LINE__\n)\nint b;\n", vec!["4", "5", "6", "7"]),
        ] {
            assert_eq!(counted(text), want, "{text}");
        }
    }

    #[test]
    fn blank_lines_matter_before_lines_that_count_only() {
        let reduced = |text: &str| {
            let reduced = reduce(text.as_bytes(), &Autoconf::unknown()).unwrap();
            let sensitive = Sensitive::of(&[], &|_| true);
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
