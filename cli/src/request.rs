//! From words to targets: `--arch`, `--config`, `--fragment`, and `[[target]]` in bombproof.toml.

use std::path::{Path, PathBuf};

use bombproof_core::id::TargetName;
use bombproof_core::target::{Arch, BaseConfig, Build, Compiler, Fragment, Kbuild, TargetSpec, config_name};
use serde::Deserialize;

use crate::args::TargetArgs;
use crate::fail::Fail;

/// Largest configuration file, in bytes.
const MAX_CONFIG_BYTES: u64 = 16 << 20;

/// bombproof.toml.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetsFile {
    #[serde(default)]
    target: Vec<TargetTable>,
}

/// One `[[target]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetTable {
    name: String,
    arch: String,
    #[serde(default = "default_config")]
    config: String,
    #[serde(default)]
    fragments: Vec<String>,
    /// `gcc`, `clang`, or the prefix of cross tools (`aarch64-linux-gnu-`).
    #[serde(default)]
    toolchain: Option<String>,
    #[serde(default)]
    make: Vec<String>,
    #[serde(default)]
    goals: Vec<String>,
}

fn default_config() -> String {
    "defconfig".to_owned()
}

/// The targets that are asked for; `repo` is where bombproof.toml may lie.
pub(crate) fn targets(args: &TargetArgs, repo: &Path) -> Result<Vec<TargetSpec>, Fail> {
    let file = match &args.targets_file {
        Some(file) => Some(file.clone()),
        None => [PathBuf::from("bombproof.toml"), repo.join("bombproof.toml")].into_iter().find(|file| file.is_file()),
    };
    let mut targets = match (&file, args.arch.is_empty()) {
        // Named architectures are a request of their own.
        (Some(file), _) if args.arch.is_empty() || !args.target.is_empty() => from_file(file, args)?,
        (None, _) if !args.target.is_empty() => {
            return Err(Fail::request("--target names a target of bombproof.toml, and there is no such file")
                .hint(Some("name the file with --targets-file, or use --arch")));
        }
        (Some(_) | None, _) => Vec::new(),
    };
    if targets.is_empty() {
        let host = [std::env::consts::ARCH.to_owned()];
        let arches: &[String] = if args.arch.is_empty() { &host } else { &args.arch };
        for arch in arches {
            targets.push(from_words(arch, args)?);
        }
    }
    for (index, target) in targets.iter().enumerate() {
        if targets[..index].iter().any(|other| other.name == target.name) {
            return Err(Fail::request(format!("two targets are named '{}'", target.name)));
        }
    }
    Ok(targets)
}

fn arch_of(name: &str) -> Result<Arch, Fail> {
    Arch::parse(name.trim()).ok_or_else(|| {
        let known: Vec<&str> = Arch::known_names().collect();
        Fail::request(format!("'{}' is not an architecture", name.escape_debug()))
            .hint(Some(format!("known: {}", known.join(", "))))
    })
}

/// Prefix of the cross tools; empty where the machine's own compiler is meant.
fn cross_compile(arch: &Arch) -> String {
    let own = Arch::parse(std::env::consts::ARCH);
    match arch.triplet() {
        _ if own.as_ref() == Some(arch) => String::new(),
        Some(triplet) => format!("{triplet}-"),
        None => String::new(),
    }
}

fn from_words(arch: &str, args: &TargetArgs) -> Result<TargetSpec, Fail> {
    let arch = arch_of(arch)?;
    let mut fragments = Vec::new();
    for word in &args.fragment {
        match word.split_once(':') {
            Some((only, file)) if Arch::parse(only).is_some() => {
                if Arch::parse(only).as_ref() == Some(&arch) {
                    fragments.push(fragment(Path::new(file))?);
                }
            }
            Some(_) | None => fragments.push(fragment(Path::new(word))?),
        }
    }
    let base_config = base_config(&args.config, Path::new(""))?;
    let config = config_name(&base_config, &fragments);
    Ok(TargetSpec {
        name: TargetName(format!("{arch}-{config}")),
        timeout_s: args.timeout,
        build: Build::Kbuild(Kbuild {
            cross_compile: cross_compile(&arch),
            arch,
            compiler: if args.llvm { Compiler::Clang } else { Compiler::Gcc },
            base_config,
            fragments,
            make_args: checked(&args.make_args)?,
            goals: checked(&args.goals)?,
        }),
    })
}

fn from_file(file: &Path, args: &TargetArgs) -> Result<Vec<TargetSpec>, Fail> {
    let text = read(file)?;
    let wrong = |what: String| Fail::request(format!("'{}': {what}", file.display()));
    let parsed: TargetsFile = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let folder = file.parent().unwrap_or(Path::new(""));
    let known: Vec<String> = parsed.target.iter().map(|table| table.name.clone()).collect();
    if let Some(unknown) = args.target.iter().find(|name| !known.contains(name)) {
        return Err(wrong(format!("there is no target '{}'", unknown.escape_debug()))
            .hint(Some(format!("its targets: {}", known.join(", ")))));
    }
    if parsed.target.is_empty() {
        return Err(wrong("it names no [[target]]".to_owned()));
    }
    let wanted = parsed.target.into_iter().filter(|table| args.target.is_empty() || args.target.contains(&table.name));
    wanted
        .map(|table| {
            let arch = arch_of(&table.arch)?;
            let fragments =
                table.fragments.iter().map(|name| fragment(&folder.join(name))).collect::<Result<Vec<_>, _>>()?;
            let (compiler, cross) = match table.toolchain.as_deref() {
                None | Some("gcc") => (Compiler::Gcc, cross_compile(&arch)),
                Some("clang" | "llvm") => (Compiler::Clang, String::new()),
                Some(prefix) if is_word(prefix) => (Compiler::Gcc, prefix.to_owned()),
                Some(other) => return Err(wrong(format!("'{}' is not a toolchain", other.escape_debug()))),
            };
            if table.name.is_empty() || table.name.contains(['/', ' ', '\n']) {
                return Err(wrong(format!("'{}' is not a name for a target", table.name.escape_debug())));
            }
            Ok(TargetSpec {
                name: TargetName(table.name),
                timeout_s: args.timeout,
                build: Build::Kbuild(Kbuild {
                    arch,
                    compiler,
                    cross_compile: cross,
                    base_config: base_config(&table.config, folder)?,
                    fragments,
                    make_args: checked(&table.make)?,
                    goals: checked(&table.goals)?,
                }),
            })
        })
        .collect()
}

/// A word that make takes as it is meant: nothing that a shell or make would read otherwise.
fn is_word(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "._-+/=,:@%".contains(c))
}

fn checked(words: &[String]) -> Result<Vec<String>, Fail> {
    match words
        .iter()
        .find(|word| word.starts_with("O=") || word.starts_with("KBUILD_OUTPUT=") || word.contains(['\n', '\0']))
    {
        Some(word) => {
            Err(Fail::request(format!("'{}' cannot be given to make: the build folder is ours", word.escape_debug())))
        }
        None => Ok(words.to_vec()),
    }
}

fn base_config(text: &str, folder: &Path) -> Result<BaseConfig, Fail> {
    let path = folder.join(text);
    if path.is_file() {
        return Ok(BaseConfig::File(fragment(&path)?));
    }
    if text.ends_with("config") && is_word(text) && !text.contains('=') {
        return Ok(BaseConfig::Goal(text.to_owned()));
    }
    Err(Fail::request(format!(
        "'{}' is neither a configuration file nor a configuration goal of make",
        text.escape_debug()
    ))
    .hint(Some("give a file, or a goal such as defconfig, tinyconfig, allmodconfig, pseries_le_defconfig")))
}

fn fragment(path: &Path) -> Result<Fragment, Fail> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(Fragment { name, text: read(path)? })
}

fn read(path: &Path) -> Result<String, Fail> {
    let failed = |what: String| Fail::request(format!("cannot read '{}': {what}", path.display()));
    let kind = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?;
    if kind.len() > MAX_CONFIG_BYTES {
        return Err(failed("it is too large for a configuration".to_owned()));
    }
    let text = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    String::from_utf8(text).map_err(|_| failed("it is not text".to_owned()))
}
