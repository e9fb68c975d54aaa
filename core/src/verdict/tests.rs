//! Truth tables of verdicts.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::diagnostic::{Diagnostic, Location, Severity, Tool};
use crate::digest::Digest;
use crate::outcome::{Failure, Scope, ScopeState, Stage, Trouble, Unit};
use crate::series::Span;

fn warning(line: u32, message: &str) -> Diagnostic {
    Diagnostic {
        tool: Tool::Compiler,
        severity: Severity::Warning,
        flag: Some("unused".into()),
        werror: false,
        location: Location { file: "a.c".into(), line, column: Some(1) },
        function: Some("f".into()),
        message: message.into(),
        source: Some(format!("int {message};")),
        text: Vec::new(),
    }
}

/// A state in words: `ok`, `fail a`, `prepare`, `trouble`, `skip`, `?`; then `w:line:message` for warnings of `a.o`.
fn state(words: &str) -> Option<StateResult> {
    let mut result = StateResult::trouble(Trouble::Interrupted);
    let mut diagnostics = Vec::new();
    let mut ok = true;
    let fail = |stage: Stage, what: &str| {
        Outcome::Failed(vec![Failure { stage, what: what.into(), message: "no".into(), werror: false }])
    };
    for word in words.split_whitespace() {
        match word.split(':').collect::<Vec<_>>()[..] {
            ["?"] => return None,
            ["ok"] => result.outcome = Outcome::Built,
            ["skip"] => result.outcome = Outcome::Skipped,
            ["trouble"] => result.outcome = Outcome::Trouble(Trouble::Timeout { limit_s: 1 }),
            ["prepare"] => result.outcome = fail(Stage::Prepare, "bounds.s"),
            ["fail", what] => {
                ok = what != "a.o";
                result.outcome = match result.outcome {
                    Outcome::Failed(mut failures) => {
                        failures.push(Failure {
                            stage: Stage::Compile,
                            what: what.into(),
                            message: "no".into(),
                            werror: false,
                        });
                        Outcome::Failed(failures)
                    }
                    Outcome::Built | Outcome::Skipped | Outcome::Trouble(_) => fail(Stage::Compile, what),
                };
            }
            ["w", line, message] => diagnostics.push(warning(line.parse().unwrap(), message)),
            _ => panic!("{word}"),
        }
    }
    if words != "prepare" {
        let unit = Unit { source: "a.c".into(), command: Digest::of(b"cc"), ok, diagnostics, object: None };
        result.units.insert("a.o".into(), unit);
        result.inputs.insert("a.c".into());
        result.scopes.insert(Scope::Make, ScopeState { known: true, diagnostics: Vec::new() });
    }
    Some(result)
}

fn change(path: &str) -> FileChange {
    FileChange { old_path: Some(path.into()), new_path: Some(path.into()), spans: Vec::new() }
}

fn judged(states: &[&str], touched: &str) -> Judged {
    let results: Vec<_> = states.iter().map(|words| state(words)).collect();
    let facts: Vec<StateFacts> = (0..states.len())
        .map(|index| StateFacts { changes: if index == 0 { vec![] } else { vec![change(touched)] }, not_applied: None })
        .collect();
    let asked: BTreeSet<_> = (0..states.len()).map(PatchIndex::from_usize).collect();
    let target = TargetFacts {
        name: TargetName::from("t"),
        command: false,
        results: results.iter().map(Option::as_ref).collect(),
        cached: vec![false; states.len()],
        logs: vec![String::new(); states.len()],
    };
    judge(&Facts { states: &facts, targets: &[target], asked: &asked, search: false })
}

/// `b` builds, `F` fails by this patch, `f` fails since an older one, `-` not compiled, `!` not judged.
fn letters(states: &[&str], touched: &str) -> String {
    let letter = |entry: &VerdictEntry| match entry.verdict {
        Verdict::Builds => 'b',
        Verdict::Fails if entry.failure.as_ref().is_some_and(|failure| failure.since.is_some()) => 'f',
        Verdict::Fails => 'F',
        Verdict::NotCompiled => '-',
        Verdict::NotJudged => '!',
        Verdict::NotApplied => 'x',
    };
    judged(states, touched).verdicts.iter().map(letter).collect()
}

#[test]
fn outcomes_to_verdicts() {
    let rows: &[(&str, &[&str], &str)] = &[
        ("all green", &["ok", "ok"], "bb"),
        ("broken and healed", &["ok", "fail:a.o", "fail:a.o", "ok"], "bFfb"),
        ("another failure in a broken stretch", &["ok", "fail:a.o", "fail:a.o fail:b.o", "ok"], "bFFb"),
        ("a broken base blames nobody", &["fail:a.o", "fail:a.o", "ok", "fail:a.o"], "F!bF"),
        ("a patch that adds to a broken base", &["fail:a.o", "fail:a.o fail:b.o"], "FF"),
        ("trouble is no verdict", &["ok", "trouble", "ok"], "b!b"),
        ("a failure behind trouble blames nobody", &["ok", "trouble", "fail:a.o"], "b!!"),
        ("behind a broken preparation", &["ok", "prepare", "fail:a.o", "ok"], "bF!b"),
        ("skip", &["ok", "skip", "ok"], "b!b"),
        ("not run", &["ok", "?", "ok"], "b!b"),
    ];
    for (name, states, want) in rows {
        assert_eq!(letters(states, "a.c"), *want, "{name}");
    }
}

#[test]
fn what_touches_nothing_compiled() {
    for (touched, want) in [
        ("a.c", "bb"),
        ("Documentation/x.rst", "b-"),
        ("b.c", "b-"),
        ("Makefile", "bb"),
        ("scripts/x.sh", "bb"),
        ("lib/Makefile", "b-"),
        ("drivers/Kconfig", "b-"),
    ] {
        assert_eq!(letters(&["ok", "ok"], touched), want, "{touched}");
    }
}

/// For each patch: how many diagnostics it brought, removed, and of how many nobody can say.
fn counts(states: &[&str]) -> Vec<(usize, usize, usize)> {
    let judged = judged(states, "b.c");
    judged.verdicts.iter().map(|entry| (entry.new.len(), entry.fixed.len(), entry.not_judged.len())).collect()
}

#[test]
fn diagnostics_to_verdicts() {
    type Row<'a> = (&'a str, &'a [&'a str], &'a [(usize, usize, usize)]);
    let rows: &[Row<'_>] = &[
        ("old", &["ok w:1:x", "ok w:1:x"], &[(0, 0, 0), (0, 0, 0)]),
        ("new", &["ok", "ok w:1:x", "ok w:1:x"], &[(0, 0, 0), (1, 0, 0), (0, 0, 0)]),
        ("fixed", &["ok w:1:x", "ok"], &[(0, 0, 0), (0, 1, 0)]),
        ("swapped", &["ok w:1:x", "ok w:1:y"], &[(0, 0, 0), (1, 1, 0)]),
        ("moved without a hunk", &["ok w:1:x", "ok w:9:x"], &[(0, 0, 0), (0, 0, 0)]),
        ("hidden by a failure", &["ok w:1:x", "fail:a.o", "ok w:1:x"], &[(0, 0, 0), (0, 0, 0), (0, 0, 0)]),
        ("behind a failure nobody can say", &["ok", "fail:a.o", "ok w:1:x"], &[(0, 0, 0), (0, 0, 0), (0, 0, 1)]),
        ("behind a broken preparation", &["ok w:1:x", "prepare", "ok w:1:x w:2:y"], &[(0, 0, 0), (0, 0, 0), (0, 0, 1)]),
        ("behind trouble", &["ok", "trouble", "ok w:1:x"], &[(0, 0, 0), (0, 0, 0), (0, 0, 1)]),
        ("never compiled at the base", &["fail:a.o", "ok w:1:x"], &[(0, 0, 0), (0, 0, 1)]),
        ("two equal ones are two", &["ok w:1:x", "ok w:1:x w:1:x"], &[(0, 0, 0), (1, 0, 0)]),
    ];
    for (name, states, want) in rows {
        assert_eq!(counts(states), *want, "{name}");
    }
}

#[test]
fn a_patch_that_does_not_apply_is_said_so_on_every_target() {
    let result = state("ok").unwrap();
    let why = NotApplied {
        file: "a.c".into(),
        hunk: 1,
        message: "no".into(),
        nearest: None,
        already_applied: false,
        applies_after: None,
    };
    let facts = [StateFacts::default(), StateFacts { changes: vec![], not_applied: Some(why) }];
    let asked = BTreeSet::from([PatchIndex(0), PatchIndex(1)]);
    let target = TargetFacts {
        name: TargetName::from("t"),
        command: false,
        results: vec![Some(&result), Some(&result)],
        cached: vec![false; 2],
        logs: vec![String::new(); 2],
    };
    let judged = judge(&Facts { states: &facts, targets: &[target], asked: &asked, search: false });
    assert_eq!(judged.verdicts[1].verdict, Verdict::NotApplied);
}

/// A state with several units: for each of `a` to `d` whether it is there, compiled, and what it prints.
fn many() -> impl Strategy<Value = Option<StateResult>> {
    let unit = prop_oneof![
        3 => Just(Some((true, Vec::new()))),
        2 => prop::collection::vec((1_u32..4, 0_u8..3), 0..3).prop_map(|said| Some((true, said))),
        1 => prop::collection::vec((1_u32..4, 0_u8..3), 0..3).prop_map(|said| Some((false, said))),
        1 => Just(None),
    ];
    let stage = prop_oneof![4 => Just(None), 1 => Just(Some(Stage::Compile)), 1 => Just(Some(Stage::Prepare))];
    let state = (prop::collection::vec(unit, 4), stage, any::<bool>(), prop::collection::vec(1_u32..3, 0..2));
    let state = state.prop_map(|(units, stage, known, link)| {
        let mut result = StateResult::trouble(Trouble::Interrupted);
        result.outcome = stage.map_or(Outcome::Built, |stage| {
            Outcome::Failed(vec![Failure { stage, what: "x".into(), message: String::new(), werror: false }])
        });
        for (name, unit) in ["a", "b", "c", "d"].iter().zip(units) {
            let Some((ok, said)) = unit else { continue };
            let diagnostics = said.iter().map(|(line, text)| warning(*line, &format!("m{text}"))).collect();
            let unit = Unit { source: format!("{name}.c"), command: Digest::of(b""), ok, diagnostics, object: None };
            result.units.insert(format!("{name}.o").into(), unit);
        }
        let diagnostics = link.iter().map(|line| warning(*line, "link")).collect();
        result.scopes.insert(Scope::Link, ScopeState { known, diagnostics });
        result
    });
    prop_oneof![6 => state.prop_map(Some), 1 => Just(None)]
}

proptest! {
    #[test]
    fn passing_over_states_that_say_the_same_changes_nothing(
        states in prop::collection::vec((many(), 1_usize..4, 0_u8..6), 1..6),
        shifts in prop::collection::vec(0_u32..9, 24),
    ) {
        let mut results = Vec::new();
        let mut facts = Vec::new();
        for (state, repeated, drops) in &states {
            for again in 0..*repeated {
                let mut state = state.clone();
                // Nearly equal neighbours: another object, or a silent unit that comes or goes.
                if let (Some(state), true) = (&mut state, again > 0) {
                    let silent = Unit {
                        source: "e.c".into(), command: Digest::of(b""), ok: *drops != 1, diagnostics: vec![],
                        object: Some(Digest::of(&[*drops])),
                    };
                    state.units.insert("e.o".into(), silent);
                    if *drops == 0 {
                        state.units.remove("a.o");
                    }
                }
                results.push(state);
                let mut changed = change(if shifts[facts.len() % shifts.len()] % 2 == 0 { "a.c" } else { "e.c" });
                let new_lines = shifts[facts.len() % shifts.len()];
                if new_lines > 4 {
                    changed.spans = vec![Span { old_start: 2, old_lines: 0, new_start: 3, new_lines }];
                }
                if new_lines == 3 {
                    changed.old_path = None;
                }
                facts.push(StateFacts { changes: vec![changed], not_applied: None });
            }
        }
        let results: Vec<_> = results.iter().map(Option::as_ref).collect();
        prop_assert_eq!(
            defects::follow_all(&facts, &results, true),
            defects::follow_all(&facts, &results, false)
        );
    }
}
