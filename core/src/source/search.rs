//! Where a compiler looks for includes.
//!
//! Source: the GCC manual, "Options for Directory Search": the form with quotes looks beside the file first, then in the
//! folders of `-iquote`, then where the other form looks: `-I`, `-isystem`, `-idirafter`, each in the order of the command.

use std::collections::HashSet;

/// The folders of a command, as it names them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SearchPath {
    /// For the form with quotes alone.
    pub quote: Vec<String>,
    /// For both forms.
    pub angle: Vec<String>,
    /// Files that are read before the source.
    pub forced: Vec<String>,
    /// For the assembler alone (`-Wa,-I`).
    pub assembler: Vec<String>,
}

impl SearchPath {
    /// The folders of a command line.
    pub fn of(argv: &[String]) -> Self {
        let mut found = Self::default();
        let (mut system, mut after) = (Vec::new(), Vec::new());
        let mut words = argv.iter().skip(1);
        while let Some(word) = words.next() {
            let options = ["-iquote", "-isystem", "-idirafter", "-include", "-imacros", "-I"];
            if let Some(values) = word.strip_prefix("-Wa,") {
                found
                    .assembler
                    .extend(values.split(',').filter_map(|value| Some(value.strip_prefix("-I")?.to_owned())));
            }
            let Some(option) = options.into_iter().find(|option| word.starts_with(option)) else { continue };
            let rest = &word.as_bytes()[option.len()..];
            let value = if rest.is_empty() { words.next().cloned() } else { String::from_utf8(rest.to_vec()).ok() };
            let Some(value) = value else { continue };
            match option {
                "-iquote" => found.quote.push(value),
                "-isystem" => system.push(value),
                "-idirafter" => after.push(value),
                "-I" => found.angle.push(value),
                _ => found.forced.push(value),
            }
        }
        // A folder that is also a system folder is looked at as one.
        let known: HashSet<&String> = system.iter().collect();
        found.angle.retain(|folder| !known.contains(folder));
        found.angle.append(&mut system);
        found.angle.append(&mut after);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_the_assembler() {
        let argv = ["gcc", "-Wa,-Ia,-mfoo,-Ib", "-I", "c"].map(str::to_owned);
        let found = SearchPath::of(&argv);
        assert_eq!((found.assembler.join(" "), found.angle.join(" ")), ("a b".to_owned(), "c".to_owned()));
    }

    #[test]
    fn table() {
        for (line, quote, angle, forced) in [
            ("gcc -I a -Ib -c x.c", "", "a b", ""),
            ("gcc -isystem s -idirafter d -I a -iquote q", "q", "a s d", ""),
            ("gcc -I s -isystem s -I a", "", "a s", ""),
            ("gcc -include k.h -imacros m.h -includex", "", "", "k.h m.h x"),
            ("gcc -I", "", "", ""),
            ("gcc", "", "", ""),
        ] {
            let argv: Vec<String> = line.split(' ').map(str::to_owned).collect();
            let found = SearchPath::of(&argv);
            let shown = [found.quote.join(" "), found.angle.join(" "), found.forced.join(" ")];
            assert_eq!(shown, [quote, angle, forced], "{line}");
        }
    }
}
