//! Exports of an object as Linux 5.4 to 6.4 write them: a section `___ksymtab+NAME` or `___ksymtab_gpl+NAME` for each.
//!
//! The section holds references to the symbol and to its name and namespace, which lie in `__ksymtab_strings` behind the labels
//! `__kstrtab_NAME` and `__kstrtabns_NAME`. Source: `include/linux/export.h` of those versions. Later ones write
//! `.export_symbol`, which modpost makes a table of: those are not read here.

use std::collections::BTreeMap;

use object::{Object, ObjectSection, ObjectSymbol, RelocationTarget, SymbolIndex};
use serde::{Deserialize, Serialize};

const STRINGS: &str = "__ksymtab_strings";

/// One exported symbol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Export {
    /// Only modules under a licence that is compatible with the GPL may use it.
    pub gpl: bool,
    /// The namespace that users have to import; empty: none.
    pub namespace: String,
    /// Kind and flags of its section.
    pub kind: String,
}

impl Export {
    /// Whether a module may use it that imports nothing; `gpl`: its licence is compatible with the GPL.
    pub fn is_open(&self, gpl: bool) -> bool {
        self.namespace.is_empty() && (gpl || !self.gpl)
    }
}

/// Whether a section does nothing but export.
pub(super) fn is_of_exports(section: &str) -> bool {
    let name = [".rela", ".rel"].into_iter().find_map(|head| section.strip_prefix(head)).unwrap_or(section);
    name == STRINGS || named(name).is_some()
}

/// Symbol and whether only GPL modules may use it.
fn named(section: &str) -> Option<(&str, bool)> {
    let (kind, name) = section.split_once('+').filter(|(_, name)| !name.is_empty())?;
    match kind {
        "___ksymtab" => Some((name, false)),
        "___ksymtab_gpl" => Some((name, true)),
        _ => None,
    }
}

/// All exports of an object; `None`: one of them is not understood.
pub(super) fn read<'data>(file: &impl Object<'data>) -> Option<BTreeMap<String, Export>> {
    let mut exports = BTreeMap::new();
    for section in file.sections() {
        let Some((name, gpl)) = section.name().ok().and_then(named) else { continue };
        let mut targets = Vec::new();
        for (_, relocation) in section.relocations() {
            let RelocationTarget::Symbol(SymbolIndex(index)) = relocation.target() else { return None };
            let symbol = file.symbol_by_index(SymbolIndex(index)).ok()?;
            targets.push((
                symbol.name().ok()?.to_owned(),
                symbol.section_index(),
                symbol.address(),
                relocation.addend(),
            ));
        }
        // The symbol itself, once; everything else leads into the strings.
        let own = targets.iter().filter(|(target, ..)| target == name).count();
        let strings = file.section_by_name(STRINGS)?;
        let others = targets.iter().filter(|(target, ..)| target != name);
        if own != 1 || others.into_iter().any(|(_, section, ..)| *section != Some(strings.index())) {
            return None;
        }
        let label = format!("__kstrtabns_{name}");
        let namespace = match file.symbols().find(|symbol| symbol.name() == Ok(&label)) {
            Some(symbol) => text_at(strings.data().ok()?, symbol.address().checked_sub(strings.address())?)?,
            // Before 5.4 there were none.
            None if targets.len() == 2 => String::new(),
            None => return None,
        };
        let kind = format!("{:?} {:?}", section.kind(), section.flags());
        exports.insert(name.to_owned(), Export { gpl, namespace, kind });
    }
    Some(exports)
}

/// The text up to the next NUL.
fn text_at(data: &[u8], offset: u64) -> Option<String> {
    let rest = data.get(usize::try_from(offset).ok()?..)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    Some(std::str::from_utf8(rest.get(..end)?).ok()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_of_exports() {
        for (section, want) in [
            ("___ksymtab+printk", true),
            ("___ksymtab_gpl+x", true),
            (".rela___ksymtab_gpl+x", true),
            (".rel___ksymtab+x", true),
            ("__ksymtab_strings", true),
            ("___ksymtab+", false),
            ("___ksymtab", false),
            ("__ksymtab+x", false),
            (".text", false),
            (".export_symbol", false),
        ] {
            assert_eq!(is_of_exports(section), want, "{section}");
        }
    }

    #[test]
    fn texts_end_within_their_section() {
        for (data, offset, want) in [
            (&b"a\0ns\0"[..], 2, Some("ns")),
            (b"a\0ns\0", 1, Some("")),
            (b"a\0ns", 2, None),
            (b"a\0", 2, None),
            (b"a\0", u64::MAX, None),
            (b"\xff\0", 0, None),
        ] {
            assert_eq!(text_at(data, offset).as_deref(), want, "{data:?} {offset}");
        }
    }
}
