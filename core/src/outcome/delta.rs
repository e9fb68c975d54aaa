//! How one result differs from another, so that neighbouring ones are kept for the price of what changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Asked, Cost, LinkCheck, Outcome, Scope, ScopeState, StateResult, Unit};
use crate::shared::{Shared, SharedMap, SharedSet};

/// What makes one result of another.
///
/// Law: `Delta::between(a, b).apply(a) == b`, for any two. Everything that a patch changes little of is a difference; the
/// rest is there whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// What depends on the result that it is applied to.
    pub changes: Changes,
    /// What does not.
    pub own: Own,
}

/// The part of a [`Delta`] that is a difference.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Changes {
    #[serde(skip_serializing_if = "Entries::is_empty")]
    units: Entries<Shared<Unit>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scopes: Option<Shared<BTreeMap<Scope, ScopeState>>>,
    #[serde(skip_serializing_if = "SharedSet::is_empty")]
    inputs_come: SharedSet,
    #[serde(skip_serializing_if = "SharedSet::is_empty")]
    inputs_gone: SharedSet,
    #[serde(skip_serializing_if = "Entries::is_empty")]
    config: Entries<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_effective: Option<Shared<BTreeMap<String, (String, String)>>>,
}

/// The part of a [`Delta`] that says all there is to say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Own {
    outcome: Outcome,
    cost: Cost,
    link: LinkCheck,
    why: String,
    made: BTreeMap<String, Asked>,
}

/// Entries of a map that are otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound(deserialize = "V: Deserialize<'de>"))]
struct Entries<V: Clone + Eq> {
    put: SharedMap<V>,
    gone: SharedSet,
}

impl Delta {
    /// What makes `after` of `before`.
    pub fn between(before: &StateResult, after: &StateResult) -> Self {
        let inputs = Entries::between(before.inputs.as_map(), after.inputs.as_map());
        let changes = Changes {
            units: Entries::between(&before.units, &after.units),
            scopes: (before.scopes != after.scopes).then(|| after.scopes.clone()),
            inputs_come: inputs.put.into(),
            inputs_gone: inputs.gone,
            config: Entries::between(&before.config, &after.config),
            not_effective: (before.not_effective != after.not_effective).then(|| after.not_effective.clone()),
        };
        let own = Own {
            outcome: after.outcome.clone(),
            cost: after.cost,
            link: after.link,
            why: after.why.clone(),
            made: after.made.clone(),
        };
        Self { changes, own }
    }

    /// A result that builds on no other.
    pub fn whole(result: &StateResult) -> Self {
        Self::between(&nothing(), result)
    }

    /// How many entries of units, inputs and configuration it names.
    pub fn len(&self) -> usize {
        let Changes { units, inputs_come, inputs_gone, config, .. } = &self.changes;
        units.len() + inputs_come.len() + inputs_gone.len() + config.len()
    }

    /// Whether it names none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The result that it makes of this one; `None`: of no other. What is equal is held in common with it.
    pub fn apply(self, before: Option<&StateResult>) -> StateResult {
        let mut result = before.map_or_else(nothing, Clone::clone);
        let (changes, own) = (self.changes, self.own);
        changes.units.apply(&mut result.units);
        changes.config.apply(&mut result.config);
        if result.inputs.is_empty() {
            result.inputs = changes.inputs_come;
        } else {
            for text in changes.inputs_come.texts() {
                result.inputs.insert(Arc::clone(text));
            }
        }
        for text in changes.inputs_gone.iter() {
            result.inputs.remove(text);
        }
        result.scopes = changes.scopes.unwrap_or(result.scopes);
        result.not_effective = changes.not_effective.unwrap_or(result.not_effective);
        StateResult { outcome: own.outcome, cost: own.cost, link: own.link, why: own.why, made: own.made, ..result }
    }
}

/// What a delta that builds on no other result is applied to.
fn nothing() -> StateResult {
    StateResult::trouble(super::Trouble::Interrupted)
}

impl<V: Clone + Eq> Entries<V> {
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn len(&self) -> usize {
        self.put.len() + self.gone.len()
    }

    fn apply(self, map: &mut SharedMap<V>) {
        if map.is_empty() {
            *map = self.put;
            return;
        }
        for key in self.gone.iter() {
            map.remove(key);
        }
        for (key, value) in self.put.entries() {
            map.insert(Arc::clone(key), value.clone());
        }
    }

    fn between(before: &SharedMap<V>, after: &SharedMap<V>) -> Self {
        if before.is_empty() {
            return Self { put: after.clone(), gone: SharedSet::default() };
        }
        let (mut put, mut gone) = (Vec::new(), Vec::new());
        for difference in before.differences(after) {
            let key = Arc::clone(difference.key);
            match difference.after {
                Some(value) => put.push((key, value.clone())),
                None => gone.push(key),
            }
        }
        Self { put: put.into_iter().collect(), gone: gone.into_iter().collect() }
    }
}

impl<V: Clone + Eq> Default for Entries<V> {
    fn default() -> Self {
        Self { put: SharedMap::default(), gone: SharedSet::default() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::diagnostic::{Diagnostic, Location, Severity, Tool};
    use crate::digest::Digest;
    use crate::kbuild::record::Known;
    use crate::outcome::{Failure, Stage};

    fn diagnostic(line: u32) -> Diagnostic {
        Diagnostic {
            tool: Tool::Compiler,
            severity: Severity::Warning,
            flag: None,
            werror: false,
            location: Location { file: "a.c".into(), line, column: None },
            function: None,
            message: "m".into(),
            source: None,
            text: Vec::new(),
        }
    }

    fn unit() -> impl Strategy<Value = Unit> {
        (any::<bool>(), 0_u8..3, prop::collection::vec(1_u32..4, 0..3)).prop_map(|(ok, object, lines)| Unit {
            source: "a.c".into(),
            command: Digest::of(&[object % 2]),
            ok,
            diagnostics: lines.into_iter().map(diagnostic).collect(),
            object: ok.then(|| Digest::of(&[object])),
        })
    }

    prop_compose! {
        fn result()(
            units in prop::collection::btree_map("[a-c]{1,3}", unit(), 0..40),
            scopes in prop::collection::btree_map(
                prop::sample::select(vec![Scope::Config, Scope::Link, Scope::Make]), (any::<bool>(), 0_u32..3), 0..3),
            inputs in prop::collection::btree_set("[a-c]{1,3}", 0..40),
            config in prop::collection::btree_map("[A-C]{1,3}", "[ym]", 0..40),
            not_effective in prop::collection::btree_map("[A-C]", ("[ym]", "n"), 0..2),
            made in prop::collection::btree_map("[a-c]", "[a-c]", 0..3),
            (why, compiles, fails) in ("[a-z ]{0,5}", 0_u32..9, any::<bool>()),
        ) -> StateResult {
            let failure = Failure { stage: Stage::Compile, what: why.clone(), message: why.clone(), werror: false };
            let scope = |(known, line)| ScopeState { known, diagnostics: vec![diagnostic(line)] };
            StateResult {
                outcome: if fails { Outcome::Failed(vec![failure]) } else { Outcome::Built },
                units: units.into_iter().collect(),
                scopes: scopes.into_iter().map(|(name, state)| (name, scope(state))).collect::<BTreeMap<_, _>>().into(),
                inputs: inputs.into_iter().collect(),
                config: (&config).into(),
                not_effective: not_effective.into(),
                cost: Cost { compiles, ..Cost::default() },
                link: if fails { LinkCheck::None } else { LinkCheck::Run },
                why,
                made: made.into_iter().map(|(unit, because)| (unit, Asked { because, known: Known::Ran })).collect(),
            }
        }
    }

    proptest! {
        #[test]
        fn the_difference_of_any_two_makes_one_of_the_other(before in result(), after in result()) {
            let delta = Delta::between(&before, &after);
            let read: Delta = serde_json::from_str(&serde_json::to_string(&delta).unwrap()).unwrap();
            prop_assert_eq!(&read, &delta);
            prop_assert_eq!(&delta.apply(Some(&before)), &after);
            prop_assert_eq!(&read.apply(Some(&before)), &after);
            prop_assert_eq!(&Delta::whole(&after).apply(None), &after);
            let mut shared = after.clone();
            shared.share_with(&before);
            prop_assert_eq!(&shared, &after, "sharing changes nothing");
            prop_assert!(Delta::between(&after, &shared).is_empty());
        }

        #[test]
        fn a_result_is_read_as_it_was_written(result in result()) {
            let text = serde_json::to_string(&result).unwrap();
            prop_assert_eq!(serde_json::from_str::<StateResult>(&text).unwrap(), result);
        }
    }

    #[test]
    fn an_equal_result_shares_everything_and_differs_in_nothing() {
        let mut before = nothing();
        before.units = (0..100).map(|n| (format!("{n}.o"), unit_of(n))).collect();
        before.inputs = (0..100).map(|n| format!("{n}.c")).collect();
        let mut after: StateResult = serde_json::from_str(&serde_json::to_string(&before).unwrap()).unwrap();
        after.why = "other".into();
        let delta = Delta::between(&before, &after);
        assert!(delta.is_empty());
        let made = delta.apply(Some(&before));
        assert!(made == after && made.units.is_one_with(&before.units) && made.inputs.is_one_with(&before.inputs));
        after.units.insert("7.o".into(), unit_of(8));
        assert_eq!(Delta::between(&before, &after).len(), 1);
    }

    fn unit_of(n: u8) -> Unit {
        let object = Some(Digest::of(&[n]));
        Unit { source: format!("{n}.c"), command: Digest::of(b"cc"), ok: true, diagnostics: Vec::new(), object }
    }
}
