//! What make itself printed: which target failed, at which stage, and whether something went wrong that is nobody's
//! source.
//!
//! Sources of the forms: GNU make 4.3 (messages of `*** `), and kbuild's short output (`  CC      file`) as printed by
//! kernels 5.4 to 6.12.

use crate::outcome::{Stage, Trouble};

/// A target that make could not make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MakeFailure {
    /// As make names it.
    pub target: String,
    /// By its name and place.
    pub stage: Stage,
    /// Make's own words.
    pub message: String,
    /// Exit code of the recipe; `None`: make had no rule for it.
    pub code: Option<i32>,
}

/// The failures in a log, without those that only repeat a failure of a make below.
pub fn failures(log: &str) -> Vec<MakeFailure> {
    let all: Vec<MakeFailure> = log.lines().filter_map(failure).collect();
    // A recursive make that failed is reported again by its caller, for a target that is a folder or a phony one.
    let repeats = |failure: &MakeFailure| failure.code == Some(2) && !is_file(&failure.target);
    let mut own: Vec<MakeFailure> = all.iter().filter(|failure| !repeats(failure)).cloned().collect();
    if own.is_empty() {
        own = all.into_iter().take(1).collect();
    }
    let mut seen = std::collections::BTreeSet::new();
    own.retain(|failure| seen.insert(failure.target.clone()));
    own
}

/// Reads one line: `make[3]: *** [scripts/Makefile.build:250: kernel/softirq.o] Error 1`.
fn failure(line: &str) -> Option<MakeFailure> {
    let (head, rest) = line.split_once(": *** ")?;
    let make = head.rsplit('/').next()?;
    if !(make.starts_with("make") || make.starts_with("gmake")) {
        return None;
    }
    let message = rest.trim().to_owned();
    if let Some(rest) = rest.strip_prefix("No rule to make target '") {
        let target = rest.split('\'').next()?.to_owned();
        let needed = rest.split("needed by '").nth(1).and_then(|rest| rest.split('\'').next());
        let target = needed.map_or(target, str::to_owned);
        return Some(MakeFailure { stage: stage(&target), target, message, code: None });
    }
    let Some(rest) = rest.strip_prefix('[') else {
        // `Makefile:12: *** missing separator.  Stop.` and `*** No targets specified`: the makefiles themselves.
        let of_make = message.ends_with("Stop.") && !message.contains("failed to remake");
        return of_make.then(|| MakeFailure {
            target: "Makefile".to_owned(),
            stage: Stage::Prepare,
            message,
            code: None,
        });
    };
    let (place, end) = rest.split_once(']')?;
    let target = place.rsplit(": ").next().unwrap_or(place).trim().to_owned();
    let code = end.split_whitespace().rev().find_map(|word| word.parse().ok());
    Some(MakeFailure { stage: stage(&target), target, message, code })
}

fn is_file(target: &str) -> bool {
    let last = target.rsplit('/').next().unwrap_or(target);
    (last.contains('.') && !last.trim_matches('.').is_empty()) || is_program(last)
}

/// What projects that use kbuild link in the end, and what they make of it: `vmlinux`, `u-boot-spl`, `busybox_unstripped`.
fn is_program(name: &str) -> bool {
    ["vmlinux", "u-boot", "busybox", "barebox"]
        .into_iter()
        .filter_map(|program| name.strip_prefix(program))
        .any(|rest| rest.is_empty() || rest.starts_with(['.', '-', '_']))
}

/// The stage to which a target of kbuild belongs.
pub fn stage(target: &str) -> Stage {
    let last = target.rsplit('/').next().unwrap_or(target);
    let prepares = ["asm-offsets.s", "bounds.s", "timeconst.h", "prepare", "prepare0", "archprepare", "scripts_basic"];
    let configures = ["auto.conf", "autoconf.h", "syncconfig", "olddefconfig", "Kconfig", ".config", "tinyconfig"];
    let modposts =
        ["Module.symvers", "modules-only.symvers", "vmlinux.symvers", "__modpost", "modpost", "modules.nsdeps"];
    if configures.contains(&last) || last.ends_with("config") {
        Stage::Config
    } else if modposts.contains(&last) {
        Stage::Modpost
    } else if prepares.contains(&last)
        || target.starts_with("scripts/")
        || target.starts_with("tools/")
        || target.starts_with("include/")
        || target.contains("/include/generated/")
    {
        Stage::Prepare
    } else if is_program(last)
        || last.starts_with(".tmp_vmlinux")
        || last.contains("Image")
        || [".ko", ".a", ".elf", ".so.dbg"].iter().any(|ending| last.ends_with(ending))
    {
        Stage::Link
    } else {
        Stage::Compile
    }
}

/// What a machine itself says of the disk that a build wrote to. Everybody can print that a disk is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskSeen {
    /// It had little room at some time while the build ran.
    pub cramped: bool,
    /// It cannot be written.
    pub read_only: bool,
}

/// Words in any output that show that the machine failed, not the source; gives the line. That there is no room, and that nothing can be
/// written, has to be seen as well: a build that only prints so is judged on what it does.
pub fn machine_trouble(text: &str, disk: DiskSeen) -> Option<MachineTrouble> {
    text.lines().find_map(|line| {
        let line = line.trim();
        let detail = || line.chars().take(200).collect::<String>();
        if (disk.cramped && (line.contains("No space left on device") || line.contains("Disk quota exceeded")))
            || (disk.read_only && line.contains("Read-only file system"))
            || line.contains("Input/output error")
        {
            return Some(MachineTrouble::Disk(detail()));
        }
        let killed = line.contains("Killed signal terminated program")
            || line.contains("virtual memory exhausted")
            || line.contains("out of memory allocating")
            || line.contains("Cannot allocate memory")
            || line.contains("Resource temporarily unavailable")
            || (line.contains("*** [")
                && (line.ends_with("] Killed") || line.ends_with("Error 137") || line.ends_with("] Terminated")));
        killed.then(|| MachineTrouble::Killed(detail()))
    })
}

/// Trouble of the machine, with the line that shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MachineTrouble {
    /// The disk.
    Disk(String),
    /// Memory, processes.
    Killed(String),
}

impl From<MachineTrouble> for Trouble {
    fn from(trouble: MachineTrouble) -> Self {
        match trouble {
            MachineTrouble::Disk(detail) => Self::Disk { detail },
            MachineTrouble::Killed(detail) => Self::Killed { detail },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_failure_itself_is_told() {
        let log = "make[3]: *** [/b/src/scripts/Makefile.build:250: kernel/softirq.o] Error 1\n\
                   make[2]: *** [/b/src/scripts/Makefile.build:500: kernel] Error 2\n\
                   make[2]: Target './' not remade because of errors.\n\
                   make[1]: *** [/b/src/Makefile:2013: .] Error 2\n\
                   make: *** [Makefile:238: __sub-make] Error 2\n";
        let found = failures(log);
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].target.as_str(), found[0].stage, found[0].code),
            ("kernel/softirq.o", Stage::Compile, Some(1))
        );
    }

    #[test]
    fn a_program_that_is_not_linked_is_no_folder() {
        let log =
            "make[1]: *** [/b/src/Makefile:718: busybox_unstripped] Error 2\nmake: *** [Makefile:112: _all] Error 2\n";
        let found = failures(log);
        assert_eq!((found.len(), found[0].target.as_str(), found[0].stage), (1, "busybox_unstripped", Stage::Link));
    }

    #[test]
    fn stages() {
        for (target, want) in [
            ("kernel/fork.o", Stage::Compile),
            ("kernel/bounds.s", Stage::Prepare),
            ("arch/s390/kernel/asm-offsets.s", Stage::Prepare),
            ("scripts/mod/modpost.o", Stage::Prepare),
            ("include/config/auto.conf", Stage::Config),
            ("Module.symvers", Stage::Modpost),
            ("drivers/net/x.ko", Stage::Link),
            ("vmlinux", Stage::Link),
            (".tmp_vmlinux.kallsyms1", Stage::Link),
            ("vmlinux.o", Stage::Link),
            ("arch/x86/boot/bzImage", Stage::Link),
            ("u-boot", Stage::Link),
            ("spl/u-boot-spl", Stage::Link),
            ("busybox_unstripped", Stage::Link),
            ("busybox", Stage::Link),
            ("cmd/busyboxes", Stage::Compile),
        ] {
            assert_eq!(stage(target), want, "{target}");
        }
    }

    #[test]
    fn other_forms() {
        let one = |log: &str| failures(log).into_iter().next().map(|failure| (failure.target, failure.stage));
        assert_eq!(
            one("make[2]: *** No rule to make target 'kernel/gone.o', needed by 'kernel/built-in.a'.  Stop.\n"),
            Some(("kernel/built-in.a".to_owned(), Stage::Link))
        );
        assert_eq!(one("make: *** [Makefile:1: all] Error 2\n"), Some(("all".to_owned(), Stage::Compile)));
        assert_eq!(one("  CC      kernel/fork.o\n"), None);
        assert_eq!(one("text: *** no make\n"), None);
    }

    #[test]
    fn the_machine_is_told_from_the_source() {
        let good = DiskSeen::default();
        for text in [
            "gcc: fatal error: Killed signal terminated program cc1",
            "make[2]: *** [scripts/Makefile.build:250: a.o] Error 137",
            "cc1: out of memory allocating 65536 bytes",
        ] {
            assert!(matches!(machine_trouble(text, good), Some(MachineTrouble::Killed(_))), "{text}");
        }
        assert_eq!(machine_trouble("a.c:1: error: no", DiskSeen { cramped: true, read_only: true }), None);
    }

    #[test]
    fn what_is_printed_of_a_disk_counts_where_the_machine_says_so_too() {
        let (good, full) = (DiskSeen::default(), DiskSeen { cramped: true, read_only: false });
        let shut = DiskSeen { cramped: false, read_only: true };
        let [space, quota, only, error] = [
            "as: a.o: No space left on device",
            "cc1: Disk quota exceeded",
            "touch: cannot touch 'x': Read-only file system",
            "ld: Input/output error",
        ];
        for (text, disk, want) in [
            (space, good, false),
            (space, shut, false),
            (space, full, true),
            (quota, good, false),
            (quota, full, true),
            (only, good, false),
            (only, full, false),
            (only, shut, true),
            // Nothing else shows a bad block.
            (error, good, true),
        ] {
            let found = machine_trouble(text, disk);
            assert_eq!(matches!(found, Some(MachineTrouble::Disk(_))), want, "{text} {disk:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_gives_an_answer(text in "(make|: \\*\\*\\* |\\[|\\]|: |Error 2|\n|a|\\.|'){0,40}") {
            let _ = failures(&text);
        }
    }
}
