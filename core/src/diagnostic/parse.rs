//! Reads what compilers and build tools print.
//!
//! Sources of the forms: gcc 8 to 14 and clang 11 to 18 as they print (GCC manual, "Formatting of Diagnostics"), GNU as and
//! ld, sparse, the kernel's objtool, modpost and conf, and dtc. Text that is not a diagnostic counts for nothing: "error" in
//! a path, a note, a quoted source line.

use super::{Diagnostic, Location, Severity, Tool};
use crate::kbuild::roots::Roots;

/// At most this many lines of a block are kept.
const MAX_BLOCK_LINES: usize = 40;
/// At most this many diagnostics are read from one text.
const MAX_DIAGNOSTICS: usize = 10_000;

/// Reads the standard error of one run of a compiler, an assembler or a checker in folder `cwd`.
pub fn compiler(text: &str, cwd: &str, roots: &Roots, tool: Tool) -> Vec<Diagnostic> {
    let mut found: Vec<Diagnostic> = Vec::new();
    let mut heading: Vec<String> = Vec::new();
    let mut function: Option<String> = None;
    for line in text.lines() {
        if found.len() >= MAX_DIAGNOSTICS {
            break;
        }
        let plain = without_colour(line);
        let line = plain.as_str();
        if let Some(name) = in_function(line) {
            function = name;
            heading.push(roots_out(line, roots));
            continue;
        }
        if line.starts_with("In file included from ")
            || line.trim_start().starts_with("from ") && line.ends_with([',', ':'])
        {
            heading.push(roots_out(line, roots));
            continue;
        }
        if line.ends_with(": Assembler messages:")
            || line.contains(": in expansion of macro ") && line.starts_with("  ")
        {
            continue;
        }
        match head(line) {
            Some(Head { kind: Kind::Note, .. }) => add(&mut found, roots_out(line, roots)),
            Some(Head { kind: Kind::Warning | Kind::Error, message, .. }) if is_summary(message) => {}
            Some(head) => {
                let (message, flag, werror) = flag_of(head.message);
                let location = match head.place {
                    Some((file, line, column)) => Location { file: roots.place(cwd, file).into_path(), line, column },
                    None => Location { file: String::new(), line: 0, column: None },
                };
                let mut block = std::mem::take(&mut heading);
                block.push(roots_out(line, roots));
                block.truncate(MAX_BLOCK_LINES);
                let severity = if matches!(head.kind, Kind::Error) { Severity::Error } else { Severity::Warning };
                // A function heading holds for all that follows in that file; it is one line above its first finding.
                found.push(Diagnostic {
                    tool,
                    severity,
                    flag,
                    werror: werror && severity == Severity::Error,
                    location,
                    function: function.clone(),
                    message,
                    source: None,
                    text: block,
                });
            }
            None => {
                if let Some(last) = found.last_mut()
                    && is_excerpt(line)
                {
                    if last.source.is_none()
                        && let Some((number, code)) = line.split_once('|')
                        && number.trim().parse::<u32>().is_ok_and(|number| number == last.location.line)
                    {
                        last.source = Some(code.trim().to_owned());
                    }
                    if last.text.len() < MAX_BLOCK_LINES {
                        last.text.push(line.to_owned());
                    }
                } else if line.starts_with("cc1") || line.starts_with("collect2") {
                    heading.clear();
                }
            }
        }
    }
    found
}

fn add(found: &mut [Diagnostic], line: String) {
    if let Some(last) = found.last_mut()
        && last.text.len() < MAX_BLOCK_LINES
    {
        last.text.push(line);
    }
}

/// Shows paths of the tree as a reader knows them.
fn roots_out(line: &str, roots: &Roots) -> String {
    let cut = line.replace(&format!("{}/", roots.source), "");
    cut.replace(&format!("{}/", roots.output), "")
}

/// `file: In function 'x':` gives `Some(Some(x))`; `file: At top level:` gives `Some(None)`.
fn in_function(line: &str) -> Option<Option<String>> {
    if line.ends_with(": At top level:") {
        return Some(None);
    }
    let rest = line.split_once(": In function ").or_else(|| line.split_once(": In member function "))?.1;
    let name = rest.strip_suffix(':').unwrap_or(rest).trim_matches(['\'', '\u{2018}', '\u{2019}', ',']);
    Some(Some(name.to_owned()))
}

enum Kind {
    Warning,
    Error,
    Note,
}

struct Head<'a> {
    place: Option<(&'a str, u32, Option<u32>)>,
    kind: Kind,
    message: &'a str,
}

/// Takes `file:line:column: kind: message` apart; `gcc: error: message` has no place.
fn head(line: &str) -> Option<Head<'_>> {
    const KINDS: &[(&str, Kind)] = &[
        (": warning: ", Kind::Warning),
        (": error: ", Kind::Error),
        (": fatal error: ", Kind::Error),
        (": note: ", Kind::Note),
        (": Warning: ", Kind::Warning),
        (": Error: ", Kind::Error),
        (": Fatal error: ", Kind::Error),
        (": internal compiler error: ", Kind::Error),
    ];
    if line.starts_with([' ', '\t']) {
        return None;
    }
    let (at, word, kind) =
        KINDS.iter().filter_map(|(word, kind)| Some((line.find(word)?, *word, kind))).min_by_key(|found| found.0)?;
    let (place, message) = (line.get(..at)?, line.get(at + word.len()..)?);
    let kind = match kind {
        Kind::Warning => Kind::Warning,
        Kind::Error => Kind::Error,
        Kind::Note => Kind::Note,
    };
    let mut parts = place.rsplitn(3, ':');
    let (last, middle, first) = (parts.next()?, parts.next(), parts.next());
    let number = |text: &str| text.parse::<u32>().ok();
    let place = match (first, middle.and_then(number), middle, number(last)) {
        (Some(file), Some(line), _, column @ Some(_)) => Some((file, line, column)),
        // `file:12`, where the file itself may hold a colon.
        (first, None, Some(_), Some(line_number)) => {
            let file = place.get(..place.len() - last.len() - 1)?;
            let _ = first;
            Some((file, line_number, None))
        }
        (None, Some(_), _, _) | (_, _, _, None) | (None, None, None, Some(_)) => {
            // No line: only a program's own words (`cc1: error:`, `ld: warning:`), or a file as a whole.
            None
        }
        (Some(_), None, None, Some(_)) => None,
    };
    if let Some((file, _, _)) = place
        && file.is_empty()
    {
        return None;
    }
    if place.is_none() && (line.get(..at)?.contains(' ') || at > 200) {
        return None;
    }
    Some(Head { place, kind, message })
}

/// Words that only sum up what was said before.
fn is_summary(message: &str) -> bool {
    message.starts_with("all warnings being treated as errors")
        || message.starts_with("some warnings being treated as errors")
        || message.starts_with("unrecognized command-line option") && message.contains("may have been intended")
}

/// Takes the flag off the end: `[-Wunused]`, `[-Werror=unused]`, clang's `[-Werror,-Wunused]`.
fn flag_of(message: &str) -> (String, Option<String>, bool) {
    let whole = || (message.trim().to_owned(), None, false);
    let Some(rest) = message.trim_end().strip_suffix(']') else { return whole() };
    let Some((text, inside)) = rest.rsplit_once(" [") else { return whole() };
    let Some(flags) = inside.strip_prefix("-W") else { return whole() };
    let (flag, werror) = match (flags.strip_prefix("error="), flags.strip_prefix("error,-W")) {
        (Some(flag), _) | (None, Some(flag)) => (flag, true),
        (None, None) => (flags, false),
    };
    let name = flag.split('=').next().unwrap_or(flag);
    (text.trim().to_owned(), Some(name.to_owned()), werror)
}

/// A line of the excerpt that a compiler quotes: `  705 |   code`, `      |  ^~~`, or carets alone.
fn is_excerpt(line: &str) -> bool {
    line.starts_with(' ')
}

fn without_colour(line: &str) -> String {
    if !line.contains('\u{1b}') {
        return line.to_owned();
    }
    let mut out = String::new();
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            for c in chars.by_ref() {
                if c.is_ascii_alphabetic() {
                    break;
                }
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// A finding of a tool other than a compiler, in the log of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFinding {
    /// The finding.
    pub diagnostic: Diagnostic,
    /// The object that it belongs to, below the build folder (objtool).
    pub object: Option<String>,
}

/// Reads what the tools around the compilers printed into a build's log.
pub fn log(text: &str, cwd: &str, roots: &Roots) -> Vec<LogFinding> {
    let mut found = Vec::new();
    let mut linked: Option<String> = None;
    for line in text.lines().take(2_000_000) {
        if found.len() >= MAX_DIAGNOSTICS {
            break;
        }
        let finding = objtool(line)
            .or_else(|| modpost(line))
            .or_else(|| kconfig(line, cwd, roots))
            .or_else(|| ld(line, &mut linked, roots))
            .or_else(|| dtc(line, cwd, roots))
            .or_else(|| make(line));
        found.extend(finding);
    }
    found
}

fn record(tool: Tool, severity: Severity, file: &str, message: &str, line: &str) -> LogFinding {
    let diagnostic = Diagnostic {
        tool,
        severity,
        flag: None,
        werror: false,
        location: Location { file: file.to_owned(), line: 0, column: None },
        function: None,
        message: message.trim().to_owned(),
        source: None,
        text: vec![line.to_owned()],
    };
    LogFinding { diagnostic, object: None }
}

/// `kernel/fork.o: warning: objtool: copy_process()+0x12: unreachable instruction`
fn objtool(line: &str) -> Option<LogFinding> {
    for (word, severity) in [(": warning: objtool: ", Severity::Warning), (": error: objtool: ", Severity::Error)] {
        let Some((object, message)) = line.split_once(word) else { continue };
        let function = message.split(['+', '(', ':', ' ']).next().filter(|name| !name.is_empty());
        let mut finding = record(Tool::Objtool, severity, object, message, line);
        finding.diagnostic.function = function.map(str::to_owned);
        finding.object = Some(object.to_owned());
        return Some(finding);
    }
    None
}

/// `ERROR: modpost: "sym" [drivers/x.ko] undefined!`, `WARNING: modpost: vmlinux.o: section mismatch in reference: a ...`
fn modpost(line: &str) -> Option<LogFinding> {
    let (severity, message) = line
        .strip_prefix("WARNING: modpost: ")
        .map(|rest| (Severity::Warning, rest))
        .or_else(|| line.strip_prefix("ERROR: modpost: ").map(|rest| (Severity::Error, rest)))
        .or_else(|| {
            // Kernels before 5.10 leave the name of the tool out.
            let rest = line.strip_prefix("ERROR: \"")?;
            rest.contains("undefined!").then_some((Severity::Error, line.get(7..)?))
        })?;
    let quoted = message.strip_prefix('"').and_then(|rest| rest.split('"').next());
    let symbol = quoted.or_else(|| message.split("in reference: ").nth(1)?.split(' ').next());
    let module = message.split('[').nth(1).and_then(|rest| rest.split(']').next());
    let module = module.or_else(|| message.split_once(": ").map(|(file, _)| file).filter(|file| !file.contains(' ')));
    let mut finding = record(Tool::Modpost, severity, module.unwrap_or_default(), message, line);
    finding.diagnostic.function = symbol.map(str::to_owned);
    Some(finding)
}

/// `init/Kconfig:12:warning: config symbol ...`, `drivers/x/Kconfig:3: syntax error`, `WARNING: unmet direct dependencies
/// detected for FOO`, `.config:12:warning: override: reassigning to symbol FOO`
fn kconfig(line: &str, cwd: &str, roots: &Roots) -> Option<LogFinding> {
    if let Some(symbol) = line.strip_prefix("WARNING: unmet direct dependencies detected for ") {
        let mut finding = record(Tool::Kconfig, Severity::Warning, "", line, line);
        finding.diagnostic.function = Some(symbol.trim().to_owned());
        return Some(finding);
    }
    let mut parts = line.splitn(3, ':');
    let (file, number, rest) = (parts.next()?, parts.next()?, parts.next()?);
    let name = file.rsplit('/').next()?;
    let number: u32 = number.trim().parse().ok()?;
    if !name.starts_with("Kconfig") || file.contains(' ') {
        return None;
    }
    let rest = rest.trim();
    let (severity, message) = match rest.strip_prefix("warning:") {
        Some(message) => (Severity::Warning, message.trim()),
        None => (Severity::Error, rest.strip_prefix("error:").unwrap_or(rest).trim()),
    };
    // Continuation lines of a dependency loop are not findings of their own.
    if message.starts_with("symbol ") && message.contains(" depends on ") && severity == Severity::Error {
        return None;
    }
    let mut finding = record(Tool::Kconfig, severity, &roots.place(cwd, file).into_path(), message, line);
    finding.diagnostic.location.line = number;
    finding.diagnostic.function = message.split('\'').nth(1).map(str::to_owned);
    Some(finding)
}

/// ``x86_64-linux-gnu-ld: kernel/fork.o: in function `f':`` and the line after it, ``fork.c:(.text+0x1): undefined reference
/// to `g'``; `ld: warning: ...`; `ld.lld: error: undefined symbol: g`
fn ld(line: &str, linked: &mut Option<String>, roots: &Roots) -> Option<LogFinding> {
    let program = line.split(':').next()?.rsplit('/').next()?;
    let is_ld = program == "ld" || program.ends_with("-ld") || program.ends_with("ld.bfd") || program == "ld.lld";
    if is_ld && line.contains(": in function ") {
        *linked = line.split(": ").nth(1).map(str::to_owned);
        return None;
    }
    if let Some((place, symbol)) = line.split_once("undefined reference to ") {
        let symbol = symbol.trim().trim_matches(['`', '\'']);
        let place = place.rsplit(": ").find(|part| !part.is_empty()).unwrap_or_default();
        let object = linked.clone().unwrap_or_else(|| place.split(":(").next().unwrap_or(place).to_owned());
        let object = object.replace(&format!("{}/", roots.source), "");
        let message = format!("undefined reference to '{symbol}'");
        let mut finding = record(Tool::Ld, Severity::Error, &object, &message, line);
        finding.diagnostic.function = Some(symbol.to_owned());
        return Some(finding);
    }
    if !is_ld {
        return None;
    }
    let rest = line.split_once(':')?.1.trim();
    if let Some(symbol) = rest.strip_prefix("error: undefined symbol: ") {
        let mut finding = record(Tool::Ld, Severity::Error, "", rest, line);
        finding.diagnostic.function = Some(symbol.trim().to_owned());
        return Some(finding);
    }
    if let Some(message) = rest.strip_prefix("warning: ") {
        return Some(record(Tool::Ld, Severity::Warning, "", message, line));
    }
    let fatal = rest.strip_prefix("error: ").or_else(|| rest.contains("multiple definition of").then_some(rest))?;
    Some(record(Tool::Ld, Severity::Error, "", fatal, line))
}

/// `arch/arm64/x.dtsi:12.3-14.5: Warning (unit_address_vs_reg): /soc/x: ...`
fn dtc(line: &str, cwd: &str, roots: &Roots) -> Option<LogFinding> {
    let (place, rest) = line.split_once(": ")?;
    let (kind, message) = rest.split_once("): ").filter(|(kind, _)| !kind.contains(')'))?;
    let (word, check) = kind.split_once(" (")?;
    let severity = match word {
        "Warning" => Severity::Warning,
        "ERROR" => Severity::Error,
        _ => return None,
    };
    let (file, position) = place.split_once(':').unwrap_or((place, ""));
    let mut finding = record(Tool::Dtc, severity, &roots.place(cwd, file).into_path(), message, line);
    finding.diagnostic.flag = Some(check.to_owned());
    finding.diagnostic.location.line = position.split('.').next().and_then(|line| line.parse().ok()).unwrap_or(0);
    Some(finding)
}

/// `Makefile:12: warning: overriding recipe for target 'x'`, `fixdep: error ...`
fn make(line: &str) -> Option<LogFinding> {
    if let Some(rest) = line.strip_prefix("fixdep: ") {
        return Some(record(Tool::Make, Severity::Error, "", &format!("fixdep: {rest}"), line));
    }
    let (place, message) = line.split_once(": warning: ")?;
    let (file, number) = place.rsplit_once(':')?;
    let name = file.rsplit('/').next()?;
    if !(name.starts_with("Makefile") || name == "Kbuild") || message.starts_with("jobserver") {
        return None;
    }
    let mut finding = record(Tool::Make, Severity::Warning, file, message, line);
    finding.diagnostic.location.line = number.parse().ok()?;
    Some(finding)
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
