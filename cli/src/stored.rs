//! Stored runs: `list`, `status`, `report`, `explain`.

use std::fmt::Write;

use bombproof_coordinator::run::Request;
use bombproof_core::diagnostic::Severity;
use bombproof_core::digest::Digest;
use bombproof_core::id::{Oid, PatchIndex, TargetName};
use bombproof_core::kbuild::record::Known;
use bombproof_core::outcome::{LinkCheck, Outcome, StateResult};
use bombproof_core::report::model::{Report, Verdict};
use bombproof_store::home::Home;
use bombproof_store::results::{FileResults, ResultKey, ResultStore};
use bombproof_store::runs::{Phase, RunError, RunRecord, Runs};

use crate::args::{OneArgs, ReportArgs, RunArg};
use crate::check::deliver;
use crate::fail::{CLEAN, Fail};

/// Compiled units that `explain` names.
const MADE_SHOWN: usize = 10;
/// Lines of a log that `explain` shows.
const LOG_LINES: usize = 25;

fn failed(error: RunError) -> Fail {
    match error {
        RunError::Unknown { .. } | RunError::Empty { .. } => Fail::request(error),
        RunError::Damaged { .. } | RunError::File(_) => Fail::machine(error),
    }
}

/// The word for how a run stands. A process that is gone without a word was killed.
fn phase(record: &RunRecord) -> &'static str {
    match record.phase {
        Phase::Finished => "finished",
        Phase::Interrupted => "interrupted",
        Phase::Running if std::path::Path::new(&format!("/proc/{}", record.pid)).exists() => "running",
        Phase::Running => "killed",
    }
}

pub(crate) fn list(home: &Home) -> Result<u8, Fail> {
    let runs = Runs::new(home);
    let mut out = String::new();
    for record in runs.list().map_err(Fail::machine)? {
        let settled: u32 = record.targets.iter().map(|target| target.settled).sum();
        let failing: u32 = record.targets.iter().map(|target| target.failing).sum();
        let targets = record.targets.len();
        let _ = writeln!(
            out,
            "{}  {:11}  {settled}/{} states settled on {targets} target{}, {failing} failing  {}",
            record.id,
            phase(&record),
            u64::from(record.states) * targets as u64,
            if targets == 1 { "" } else { "s" },
            record.series
        );
    }
    if out.is_empty() {
        out = format!("no run is stored in '{}'\n", home.runs().display());
    }
    crate::print(&out);
    Ok(CLEAN)
}

pub(crate) fn status(home: &Home, args: &RunArg) -> Result<u8, Fail> {
    let record = Runs::new(home).find(args.run.as_deref()).map_err(failed)?;
    let mut out = String::new();
    let _ = writeln!(out, "{}  {}  since {}  {}", record.id, phase(&record), record.started_at, record.series);
    for target in &record.targets {
        let _ = writeln!(
            out,
            "  {:30}  {:>5}/{:<5} states settled, {} failing",
            target.name, target.settled, record.states, target.failing
        );
    }
    let _ = writeln!(out, "  command: {}", record.command.join(" "));
    if matches!(phase(&record), "interrupted" | "killed") {
        let _ = writeln!(out, "  the same command goes on where it stopped");
    }
    crate::print(&out);
    Ok(CLEAN)
}

pub(crate) fn report(home: &Home, args: &ReportArgs) -> Result<u8, Fail> {
    let (_, report) = load(home, args.run.run.as_deref())?;
    deliver(&report, args.format, args.output.as_deref())?;
    Ok(CLEAN)
}

fn load(home: &Home, id: Option<&str>) -> Result<(RunRecord, Report), Fail> {
    let runs = Runs::new(home);
    let record = runs.find(id).map_err(failed)?;
    let report = runs.report(&record.id).map_err(|error| match error {
        RunError::Unknown { .. } => {
            Fail::request(format!("run '{}' has no report: it is {}", record.id, phase(&record)))
                .hint(Some("'bombproof status' shows how far it is"))
        }
        error @ (RunError::Empty { .. } | RunError::Damaged { .. } | RunError::File(_)) => failed(error),
    })?;
    Ok((record, report))
}

/// One patch on one target of a stored run.
pub(crate) struct One {
    pub(crate) record: RunRecord,
    pub(crate) report: Report,
    pub(crate) request: Request,
    pub(crate) patch: PatchIndex,
    pub(crate) target: usize,
}

pub(crate) fn one(home: &Home, args: &OneArgs) -> Result<One, Fail> {
    let (record, report) = load(home, args.run.as_deref())?;
    let request: Request = serde_json::from_value(record.request.clone()).map_err(Fail::machine)?;
    let named = |name: &TargetName, arch: &str| name.as_str() == args.target || arch == args.target;
    let arch = bombproof_core::target::Arch::parse(&args.target).map(|arch| arch.to_string());
    let found = report
        .targets
        .iter()
        .position(|target| target.name.as_str() == args.target)
        .or_else(|| report.targets.iter().position(|target| named(&target.name, &target.arch)))
        .or_else(|| report.targets.iter().position(|target| arch.as_deref() == Some(target.arch.as_str())));
    let Some(target) = found else {
        let names: Vec<&str> = report.targets.iter().map(|target| target.name.as_str()).collect();
        return Err(Fail::request(format!("run '{}' has no target '{}'", record.id, args.target.escape_debug()))
            .hint(Some(format!("its targets: {}", names.join(", ")))));
    };
    if args.patch as usize > report.series.patches.len() {
        return Err(Fail::request(format!(
            "the series has {} patches, not {}",
            report.series.patches.len(),
            args.patch
        )));
    }
    Ok(One { record, report, request, patch: PatchIndex(args.patch), target })
}

pub(crate) fn explain(home: &Home, args: &OneArgs) -> Result<u8, Fail> {
    crate::print(&explanation(home, args)?);
    Ok(CLEAN)
}

/// The evidence for one patch on one target, in words.
pub(crate) fn explanation(home: &Home, args: &OneArgs) -> Result<String, Fail> {
    let one = one(home, args)?;
    let (report, patch) = (&one.report, one.patch);
    let name = report.targets[one.target].name.clone();
    let mut out = String::new();
    let (subject, source) = match report.series.patches.get(patch.as_usize().wrapping_sub(1)) {
        Some(info) => (info.subject.clone(), info.source.clone()),
        None => (format!("base {}", report.series.base.name), report.series.base.commit.clone()),
    };
    let _ = writeln!(out, "{patch}/{}  {subject}  ({source})", report.series.patches.len());
    let _ = writeln!(out, "target     {name}: {}", report.targets[one.target].toolchain);
    let Some(entry) = report.verdicts.iter().find(|entry| entry.target == name && entry.patch == patch) else {
        return Err(Fail::machine("the report has no verdict for it"));
    };
    let _ = writeln!(out, "verdict    {}", verdict_words(entry.verdict));
    let how = match (entry.observed, entry.cached) {
        (true, true) => "the state was built in an earlier run; target, toolchain and tree are the same",
        (true, false) => "the state was built in this run",
        (false, _) => "the state was not built",
    };
    let _ = writeln!(out, "how        {how}");
    if let Some(reason) = &entry.reason {
        let _ = writeln!(out, "reason     {reason}");
    }
    if let Some(failure) = &entry.failure {
        let stage = format!("{:?}", failure.stage).to_lowercase();
        let _ = writeln!(out, "failure    {stage}: {}", failure.message);
        let _ = writeln!(out, "what       {}", failure.what.join(", "));
        if let Some(since) = failure.since {
            let _ = writeln!(out, "since      {since}: it was there before this patch");
        }
    }
    for line in &entry.config_drift {
        let _ = writeln!(out, "config     {line}");
    }
    if !entry.compiled_on.is_empty() {
        let names: Vec<&str> = entry.compiled_on.iter().map(TargetName::as_str).collect();
        let _ = writeln!(out, "compiled on {}", names.join(", "));
    }
    let (_, tree) = one.request.states.get(patch.as_usize()).cloned().unwrap_or_default();
    let _ = writeln!(out, "tree       {tree}");
    evidence(home, &one, &tree, &mut out);
    for (word, ids) in [("new", &entry.new), ("fixed", &entry.fixed), ("unsure", &entry.not_judged)] {
        for it in report.diagnostics.iter().filter(|it| ids.contains(&it.id)) {
            let kind = if it.severity == Severity::Error { "error" } else { "warning" };
            let _ = writeln!(out, "\n{word} {kind} {}  {}:{}", it.id, it.file, it.line);
            for line in &it.text {
                let _ = writeln!(out, "    {line}");
            }
        }
    }
    let log = entry.failure.as_ref().map(|failure| home.root().join(&failure.log));
    if let Some(log) = log.filter(|log| log.is_file()) {
        let text = std::fs::read(&log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        let _ = writeln!(out, "\nlog        {} (the last {LOG_LINES} lines)", log.display());
        for line in lines.iter().skip(lines.len().saturating_sub(LOG_LINES)) {
            let _ = writeln!(out, "    {line}");
        }
    }
    Ok(out)
}

fn verdict_words(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Builds => "builds",
        Verdict::Fails => "fails",
        Verdict::NotApplied => "not-applied: the patch does not apply",
        Verdict::NotCompiled => "not-compiled: nothing that the patch changes is compiled on this target",
        Verdict::NotJudged => "not-judged",
    }
}

/// What the stored results of this state and the one before say.
fn evidence(home: &Home, one: &One, tree: &str, out: &mut String) {
    let store = FileResults::at(home.results());
    let digest = one.record.targets.get(one.target).and_then(|target| target.digest.parse::<Digest>().ok());
    let result = |tree: &str| -> Option<StateResult> {
        store.get(&ResultKey::new(&digest?, &Oid::parse(tree).ok()?)).ok().flatten()
    };
    let Some(this) = result(tree) else { return };
    let failed = this.units.values().filter(|unit| !unit.ok).count();
    let _ = writeln!(
        out,
        "state      {} units ({failed} failed), {} source files read; {} compiles run ({:.1} s), {} known, {} not needed",
        this.units.len(),
        this.inputs.len(),
        this.cost.compiles,
        f64::from(u32::try_from(this.cost.compile_cpu_ms).unwrap_or(u32::MAX)) / 1000.0,
        this.cost.cached,
        this.cost.by_token
    );
    if !this.why.is_empty() {
        let link = match this.link {
            LinkCheck::Run => "; the link ran",
            LinkCheck::Symbols | LinkCheck::Unchanged => "; no link ran",
            LinkCheck::None => "",
        };
        let _ = writeln!(out, "steps      {}{link}", this.why);
    }
    for (known, word) in [(Known::Ran, "compiled   "), (Known::Cached, "known      "), (Known::Token, "no change  ")] {
        let of: Vec<_> = this.made.iter().filter(|(_, asked)| asked.known == known).collect();
        for (unit, asked) in of.iter().take(MADE_SHOWN) {
            let why = match (known, asked.because.as_str()) {
                (Known::Token, _) => ": no compiler sees what changed".to_owned(),
                (Known::Ran | Known::Cached, "") => String::new(),
                (Known::Ran | Known::Cached, path) => format!(", because it reads {path}"),
            };
            let _ = writeln!(out, "{word}{unit}{why}");
        }
        if of.len() > MADE_SHOWN {
            let _ = writeln!(out, "           and {} more", of.len() - MADE_SHOWN);
        }
    }
    let before = one.patch.previous().and_then(|before| one.request.states.get(before.as_usize()));
    if let Some(before) = before.and_then(|(_, tree)| result(tree)) {
        let word = |outcome: &Outcome| match outcome {
            Outcome::Built => "builds",
            Outcome::Failed(_) => "fails",
            Outcome::Skipped => "was skipped",
            Outcome::Trouble(_) => "gave no answer",
        };
        let gone = before.units.keys().filter(|unit| !this.units.contains_key(unit)).count();
        let come = this.units.keys().filter(|unit| !before.units.contains_key(unit)).count();
        let changed = this
            .units
            .iter()
            .filter(|(output, unit)| before.units.get(output).is_some_and(|old| old.command != unit.command))
            .count();
        let _ = writeln!(
            out,
            "before     the state before {}; units that came: {come}, went: {gone}, with another command: {changed}",
            word(&before.outcome)
        );
    }
}
