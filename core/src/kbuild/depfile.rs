//! Dependency lists of compilers (`-MD`): a make rule.
//!
//! Source of the format: the GCC manual, "Options Controlling the Preprocessor" (`-M`), and make's quoting of blanks, `#`
//! and `$`.

/// The prerequisites of every rule in the text, in order, targets left out; phony targets (`-MP`) have none.
pub fn prerequisites(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for rule in text.replace("\\\r\n", " ").replace("\\\n", " ").lines() {
        let words = words(rule);
        let Some(colon) = words.iter().position(|word| word.ends_with(':')) else { continue };
        names.extend(words.into_iter().skip(colon + 1));
    }
    names
}

fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek()) {
            ('\\', Some(' ' | '#')) | ('$', Some('$')) => word.extend(chars.next()),
            (c, _) if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            (c, _) => word.push(c),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn table() {
        assert_eq!(prerequisites("a.o: a.c \\\n  b.h c\\ d.h \\\n e$$f.h\n\nb.h:\n"), ["a.c", "b.h", "c d.h", "e$f.h"]);
        assert_eq!(prerequisites("no rule"), Vec::<String>::new());
        assert_eq!(prerequisites(""), Vec::<String>::new());
    }

    proptest! {
        #[test]
        fn any_text_gives_an_answer(text in "[a:\\\\ #$\n\r.]{0,60}") {
            let _ = prerequisites(&text);
        }
    }
}
