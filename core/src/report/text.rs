//! The report for a terminal: the matrix, one block for each finding, one line to remember.
//!
//! Colour, symbol and word say the same thing; nothing is lost without colour.

use std::collections::BTreeMap;
use std::fmt::Write;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::build::of_target;
use super::model::{DiagnosticEntry, LinkCheck, PatchInfo, Report, Verdict, VerdictEntry};
use crate::diagnostic::Severity;
use crate::id::{PatchIndex, TargetName};

/// How it is drawn.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// With ANSI colours.
    pub colour: bool,
    /// Columns.
    pub width: usize,
}

/// Lines of a tool's text that a block shows.
const BLOCK_LINES: usize = 12;
/// Findings of one patch that are shown with their text.
const BLOCKS_PER_PATCH: usize = 5;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Paint {
    Red,
    Yellow,
    Green,
    Dim,
    Bold,
}

impl Style {
    fn paint(self, paint: Paint, text: &str) -> String {
        if !self.colour || text.trim().is_empty() {
            return text.to_owned();
        }
        let code = match paint {
            Paint::Red => "1;31",
            Paint::Yellow => "1;33",
            Paint::Green => "32",
            Paint::Dim => "2",
            Paint::Bold => "1",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// What a cell of the matrix says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cell {
    NotAsked,
    NotCompiled,
    Known,
    Ok,
    NotJudged,
    Warn,
    NotApplied,
    Fail,
}

impl Cell {
    fn of(entry: &VerdictEntry, report: &Report) -> Self {
        let warns = || {
            entry
                .new
                .iter()
                .any(|id| report.diagnostics.iter().any(|it| it.id == *id && it.severity == Severity::Warning))
        };
        match entry.verdict {
            Verdict::Fails => Self::Fail,
            Verdict::NotApplied => Self::NotApplied,
            Verdict::NotJudged
                if entry
                    .reason
                    .as_deref()
                    .is_some_and(|why| why.starts_with("not asked") || why.starts_with("not built")) =>
            {
                Self::NotAsked
            }
            Verdict::NotJudged => Self::NotJudged,
            Verdict::Builds | Verdict::NotCompiled if warns() => Self::Warn,
            Verdict::NotCompiled => Self::NotCompiled,
            Verdict::Builds if entry.cached => Self::Known,
            Verdict::Builds => Self::Ok,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::NotAsked => ".",
            Self::NotCompiled => "-",
            Self::Known | Self::Ok => "ok",
            Self::NotJudged => "!",
            Self::Warn => "WARN",
            Self::NotApplied => "APPLY",
            Self::Fail => "FAIL",
        }
    }

    fn paint(self) -> Paint {
        match self {
            Self::NotAsked | Self::NotCompiled | Self::Known => Paint::Dim,
            Self::Ok => Paint::Green,
            Self::NotJudged | Self::Warn => Paint::Yellow,
            Self::NotApplied | Self::Fail => Paint::Red,
        }
    }

    fn is_quiet(self) -> bool {
        matches!(self, Self::NotAsked | Self::NotCompiled | Self::Known | Self::Ok)
    }
}

/// Renders the whole report.
pub fn render(report: &Report, style: Style) -> String {
    let mut out = String::new();
    matrix(report, style, &mut out);
    not_applied_blocks(report, style, &mut out);
    failing_blocks(report, style, &mut out);
    warning_blocks(report, style, &mut out);
    not_judged_blocks(report, style, &mut out);
    notes(report, style, &mut out);
    closing(report, style, &mut out);
    out
}

/// Names of targets, cut to what tells them apart: the architecture, where it does.
pub fn short_names(report: &Report) -> Vec<(TargetName, String)> {
    let arches: Vec<&str> = report.targets.iter().map(|target| target.arch.as_str()).collect();
    report
        .targets
        .iter()
        .map(|target| {
            let only = !target.arch.is_empty() && arches.iter().filter(|arch| **arch == target.arch).count() == 1;
            (target.name.clone(), if only { target.arch.clone() } else { target.name.to_string() })
        })
        .collect()
}

fn names_of(report: &Report, targets: &[TargetName]) -> String {
    let short = short_names(report);
    let name = |target: &TargetName| short.iter().find(|(name, _)| name == target).map(|(_, short)| short.clone());
    targets.iter().filter_map(name).collect::<Vec<_>>().join(" ")
}

fn matrix(report: &Report, style: Style, out: &mut String) {
    let names = short_names(report);
    let columns: Vec<usize> = names.iter().map(|(_, name)| name.width().max(5)).collect();
    let cells_width: usize = columns.iter().map(|width| width + 2).sum();
    let label = style.width.saturating_sub(cells_width + 4).clamp(24, 60);
    let rows: Vec<Vec<Cell>> = {
        let by_target: Vec<Vec<Cell>> = report
            .targets
            .iter()
            .map(|target| of_target(report, &target.name).map(|entry| Cell::of(entry, report)).collect())
            .collect();
        (0..=report.series.patches.len())
            .map(|patch| by_target.iter().map(|cells| cells.get(patch).copied().unwrap_or(Cell::NotJudged)).collect())
            .collect()
    };
    let _ = write!(out, "  {:label$}", "");
    for ((_, name), width) in names.iter().zip(&columns) {
        let _ = write!(out, "  {}", style.paint(Paint::Bold, &centre(name, *width)));
    }
    out.push('\n');
    let mut line = |text: &str, cells: &[Cell], end: &str| {
        let _ = write!(out, "  {}", pad(&cut_middle(text, label), label));
        for (cell, width) in cells.iter().zip(&columns) {
            let _ = write!(out, "  {}", style.paint(cell.paint(), &centre(cell.word(), *width)));
        }
        let text = if end.is_empty() { String::new() } else { format!("  {}", style.paint(Paint::Dim, end)) };
        let _ = writeln!(out, "{text}");
    };
    if let Some(base) = rows.first().filter(|row| row.iter().any(|cell| !cell.is_quiet())) {
        line("base", base, "");
    }
    let mut index = 1;
    while index < rows.len() {
        let quiet = |row: &Vec<Cell>| row.iter().all(|cell| cell.is_quiet());
        // A stretch of which nothing is known is quiet too: its reason stands below, once.
        let unknown = |row: &Vec<Cell>| row.iter().all(|cell| *cell == Cell::NotJudged);
        let fold = |wanted: &dyn Fn(&Vec<Cell>) -> bool| {
            (index..rows.len()).take_while(|at| wanted(&rows[*at])).last().map_or(index, |at| at + 1)
        };
        let end = fold(&quiet).max(fold(&unknown));
        let number = |from: usize, to: usize| if from == to { from.to_string() } else { format!("{from}-{to}") };
        if end > index {
            let cells: Vec<Cell> = (0..names.len())
                .map(|column| rows[index..end].iter().map(|row| row[column]).max().unwrap_or(Cell::NotAsked))
                .collect();
            let count = end - index;
            let what = match report.series.patches.get(index - 1) {
                Some(patch) if count == 1 => patch.subject.clone(),
                Some(_) | None => format!("{count} patches"),
            };
            line(&format!("{:>5}  {what}", number(index, end - 1)), &cells, "");
            index = end;
        } else {
            let subject = report.series.patches.get(index - 1).map(|patch| patch.subject.as_str()).unwrap_or_default();
            line(&format!("{index:>5}  {subject}"), &rows[index], &range_note(report, index));
            index += 1;
        }
    }
    out.push('\n');
}

/// Beside the first row of a broken stretch: how long it is and who heals it.
fn range_note(report: &Report, index: usize) -> String {
    let mut ends: Vec<(PatchIndex, Option<PatchIndex>)> = report
        .summary
        .broken_ranges
        .iter()
        .filter(|range| range.from.as_usize() == index)
        .map(|range| (range.to, range.healed_by))
        .collect();
    ends.sort();
    ends.dedup();
    let words = ends.iter().map(|(to, healed)| match healed {
        Some(healed) => format!("broken {}, healed by {healed}", span(PatchIndex::from_usize(index), *to)),
        None => format!("broken {}, not healed", span(PatchIndex::from_usize(index), *to)),
    });
    let words: Vec<String> = words.collect();
    if words.is_empty() { String::new() } else { format!("| {}", words.join("; ")) }
}

fn span(from: PatchIndex, to: PatchIndex) -> String {
    if from == to { from.to_string() } else { format!("{from}-{to}") }
}

fn pad(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(text.width())))
}

fn centre(text: &str, width: usize) -> String {
    let space = width.saturating_sub(text.width());
    format!("{}{text}{}", " ".repeat(space / 2), " ".repeat(space - space / 2))
}

/// Cuts a long text in its middle; both ends tell.
fn cut_middle(text: &str, width: usize) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.width() <= width || width < 8 {
        return text;
    }
    let keep = width - 3;
    let take = |chars: &mut dyn Iterator<Item = char>, limit: usize| {
        let mut used = 0;
        let mut kept = Vec::new();
        for c in chars {
            used += c.width().unwrap_or(0);
            if used > limit {
                break;
            }
            kept.push(c);
        }
        kept
    };
    let head: String = take(&mut text.chars(), keep - keep / 3).into_iter().collect();
    let mut tail = take(&mut text.chars().rev(), keep / 3);
    tail.reverse();
    format!("{head}...{}", tail.into_iter().collect::<String>())
}

fn title(report: &Report, patch: PatchIndex) -> String {
    let info: Option<&PatchInfo> = report.series.patches.get(patch.as_usize().wrapping_sub(1));
    match info {
        Some(info) => format!("{patch}/{}  {}", report.series.patches.len(), info.subject),
        None => format!("base  {}", report.series.base.name),
    }
}

fn head(word: &str, paint: Paint, title: &str, targets: &str, style: Style, out: &mut String) {
    let room = style.width.saturating_sub(word.width() + targets.width() + 6).max(20);
    let title = cut_middle(title, room);
    let _ = writeln!(
        out,
        "  {}  {}  {}",
        style.paint(paint, word),
        style.paint(Paint::Bold, &title),
        style.paint(Paint::Dim, targets)
    );
}

fn body(text: &str, out: &mut String) {
    // What a tool printed is shown without anything that could steer the terminal.
    let clean: String = text.chars().map(|c| if c == '\t' || !c.is_control() { c } else { '?' }).collect();
    let _ = writeln!(out, "        {}", clean.trim_end());
}

fn tool_text(entry: &DiagnosticEntry, out: &mut String) {
    let lines: Vec<&String> = entry.text.iter().filter(|line| !line.contains(": In function ")).collect();
    // What every reader of a compiler knows is left out, with the excerpt that it repeats.
    let known = |line: &&&String| !line.contains("each undeclared identifier is reported only once");
    let lines: Vec<&String> = lines.iter().take_while(known).copied().collect();
    for line in lines.iter().take(BLOCK_LINES) {
        body(line, out);
    }
    if lines.len() > BLOCK_LINES {
        body(&format!("... {} more lines", lines.len() - BLOCK_LINES), out);
    }
}

fn ask(report: &Report, patch: PatchIndex, target: &TargetName, style: Style, out: &mut String) {
    let name = names_of(report, std::slice::from_ref(target));
    let line = format!("bombproof explain {patch} {name}    bombproof reproduce {patch} {name} > repro.sh");
    let _ = writeln!(out, "        {}", style.paint(Paint::Dim, &line));
}

fn not_applied_blocks(report: &Report, style: Style, out: &mut String) {
    for patch in &report.series.patches {
        let Some(why) = &patch.not_applied else { continue };
        head("APPLY", Paint::Red, &title(report, patch.index), &patch.source, style, out);
        let message = if why.message.starts_with(&why.file) {
            why.message.clone()
        } else {
            format!("{}: {}", why.file, why.message)
        };
        body(&message, out);
        if let Some(nearest) = &why.nearest {
            body(&format!("nearest place: {nearest}"), out);
        }
        if why.already_applied {
            body("the change is in the tree already: drop the patch", out);
        }
        if let Some(later) = why.applies_after {
            body(&format!("it applies after {}: move it behind that one", title(report, later)), out);
        }
        out.push('\n');
    }
}

fn failing_blocks(report: &Report, style: Style, out: &mut String) {
    // One block for each patch and message, with all targets that show it.
    let mut blocks: BTreeMap<(PatchIndex, String), Vec<&VerdictEntry>> = BTreeMap::new();
    for entry in &report.verdicts {
        let Some(failure) = entry.failure.as_ref().filter(|failure| failure.since.is_none()) else { continue };
        if entry.verdict == Verdict::Fails {
            blocks.entry((entry.patch, failure.message.clone())).or_default().push(entry);
        }
    }
    for ((patch, message), entries) in blocks {
        let targets: Vec<TargetName> = entries.iter().map(|entry| entry.target.clone()).collect();
        head("FAIL", Paint::Red, &title(report, patch), &names_of(report, &targets), style, out);
        let errors: Vec<&DiagnosticEntry> = report
            .diagnostics
            .iter()
            .filter(|it| it.severity == Severity::Error || !it.werror_on.is_empty())
            .filter(|it| {
                entries.iter().any(|entry| {
                    entry.new.contains(&it.id)
                        || entry.not_judged.contains(&it.id)
                        || (patch == PatchIndex::BASE && it.introduced_by == Some(patch))
                })
            })
            .filter(|it| it.targets.iter().any(|target| targets.contains(target)))
            .collect();
        // The one that is told in the fewest lines is told whole; the others by their first line, each message once.
        let mut errors = errors;
        errors.sort_by_key(|error| error.text.len());
        let mut told: Vec<&str> = Vec::new();
        for error in errors {
            if told.contains(&error.message.as_str()) {
                continue;
            }
            if told.is_empty() {
                tool_text(error, out);
            } else if told.len() < BLOCKS_PER_PATCH {
                body(&format!("{}:{}: error: {}", error.file, error.line, error.message), out);
            } else {
                body("... and more errors, see the log", out);
                break;
            }
            told.push(&error.message);
        }
        let first = entries.first();
        let failure = first.and_then(|entry| entry.failure.as_ref());
        if told.is_empty() || failure.is_some_and(|failure| failure.werror) {
            body(&message, out);
        }
        if let Some(failure) = failure {
            let stage = format!("{:?}", failure.stage).to_lowercase();
            let what = failure.what.iter().take(6).cloned().collect::<Vec<_>>().join(", ");
            let more = if failure.what.len() > 6 { ", ..." } else { "" };
            body(&format!("stage {stage}: {what}{more}"), out);
        }
        if let Some(reason) = first.and_then(|entry| entry.reason.as_ref()) {
            body(reason, out);
        }
        if let Some(range) =
            report.summary.broken_ranges.iter().find(|range| range.from == patch && targets.contains(&range.target))
        {
            match range.healed_by {
                Some(healed) => body(
                    &format!(
                        "brought by this patch, healed by {}: squash {patch} into it, or reorder",
                        title(report, healed)
                    ),
                    out,
                ),
                None if patch > PatchIndex::BASE => body("brought by this patch; nothing in the series heals it", out),
                None => {}
            }
        }
        if let Some(target) = targets.first() {
            ask(report, patch, target, style, out);
        }
        out.push('\n');
    }
}

fn warning_blocks(report: &Report, style: Style, out: &mut String) {
    let mut by_patch: BTreeMap<PatchIndex, Vec<&DiagnosticEntry>> = BTreeMap::new();
    for it in
        report.diagnostics.iter().filter(|it| it.severity == Severity::Warning && it.werror_on.len() < it.targets.len())
    {
        if let Some(patch) = it.introduced_by.filter(|patch| *patch > PatchIndex::BASE) {
            by_patch.entry(patch).or_default().push(it);
        }
    }
    for (patch, found) in by_patch {
        let mut targets: Vec<TargetName> = Vec::new();
        for name in found.iter().flat_map(|it| &it.targets) {
            if !targets.contains(name) {
                targets.push(name.clone());
            }
        }
        head("WARN", Paint::Yellow, &title(report, patch), &names_of(report, &targets), style, out);
        for it in found.iter().take(BLOCKS_PER_PATCH) {
            tool_text(it, out);
            if it.units > 1 {
                body(&format!("seen in {} units", it.units), out);
            }
            if let Some(fixed) = it.fixed_by {
                body(&format!("gone again with {}", title(report, fixed)), out);
            }
        }
        if found.len() > BLOCKS_PER_PATCH {
            body(&format!("... and {} more warnings", found.len() - BLOCKS_PER_PATCH), out);
        }
        if let Some(target) = targets.first() {
            ask(report, patch, target, style, out);
        }
        out.push('\n');
    }
}

fn not_judged_blocks(report: &Report, style: Style, out: &mut String) {
    let mut by_reason: BTreeMap<(String, String), Vec<PatchIndex>> = BTreeMap::new();
    for entry in &report.verdicts {
        if Cell::of(entry, report) == Cell::NotJudged {
            let reason = entry.reason.clone().unwrap_or_default();
            by_reason
                .entry((names_of(report, std::slice::from_ref(&entry.target)), reason))
                .or_default()
                .push(entry.patch);
        }
    }
    for ((target, reason), patches) in &by_reason {
        head("!", Paint::Yellow, &format!("not judged: {}", ranges(patches)), target, style, out);
        body(reason, out);
    }
    if !by_reason.is_empty() {
        out.push('\n');
    }
}

/// `1-3, 7`.
fn ranges(patches: &[PatchIndex]) -> String {
    let mut parts: Vec<(PatchIndex, PatchIndex)> = Vec::new();
    for patch in patches {
        match parts.last_mut() {
            Some((_, to)) if to.next() == *patch => *to = *patch,
            Some(_) | None => parts.push((*patch, *patch)),
        }
    }
    parts.into_iter().map(|(from, to)| span(from, to)).collect::<Vec<_>>().join(", ")
}

fn notes(report: &Report, style: Style, out: &mut String) {
    let mut lines: Vec<String> = report.run.notes.clone();
    let fuzzed: Vec<PatchIndex> =
        report.series.patches.iter().filter(|patch| !patch.fuzz.is_empty()).map(|patch| patch.index).collect();
    if !fuzzed.is_empty() {
        lines.push(format!("applied with fuzz: {} (see the JSON report)", ranges(&fuzzed)));
    }
    for target in &report.targets {
        if !target.not_effective.is_empty() {
            lines.push(format!("{}: asked for and not in effect: {}", target.name, some(&target.not_effective)));
        }
    }
    let mut drift: BTreeMap<(PatchIndex, String), Vec<TargetName>> = BTreeMap::new();
    for entry in report.verdicts.iter().filter(|entry| !entry.config_drift.is_empty()) {
        drift.entry((entry.patch, some(&entry.config_drift))).or_default().push(entry.target.clone());
    }
    for ((patch, what), targets) in drift {
        lines.push(format!("patch {patch} changes the configuration of {}: {what}", names_of(report, &targets)));
    }
    let old = report.diagnostics.iter().filter(|it| it.introduced_by == Some(PatchIndex::BASE)).count();
    if old > 0 {
        let were = plural(old, "older diagnostic was", "older diagnostics were");
        lines.push(format!("{were} there before the series (in the JSON report)"));
    }
    let unknown = report.diagnostics.iter().filter(|it| it.introduced_by.is_none()).count();
    if unknown > 0 {
        let could = plural(unknown, "diagnostic", "diagnostics");
        lines.push(format!("{could} could not be judged: the state before did not compile their object"));
    }
    for line in &lines {
        let _ = writeln!(out, "  {}", style.paint(Paint::Dim, &format!("note: {line}")));
    }
    if !lines.is_empty() {
        out.push('\n');
    }
}

fn some(words: &[String]) -> String {
    let shown = words.iter().take(6).cloned().collect::<Vec<_>>().join(", ");
    if words.len() > 6 { format!("{shown} and {} more", words.len() - 6) } else { shown }
}

fn closing(report: &Report, style: Style, out: &mut String) {
    let summary = &report.summary;
    let total = report.series.patches.len();
    let failing: std::collections::BTreeSet<PatchIndex> = report
        .verdicts
        .iter()
        .filter(|entry| entry.verdict == Verdict::Fails && entry.patch > PatchIndex::BASE)
        .map(|entry| entry.patch)
        .collect();
    // One that is an error on every target is told as a failure.
    let warnings = report
        .diagnostics
        .iter()
        .filter(|it| it.severity == Severity::Warning && it.werror_on.len() < it.targets.len())
        .filter(|it| it.introduced_by.is_some_and(|patch| patch > PatchIndex::BASE))
        .count();
    let first: Vec<String> = {
        let mut by_patch: BTreeMap<PatchIndex, Vec<TargetName>> = BTreeMap::new();
        for first in &summary.first_failing {
            by_patch.entry(first.patch).or_default().push(first.target.clone());
        }
        by_patch.iter().map(|(patch, targets)| format!("{patch} ({})", names_of(report, targets))).collect()
    };
    let mut facts = Vec::new();
    if summary.not_applied > 0 {
        facts.push(format!("{} of {total} patches do not apply", summary.not_applied));
    }
    if !failing.is_empty() {
        facts.push(format!("{} of {total} patches fail", failing.len()));
    }
    if warnings > 0 {
        facts.push(plural(warnings, "new warning", "new warnings"));
    }
    if summary.not_judged > 0 {
        facts.push(plural(summary.not_judged as usize, "verdict not judged", "verdicts not judged"));
    }
    let mut line = facts.join(", ");
    if !first.is_empty() {
        let _ = write!(line, ". First failing: {}", first.join(", "));
    }
    let targets = report.targets.len();
    let tip = report.run.mode == "tip";
    let (paint, text) = if !report.run.finished {
        (Paint::Yellow, format!("INTERRUPTED: the same command goes on where this one stopped. {line}"))
    } else if summary.clean {
        let what = if tip { "the tip".to_owned() } else { plural(total, "patch", "patches") };
        let what = if report.run.mode == "search" { "the states that were looked at".to_owned() } else { what };
        (
            Paint::Green,
            format!("BOMBPROOF: {what} on {}: no failure, no new warning", plural(targets, "target", "targets")),
        )
    } else if !failing.is_empty() || summary.not_applied > 0 {
        (Paint::Red, format!("NOT bisectable: {line}"))
    } else if warnings > 0 {
        (Paint::Yellow, format!("Bisectable, with {line}"))
    } else {
        (Paint::Yellow, format!("NOT decided: {line}. Once that is put right, the same command goes on"))
    };
    let _ = writeln!(out, "  {}", style.paint(paint, text.trim_end_matches([' ', ','])));
    let cost = &report.cost;
    let linked = report.verdicts.iter().filter(|entry| entry.link == LinkCheck::Run && !entry.cached).count();
    let _ = writeln!(
        out,
        "  {} on {}; {} built, {} known from before; {} run{}, {:.0} s of compiler time; {}; sandbox: {}; run {}",
        clock(cost.wall_ms),
        plural(cost.slots as usize, "slot", "slots"),
        plural(cost.states_built as usize, "state", "states"),
        cost.states_cached,
        plural(cost.actions.executed as usize, "compile", "compiles"),
        if cost.actions.cached > 0 { format!(" and {} known", cost.actions.cached) } else { String::new() },
        f64::from(u32::try_from(cost.compile_cpu_ms / 100).unwrap_or(u32::MAX)) / 10.0,
        plural(linked, "link", "links"),
        report.run.sandbox,
        report.run.id
    );
}

/// `1 patch`, `2 patches`.
pub(super) fn plural(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// `1:02:03`, `2:03`, `0:04`.
pub fn clock(ms: u64) -> String {
    let seconds = (ms + 500) / 1000;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}
