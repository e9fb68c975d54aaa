//! How far a change reaches: whether compiling the units that read a file again is all that a build would do.
//!
//! The rules err on one side only: what is not certain goes to the project's own make.

use crate::target::config::Config;

/// What a changed file may mean to a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// No step of a build reads it.
    Nothing,
    /// Only those units that name it as an input, and other steps whose inputs are known.
    Units,
    /// The structure of the build, or a step whose inputs nobody wrote down.
    Structure,
}

/// Folders whose files are read by scripts and generators, or become part of images by other ways than a plain link.
const SPECIAL: &[&str] = &[
    "boot",
    "certs",
    "compressed",
    "kexec",
    "libstub",
    "nvhe",
    "pi",
    "purgatory",
    "realmode",
    "scripts",
    "syscalls",
    "tools",
    "uapi",
    "usr",
    "vdso",
    "vdso32",
    "vdso64",
];

/// What a change of this file may mean, by its path alone.
pub fn of(path: &str) -> Reach {
    let name = path.rsplit('/').next().unwrap_or(path);
    if !name.contains("Kconfig") && !name.contains("Makefile") && !name.starts_with("Kbuild") {
        let text = [".rst", ".txt", ".yaml", ".svg", ".dot"].iter().any(|ending| name.ends_with(ending));
        let top = ["MAINTAINERS", "CREDITS", "COPYING", ".mailmap", ".get_maintainer.ignore", ".clang-format"];
        if (path.starts_with("Documentation/") && text)
            || top.contains(&path)
            || name == ".gitignore"
            || path.starts_with("tools/testing/")
        {
            return Reach::Nothing;
        }
    }
    let code = [".c", ".h", ".S"].iter().any(|ending| name.ends_with(ending));
    let mut folders = path.split('/').rev().skip(1);
    let special = folders.any(|folder| SPECIAL.contains(&folder) || folder.starts_with("vdso"));
    // Checked by a script against a list of sums.
    let checked = path.starts_with("include/linux/atomic/") || path.starts_with("include/linux/kbuild.h");
    if code && !special && !checked { Reach::Units } else { Reach::Structure }
}

/// Options under which compiling a unit is followed by steps that are not known here, or a link looks at the insides of
/// objects.
const REFUSED: &[&str] = &[
    "FTRACE_MCOUNT_USE_RECORDMCOUNT",
    "HEADERS_INSTALL",
    "IKHEADERS",
    "LTO_CLANG",
    "MODVERSIONS",
    "RUST",
    "TRIM_UNUSED_KSYMS",
    "UAPI_HEADER_TEST",
    "WARN_ABI_ERRORS",
    "WARN_MISSING_DOCUMENTS",
    "X86_KERNEL_IBT",
];

/// The option that keeps units of this configuration from being compiled by themselves.
pub fn refused_by(config: &Config) -> Option<&'static str> {
    REFUSED.iter().copied().find(|option| config.get(*option).is_some_and(|value| value != "n"))
}

/// Whether arguments of make ask for more than compiles: checkers, documentation checks.
pub fn plain_arguments(arguments: &[String]) -> bool {
    !arguments
        .iter()
        .any(|word| word.starts_with("C=") || word.starts_with("KBUILD_EXTRA") || word.starts_with("CHECK"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_by_how_far_they_reach() {
        for (path, want) in [
            ("kernel/fork.c", Reach::Units),
            ("include/linux/sched.h", Reach::Units),
            ("arch/x86/entry/entry_64.S", Reach::Units),
            ("arch/x86/entry/vdso/vclock_gettime.c", Reach::Structure),
            ("arch/s390/kernel/vdso64/getcpu.c", Reach::Structure),
            ("arch/x86/realmode/rm/header.S", Reach::Structure),
            ("arch/x86/boot/compressed/misc.c", Reach::Structure),
            ("arch/x86/entry/syscalls/syscall_64.tbl", Reach::Structure),
            ("drivers/firmware/efi/libstub/arm64.c", Reach::Structure),
            ("include/uapi/rdma/mana-abi.h", Reach::Structure),
            ("include/linux/atomic/atomic-long.h", Reach::Structure),
            ("drivers/net/Makefile", Reach::Structure),
            ("drivers/net/Kconfig", Reach::Structure),
            ("Kbuild", Reach::Structure),
            ("scripts/mod/modpost.c", Reach::Structure),
            ("lib/x509.asn1", Reach::Structure),
            ("firmware/blob.bin", Reach::Structure),
            ("Documentation/networking/mana.rst", Reach::Nothing),
            ("Documentation/Makefile", Reach::Structure),
            ("Documentation/Kconfig", Reach::Structure),
            ("Documentation/devicetree/bindings/a.yaml", Reach::Nothing),
            ("Documentation/driver.c", Reach::Units),
            ("MAINTAINERS", Reach::Nothing),
            ("drivers/MAINTAINERS", Reach::Structure),
            ("tools/testing/selftests/x.c", Reach::Nothing),
            ("tools/testing/Makefile", Reach::Structure),
            ("", Reach::Structure),
        ] {
            assert_eq!(of(path), want, "{path}");
        }
    }

    #[test]
    fn options_that_refuse() {
        let config = |text: &str| crate::target::config::effective(text);
        assert_eq!(refused_by(&config("CONFIG_MODVERSIONS=y\n")), Some("MODVERSIONS"));
        assert_eq!(refused_by(&config("# CONFIG_MODVERSIONS is not set\nCONFIG_SMP=y\n")), None);
        assert!(plain_arguments(&["W=1".to_owned()]) && !plain_arguments(&["C=1".to_owned()]));
    }
}
