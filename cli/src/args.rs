//! The command line.

use std::path::PathBuf;

use bombproof_core::access::{ProjectId, Role};
use bombproof_core::size::Bytes;
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Proves that every patch of a series applies, builds on every architecture and adds no warning - or names the first
/// patch that does not, with the evidence.
#[derive(Debug, Parser)]
#[command(name = "bombproof", version, max_term_width = 100, disable_help_subcommand = true)]
#[command(
    after_help = "Exit codes: 0 clean; 1 findings (as --fail-on says); 2 could not be decided; 64 the request or its \
                        input is wrong.\nThe state folder is BOMBPROOF_HOME, else the XDG data folder."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build every patch of a series on every target and judge it
    Check(CheckArgs),
    /// Build only the base and the tip of a series, on every target
    Gate(CheckArgs),
    /// Hand a series to a farm and go: it goes on without you
    Submit(CheckArgs),
    /// Watch a series of a farm to its end, and give its report
    Watch(WatchArgs),
    /// Stop a series of a farm
    Cancel(CancelArgs),
    /// List the stored runs, or the series of a farm
    List(ReachArgs),
    /// Show how far a run is; with --coordinator, how a farm is
    Status(RunArg),
    /// Render a stored run again, in any format
    Report(ReportArgs),
    /// Show the evidence for one patch on one target
    Explain(OneArgs),
    /// Print a shell script that builds one patch on one target with git and make alone
    Reproduce(OneArgs),
    /// List what targets need on this machine, with the line that installs what is missing
    Doctor(TargetArgs),
    /// Look after what is kept of builds: blobs, results of actions
    #[command(subcommand)]
    Cache(CacheCommand),
    /// Run the coordinator of a farm: takes series, and has workers build them
    Coordinator(CoordinatorArgs),
    /// Run a worker of a farm: builds what a coordinator says
    Worker(WorkerArgs),
    /// Say which protocol this program speaks, and whether coordinators take it: needs no token
    Protocol(ReachArgs),
    /// Make certificates and tokens for a farm
    #[command(subcommand)]
    Pki(PkiCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum PkiCommand {
    /// Make an authority of the farm's own, and a certificate for its coordinator
    Init {
        /// Where they are put; made when it is not there
        dir: PathBuf,
        /// A name or address under which the coordinator is reached; this machine's loopback names are added
        #[arg(long, value_name = "HOST")]
        host: Vec<String>,
    },
    /// Make the coordinator's certificate anew
    Server {
        /// The folder of `pki init`
        dir: PathBuf,
        /// As in `pki init`
        #[arg(long, value_name = "HOST")]
        host: Vec<String>,
    },
    /// Make a certificate for a worker or a user, and admit it
    Client {
        /// The folder of `pki init`
        dir: PathBuf,
        /// What the owner is called
        name: String,
        /// read, submit, worker, admin; several with commas
        #[arg(long, value_name = "ROLE", required = true, value_delimiter = ',')]
        role: Vec<Role>,
        /// The projects whose series the owner hands in and sees; several with commas. Without it the one of all that name none
        #[arg(long, value_name = "NAME", value_delimiter = ',')]
        project: Vec<ProjectId>,
    },
    /// Make a token for a worker or a user, admit it and print it; it is kept nowhere
    Token {
        /// The folder of `pki init`, or one with a file `access`
        dir: PathBuf,
        /// What the owner is called
        name: String,
        /// read, submit, worker, admin; several with commas
        #[arg(long, value_name = "ROLE", required = true, value_delimiter = ',')]
        role: Vec<Role>,
        /// The projects whose series the owner hands in and sees; several with commas. Without it the one of all that name none
        #[arg(long, value_name = "NAME", value_delimiter = ',')]
        project: Vec<ProjectId>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// Show how much is kept, and since when it is unused
    Stats,
    /// Evict what was used longest ago; nothing that a running check holds, and nothing of the last minutes
    Gc {
        /// How much content may stay: bytes, or KiB, MiB, GiB, TiB
        #[arg(long, value_name = "SIZE", default_value = "20GiB")]
        limit: Bytes,
        /// Drop results of actions, manifests and action graphs that are older; they are small
        #[arg(long, value_name = "N", default_value_t = 90)]
        keep_days: u32,
    },
    /// Read everything and drop what is damaged; exit code 2 where anything was
    Verify,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ModeArg {
    /// Every patch
    Every,
    /// The base and the last patch
    Tip,
    /// Search the first failing patch, assuming that all later ones fail too (with --exec)
    Search,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For a terminal
    Text,
    /// The schema bombproof/report/v1
    Json,
    /// For a merge request
    Markdown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FailOnArg {
    /// Patches that fail or do not apply
    Fails,
    /// New warnings
    Warnings,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SandboxArg {
    /// The best that this machine has, without containers
    Auto,
    /// Name spaces of our own
    Namespaces,
    /// The same by bwrap
    Bubblewrap,
    /// Only files are shut off
    Landlock,
    /// Name spaces of our own in locked-down containers of --image
    Container,
}

/// What is built.
#[derive(Clone, Debug, Args)]
pub(crate) struct TargetArgs {
    /// Architectures, by the kernel's names or those of distributions: x86_64,arm64,ppc64le,s390x
    #[arg(long, value_delimiter = ',', value_name = "ARCH")]
    pub(crate) arch: Vec<String>,
    /// The configuration: a goal of make (defconfig, tinyconfig, allmodconfig) or a file
    #[arg(long, value_name = "GOAL|FILE", default_value = "defconfig")]
    pub(crate) config: String,
    /// Added to the configuration, in order; ARCH:FILE for one architecture
    #[arg(long, value_name = "[ARCH:]FILE")]
    pub(crate) fragment: Vec<String>,
    /// Only these targets of bombproof.toml
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) target: Vec<String>,
    /// The file with `[[target]]` tables; by default bombproof.toml here or at the top of the repository
    #[arg(long, value_name = "FILE")]
    pub(crate) targets_file: Option<PathBuf>,
    /// Build with clang (LLVM=1)
    #[arg(long)]
    pub(crate) llvm: bool,
    /// Further words for make, such as W=1 or C=1
    #[arg(long = "make", value_name = "WORD", allow_hyphen_values = true)]
    pub(crate) make_args: Vec<String>,
    /// Goals of make; by default the project's own
    #[arg(long = "goal", value_name = "GOAL")]
    pub(crate) goals: Vec<String>,
    /// Stop a state that takes longer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 7200, value_parser = clap::value_parser!(u64).range(1..=604_800))]
    pub(crate) timeout: u64,
}

/// What is checked, and how.
#[derive(Clone, Debug, Args)]
pub(crate) struct CheckArgs {
    /// The series: a range A..B, a quilt series file or its folder, an mbox, a maildir, a folder of patches, or -
    #[arg(value_name = "SERIES")]
    pub(crate) series: String,
    /// The repository that holds the base
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) repo: PathBuf,
    /// What the first patch goes on; by default the base-commit of the mails
    #[arg(long, value_name = "REV")]
    pub(crate) base: Option<String>,
    #[command(flatten)]
    pub(crate) targets: TargetArgs,
    /// Which patches are judged
    #[arg(long, value_enum, default_value_t = ModeArg::Every)]
    pub(crate) mode: ModeArg,
    /// Build this share of the states again by plain make, and compare: 5% or all
    #[arg(long, value_name = "N%|all", value_parser = percent, conflicts_with = "exec")]
    pub(crate) audit: Option<u8>,
    /// Audit each state from scratch instead of on top of the one before
    #[arg(long, requires = "audit")]
    pub(crate) audit_clean: bool,
    /// Run this command in every state's tree instead of make; exit code 125 means "cannot be tested"
    #[arg(long, value_name = "CMD", conflicts_with_all = ["arch", "target", "llvm"])]
    pub(crate) exec: Option<String>,
    /// Jobs at once, over all targets; by default the processors of this machine
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) jobs: Option<u16>,
    /// How the report is rendered
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
    /// Write the report to this file instead of the standard output
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// What makes the exit code 1
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [FailOnArg::Fails, FailOnArg::Warnings])]
    pub(crate) fail_on: Vec<FailOnArg>,
    /// Exit as `git bisect run` understands: 0 clean, 1 findings, 125 undecided, 128 wrong request
    #[arg(long)]
    pub(crate) bisect_exit: bool,
    /// Symbol that is defined for the guards of a series file (+SYMBOL, -SYMBOL)
    #[arg(long, value_name = "SYMBOL")]
    pub(crate) guard: Vec<String>,
    /// Build again what is known from earlier runs
    #[arg(long)]
    pub(crate) fresh: bool,
    /// How much content of builds is kept afterwards; what was used longest ago goes (see `cache gc`)
    #[arg(long, value_name = "SIZE", default_value = "20GiB")]
    pub(crate) cache_limit: Bytes,
    #[command(flatten)]
    pub(crate) sandbox: SandboxArgs,
    #[command(flatten)]
    pub(crate) reach: ReachArgs,
    /// With --coordinator: the repository as the farm calls it; by default its only one
    #[arg(long, value_name = "NAME", requires = "coordinator")]
    pub(crate) farm_repo: Option<String>,
    /// With --coordinator: the project that it is of, which alone sees it; by default the only one that you are in
    #[arg(long, value_name = "NAME", requires = "coordinator")]
    pub(crate) project: Option<ProjectId>,
    /// With --coordinator: how urgent it is
    #[arg(long, value_enum, default_value_t = PriorityArg::Normal)]
    pub(crate) priority: PriorityArg,
}

/// How builds are shut in.
#[derive(Clone, Debug, Args)]
pub(crate) struct SandboxArgs {
    /// How builds are shut in
    #[arg(long, value_enum, default_value_t = SandboxArg::Auto)]
    pub(crate) sandbox: SandboxArg,
    /// The image whose compilers build, with --sandbox container (deploy/images/build makes one)
    #[arg(long, value_name = "NAME", required_if_eq("sandbox", "container"))]
    pub(crate) image: Option<String>,
    /// The socket of the container engine, Docker or Podman; by default that of DOCKER_HOST, else the engine's own
    #[arg(long, value_name = "SOCKET", requires = "image")]
    pub(crate) engine: Option<PathBuf>,
    /// Memory of each container; by default nine tenths of the machine's are shared out
    #[arg(long, value_name = "SIZE", requires = "image")]
    pub(crate) slot_memory: Option<Bytes>,
    /// Build without any sandbox where none can be had: builds can then read and write everything that you can
    #[arg(long)]
    pub(crate) unsafe_no_sandbox: bool,
}

/// Where a farm is, and who asks.
#[derive(Clone, Debug, Args)]
pub(crate) struct ReachArgs {
    /// The coordinator of a farm: http://HOST:PORT, or https://HOST:PORT with --ca; several that share a register with commas between
    #[arg(long, value_name = "URL")]
    pub(crate) coordinator: Option<String>,
    /// The certificate (PEM) of the authority that the coordinator's own is from
    #[arg(long, value_name = "FILE", requires = "coordinator")]
    pub(crate) ca: Option<PathBuf>,
    /// Our certificate (PEM), where the coordinator asks for one
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(crate) cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,
    /// A file that holds our token
    #[arg(long, value_name = "FILE", requires = "coordinator")]
    pub(crate) token_file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PriorityArg {
    /// Somebody waits for it
    Gate,
    /// As usual
    Normal,
    /// It may take all night
    Nightly,
}

/// A series of a farm that is watched.
#[derive(Clone, Debug, Args)]
pub(crate) struct WatchArgs {
    /// The series, as submit printed it
    #[arg(value_name = "SERIES")]
    pub(crate) series: String,
    #[command(flatten)]
    pub(crate) reach: ReachArgs,
    /// How the report is rendered
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
    /// Write the report to this file instead of the standard output
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// What makes the exit code 1
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [FailOnArg::Fails, FailOnArg::Warnings])]
    pub(crate) fail_on: Vec<FailOnArg>,
}

/// A series of a farm that is stopped.
#[derive(Clone, Debug, Args)]
pub(crate) struct CancelArgs {
    /// The series
    #[arg(value_name = "SERIES")]
    pub(crate) series: String,
    #[command(flatten)]
    pub(crate) reach: ReachArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// A time and a sentence
    Text,
    /// An object for each event, on a line
    Json,
}

/// What a service says while it runs.
#[derive(Clone, Debug, Args)]
pub(crate) struct LogArgs {
    /// How the log is written, on the standard error
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
    /// How much is said: error, warn, info, debug, trace or off; or TARGET=LEVEL,...; else BOMBPROOF_LOG, else info
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
}

/// Figures of a service, for Prometheus.
#[derive(Clone, Debug, Args)]
pub(crate) struct MetricsArgs {
    /// Show figures for Prometheus at http://ADDRESS:PORT/metrics
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) metrics: Option<std::net::SocketAddr>,
    /// Show them also where others than this machine can read them: they hold counts, and nobody is asked who they are
    #[arg(long, requires = "metrics")]
    pub(crate) metrics_open: bool,
}

/// The coordinator of a farm.
#[derive(Clone, Debug, Args)]
pub(crate) struct CoordinatorArgs {
    #[command(flatten)]
    pub(crate) log: LogArgs,
    #[command(flatten)]
    pub(crate) metrics: MetricsArgs,
    /// Who submitted and cancelled what also goes to this file: a JSON object a line, on disk before it goes on
    #[arg(long, value_name = "FILE")]
    pub(crate) audit_log: Option<PathBuf>,
    /// Where it listens
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8990")]
    pub(crate) listen: std::net::SocketAddr,
    /// Where everything is kept; by default the state folder
    #[arg(long, value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
    /// Keep the register of series in this Redis, for several coordinators with one home: `redis://[USER@]HOST[:PORT][/DB][#PREFIX]`;
    /// the password is better given in BOMBPROOF_STATE_PASSWORD. By default it is a file of the home
    #[arg(long, value_name = "URL")]
    pub(crate) state: Option<String>,
    /// How long others wait for a coordinator that leads and is not heard, in milliseconds
    #[arg(long, value_name = "N", hide = true, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(100..))]
    pub(crate) reign_ms: u64,
    /// A repository that series are based on, and what the farm calls it
    #[arg(long = "repo", value_name = "NAME=DIR", value_parser = named)]
    pub(crate) repos: Vec<(String, PathBuf)>,
    /// The folder of `pki init`: its certificate, its authority, and its list of who may call
    #[arg(long, value_name = "DIR", conflicts_with_all = ["tls_cert", "tls_key", "tls_callers", "access"])]
    pub(crate) pki: Option<PathBuf>,
    /// The certificate (PEM) of the coordinator
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// The authority (PEM) that callers' certificates are from
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_callers: Option<PathBuf>,
    /// The list of who may call, by token or certificate; without it everybody may
    #[arg(long, value_name = "FILE")]
    pub(crate) access: Option<PathBuf>,
    /// Listen where others can reach it although nothing is encrypted or nobody has to say who they are
    #[arg(long)]
    pub(crate) insecure: bool,
    /// How much content of builds is kept; what was used longest ago goes
    #[arg(long, value_name = "SIZE", default_value = "100GiB")]
    pub(crate) cache_limit: Bytes,
    /// Series of one user that may be under way at once; 0: any number
    #[arg(long, value_name = "N", default_value_t = bombproof_core::quota::Quota::default().open)]
    pub(crate) max_open: u32,
    /// Series that one user may hand in within 24 hours; 0: any number
    #[arg(long, value_name = "N", default_value_t = bombproof_core::quota::Quota::default().a_day)]
    pub(crate) max_a_day: u32,
    /// How long a worker may be silent, in milliseconds
    #[arg(long, value_name = "N", hide = true, value_parser = clap::value_parser!(u64).range(50..))]
    pub(crate) lease_ms: Option<u64>,
}

/// A worker of a farm.
#[derive(Clone, Debug, Args)]
pub(crate) struct WorkerArgs {
    #[command(flatten)]
    pub(crate) reach: ReachArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
    #[command(flatten)]
    pub(crate) metrics: MetricsArgs,
    /// Its name in the farm; by default that of the machine and its state folder
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Jobs at once; by default the processors of this machine
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) slots: Option<u16>,
    /// Where its blobs and build folders are; by default the state folder
    #[arg(long, value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) sandbox: SandboxArgs,
    /// How much content of builds is kept here; what was used longest ago goes
    #[arg(long, value_name = "SIZE", default_value = "20GiB")]
    pub(crate) cache_limit: Bytes,
    /// When it is told to end (SIGTERM), what runs may go on for so long, in seconds; then it is given back
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    pub(crate) grace: u64,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RunArg {
    /// The run; by default the newest
    #[arg(value_name = "RUN")]
    pub(crate) run: Option<String>,
    #[command(flatten)]
    pub(crate) reach: ReachArgs,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ReportArgs {
    #[command(flatten)]
    pub(crate) run: RunArg,
    /// How it is rendered
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
    /// Write to this file instead of the standard output
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct OneArgs {
    /// The number of the patch; 0 is the base
    #[arg(value_name = "PATCH")]
    pub(crate) patch: u32,
    /// The target, or its architecture
    #[arg(value_name = "TARGET")]
    pub(crate) target: String,
    /// The run; by default the newest
    #[arg(long, value_name = "RUN")]
    pub(crate) run: Option<String>,
    #[command(flatten)]
    pub(crate) reach: ReachArgs,
}

/// `5%`, `5` or `all`.
fn percent(text: &str) -> Result<u8, String> {
    if text == "all" {
        return Ok(100);
    }
    let number = text.trim_end_matches('%').parse().ok().filter(|number| (1..=100).contains(number));
    number.ok_or_else(|| format!("'{text}' is not a share: give 1% to 100%, or all"))
}

/// `linux=/srv/git/linux`.
fn named(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => Ok((name.to_owned(), PathBuf::from(path))),
        Some(_) | None => Err(format!("'{text}' is not NAME=DIR")),
    }
}
