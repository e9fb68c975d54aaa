//! Targets: architecture, toolchain, configuration and goals that a state is built for.
//!
//! [`arch`] knows the names, [`config`] reads `.config` files and fragments and compares them.

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, DigestBuilder};
use crate::id::{PatchIndex, TargetName};

pub mod arch;
pub mod config;

pub use arch::Arch;

/// What a state is built for, as the user named it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetSpec {
    /// Unique in a run.
    pub name: TargetName,
    /// How it is built.
    pub build: Build,
    /// At most this long for one state, in seconds.
    pub timeout_s: u64,
}

/// A compiler that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Toolchain {
    /// Its first line of `--version`.
    pub version: String,
    /// Of the contents of all programs that decide what it makes.
    pub digest: Digest,
}

/// How a state is built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Build {
    /// The project's own kbuild.
    Kbuild(Kbuild),
    /// A command in the state's tree: exit 0 builds, 125 skips, anything else fails.
    Command {
        /// Run by `sh -c`.
        command: String,
    },
}

/// A kbuild target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kbuild {
    /// The architecture.
    pub arch: Arch,
    /// gcc or clang.
    pub compiler: Compiler,
    /// Prefix of the cross tools, `aarch64-linux-gnu-`; empty: the native ones.
    pub cross_compile: String,
    /// Where the configuration starts.
    pub base_config: BaseConfig,
    /// Appended in order.
    pub fragments: Vec<Fragment>,
    /// Extra arguments of make: `W=1`, `KCFLAGS=...`.
    pub make_args: Vec<String>,
    /// Goals of make; empty: the project's default.
    pub goals: Vec<String>,
}

/// Which compiler family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compiler {
    /// `gcc` behind the cross prefix
    Gcc,
    /// `LLVM=1`
    Clang,
}

/// Where a configuration starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BaseConfig {
    /// A goal of make: `tinyconfig`, `defconfig`, `allmodconfig`, `pseries_le_defconfig`.
    Goal(String),
    /// A file of the user's.
    File(Fragment),
}

/// A piece of configuration given by the user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fragment {
    /// What the user called it.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// What a configuration is called: `tinyconfig+rdma.config`.
pub fn config_name(base: &BaseConfig, fragments: &[Fragment]) -> String {
    let base = match base {
        BaseConfig::Goal(goal) => goal.clone(),
        BaseConfig::File(file) => file.name.clone(),
    };
    let safe = |text: &str| text.replace(['/', ' '], "_");
    fragments.iter().fold(safe(&base), |name, fragment| format!("{name}+{}", safe(&fragment.name)))
}

impl TargetSpec {
    /// The log of a state, below the folder of logs.
    pub fn log_name(&self, state: PatchIndex) -> String {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+');
        let safe: String = self.name.as_str().chars().map(|c| if plain(c) { c } else { '_' }).collect();
        format!("{safe}/{state}.log")
    }

    /// The digest of everything in the target that decides a result, with the toolchain's content digest. The name and
    /// the time limit are not part of it.
    pub fn digest(&self, toolchain: &Digest) -> Digest {
        let builder = DigestBuilder::new("bombproof/target/v2").field(toolchain.to_string().as_bytes());
        match &self.build {
            Build::Command { command } => builder.field(b"command").field(command.as_bytes()),
            Build::Kbuild(kbuild) => {
                let base = match &kbuild.base_config {
                    BaseConfig::Goal(goal) => ["goal", goal],
                    BaseConfig::File(file) => ["file", &file.text],
                };
                builder
                    .field(b"kbuild")
                    .field(kbuild.arch.kernel_name().as_bytes())
                    .field(format!("{:?}", kbuild.compiler).as_bytes())
                    .field(kbuild.cross_compile.as_bytes())
                    .list(base.into_iter())
                    .list(kbuild.fragments.iter().map(|fragment| fragment.text.as_str()))
                    .list(kbuild.make_args.iter().map(String::as_str))
                    .list(kbuild.goals.iter().map(String::as_str))
            }
        }
        .finish()
    }
}
