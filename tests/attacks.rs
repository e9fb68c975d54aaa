//! What hostile patches try, and what is to become of it.

#![allow(clippy::unwrap_used, unreachable_pub, missing_docs, dead_code, reason = "part of each test program")]

use crate::common::Ground;

/// What a hostile patch has make do, and what the report says of it.
pub struct Attack {
    pub what: &'static str,
    /// A line of a recipe; fails where the attack does.
    pub script: &'static str,
    pub verdict: &'static str,
    pub words: &'static str,
}

pub const ATTACKS: &[Attack] = &[
    Attack {
        what: "reaches an address",
        script: "bash -c 'exec 3<>/dev/tcp/10.0.0.1/80'",
        verdict: "fails",
        words: "Network is unreachable",
    },
    Attack {
        what: "reads the memory of others",
        script: "for p in /proc/[0-9]*; do tr '\\\\0' ' ' < $$p/cmdline; done | grep -aE '__[a]gent|__[s]erve|[d]ockerd|[c]argo'",
        verdict: "fails",
        words: "attack",
    },
    Attack {
        what: "reads the files of the host",
        script: "ls -d @HOME@ @HOME@/cas /etc/shadow /root/* /home/*",
        verdict: "fails",
        words: "No such file or directory",
    },
    Attack {
        what: "speaks to the engine",
        script: "ls /var/run/docker.sock /run/docker.sock",
        verdict: "fails",
        words: "No such file or directory",
    },
    Attack {
        what: "looks for secrets in its environment and those of others",
        script: "cat /proc/*/environ | tr '\\\\0' '\\\\n' | grep -a BOMBPROOF_TEST_[S]ECRET",
        verdict: "fails",
        words: "attack",
    },
    Attack {
        what: "writes to the kernel's settings",
        script: "echo '|/bin/sh' > /proc/sys/kernel/core_pattern",
        verdict: "fails",
        words: "core_pattern",
    },
    Attack {
        what: "becomes root and undoes its mounts",
        script: "unshare -Urm sh -c 'umount /proc/sys || mount -o remount,rw,bind /bombproof/src'",
        verdict: "fails",
        words: "attack",
    },
    Attack {
        what: "writes into the source tree",
        script: "echo x >> /bombproof/src/Makefile",
        verdict: "fails",
        words: "cannot create /bombproof/src/Makefile",
    },
    Attack {
        what: "starts processes without end",
        script: "bash -c 'f() { f | f & }; f; sleep 5; true | true'",
        verdict: "not-judged",
        words: "Resource temporarily unavailable",
    },
    Attack {
        what: "allocates without end",
        script: "perl -e 'my @a; push @a, \"x\" x 10000000 while 1'",
        verdict: "not-judged",
        words: "out of memory: the container has 768 MiB",
    },
    Attack {
        what: "fills the disk",
        script: "head -c 4G /dev/zero > /bombproof/out/big",
        verdict: "not-judged",
        words: "No space left on device",
    },
    Attack {
        what: "leaves processes behind",
        script: "setsid sleep 98761 > /dev/null 2>&1 & true",
        verdict: "builds",
        words: "",
    },
];

impl Attack {
    /// Makes a branch of three patches on the base: harmless, hostile, harmless again. What stands in the script for something known later
    /// is replaced.
    pub fn branch(&self, ground: &Ground, name: &str, known: &[(&str, &str)]) {
        ground.git(&["checkout", "-q", "-B", name, "base"]);
        let makefile = std::fs::read_to_string(ground.repo().join("Makefile")).unwrap();
        let script = known.iter().fold(self.script.to_owned(), |script, (word, value)| script.replace(word, value));
        let recipe = format!("hostile:\n\t@{script} || {{ echo attack failed >&2; exit 1; }}\n.PHONY: hostile\n");
        let hostile = makefile
            .replace("\nall: ", "\nall: hostile ")
            .replace("\n$(O)/kernel/bounds.s:", &format!("\n{recipe}\n$(O)/kernel/bounds.s:"));
        for (subject, text) in [
            ("one", format!("{makefile}# one {name}\n")),
            ("hostile", hostile),
            ("three", format!("{makefile}# three {name}\n")),
        ] {
            std::fs::write(ground.repo().join("Makefile"), text).unwrap();
            ground.git(&["commit", "-qam", subject]);
        }
    }
}
