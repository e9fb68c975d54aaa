//! What became of a unit, and what a link sees of it.

use bombproof_core::diagnostic::{Tool, parse};
use bombproof_core::digest::BlobDigest;
use bombproof_core::kbuild::constants;
use bombproof_core::kbuild::interface::{self, Interface};
use bombproof_core::outcome::Unit;

use super::{Planning, UnitEnded};

/// Looks at what became of a unit.
pub(super) struct Look<'a> {
    pub(super) planning: &'a Planning,
    pub(super) before: Option<&'a Unit>,
    pub(super) output: &'a str,
}

impl Look<'_> {
    /// The unit and what a link sees of it; the reason, where make has to say more.
    pub(super) fn unit(
        &self,
        done: &UnitEnded,
        plain: bool,
        made_before: Option<BlobDigest>,
    ) -> Result<(Unit, Option<Interface>), String> {
        let (output, roots) = (self.output, &self.planning.roots);
        let before = self.before.ok_or_else(|| format!("'{output}' is not known"))?;
        let compile = &done.compile;
        let mut diagnostics = parse::compiler(&compile.stderr, &roots.output, roots, Tool::Compiler);
        if compile.exit != 0 {
            // It may be one that we did not give it.
            if compile.stderr.contains("No such file or directory") || !plain {
                return Err(format!("'{output}' does not compile on its own"));
            }
            let unit = Unit { ok: false, diagnostics, object: None, ..before.clone() };
            return match unit.first_error() {
                Some(_) => Ok((unit, None)),
                None => Err(format!("'{output}' fails without an error")),
            };
        }
        let made = compile.output(output).ok_or_else(|| format!("'{output}' was not made"))?;
        if !plain {
            // More than a link depends on it; if its bytes are what they were, or what is taken from it, so is all of that.
            let content = |blob: &BlobDigest| self.planning.sources.content(blob).ok();
            let same_constants = || {
                let texts = made_before.and_then(|before| content(&before)).zip(content(&made.blob));
                texts.is_some_and(|(before, now)| constants::are_equal(output, &before, &now))
            };
            return if constants::are_of(output) && (made_before == Some(made.blob) || same_constants()) {
                Ok((Unit { ok: true, diagnostics, object: Some(made.blob.hash), ..before.clone() }, None))
            } else if made_before == Some(made.blob) {
                Ok((Unit { ok: true, diagnostics, ..before.clone() }, None))
            } else {
                Err(format!("'{output}' changed, and other steps than the link read it"))
            };
        }
        let mut object = made.blob;
        if let Some(objtool) = &done.objtool {
            let found = parse::log(&objtool.stderr, &roots.output, roots).into_iter();
            diagnostics.extend(found.map(|finding| finding.diagnostic).filter(|it| it.tool == Tool::Objtool));
            if objtool.exit != 0 {
                let said = objtool.stderr.lines().next().unwrap_or_default().trim();
                return Err(format!("objtool fails on '{output}': {said}"));
            }
            object = objtool.output(output).ok_or_else(|| format!("objtool lost '{output}'"))?.blob;
        }
        let bytes = self.planning.sources.content(&object).map_err(|error| error.to_string())?;
        let seen = interface::read(&bytes).ok_or_else(|| format!("'{output}' is not understood"))?;
        Ok((Unit { ok: true, diagnostics, object: Some(object.hash), ..before.clone() }, Some(seen)))
    }
}
