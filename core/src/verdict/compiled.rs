//! Whether a patch touches anything that is compiled on a target.

use crate::outcome::{StateResult, Unit};
use crate::series::FileChange;
use crate::shared::Shared;

/// Whether the changes between two states touch what is compiled: a file that a compile of either state reads, the set of
/// units, a command, the configuration, or a makefile that governs a unit. In doubt it does.
pub fn touches(changes: &[FileChange], before: &StateResult, after: &StateResult) -> bool {
    // Nothing was recorded: then nothing is known of what is compiled.
    if before.units.is_empty() || after.units.is_empty() {
        return true;
    }
    let paths = changes.iter().flat_map(|change| [change.old_path.as_deref(), change.new_path.as_deref()]).flatten();
    if paths.clone().any(|path| before.inputs.contains(path) || after.inputs.contains(path)) {
        return true;
    }
    let one = before.units.is_one_with(&after.units);
    if paths.clone().any(|path| governs(path, after) || (!one && governs(path, before))) {
        return true;
    }
    let mut differences = before.units.differences(&after.units);
    let same_units = differences.all(|unit| match (unit.before, unit.after) {
        (Some(before), Some(after)) => before.command == after.command,
        (Some(_) | None, _) => false,
    });
    !same_units || before.config != after.config
}

/// Makefiles and what they run are read by make, not by a compiler: they count for the units in their folder and below.
fn governs(path: &str, state: &StateResult) -> bool {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    if path.starts_with("scripts/") || (folder.is_empty() && matches!(name, "Makefile" | "Kbuild")) {
        return true;
    }
    let is_makefile = name.starts_with("Makefile") || name.starts_with("Kbuild") || name.ends_with(".mk");
    // Generators and tables that are neither C nor documentation: make may turn them into sources.
    let is_source = [".c", ".h", ".S", ".rst", ".txt", ".md", ".yaml", ".json"].iter().any(|end| name.ends_with(end))
        || name.starts_with("Kconfig")
        || path.starts_with("Documentation/")
        || name == "MAINTAINERS"
        || path.starts_with("tools/")
        || path.starts_with("samples/");
    if is_makefile && folder.starts_with("arch/") {
        let arch = format!("arch/{}/", folder.split('/').nth(1).unwrap_or_default());
        return state.units.values().any(|unit| unit.source.starts_with(&arch));
    }
    let below = |unit: &Shared<Unit>| {
        unit.source.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/') || folder.is_empty())
    };
    (is_makefile || !is_source) && state.units.values().any(below)
}
