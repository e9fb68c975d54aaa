//! The text of a message without what changes by itself.

/// The message with numbers and addresses replaced by `#`, typographic quotes made plain, and runs of blanks made one.
///
/// Digits that belong to a name (`u32`, `foo_2`) stay: they tell two things apart.
pub fn message(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut before = ' ';
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let c = match c {
            '\u{2018}' | '\u{2019}' | '`' => '\'',
            '\u{201c}' | '\u{201d}' => '"',
            c if c.is_whitespace() => ' ',
            c => c,
        };
        if c == ' ' && before == ' ' {
            continue;
        }
        if c.is_ascii_digit() && !before.is_alphanumeric() && before != '_' {
            while chars.next_if(|next| next.is_ascii_alphanumeric()).is_some() {}
            out.push('#');
            before = '0';
            continue;
        }
        out.push(c);
        before = c;
    }
    out.trim_end().to_owned()
}

/// A source line without any blank: what it says, however it is laid out.
pub fn source(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        for (text, want) in [
            ("array subscript 12 is above \u{2018}int[4]\u{2019}", "array subscript # is above 'int[#]'"),
            ("frame size of 2,064 bytes", "frame size of #,# bytes"),
            ("func()+0x1e0:  unreachable", "func()+#: unreachable"),
            ("u32 foo_2 x86", "u32 foo_2 x86"),
            ("", ""),
        ] {
            assert_eq!(message(text), want);
            assert_eq!(message(&message(text)), message(text));
        }
        assert_eq!(source("\tint  x;"), "intx;");
    }
}
