//! States whose configuration Kconfig was asked for again.

use std::collections::BTreeSet;
use std::sync::Arc;

use bombproof_core::outcome::{Scope, StateResult, Trouble};
use bombproof_core::plan::Configured;
use bombproof_core::plan::reconfigure::{Switched, switched};
use bombproof_core::target::config::drift;

use super::{Ahead, Driver, Step};
use crate::planner::Planner;

impl Driver<'_, '_> {
    /// Takes in what Kconfig said of a planned state; why make has to run, otherwise.
    pub(super) fn configure(&mut self, step: &mut Step, configured: Result<Configured, Trouble>) -> Result<(), String> {
        let configured = configured.map_err(|trouble| trouble.describe())?;
        if let Some(failure) = configured.failure {
            return Err(failure.message);
        }
        let Some(units) = &mut self.units else { return Err("the state before gave no answer".to_owned()) };
        let drift = drift(&units.config, &configured.config).into_iter().next();
        let change = switched(&units.config, &configured.config);
        units.config = configured.config;
        units.not_effective = configured.not_effective;
        units.scopes.insert(Scope::Config, configured.said);
        let Some(drift) = drift else { return Ok(()) };
        let other = |why: String| format!("the configuration is another one ({drift}): {why}");
        self.reconfigure(step, &change.map_err(other)?).map_err(other)
    }

    /// Plans a state anew under a configuration in which these options are switched. What was planned behind it stands on one
    /// that is no more.
    fn reconfigure(&mut self, step: &mut Step, switched: &[Switched]) -> Result<(), String> {
        let Some(planning) = self.shared.planning else { return Err("nothing is planned".to_owned()) };
        let Some(mut planner) = step.ground.take() else { return Err("nothing is known of the state".to_owned()) };
        self.queue.clear();
        self.next = step.place + 1;
        self.ahead = None;
        let outputs = turn(&mut planner, switched)?;
        let units = planner.again(&outputs).map_err(|error| error.to_string())?;
        let because = switched.first().map(|it| format!("CONFIG_{}", it.symbol)).unwrap_or_default();
        step.settled.retain(|unit, _| !outputs.contains(unit));
        step.again.retain(|waiting| !outputs.contains(&waiting.output));
        for mut unit in units {
            let before = step.units.iter().position(|waiting| waiting.output == unit.output);
            unit.because.clone_from(before.map_or(&because, |place| &step.units[place].because));
            let waiting = self.start(planning, &planner, &unit);
            match before {
                Some(place) => step.units[place] = waiting,
                None => step.units.push(waiting),
            }
        }
        step.read.extend(planner.read_by(&outputs));
        self.ahead = Some(Ahead { planner: *planner, at: step.place });
        Ok(())
    }
}

/// Takes the planner over from the configuration of one known state to that of the next; gives the units for which that means
/// something.
pub(super) fn pass(planner: &mut Planner, from: &StateResult, to: &StateResult) -> Result<BTreeSet<Arc<str>>, String> {
    let switched = switched(&from.config, &to.config)?;
    if switched.is_empty() { Ok(BTreeSet::new()) } else { turn(planner, &switched) }
}

fn turn(planner: &mut Planner, switched: &[Switched]) -> Result<BTreeSet<Arc<str>>, String> {
    super::heavy(|| planner.reconfigure(switched)).map_err(|error| error.to_string())?
}
