//! Architectures: the kernel's names, the distributions' names, and the cross compilers by convention.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A kernel architecture, named as in `ARCH=`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Arch(String);

/// Other name, kernel name, GNU triplet of the cross compiler in Debian, Debian package of that compiler, and
/// whether the triplet is native on a machine of the same kind.
const KNOWN: &[(&[&str], &str, &str, &str)] = &[
    (&["x86_64", "amd64", "x86"], "x86_64", "x86_64-linux-gnu", "gcc-x86-64-linux-gnu"),
    (&["i386", "i686"], "i386", "i686-linux-gnu", "gcc-i686-linux-gnu"),
    (&["arm64", "aarch64"], "arm64", "aarch64-linux-gnu", "gcc-aarch64-linux-gnu"),
    (&["arm", "armhf", "armv7hl"], "arm", "arm-linux-gnueabihf", "gcc-arm-linux-gnueabihf"),
    (&["powerpc", "ppc64le", "ppc64el"], "powerpc", "powerpc64le-linux-gnu", "gcc-powerpc64le-linux-gnu"),
    (&["s390", "s390x"], "s390", "s390x-linux-gnu", "gcc-s390x-linux-gnu"),
    (&["riscv", "riscv64"], "riscv", "riscv64-linux-gnu", "gcc-riscv64-linux-gnu"),
    (&["mips"], "mips", "mips-linux-gnu", "gcc-mips-linux-gnu"),
    (&["loongarch", "loongarch64"], "loongarch", "loongarch64-linux-gnu", ""),
    (&["sparc", "sparc64"], "sparc", "sparc64-linux-gnu", "gcc-sparc64-linux-gnu"),
    (&["parisc", "hppa"], "parisc", "hppa-linux-gnu", "gcc-hppa-linux-gnu"),
    (&["alpha"], "alpha", "alpha-linux-gnu", "gcc-alpha-linux-gnu"),
    (&["m68k"], "m68k", "m68k-linux-gnu", "gcc-m68k-linux-gnu"),
    (&["sh", "sh4"], "sh", "sh4-linux-gnu", "gcc-sh4-linux-gnu"),
    (&["arc"], "arc", "arc-linux-gnu", "gcc-arc-linux-gnu"),
    (&["um"], "um", "x86_64-linux-gnu", "gcc"),
];

impl Arch {
    /// Understands the kernel's names and those of the distributions (`aarch64`, `ppc64le`, `s390x`); `None` for a
    /// name that it does not know.
    pub fn parse(name: &str) -> Option<Self> {
        KNOWN.iter().find(|known| known.0.contains(&name)).map(|known| Self(known.1.to_owned()))
    }

    /// The value of `ARCH=`, and the name in reports.
    pub fn kernel_name(&self) -> &str {
        &self.0
    }

    /// The folder of its sources below `arch/`.
    pub fn folder(&self) -> &str {
        match self.kernel_name() {
            "x86_64" | "i386" => "x86",
            name => name,
        }
    }

    /// The GNU triplet by which distributions name the cross compiler.
    pub fn triplet(&self) -> Option<&'static str> {
        KNOWN.iter().find(|known| known.1 == self.0).map(|known| known.2)
    }

    /// The Debian package that holds the cross compiler; empty where there is none.
    pub fn debian_package(&self) -> &'static str {
        KNOWN.iter().find(|known| known.1 == self.0).map_or("", |known| known.3)
    }

    /// Every name that [`Arch::parse`] understands, for messages.
    pub fn known_names() -> impl Iterator<Item = &'static str> {
        KNOWN.iter().flat_map(|known| known.0.iter().copied())
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_distributions_and_of_the_kernel_are_understood() {
        let table = [
            ("x86_64", "x86_64"),
            ("amd64", "x86_64"),
            ("aarch64", "arm64"),
            ("arm64", "arm64"),
            ("ppc64le", "powerpc"),
            ("powerpc", "powerpc"),
            ("s390x", "s390"),
            ("s390", "s390"),
            ("riscv64", "riscv"),
        ];
        for (given, kernel) in table {
            assert_eq!(Arch::parse(given).map(|arch| arch.to_string()).as_deref(), Some(kernel), "{given}");
        }
        assert_eq!(Arch::parse("vax"), None);
        assert_eq!(Arch::parse(""), None);
    }

    #[test]
    fn every_known_name_parses_to_itself_once() {
        for name in Arch::known_names() {
            assert_eq!(KNOWN.iter().filter(|known| known.0.contains(&name)).count(), 1, "{name}");
        }
    }
}
