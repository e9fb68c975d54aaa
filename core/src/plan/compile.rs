//! Compiles as actions: which commands are understood, and what they declare.
//!
//! A command is understood when everything that it reads is in its dependency list or is the toolchain's, and everything that
//! it writes is its output and that list. What may run other programs, read files that no list names, or write more, is
//! left to make. Sources: the option index of the GCC manual.

use std::collections::BTreeMap;

use crate::action::{Action, InputFile, InputTree};
use crate::digest::{Digest, DigestBuilder};
use crate::kbuild::invocation::{self, Invocation};
use crate::kbuild::roots::{Place, Roots};

/// The path of the configuration header below the input root.
pub const AUTOCONF: &str = "out/include/generated/autoconf.h";

/// The property of a platform that names the toolchain.
pub const TOOLCHAIN: &str = "bombproof-toolchain";

/// Heads of options with which a compiler reads, writes or runs more than its dependency list tells.
const NOT_UNDERSTOOD: &[&str] = &[
    "@",
    "-B",
    "-Wmissing-include-dirs",
    "-aux-info",
    "-fcallgraph-info",
    "-fdump",
    "-fopt-info",
    "-fplugin",
    "-fprofile",
    "-frandomize-layout",
    "-fsanitize-coverage-",
    "-fstack-usage",
    "-ftest-coverage",
    "-gsplit-dwarf",
    "-load",
    "-save-temps",
    "-specs",
    "-wrapper",
    "--coverage",
    "--specs",
];

/// A compile that is understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Understood {
    /// Below the input root.
    pub source: String,
    /// The object, below the build folder.
    pub output: String,
    /// The dependency list, below the build folder.
    pub depfile: String,
    /// What it makes tells lines of its files apart ([`keeps_lines`]).
    pub debug: bool,
}

/// Understands a command that ran in `cwd`; `None`: it is left to make.
pub fn understand(argv: &[String], cwd: &str, roots: &Roots) -> Option<Understood> {
    if cwd != roots.output || !argv.iter().any(|word| word == "-nostdinc") {
        return None;
    }
    let Invocation::Compile { source, output } = invocation::read(argv) else { return None };
    if argv.iter().skip(1).any(|word| NOT_UNDERSTOOD.iter().any(|head| word.starts_with(head))) {
        return None;
    }
    if !argv.iter().any(|word| ["-c", "-S", "-E"].contains(&word.as_str())) || argv.first()?.contains('/') {
        return None;
    }
    let heads = ["-Wp,-MMD,", "-Wp,-MD,"];
    let mut lists = argv.iter().filter_map(|word| heads.iter().find_map(|head| word.strip_prefix(head)));
    let (Some(depfile), None) = (lists.next(), lists.next()) else { return None };
    let below = |name: &str| match roots.place(cwd, name) {
        // What is below the build folder is named relative to it: the path that the compiler writes to.
        Place::Output(path) if !name.starts_with('/') && path == name => Some(path),
        Place::Output(_) | Place::Source(_) | Place::Elsewhere(_) => None,
    };
    let debug = keeps_lines(argv.iter().map(String::as_str));
    Some(Understood { source: input(roots, cwd, &source)?, output: below(&output)?, depfile: below(depfile)?, debug })
}

/// Whether what a command makes may be other bytes when nothing but lines and white space of its files moved: debug information,
/// assembly text with remarks, preprocessed text.
pub fn keeps_lines<'a>(words: impl IntoIterator<Item = &'a str>) -> bool {
    let keeps = |word: &str| (word.starts_with("-g") && word != "-g0") || word == "-fverbose-asm" || word == "-E";
    words.into_iter().any(keeps)
}

/// A file by its path below the input root; `None`: it is neither of the source tree nor of the build folder.
pub fn input(roots: &Roots, cwd: &str, name: &str) -> Option<String> {
    match roots.place(cwd, name) {
        Place::Source(path) => Some(format!("src/{path}")),
        Place::Output(path) => Some(format!("out/{path}")),
        Place::Elsewhere(_) => None,
    }
}

/// What a dependency list names, below the input root; `None`: it names a file that is neither of ours nor the system's.
pub fn inputs(roots: &Roots, cwd: &str, names: &[String]) -> Option<Vec<String>> {
    let mut inputs = Vec::new();
    for name in names {
        match input(roots, cwd, name) {
            Some(path) => inputs.push(path),
            // Headers of the compiler come with the toolchain.
            None if name.starts_with("/usr/") => {}
            None => return None,
        }
    }
    inputs.sort_unstable();
    inputs.dedup();
    Some(inputs)
}

/// The environment of every action.
pub fn environment() -> BTreeMap<String, String> {
    [
        ("HOME", "/nonexistent"),
        ("LANG", "C"),
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("SOURCE_DATE_EPOCH", "0"),
        ("TZ", "UTC"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// The action of a compile: `inputs` without [`AUTOCONF`], `autoconf` what takes its place (only the symbols that the inputs
/// mention), if they include it.
pub fn action(
    argv: Vec<String>,
    outputs: Vec<String>,
    mut inputs: InputTree,
    autoconf: Option<InputFile>,
    toolchain: &Digest,
) -> Action {
    inputs.remove(AUTOCONF);
    if let Some(autoconf) = autoconf {
        inputs.insert(AUTOCONF.to_owned(), autoconf);
    }
    Action {
        argv,
        env: environment(),
        folder: "out".to_owned(),
        outputs,
        inputs,
        platform: [(TOOLCHAIN.to_owned(), toolchain.to_string())].into(),
    }
}

/// The key under which the dependency sets of a compile are known: its command, its main source by name, the toolchain.
pub fn manifest_key(argv: &[String], toolchain: &Digest) -> Digest {
    let builder = DigestBuilder::new("bombproof/manifest/v1").field(toolchain.to_string().as_bytes());
    builder.list(argv.iter().map(String::as_str)).finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::BlobDigest;

    fn roots() -> Roots {
        Roots { source: "/bombproof/src".to_owned(), output: "/bombproof/out".to_owned() }
    }

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    const PLAIN: &str = "gcc -Wp,-MMD,kernel/.fork.o.d -nostdinc -I/bombproof/src/include -Os -c -o kernel/fork.o /bombproof/src/kernel/fork.c";

    #[test]
    fn a_plain_compile_is_understood() {
        let got = understand(&words(PLAIN), "/bombproof/out", &roots()).unwrap();
        assert_eq!(got.source, "src/kernel/fork.c");
        assert_eq!((got.output.as_str(), got.depfile.as_str()), ("kernel/fork.o", "kernel/.fork.o.d"));
        assert!(!got.debug);
        for word in ["-g", "-fverbose-asm"] {
            assert!(
                understand(&words(&format!("{PLAIN} {word}")), "/bombproof/out", &roots()).unwrap().debug,
                "{word}"
            );
        }
        let script = PLAIN.replace(" -c", " -E -P").replace("kernel/fork.o ", "kernel/vmlinux.lds ");
        let got = understand(&words(&script), "/bombproof/out", &roots()).unwrap();
        assert!(got.debug && got.output == "kernel/vmlinux.lds");
        let generated = PLAIN.replace("/bombproof/src/kernel/fork.c", "lib/crc.c");
        assert_eq!(understand(&words(&generated), "/bombproof/out", &roots()).unwrap().source, "out/lib/crc.c");
    }

    #[test]
    fn what_reads_or_writes_more_is_left_to_make() {
        for word in
            ["@rsp", "-fplugin=a.so", "-wrapper", "-save-temps", "-gsplit-dwarf", "-specs=x", "-Bx", "--coverage"]
        {
            assert_eq!(understand(&words(&format!("{PLAIN} {word}")), "/bombproof/out", &roots()), None, "{word}");
        }
        for (old, new) in [
            (" -nostdinc", ""),
            ("-Wp,-MMD,kernel/.fork.o.d ", ""),
            ("-Wp,-MMD,kernel/.fork.o.d", "-Wp,-MMD,/tmp/x.d"),
            ("-o kernel/fork.o", "-o /tmp/fork.o"),
            ("-o kernel/fork.o", "-o ../src/fork.o"),
            ("-o kernel/fork.o", "-o kernel/../fork.o"),
            ("/bombproof/src/kernel/fork.c", "/etc/x.c"),
            ("gcc ", "./gcc "),
            (" -c", " -E"),
        ] {
            assert_eq!(understand(&words(&PLAIN.replace(old, new)), "/bombproof/out", &roots()), None, "{old} {new}");
        }
        assert_eq!(understand(&words(PLAIN), "/bombproof/out/kernel", &roots()), None);
    }

    #[test]
    fn headers_of_the_system_belong_to_the_toolchain_and_others_are_refused() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let got = inputs(
            &roots(),
            "/bombproof/out",
            &names(&["./include/b.h", "/bombproof/src/a.c", "/usr/lib/gcc/x.h", "include/b.h"]),
        );
        assert_eq!(got, Some(names(&["out/include/b.h", "src/a.c"])));
        assert_eq!(inputs(&roots(), "/bombproof/out", &names(&["/etc/x.h"])), None);
    }

    #[test]
    fn an_action_sees_the_projected_configuration_only() {
        let file = |text: &str| InputFile { blob: BlobDigest::of(text.as_bytes()), executable: false };
        let inputs: InputTree = [(AUTOCONF.to_owned(), file("all")), ("src/a.c".to_owned(), file("a"))].into();
        let toolchain = Digest::of(b"gcc");
        let with = action(Vec::new(), Vec::new(), inputs.clone(), Some(file("some")), &toolchain);
        assert_eq!(with.inputs.get(AUTOCONF), Some(&file("some")));
        assert_eq!(action(Vec::new(), Vec::new(), inputs, None, &toolchain).inputs.len(), 1);
    }

    #[test]
    fn a_manifest_key_tells_commands_and_toolchains_apart() {
        let key = |line: &str, toolchain: &str| manifest_key(&words(line), &Digest::of(toolchain.as_bytes()));
        assert_ne!(key("gcc -c a.c", "1"), key("gcc -c a.c", "2"));
        assert_ne!(key("gcc -c a.c", "1"), key("gcc -c b.c", "1"));
    }
}
