//! The `.NAME.cmd` files that kbuild keeps beside every target.
//!
//! Format: `scripts/Kbuild.include` and `scripts/basic/fixdep.c` of the kernel. The first line is `cmd_TARGET := COMMAND`
//! (`savedcmd_TARGET` since 6.4), escaped for make; targets with a dependency list go on with `source_TARGET := FILE` and
//! `deps_TARGET := \`, one file or `$(wildcard include/config/NAME)` a line.

/// A `.cmd` file, as far as it is of use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CmdFile {
    /// The variable that holds the command: `cmd_kernel/fork.o`.
    pub variable: String,
    /// The target, relative to the build folder.
    pub target: String,
    /// The command as the shell gets it.
    pub command: String,
    /// Files that it was made from; empty where there is no list.
    pub inputs: Vec<String>,
}

/// Reads a `.cmd` file; `None`: it is none.
pub fn read(text: &str) -> Option<CmdFile> {
    let mut lines = text.lines();
    let (variable, command) = lines.next()?.split_once(" := ")?;
    let target = variable.strip_prefix("savedcmd_").or_else(|| variable.strip_prefix("cmd_"))?;
    let mut file = CmdFile {
        variable: variable.to_owned(),
        target: target.to_owned(),
        command: command.replace("$(pound)", "#").replace("$$", "$"),
        inputs: Vec::new(),
    };
    for line in lines {
        if let Some((name, source)) = line.split_once(" := ") {
            if name.starts_with("source_") {
                file.inputs.push(source.trim().to_owned());
            }
        } else if let Some(input) = line.strip_prefix("  ") {
            let input = input.trim_end_matches('\\').trim();
            if !input.is_empty() && !input.starts_with("$(wildcard ") {
                file.inputs.push(input.to_owned());
            }
        }
    }
    Some(file)
}

/// What a compile's command does beside the compile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extra {
    /// Nothing.
    Nothing,
    /// objtool looks at the object and may write to it.
    Objtool,
    /// Something that is not known here.
    Unknown,
}

impl CmdFile {
    /// What follows the compiler in the command.
    pub fn extra(&self) -> Extra {
        if self.command.contains(['\'', '"', '`']) && self.command.contains(';') {
            // A `;` in quotes is no end of a command; rare enough not to be taken apart.
            return if quoted_semicolon(&self.command) { Extra::Unknown } else { self.parts() };
        }
        self.parts()
    }

    fn parts(&self) -> Extra {
        let mut parts = self.command.split(';').map(str::trim).filter(|part| !part.is_empty());
        let compile = parts.next().unwrap_or_default();
        if compile.contains("&&") || compile.contains("||") || compile.contains('|') || compile.contains('>') {
            return Extra::Unknown;
        }
        let mut extra = Extra::Nothing;
        for part in parts {
            let program = part.split_whitespace().next().unwrap_or_default();
            if !program.ends_with("tools/objtool/objtool") || part.contains(['|', '&', '>']) {
                return Extra::Unknown;
            }
            extra = Extra::Objtool;
        }
        extra
    }
}

fn quoted_semicolon(text: &str) -> bool {
    let mut quote = None;
    for letter in text.chars() {
        match (quote, letter) {
            (None, '\'' | '"' | '`') => quote = Some(letter),
            (Some(open), letter) if letter == open => quote = None,
            (Some(_), ';') => return true,
            (None | Some(_), _) => {}
        }
    }
    // What does not end is not understood.
    quote.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: &str = "cmd_kernel/fork.o := gcc -Wp,-MMD,kernel/.fork.o.d -D\"KBUILD_STR(s)=$(pound)s\" -c -o kernel/fork.o \
                        /src/kernel/fork.c   ; ./tools/objtool/objtool --orc  kernel/fork.o\n\nsource_kernel/fork.o := \
                        /src/kernel/fork.c\n\ndeps_kernel/fork.o := \\\n    $(wildcard include/config/SMP) \\\n  \
                        /src/include/linux/a.h \\\n  include/generated/b.h \\\n\nkernel/fork.o: $(deps_kernel/fork.o)\n\n\
                        $(deps_kernel/fork.o):\n";

    #[test]
    fn both_forms_are_read() {
        let file = read(UNIT).unwrap();
        assert_eq!((file.variable.as_str(), file.target.as_str()), ("cmd_kernel/fork.o", "kernel/fork.o"));
        assert!(file.command.contains("KBUILD_STR(s)=#s"), "{}", file.command);
        assert_eq!(file.inputs, ["/src/kernel/fork.c", "/src/include/linux/a.h", "include/generated/b.h"]);
        assert_eq!(file.extra(), Extra::Objtool);
        let newer = read(&format!("saved{UNIT}")).unwrap();
        assert_eq!((newer.variable.as_str(), newer.target), ("savedcmd_kernel/fork.o", file.target));
        for none in ["", "x := y\n", "cmd_x\n"] {
            assert_eq!(read(none), None, "{none:?}");
        }
    }

    #[test]
    fn what_follows_a_compile() {
        for (command, want) in [
            ("gcc -c -o a.o a.c", Extra::Nothing),
            ("gcc -c -o a.o a.c ; ./tools/objtool/objtool --orc a.o", Extra::Objtool),
            ("gcc -c -o a.o a.c ; ld -r -o .tmp_a.o a.o", Extra::Unknown),
            ("gcc -E a.c | tail > a.i", Extra::Unknown),
            ("gcc -c a.c && strip a.o", Extra::Unknown),
            ("gcc '-DX=\";\"' -c a.c", Extra::Unknown),
            ("gcc '-DX=\"y\"' -c a.c ; ./tools/objtool/objtool a.o", Extra::Objtool),
        ] {
            let file = CmdFile { command: command.to_owned(), ..CmdFile::default() };
            assert_eq!(file.extra(), want, "{command}");
        }
    }
}
