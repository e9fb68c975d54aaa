//! What a build is made of, and what of it a change reaches.
//!
//! [`graph`] is what one run of the project's make left behind: every unit with its command and what it reads. [`compile`]
//! says which commands are understood well enough to be actions, and makes them. [`affected`] finds the units that a change
//! reaches, [`alike`] knows which versions of files need not reach any; [`reconfigure`] which of them a change of the configuration reaches; [`link`] says what a link would make of new objects; [`compose`] makes the result of a state.

pub mod affected;
pub mod alike;
pub mod compile;
pub mod compose;
pub mod graph;
pub mod link;
pub mod reconfigure;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::outcome::{Failure, ScopeState, StateResult};
use crate::shared::{Shared, SharedMap};

/// What Kconfig makes of a state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configured {
    /// As [`StateResult::config`].
    pub config: SharedMap<String>,
    /// As [`StateResult::not_effective`].
    pub not_effective: Shared<BTreeMap<String, (String, String)>>,
    /// What it said.
    pub said: ScopeState,
    /// It failed.
    pub failure: Option<Failure>,
}

/// What a kbuild step gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Built {
    /// The result of the state.
    pub result: StateResult,
    /// Its action graph, where later states can be planned from it.
    pub graph: Option<graph::Graph>,
}

impl From<StateResult> for Built {
    fn from(result: StateResult) -> Self {
        Self { result, graph: None }
    }
}
