//! How far a change reaches: whether compiling the units that read a file again is all that a build would do.
//!
//! The rules err on one side only: what is not certain goes to the project's own make.

use crate::target::config::Config;

/// Files that the build of objtool compares with its own copies (`tools/objtool/sync-check.sh` of the kernel).
const COPIED: &[&str] = &[
    "arch/x86/include/asm/emulate_prefix.h",
    "arch/x86/include/asm/inat.h",
    "arch/x86/include/asm/inat_types.h",
    "arch/x86/include/asm/insn.h",
    "arch/x86/include/asm/nops.h",
    "arch/x86/include/asm/orc_types.h",
    "arch/x86/lib/inat.c",
    "arch/x86/lib/insn.c",
    "include/linux/objtool.h",
    "include/linux/objtool_types.h",
    "include/linux/static_call_types.h",
];

/// Architectures whose builds read nothing of the others, but for those named.
///
/// Others borrow: `um` is made of x86.
const APART: &[(&str, &[&str])] = &[("arm64", &["arm"]), ("powerpc", &[]), ("s390", &[]), ("x86", &[])];

/// Whether a file belongs to an architecture that the build of `arch` (a folder of `arch/`) does not look at. Compilers
/// may still read it: that is for their lists to say.
pub fn is_foreign(path: &str, arch: &str) -> bool {
    let Some((owner, _)) = path.strip_prefix("arch/").and_then(|rest| rest.split_once('/')) else { return false };
    let name = path.rsplit('/').next().unwrap_or(path);
    // Scripts look at the calls of other architectures.
    let kept = name.starts_with("Kconfig") || name.starts_with("Makefile") || name == "Kbuild";
    kept && owner != arch && APART.iter().any(|(it, borrows)| *it == arch && !borrows.contains(&owner))
}

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
            || is_local_version(path)
        {
            return Reach::Nothing;
        }
    }
    let code = [".c", ".h", ".S"].iter().any(|ending| name.ends_with(ending));
    let mut folders = path.split('/').rev().skip(1);
    let special = folders.any(|folder| SPECIAL.contains(&folder) || folder.starts_with("vdso"));
    // Checked by a script against a list of sums; looked through for missing calls.
    let checked = path.starts_with("include/linux/atomic/")
        || path == "include/linux/kbuild.h"
        || name.starts_with("unistd")
        || COPIED.contains(&path);
    if code && !special && !checked { Reach::Units } else { Reach::Structure }
}

/// Whether a file at the top adds to the name of a release, which is the same for all states here.
fn is_local_version(path: &str) -> bool {
    path.starts_with("localversion") && !path.contains('/')
}

/// Whether a header of this path comes and goes without any step noticing but the compiles that look for one of its name.
///
/// The build makes wrappers of what an architecture's own folder of headers does not have, and exports `uapi`.
pub fn is_plain_header(path: &str) -> bool {
    let owned = (path.starts_with("arch/") && path.contains("/include/"))
        || ["include/asm-generic/", "include/uapi/", "include/generated/", "include/config/"]
            .iter()
            .any(|folder| path.starts_with(folder));
    path.ends_with(".h") && of(path) == Reach::Units && !owned
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

/// Whether a build with this option is one of those.
pub fn refuses(option: &str) -> Option<&'static str> {
    REFUSED.iter().copied().find(|refused| *refused == option)
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
    fn headers_that_come_and_go() {
        for (path, want) in [
            ("include/net/mana/gdma.h", true),
            ("drivers/net/a.h", true),
            ("drivers/net/a.c", false),
            ("arch/x86/include/asm/a.h", false),
            ("arch/x86/kvm/a.h", true),
            ("include/asm-generic/a.h", false),
            ("include/uapi/linux/a.h", false),
            ("tools/include/a.h", false),
            ("scripts/a.h", false),
        ] {
            assert_eq!(is_plain_header(path), want, "{path}");
        }
    }

    #[test]
    fn the_makefiles_of_another_architecture_are_foreign() {
        for (path, arch, want) in [
            ("arch/x86/Kconfig", "s390", true),
            ("arch/x86/kernel/Makefile", "s390", true),
            ("arch/s390/Kconfig.debug", "s390", false),
            ("arch/arm/xen/Makefile", "arm64", false),
            ("arch/arm/xen/Makefile", "x86", true),
            ("arch/x86/Kconfig", "um", false),
            ("arch/x86/entry/syscalls/syscall_32.tbl", "s390", false),
            ("arch/Kconfig", "s390", false),
            ("lib/Kconfig", "s390", false),
        ] {
            assert_eq!(is_foreign(path, arch), want, "{path} {arch}");
        }
    }

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
            ("include/uapi/rdma/mana-abi.h", Reach::Units),
            ("include/uapi/asm-generic/unistd.h", Reach::Structure),
            ("arch/x86/lib/insn.c", Reach::Structure),
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
            ("localversion-rt", Reach::Nothing),
            ("localversion", Reach::Nothing),
            ("drivers/localversion-rt", Reach::Structure),
            ("localversion/Makefile", Reach::Structure),
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
