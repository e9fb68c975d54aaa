//! Targets: architecture, toolchain, configuration and goals that a state is built for.
//!
//! [`arch`] knows the names, [`config`] reads `.config` files and fragments and compares them.

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, DigestBuilder};
use crate::id::TargetName;

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

impl TargetSpec {
    /// The digest of everything in the target that decides a result, with the toolchain's content digest. The name and
    /// the time limit are not part of it.
    pub fn digest(&self, toolchain: &Digest) -> Digest {
        let builder = DigestBuilder::new("bombproof/target/v1").field(toolchain.to_string().as_bytes());
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
