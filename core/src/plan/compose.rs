//! The result of a state from the one before and the units that were made for it.

use std::sync::Arc;

use crate::kbuild::log;
use crate::outcome::{Asked, Cost, Failure, LinkCheck, Outcome, Scope, StateResult, Unit};

/// A unit that was made for a state.
#[derive(Clone, Debug)]
pub struct Made {
    /// Its output below the build folder.
    pub output: Arc<str>,
    /// What became of it.
    pub unit: Unit,
    /// Why, and whether its compile had to run.
    pub asked: Asked,
}

/// The result of a state in which only these units are not what they were.
///
/// `linked` is the result of the last state whose link went through: what make, modpost and the linker said then holds as long as
/// the link sees no difference, which is for the caller to find out (`link` is [`LinkCheck::None`] here). `stale` are units whose
/// objects would be other ones of which nobody knows more: with other line numbers in their debug information, made of another image. `read` are further files that units read.
pub fn compose(
    before: &StateResult,
    linked: &StateResult,
    made: &[Made],
    stale: &[Arc<str>],
    read: impl IntoIterator<Item = Arc<str>>,
) -> StateResult {
    let mut result = before.clone();
    for it in made {
        result.units.insert(Arc::clone(&it.output), it.unit.clone());
    }
    for output in stale {
        if let Some(unit) = result.units.get(output).filter(|unit| unit.object.is_some()) {
            let unit = Unit { object: None, ..(**unit).clone() };
            result.units.insert(Arc::clone(output), unit);
        }
    }
    for path in read {
        result.inputs.insert(path);
    }
    let failures: Vec<Failure> = result.units.iter().filter(|(_, unit)| !unit.ok).map(failure).collect();
    let config = result.scopes.get(&Scope::Config).cloned();
    result.scopes = linked.scopes.clone();
    if let Some(config) = config {
        // Kconfig may have run since.
        result.scopes.insert(Scope::Config, config);
    }
    if !failures.is_empty() {
        for (scope, state) in result.scopes.iter_mut() {
            // Make does not get to them.
            state.known &= *scope == Scope::Config;
        }
    }
    result.outcome = if failures.is_empty() { Outcome::Built } else { Outcome::Failed(failures) };
    result.link = LinkCheck::None;
    result.cost = Cost::default();
    result.why = String::new();
    result.made = made.iter().map(|it| (it.output.to_string(), it.asked.clone())).collect();
    result
}

fn failure<U: std::ops::Deref<Target = Unit>>((output, unit): (&str, &U)) -> Failure {
    let (message, werror) = unit.first_error().unwrap_or_else(|| (format!("'{output}' was not made"), false));
    Failure { stage: log::stage(output), what: output.to_owned(), message, werror }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::{Diagnostic, Location, Severity, Tool};
    use crate::digest::Digest;
    use crate::kbuild::record::Known;
    use crate::outcome::{ScopeState, Stage, Trouble};

    fn unit(ok: bool) -> Unit {
        let error = Diagnostic {
            tool: Tool::Compiler,
            severity: Severity::Error,
            flag: None,
            werror: false,
            location: Location { file: "a.c".to_owned(), line: 3, column: None },
            function: None,
            message: "no".to_owned(),
            source: None,
            text: Vec::new(),
        };
        Unit {
            source: "a.c".to_owned(),
            command: Digest::of(b""),
            ok,
            diagnostics: if ok { Vec::new() } else { vec![error] },
            object: ok.then(|| Digest::of(b"o")),
        }
    }

    fn built() -> StateResult {
        let mut result = StateResult::trouble(Trouble::Interrupted);
        result.outcome = Outcome::Built;
        result.units.insert(Arc::from("a.o"), unit(true));
        result.units.insert(Arc::from("b.o"), unit(true));
        let known = || ScopeState { known: true, diagnostics: Vec::new() };
        result.scopes = std::collections::BTreeMap::from([(Scope::Config, known()), (Scope::Modpost, known())]).into();
        result
    }

    fn asked(because: &str) -> Asked {
        Asked { because: because.to_owned(), known: Known::Ran }
    }

    fn made(ok: bool) -> Made {
        Made { output: Arc::from("a.o"), unit: unit(ok), asked: asked("a.c") }
    }

    #[test]
    fn a_failed_unit_fails_the_state_until_it_is_made() {
        let base = built();
        let failing = compose(&base, &base, &[made(false)], &[], []);
        let Outcome::Failed(failures) = &failing.outcome else { panic!("{:?}", failing.outcome) };
        assert_eq!(
            failures[..],
            [Failure { stage: Stage::Compile, what: "a.o".into(), message: "a.c:3: no".into(), werror: false }]
        );
        assert!(failing.scopes[&Scope::Config].known && !failing.scopes[&Scope::Modpost].known);
        let still = compose(&failing, &base, &[], &[], []);
        assert_eq!(still.outcome, failing.outcome);
        let healed = compose(&still, &base, &[made(true)], &[], [Arc::from("new.h")]);
        assert_eq!(healed.outcome, Outcome::Built);
        assert!(healed.scopes[&Scope::Modpost].known);
        assert!(healed.inputs.contains("new.h"));
        assert_eq!(healed.made["a.o"], asked("a.c"));
    }

    #[test]
    fn nothing_made_is_nothing_changed_and_stale_objects_are_not_named() {
        let base = built();
        let same = compose(&base, &base, &[], &[], []);
        assert_eq!(same.units, base.units);
        let stale = compose(&base, &base, &[], &[Arc::from("b.o"), Arc::from("none.o")], []);
        assert_eq!(stale.units.get("b.o").unwrap().object, None);
        assert!(stale.units.get("a.o").unwrap().object.is_some() && stale.outcome == Outcome::Built);
    }
}
