//! A change of the configuration that means nothing but compiles.
//!
//! An option reaches a build by four ways: through `autoconf.h` into compiles, by its name into makefiles and scripts, by the whole
//! configuration into what is made of it, and through Kconfig, which has answered already. Where only the first is left, the
//! units whose files name the option are all that the change reaches.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::compile::AUTOCONF;
use super::graph::Graph;
use crate::digest::BlobDigest;
use crate::kbuild::reach::{self, Reach};
use crate::shared::SharedMap;

/// An option with another value: `y`, `m`, or `None`, where it is off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switched {
    /// Without `CONFIG_`.
    pub symbol: String,
    /// Before.
    pub before: Option<bool>,
    /// After; `true`: built in.
    pub after: Option<bool>,
}

/// Options with which a build makes something of the whole configuration.
const WHOLE: &[&str] = &["IKCONFIG", "IKHEADERS"];

/// The options that differ between two configurations.
///
/// # Errors
/// Why the difference is more than options that were switched on or off.
pub fn switched(before: &SharedMap<String>, after: &SharedMap<String>) -> Result<Vec<Switched>, String> {
    if let Some(option) = WHOLE.iter().find(|option| before.get(option).is_some() || after.get(option).is_some()) {
        return Err(format!("with CONFIG_{option} the whole configuration is part of the build"));
    }
    let value = |symbol: &str, value: Option<&String>| match value.map(String::as_str) {
        None => Ok(None),
        Some("y") => Ok(Some(true)),
        Some("m") => Ok(Some(false)),
        Some(_) => Err(format!("CONFIG_{symbol} has another value")),
    };
    let differences = before.differences(after);
    let switched = differences.map(|it| {
        reach::refuses(it.key).map_or(Ok(()), |option| Err(format!("CONFIG_{option} makes another build")))?;
        let (before, after) = (value(it.key, it.before)?, value(it.key, it.after)?);
        Ok(Switched { symbol: it.key.to_string(), before, after })
    });
    switched.collect()
}

/// `autoconf.h` after that.
///
/// # Errors
/// When it does not say what the configuration says.
pub fn autoconf(text: &str, switched: &[Switched]) -> Result<String, String> {
    let name = |symbol: &str, built_in: bool| format!("CONFIG_{symbol}{}", if built_in { "" } else { "_MODULE" });
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for it in switched {
        let place = |name: &str| lines.iter().position(|line| *line == format!("#define {name} 1"));
        let unclear = || format!("autoconf.h does not say of CONFIG_{} what the configuration says", it.symbol);
        if let Some(before) = it.before {
            let place = place(&name(&it.symbol, before)).ok_or_else(unclear)?;
            lines.remove(place);
        } else if [true, false].iter().any(|built_in| place(&name(&it.symbol, *built_in)).is_some()) {
            return Err(unclear());
        }
        if let Some(after) = it.after {
            lines.push(format!("#define {} 1", name(&it.symbol, after)));
        }
    }
    Ok(lines.iter().map(|line| format!("{line}\n")).collect())
}

/// Whether a file of the source tree may tell a step that is no compile what to do: makefiles, scripts and all that is not
/// known to be something else.
pub fn may_steer(path: &str, arch: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let endings = [".c", ".h", ".S", ".dts", ".dtsi", ".dtso", ".rst", ".txt", ".yaml", ".json", ".svg", ".rs"];
    let text = endings.iter().any(|ending| name.ends_with(ending));
    // Kconfig has answered. Builds with Rust, and those that check headers, are refused as a whole.
    let of_kconfig = name.starts_with("Kconfig") || name.ends_with("config") || path.contains("/configs/");
    let apart = [
        "Documentation/",
        "LICENSES/",
        "tools/testing/",
        "tools/perf/",
        "tools/bpf/",
        "scripts/kconfig/",
        "usr/include/",
    ];
    !text && !of_kconfig && !apart.iter().any(|folder| path.starts_with(folder)) && !reach::is_foreign(path, arch)
}

/// Whether a makefile or script names one of these options, or puts the name of an option together.
///
/// # Errors
/// What it names.
pub fn is_steered(text: &[u8], named: &BTreeSet<String>, switched: &[Switched]) -> Result<(), String> {
    if let Some(it) = switched.iter().find(|it| named.contains(&it.symbol)) {
        return Err(format!("CONFIG_{}", it.symbol));
    }
    let computed = text.windows(8).any(|window| window.starts_with(b"CONFIG_") && b"$`{".contains(&window[7]));
    if computed { Err("an option whose name it puts together".to_owned()) } else { Ok(()) }
}

/// The places in the graph's table of the files that name one of these options. `names` says it of files that are not what they
/// were in the graph's state.
///
/// # Errors
/// The file whose reader is no compile that is understood, and why.
pub fn naming(
    graph: &Graph,
    switched: &[Switched],
    names: &dyn Fn(&str) -> Option<bool>,
) -> Result<BTreeSet<u32>, String> {
    let words = (0..).zip(&graph.words).filter(|(_, word)| switched.iter().any(|it| ***word == it.symbol));
    let words: BTreeSet<u32> = words.map(|(place, _)| place).collect();
    let mut places = BTreeSet::new();
    for (place, file) in (0..).zip(&graph.files).filter(|(_, file)| *file.path != *AUTOCONF) {
        if file.path.ends_with("/autoconf.h") {
            return Err(format!("'{}' is a copy of the configuration", file.path));
        }
        let source = file.path.strip_prefix("src/");
        let named = || file.symbols.iter().any(|symbol| words.contains(symbol));
        if !source.and_then(names).unwrap_or_else(named) {
            continue;
        }
        match source {
            Some(path) if reach::of(path) == Reach::Units && !graph.others.contains(path) => {
                places.insert(place);
            }
            Some(path) => return Err(format!("'{path}' names it and is read by more than compiles")),
            None => return Err(format!("'{}' is made with it", file.path)),
        }
    }
    Ok(places)
}

/// The units that read one of these files.
///
/// # Errors
/// The unit that only make can make.
pub fn readers(graph: &Graph, places: &BTreeSet<u32>) -> Result<BTreeSet<Arc<str>>, String> {
    let mut units = BTreeSet::new();
    for (output, node) in &graph.units {
        if node.inputs.iter().any(|input| places.contains(input)) {
            if node.compile.is_none() {
                return Err(format!("'{output}' depends on it and is made by make alone"));
            }
            units.insert(Arc::clone(output));
        }
    }
    Ok(units)
}

/// The graph as it would be with that configuration header.
pub fn graph(before: &Graph, autoconf: BlobDigest) -> Graph {
    let mut graph = Graph { autoconf, ..before.clone() };
    for file in graph.files.iter_mut().filter(|file| *file.path == *AUTOCONF) {
        file.file.blob = autoconf;
    }
    if let Some(file) = graph.generated.get_mut(AUTOCONF) {
        file.blob = autoconf;
    }
    graph
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::action::InputFile;
    use crate::plan::graph::{Compile, GraphFile, Node};
    use crate::target::config;

    fn options(text: &str) -> SharedMap<String> {
        (&config::effective(text)).into()
    }

    fn on(symbol: &str) -> Switched {
        Switched { symbol: symbol.to_owned(), before: None, after: Some(true) }
    }

    #[test]
    fn options_that_are_switched() {
        let before = "CONFIG_A=y\nCONFIG_B=m\nCONFIG_N=3\n";
        let turned = |symbol: &str, before, after| Switched { symbol: symbol.to_owned(), before, after };
        for (after, want) in [
            (before.to_owned(), Ok(vec![])),
            (format!("{before}CONFIG_C=y\n"), Ok(vec![on("C")])),
            (
                "CONFIG_A=m\nCONFIG_N=3\n".to_owned(),
                Ok(vec![turned("A", Some(true), Some(false)), turned("B", Some(false), None)]),
            ),
            (before.replace('3', "4"), Err("CONFIG_N has another value")),
            (format!("{before}CONFIG_S=\"y\"\n"), Err("CONFIG_S has another value")),
            (format!("{before}CONFIG_MODVERSIONS=y\n"), Err("CONFIG_MODVERSIONS makes another build")),
            (format!("{before}CONFIG_C=y\nCONFIG_IKCONFIG=y\n"), Err("the whole configuration")),
        ] {
            match (switched(&options(before), &options(&after)), want) {
                (Ok(got), Ok(want)) => assert_eq!(got, want, "{after}"),
                (Err(got), Err(want)) => assert!(got.contains(want), "{got}"),
                (got, want) => panic!("{after}: {got:?} instead of {want:?}"),
            }
        }
    }

    #[test]
    fn the_header_says_what_the_configuration_says() {
        let text = "#define CONFIG_A 1\n#define CONFIG_B_MODULE 1\n#define CONFIG_N 3\n";
        let turn =
            |symbol: &str, before, after| autoconf(text, &[Switched { symbol: symbol.to_owned(), before, after }]);
        assert_eq!(turn("A", Some(true), None).unwrap(), "#define CONFIG_B_MODULE 1\n#define CONFIG_N 3\n");
        let swapped = turn("B", Some(false), Some(true)).unwrap();
        assert_eq!(swapped, "#define CONFIG_A 1\n#define CONFIG_N 3\n#define CONFIG_B 1\n");
        assert_eq!(turn("C", None, Some(false)).unwrap(), format!("{text}#define CONFIG_C_MODULE 1\n"));
        for (symbol, before) in [("A", None), ("B", Some(true)), ("C", Some(true)), ("N", Some(true))] {
            assert!(turn(symbol, before, Some(true)).is_err(), "{symbol}");
        }
    }

    #[test]
    fn what_may_steer_a_build() {
        for (path, want) in [
            ("Makefile", true),
            ("kernel/Makefile", true),
            ("drivers/net/Kbuild", true),
            ("scripts/link-vmlinux.sh", true),
            ("scripts/gen", true),
            ("arch/x86/entry/syscalls/syscall_64.tbl", true),
            ("tools/objtool/Makefile", true),
            ("kernel/fork.c", false),
            ("kernel/Kconfig.preempt", false),
            ("arch/x86/configs/tiny.config", false),
            ("scripts/kconfig/Makefile", false),
            ("arch/s390/Makefile", false),
            ("Documentation/Makefile", false),
        ] {
            assert_eq!(may_steer(path, "x86"), want, "{path}");
        }
        let names = |text: &str| {
            is_steered(text.as_bytes(), &crate::source::symbols::config_symbols(text.as_bytes()), &[on("A")])
        };
        assert_eq!(names("obj-$(CONFIG_B) += b.o\nobj-$(CONFIG_A_B) += c.o\n"), Ok(()));
        assert_eq!(names("obj-$(CONFIG_A) += a.o\n"), Err("CONFIG_A".to_owned()));
        for computed in ["obj-$(CONFIG_$(SPL_)B) += b.o", "CONFIG_${x}", "CONFIG_`x`", "obj-$(CONFIG_$(x)"] {
            assert!(names(computed).is_err(), "{computed}");
        }
    }

    #[test]
    fn units_are_those_that_read_what_names_the_option() {
        let file = |path: &str, symbols: &[u32]| GraphFile {
            path: Arc::from(path),
            file: InputFile { blob: BlobDigest::of(b"old"), executable: false },
            symbols: symbols.to_vec(),
        };
        let node = |inputs: &[u32], known: bool| Node {
            compile: known.then(|| Compile { argv: Vec::new(), depfile: String::new() }),
            inputs: inputs.to_vec(),
            plain: true,
            objtool: None,
            made: None,
            interface: None,
        };
        let base = Graph {
            files: vec![file(AUTOCONF, &[0, 1]), file("src/a.h", &[0]), file("src/b.h", &[1]), file("src/c.h", &[])],
            words: ["A", "B"].map(Arc::from).to_vec(),
            units: [("a.o", vec![0, 1]), ("b.o", vec![2]), ("c.o", vec![3])]
                .map(|(output, inputs)| (Arc::from(output), node(&inputs, true)))
                .into(),
            ..Graph::empty(BlobDigest::of(b"old"))
        };
        let ask = |graph: &Graph, changed: &[(&str, bool)]| {
            let changed: BTreeMap<&str, bool> = changed.iter().copied().collect();
            let places = naming(graph, &[on("A")], &|path| changed.get(path).copied())?;
            let units: Vec<String> = readers(graph, &places)?.iter().map(ToString::to_string).collect();
            Ok::<_, String>(units.join(" "))
        };
        assert_eq!(ask(&base, &[]), Ok("a.o".to_owned()));
        assert_eq!(ask(&base, &[("c.h", true)]), Ok("a.o c.o".to_owned()), "it names the option by now");
        assert_eq!(ask(&base, &[("a.h", false)]), Ok(String::new()), "it does not any more");
        let mut odd = base.clone();
        odd.others.insert("a.h".to_owned());
        assert!(ask(&odd, &[]).unwrap_err().contains("more than compiles"));
        let mut odd = base.clone();
        odd.files[1].path = Arc::from("src/arch/x86/boot/a.h");
        assert!(ask(&odd, &[]).unwrap_err().contains("more than compiles"));
        odd.files[1].path = Arc::from("out/include/generated/a.h");
        assert!(ask(&odd, &[]).unwrap_err().contains("is made with it"));
        odd.files[1].path = Arc::from("out/arch/powerpc/boot/autoconf.h");
        assert!(ask(&odd, &[]).unwrap_err().contains("copy"));
        let mut odd = base.clone();
        odd.units.insert(Arc::from("tool"), node(&[1], false));
        assert!(ask(&odd, &[]).unwrap_err().contains("made by make alone"));
        let new = BlobDigest::of(b"new");
        let after = graph(&base, new);
        assert_eq!(
            (after.autoconf, after.files[0].file.blob, after.files[1].file.blob),
            (new, new, BlobDigest::of(b"old"))
        );
    }
}
