//! What a link would make of new objects, compared with the last link that went through.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::graph::Graph;
use crate::kbuild::interface::{self, Fresh, Interface, Linked, View};
use crate::outcome::LinkCheck;

/// Why only the link can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unclear {
    /// The object.
    pub unit: Arc<str>,
    /// In words that fit after "make runs:".
    pub why: String,
}

/// Judges objects that are not those of the last link: `now` holds the interface of every unit that was compiled since, by
/// output. The reason, where only the link can tell.
///
/// # Errors
/// The object that makes the difference.
pub fn check(graph: &Graph, linked: &Linked, now: &BTreeMap<Arc<str>, Interface>) -> Result<LinkCheck, Unclear> {
    let mut known = LinkCheck::Unchanged;
    let fresh = fresh(graph, now);
    for (unit, after) in now {
        let before = graph.units.get(unit).and_then(|node| node.interface.as_ref());
        let unclear = |why: String| Unclear { unit: Arc::clone(unit), why };
        let Some(before) = before else {
            return Err(unclear(format!("what the link saw of '{unit}' is not known")));
        };
        if before == after {
            continue;
        }
        let mut owners = graph.modules.values().filter(|objects| objects.iter().any(|object| **object == **unit));
        let view = match (owners.next(), owners.next()) {
            (None, _) => interface::view_in_image(before, after, linked, &fresh),
            (Some(objects), None) => {
                let others = objects.iter().filter(|other| ***other != **unit).map(|other| {
                    let other = other.as_str();
                    now.get(other).or_else(|| graph.units.get(other).and_then(|node| node.interface.as_ref()))
                });
                match others.map(|other| other.cloned()).collect::<Option<Vec<_>>>() {
                    Some(others) => interface::view_in_module(before, after, &others, linked, &fresh),
                    None => View::Unclear("an object of its module is not understood".to_owned()),
                }
            }
            (Some(_), Some(_)) => View::Unclear("it is part of several modules".to_owned()),
        };
        match view {
            View::Same => {}
            View::Resolved => known = LinkCheck::Symbols,
            View::Unclear(why) => return Err(unclear(format!("the link sees another '{unit}': {why}"))),
        }
    }
    Ok(known)
}

/// What changed objects bring that none had at the last link.
fn fresh(graph: &Graph, now: &BTreeMap<Arc<str>, Interface>) -> Fresh {
    let in_module = |unit: &str| graph.modules.values().any(|objects| objects.iter().any(|object| object == unit));
    let mut fresh = Fresh::default();
    for (unit, after) in now {
        let before = graph.units.get(unit).and_then(|node| node.interface.as_ref());
        let exports = after.exports.iter().filter(|(name, _)| before.is_none_or(|it| !it.exports.contains_key(*name)));
        for (name, export) in exports {
            let known = fresh.exports.entry(name.clone());
            known.and_modify(|(_, count)| *count += 1).or_insert_with(|| (export.clone(), 1));
        }
        let is_new = |name: &String| before.is_none_or(|before| !before.defined.contains_key(name));
        if !after.defined.keys().any(is_new) || in_module(unit) {
            continue;
        }
        for (name, fact) in after.defined.iter().filter(|(name, _)| is_new(name)) {
            let section = interface::section_of(fact).to_owned();
            fresh.image.entry(name.clone()).and_modify(|(_, count)| *count += 1).or_insert((section, 1));
        }
    }
    fresh
}
