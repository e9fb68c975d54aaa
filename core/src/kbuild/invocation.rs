//! What a compiler was asked to do, from its command line.
//!
//! Source: the option index of the GCC manual; only options that take a separate argument need to be known.

use crate::digest::{Digest, DigestBuilder};

/// What a run of a compiler is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invocation {
    /// Makes an object, an assembly text, a host program or a linker script from one source.
    Compile {
        /// As named on the command line.
        source: String,
        /// As named, or derived from the source.
        output: String,
    },
    /// Checks one source and writes nothing: sparse and its like.
    Check {
        /// As named on the command line.
        source: String,
    },
    /// Anything else: `cc-option` probes, `--version`, preprocessing, a link.
    Other,
}

/// Options whose argument is the next word.
const WITH_ARGUMENT: &[&str] = &[
    "-o",
    "-x",
    "-I",
    "-include",
    "-isystem",
    "-iquote",
    "-idirafter",
    "-imacros",
    "-iprefix",
    "-iwithprefix",
    "-D",
    "-U",
    "-MF",
    "-MT",
    "-MQ",
    "-T",
    "-L",
    "-l",
    "-u",
    "-z",
    "-Xlinker",
    "-Xassembler",
    "-Xpreprocessor",
    "-Xclang",
    "-target",
    "-arch",
    "--param",
    "-mllvm",
    "-aux-info",
    "-B",
    "-A",
];

/// Understands a command line; `argv[0]` is the compiler.
pub fn read(argv: &[String]) -> Invocation {
    let mut sources = Vec::new();
    let (mut output, mut compile, mut other, mut preprocess) = (None, false, false, false);
    let mut words = argv.iter().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "-c" | "-S" => compile = true,
            "-E" => preprocess = true,
            "-M" | "-MM" | "-fsyntax-only" | "--version" | "-v" | "-dumpversion" | "-dumpmachine" | "-" => {
                other = true;
            }
            "-o" => output = words.next().cloned(),
            name if WITH_ARGUMENT.contains(&name) => {
                words.next();
            }
            name if name.starts_with("-print") || name.starts_with("--print") || name.starts_with("-###") => {
                other = true;
            }
            name if name.starts_with('-') || name.starts_with('@') => {}
            name => sources.push(name.to_owned()),
        }
    }
    let is_source = |name: &String| {
        [".c", ".S", ".s", ".cc", ".cpp", ".cxx"].iter().any(|ending| name.ends_with(ending)) && !is_scratch(name)
    };
    let mut named = sources.iter().filter(|name| is_source(name));
    let (Some(source), None) = (named.next(), named.next()) else { return Invocation::Other };
    // What is preprocessed is mostly looked at by scripts; a linker script is what the link reads.
    let makes_script = output.as_deref().is_some_and(|output| output.ends_with(".lds"));
    other |= preprocess && !makes_script;
    if is_checker(argv) {
        return if other { Invocation::Other } else { Invocation::Check { source: source.clone() } };
    }
    if other || output.as_deref().is_some_and(|output| output == "/dev/null" || is_scratch(output)) {
        return Invocation::Other;
    }
    let output = match (output, compile) {
        (Some(output), _) => output,
        (None, true) => {
            let stem = source.rsplit('/').next().unwrap_or(source);
            format!("{}.o", stem.rsplit_once('.').map_or(stem, |(stem, _)| stem))
        }
        (None, false) => return Invocation::Other,
    };
    Invocation::Compile { source: source.clone(), output }
}

/// Whether a program only checks: its diagnostics belong to the compile of the same source.
pub fn is_checker(argv: &[String]) -> bool {
    let name = argv.first().map(|name| name.rsplit('/').next().unwrap_or(name)).unwrap_or_default();
    matches!(name, "sparse" | "smatch" | "cgcc")
}

/// Scratch files of kbuild's compiler probes (`.tmp_1234/tmp`) and of temporary folders.
fn is_scratch(name: &str) -> bool {
    name.starts_with("/tmp/")
        || name.split('/').any(|part| part.starts_with(".tmp_") && !part.contains('.'))
        || name
            .split('/')
            .any(|part| part.strip_prefix(".tmp_").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit())))
}

/// The digest of a command: folder and words. Paths in a build are the same from state to state.
pub fn digest(cwd: &str, argv: &[String]) -> Digest {
    DigestBuilder::new("bombproof/command/v1").field(cwd.as_bytes()).list(argv.iter().map(String::as_str)).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_line(line: &str) -> Invocation {
        read(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    fn compile(source: &str, output: &str) -> Invocation {
        Invocation::Compile { source: source.to_owned(), output: output.to_owned() }
    }

    #[test]
    fn table() {
        for (line, want) in [
            (
                "gcc -Wp,-MMD,kernel/.fork.o.d -nostdinc -I ./x -D a=b -c -o kernel/fork.o /s/kernel/fork.c",
                compile("/s/kernel/fork.c", "kernel/fork.o"),
            ),
            (
                "gcc -fverbose-asm -S -o kernel/bounds.s /s/kernel/bounds.c",
                compile("/s/kernel/bounds.c", "kernel/bounds.s"),
            ),
            ("gcc -D__ASSEMBLY__ -c -o a/head.o a/head.S", compile("a/head.S", "a/head.o")),
            (
                "gcc -Wall -o scripts/basic/fixdep /s/scripts/basic/fixdep.c",
                compile("/s/scripts/basic/fixdep.c", "scripts/basic/fixdep"),
            ),
            ("gcc -c foo.c", compile("foo.c", "foo.o")),
            ("gcc -o scripts/mod/modpost scripts/mod/a.o scripts/mod/b.o", Invocation::Other),
            ("gcc -Werror -S -x c /dev/null -o .tmp_4711/tmp", Invocation::Other),
            ("gcc -c -x c - -o .tmp_4711/tmp.o", Invocation::Other),
            ("gcc -E -P -o x.lds x.lds.S", compile("x.lds.S", "x.lds")),
            ("gcc -E -P -o x.i x.c", Invocation::Other),
            ("gcc -E x.lds.S", Invocation::Other),
            ("gcc -E --version -o x.lds x.lds.S", Invocation::Other),
            ("gcc --version", Invocation::Other),
            ("gcc -print-file-name=plugin", Invocation::Other),
            ("sparse -D__CHECKER__ -Wbitwise a.c", Invocation::Check { source: "a.c".to_owned() }),
            ("gcc", Invocation::Other),
            ("", Invocation::Other),
        ] {
            assert_eq!(read_line(line), want, "{line}");
        }
    }
}
