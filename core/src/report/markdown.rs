//! The report as Markdown: for a merge request or a mail client that shows it.

use std::fmt::Write;

use super::model::{Report, Verdict, VerdictEntry};
use super::text::{self, Style};
use crate::id::PatchIndex;

/// Renders the whole report: a table of the patches that are not quiet, then the findings as the terminal shows them.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "## {}\n", escape(&report.series.name));
    let base = &report.series.base;
    let _ = writeln!(
        out,
        "{} on `{}` (`{}`), run `{}`\n",
        text::plural(report.series.patches.len(), "patch", "patches"),
        base.name,
        base.commit,
        report.run.id
    );
    let names = text::short_names(report);
    let _ = writeln!(
        out,
        "| patch | subject | {} |",
        names.iter().map(|(_, name)| escape(name)).collect::<Vec<_>>().join(" | ")
    );
    let _ = writeln!(out, "|---:|---|{}", "---|".repeat(names.len()));
    let mut quiet = 0;
    for patch in &report.series.patches {
        let row: Vec<&VerdictEntry> = report.verdicts.iter().filter(|entry| entry.patch == patch.index).collect();
        let is_quiet = row
            .iter()
            .all(|entry| matches!(entry.verdict, Verdict::Builds | Verdict::NotCompiled) && entry.new.is_empty());
        if is_quiet {
            quiet += 1;
            continue;
        }
        let cells: Vec<&str> = row.iter().map(|entry| word(entry)).collect();
        let _ = writeln!(out, "| {} | {} | {} |", patch.index, escape(&patch.subject), cells.join(" | "));
    }
    out.push('\n');
    if quiet > 0 {
        let builds = text::plural(quiet, "more patch builds, or is", "more patches build, or are");
        let _ = writeln!(out, "{builds} not compiled, without a new diagnostic.\n");
    }
    let base_fails =
        report.verdicts.iter().any(|entry| entry.patch == PatchIndex::BASE && entry.verdict == Verdict::Fails);
    if base_fails {
        let _ = writeln!(out, "**The base itself does not build on every target.**\n");
    }
    let details = text::render(report, Style { colour: false, width: 100 });
    // The text cannot end the block: no line of it begins with the fence.
    let _ = writeln!(out, "```text\n{}```", details.replace("```", "'''"));
    out
}

fn word(entry: &VerdictEntry) -> &'static str {
    match entry.verdict {
        Verdict::Builds if !entry.new.is_empty() => "**WARN**",
        Verdict::Builds => "ok",
        Verdict::Fails => "**FAIL**",
        Verdict::NotApplied => "**APPLY**",
        Verdict::NotCompiled => "-",
        Verdict::NotJudged => "!",
    }
}

fn escape(text: &str) -> String {
    text.chars().flat_map(|c| if "\\|*_`<>[]".contains(c) { vec!['\\', c] } else { vec![c] }).collect()
}
