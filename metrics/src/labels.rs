//! The labels that figures have: enumerations, each value of which is known here.

use std::fmt::Debug;
use std::hash::Hash;

use bombproof_core::farm::{self, Fault, Standing};
use bombproof_core::order::Done;
use bombproof_core::outcome::{self, Audited};
use bombproof_core::submission;
use bombproof_core::target;
use prometheus_client::encoding::{EncodeLabel, EncodeLabelSet, LabelSetEncoder};

/// Labels of which there are few: all of them can be told.
pub trait Bounded: EncodeLabelSet + Copy + Debug + Eq + Hash + Send + Sync + 'static {
    /// Every one.
    fn all() -> Vec<Self>;
}

impl<A: Bounded, B: Bounded> Bounded for (A, B) {
    fn all() -> Vec<Self> {
        let seconds = B::all();
        A::all().into_iter().flat_map(|first| seconds.iter().map(move |second| (first, *second))).collect()
    }
}

/// An enumeration that is a label: its name, and a word for each of its values.
macro_rules! label {
    ($(#[$about:meta])* $name:ident, $key:literal: $($(#[$each:meta])* $value:ident = $word:literal,)+) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$each])* $value,)+
        }

        impl $name {
            /// The name of the label.
            pub const KEY: &str = $key;
            /// Every value.
            pub const ALL: &[Self] = &[$(Self::$value,)+];

            /// As it is shown.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $word,)+
                }
            }
        }

        impl EncodeLabelSet for $name {
            fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
                EncodeLabel::encode(&(Self::KEY, self.as_str()), encoder.encode_label())
            }
        }

        impl Bounded for $name {
            fn all() -> Vec<Self> {
                Self::ALL.to_vec()
            }
        }
    };
}

label! {
    /// How urgent a series is.
    Priority, "priority":
    /// Somebody waits at the terminal.
    Gate = "gate",
    /// What people submit.
    Normal = "normal",
    /// What may take all night.
    Nightly = "nightly",
}

label! {
    /// The two kinds of work.
    Kind, "kind":
    /// One hermetic step.
    Action = "action",
    /// A run of make, or of a command.
    Step = "step",
}

label! {
    /// What is built for.
    Arch, "arch":
    /// x86, 64 bits.
    X86 = "x86_64",
    /// x86, 32 bits.
    I386 = "i386",
    /// ARM, 64 bits.
    Arm64 = "arm64",
    /// ARM, 32 bits.
    Arm = "arm",
    /// POWER.
    Powerpc = "powerpc",
    /// IBM Z.
    S390 = "s390",
    /// RISC-V.
    Riscv = "riscv",
    /// Another one.
    Other = "other",
    /// A command of the user's, of which that is not known.
    None = "none",
}

label! {
    /// What a job came to.
    Outcome, "outcome":
    /// It did what was asked for.
    Succeeded = "succeeded",
    /// The source does not compile or build.
    Failed = "failed",
    /// The command said that the state cannot be tested.
    Skipped = "skipped",
    /// An audit found another result than the one that it was to compare.
    Different = "different",
    /// There is no answer.
    Trouble = "trouble",
}

label! {
    /// Why the coordinator took a lease back.
    Taken, "reason":
    /// The worker was not heard any more.
    Silent = "silent",
    /// The worker was started anew.
    Restarted = "restarted",
    /// The worker never began.
    NotStarted = "not-started",
    /// The worker held on to it past its limit.
    Overdue = "overdue",
}

label! {
    /// Why there is no answer about the source.
    Trouble, "trouble":
    /// It ran too long.
    Timeout = "timeout",
    /// A process was killed.
    Killed = "killed",
    /// The disk.
    Disk = "disk",
    /// The sandbox.
    Sandbox = "sandbox",
    /// The tree, or a blob, could not be had.
    Tree = "tree",
    /// The compiler.
    Toolchain = "toolchain",
    /// The farm gave up.
    Workers = "workers",
    /// Somebody stopped it.
    Interrupted = "interrupted",
    /// What was asked for makes no sense.
    Request = "request",
    /// A bug of ours.
    Internal = "internal",
}

label! {
    /// How a worker stands.
    State, "state":
    /// It gets work.
    Good = "good",
    /// It gets nothing new, because it is being stopped.
    Draining = "draining",
    /// It gets nothing new for a while, because too much went wrong on it.
    Quarantined = "quarantined",
    /// It is not heard; as a worker sees it: the coordinator is not.
    Silent = "silent",
}

label! {
    /// How a series ended.
    Phase, "phase":
    /// With a report.
    Finished = "finished",
    /// Somebody stopped it.
    Cancelled = "cancelled",
    /// The request could not be carried out.
    Refused = "refused",
    /// The machine failed.
    Failed = "failed",
}

label! {
    /// Which way something goes, as the process sees it that has the figure.
    Direction, "direction":
    /// To it.
    In = "in",
    /// From it.
    Out = "out",
}

label! {
    /// Why the register could not be asked.
    RegisterError, "error":
    /// The server gives no answer.
    Away = "away",
    /// Another coordinator leads.
    Deposed = "deposed",
    /// What was in it is gone.
    Emptied = "emptied",
    /// A newer program wrote it.
    Newer = "newer",
    /// The disk, or it is damaged.
    Unusable = "unusable",
}

label! {
    /// What became of a call.
    Answer, "answer":
    /// It was answered.
    Answered = "answered",
    /// It was not, or with an error.
    Failed = "failed",
}

impl From<farm::Priority> for Priority {
    fn from(priority: farm::Priority) -> Self {
        match priority {
            farm::Priority::Gate => Self::Gate,
            farm::Priority::Normal => Self::Normal,
            farm::Priority::Nightly => Self::Nightly,
        }
    }
}

impl From<farm::Kind> for Kind {
    fn from(kind: farm::Kind) -> Self {
        match kind {
            farm::Kind::Action => Self::Action,
            farm::Kind::Step => Self::Step,
        }
    }
}

impl From<Option<&target::Arch>> for Arch {
    fn from(arch: Option<&target::Arch>) -> Self {
        let Some(arch) = arch else { return Self::None };
        let named = Self::ALL.iter().find(|known| known.as_str() == arch.kernel_name());
        // A worker may say that its compiler is for "none" or "other", or for anything else.
        named.copied().filter(|known| *known != Self::None).unwrap_or(Self::Other)
    }
}

/// What a job is that needs this.
pub fn of_job(needs: &farm::Needs) -> (Kind, Arch) {
    (needs.kind.into(), needs.platform.arch.as_ref().into())
}

impl From<&Done> for Outcome {
    fn from(done: &Done) -> Self {
        let good = |good: bool| if good { Self::Succeeded } else { Self::Failed };
        match done {
            Done::Action(result) => good(result.exit == 0),
            Done::Configured(configured) => good(configured.failure.is_none()),
            Done::Built { built, .. } => match &built.result.outcome {
                outcome::Outcome::Built => Self::Succeeded,
                outcome::Outcome::Failed(_) => Self::Failed,
                outcome::Outcome::Skipped => Self::Skipped,
                outcome::Outcome::Trouble(_) => Self::Trouble,
            },
            Done::Audited { audited, .. } => match audited {
                Audited::Equal => Self::Succeeded,
                Audited::Different(_) => Self::Different,
                Audited::NotDone(_) => Self::Trouble,
            },
        }
    }
}

impl From<&outcome::Trouble> for Trouble {
    fn from(trouble: &outcome::Trouble) -> Self {
        match trouble {
            outcome::Trouble::Timeout { .. } => Self::Timeout,
            outcome::Trouble::Killed { .. } => Self::Killed,
            outcome::Trouble::Disk { .. } => Self::Disk,
            outcome::Trouble::Sandbox { .. } => Self::Sandbox,
            outcome::Trouble::Tree { .. } => Self::Tree,
            outcome::Trouble::Toolchain { .. } => Self::Toolchain,
            outcome::Trouble::Workers { .. } => Self::Workers,
            outcome::Trouble::Interrupted => Self::Interrupted,
            outcome::Trouble::Request { .. } => Self::Request,
            outcome::Trouble::Internal { .. } => Self::Internal,
        }
    }
}

/// What a fault of an attempt counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Faulted {
    /// The coordinator took the lease back.
    Taken(Taken),
    /// The worker said what was wrong.
    Said(Trouble),
}

impl From<&Fault> for Faulted {
    fn from(fault: &Fault) -> Self {
        match fault {
            // What was cut off was silent when its lease was taken back.
            Fault::Silent | Fault::CutOff => Self::Taken(Taken::Silent),
            Fault::Restarted => Self::Taken(Taken::Restarted),
            Fault::NotStarted => Self::Taken(Taken::NotStarted),
            Fault::Overdue => Self::Taken(Taken::Overdue),
            Fault::Trouble(trouble) => Self::Said(trouble.into()),
        }
    }
}

impl State {
    /// How a worker stands that is heard.
    pub fn of(standing: Standing) -> Self {
        match standing {
            Standing::Good => Self::Good,
            // It ends.
            Standing::Draining | Standing::Replaced => Self::Draining,
            Standing::Quarantined { .. } => Self::Quarantined,
        }
    }
}

impl Phase {
    /// How a series ended; `None`: it did not.
    pub fn of(phase: submission::Phase) -> Option<Self> {
        match phase {
            submission::Phase::Accepted | submission::Phase::Running => None,
            submission::Phase::Finished => Some(Self::Finished),
            submission::Phase::Cancelled => Some(Self::Cancelled),
            submission::Phase::Refused => Some(Self::Refused),
            submission::Phase::Failed => Some(Self::Failed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn architectures_that_are_not_known_are_one_label() {
        let arch = |name: &str| target::Arch::parse(name);
        assert_eq!(Arch::from(None), Arch::None);
        for (name, label) in [
            ("s390x", Arch::S390),
            ("x86_64", Arch::X86),
            ("i686", Arch::I386),
            ("mips", Arch::Other),
            ("um", Arch::Other),
        ] {
            assert_eq!(Arch::from(arch(name).as_ref()), label, "{name}");
        }
    }

    #[test]
    fn pairs_of_labels_are_all_there_and_once() {
        let all = <(Kind, Arch)>::all();
        assert_eq!(all.len(), Kind::ALL.len() * Arch::ALL.len());
        assert!(all.iter().enumerate().all(|(at, pair)| !all[..at].contains(pair)));
    }

    #[test]
    fn what_was_taken_back_and_what_a_worker_said_are_told_apart() {
        assert_eq!(Faulted::from(&Fault::CutOff), Faulted::Taken(Taken::Silent));
        assert_eq!(Faulted::from(&Fault::Overdue), Faulted::Taken(Taken::Overdue));
        let said = Fault::Trouble(outcome::Trouble::Killed { detail: "cc1".to_owned() });
        assert_eq!(Faulted::from(&said), Faulted::Said(Trouble::Killed));
    }
}
