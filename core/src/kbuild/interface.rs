//! What a link sees of an object: its symbol interface.
//!
//! Two objects with one interface are the same to the linker's symbol resolution and to modpost: defined and undefined
//! symbols with their sections, which section refers to which, references to code and data that is thrown away after boot
//! one by one, the sections that exist, and the contents of those that modpost and objtool read at the link. What instructions a function
//! holds is not in it, except in sections where objtool checks every call (`.noinstr.text`, `.entry.text`).
//!
//! Sources: the ELF specification, through the `object` crate; `scripts/mod/modpost.c` for what is looked at.

use std::collections::BTreeSet;

use object::read::elf::ElfFile;
use object::{Object, ObjectSection, ObjectSymbol, RelocationTarget, SectionIndex, SymbolIndex};

use crate::digest::{Digest, DigestBuilder};

/// Sections whose contents count.
const READ_WHOLE: &[&str] = &[
    ".modinfo",
    "__ksymtab",
    "___ksymtab",
    ".export_symbol",
    "__versions",
    ".noinstr.text",
    ".entry.text",
    "__param",
    ".note",
];

/// The digest of an object's interface; `None`: it is no ELF object, or is not understood.
pub fn digest(object: &[u8]) -> Option<Digest> {
    let kind = object::FileKind::parse(object).ok()?;
    let facts = match kind {
        object::FileKind::Elf64 => {
            facts(&ElfFile::<object::elf::FileHeader64<object::Endianness>>::parse(object).ok()?)?
        }
        object::FileKind::Elf32 => {
            facts(&ElfFile::<object::elf::FileHeader32<object::Endianness>>::parse(object).ok()?)?
        }
        _ => return None,
    };
    let builder = DigestBuilder::new("bombproof/object-interface/v1");
    Some(builder.list(facts.iter().map(String::as_str)).finish())
}

fn facts<'data>(file: &impl Object<'data>) -> Option<BTreeSet<String>> {
    let mut facts = BTreeSet::new();
    let section_name = |index: Option<SectionIndex>| -> Option<String> {
        match index {
            None => Some(String::new()),
            Some(index) => Some(file.section_by_index(index).ok()?.name().ok()?.to_owned()),
        }
    };
    facts.insert(format!("machine {:?}", file.architecture()));
    for symbol in file.symbols() {
        let name = symbol.name().ok()?;
        let section = section_name(symbol.section_index())?;
        if symbol.is_undefined() || symbol.is_global() || symbol.is_weak() {
            let weak = if symbol.is_weak() { "weak" } else { "" };
            let common = if symbol.is_common() { symbol.size() } else { 0 };
            facts.insert(format!(
                "symbol {name} {:?} {:?} {section} {weak} {} {common}",
                symbol.kind(),
                symbol.scope(),
                symbol.is_undefined()
            ));
        }
        // The tables that modpost makes aliases of.
        if name.contains("__mod_") {
            facts.insert(format!("table {name} {}", symbol.size()));
        }
    }
    for section in file.sections() {
        let name = section.name().ok()?;
        facts.insert(format!("section {name} {:?} {:?}", section.kind(), section.flags()));
        if READ_WHOLE.iter().any(|head| name.starts_with(head)) {
            facts.insert(format!("content {name} {}", Digest::of(section.data().ok()?)));
        }
        for (offset, relocation) in section.relocations() {
            let (symbol, to) = target(file, relocation.target(), &section_name)?;
            if discarded(name) || discarded(&to) {
                // modpost forgives some references by the names of both ends.
                let from = around(file, section.index(), offset);
                facts.insert(format!("reference {name} {from} {to} {symbol}"));
            } else {
                facts.insert(format!("reference {name} {to}"));
            }
        }
    }
    Some(facts)
}

/// Symbol and section that a relocation leads to.
fn target<'data>(
    file: &impl Object<'data>,
    target: RelocationTarget,
    section_name: &impl Fn(Option<SectionIndex>) -> Option<String>,
) -> Option<(String, String)> {
    match target {
        RelocationTarget::Symbol(index) => {
            let symbol = file.symbol_by_index(SymbolIndex(index.0)).ok()?;
            Some((symbol.name().ok()?.to_owned(), section_name(symbol.section_index())?))
        }
        RelocationTarget::Section(index) => Some((String::new(), section_name(Some(index))?)),
        RelocationTarget::Absolute => Some((String::new(), String::new())),
        _ => None,
    }
}

/// Code and data that is thrown away after boot, or when a module or device goes.
fn discarded(section: &str) -> bool {
    [".init", ".exit", ".meminit", ".memexit", ".cpuinit", ".devinit", ".ref", ".head", ".pci_fixup", "__ex_table"]
        .iter()
        .any(|head| {
            section.trim_start_matches(".rela").trim_start_matches(".rel").starts_with(head)
                || section.starts_with(head)
        })
}

/// The name of the symbol that lies at or before an offset of a section.
fn around<'data>(file: &impl Object<'data>, section: SectionIndex, offset: u64) -> String {
    file.symbols()
        .filter(|symbol| symbol.section_index() == Some(section) && symbol.address() <= offset)
        .filter_map(|symbol| Some((symbol.address(), symbol.name().ok().filter(|name| !name.is_empty())?.to_owned())))
        .max()
        .map(|(_, name)| name)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::digest;

    #[test]
    fn what_is_no_object_has_no_interface() {
        for bytes in [b"".as_slice(), b"rubbish", b"\x7fELF", b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0"] {
            assert_eq!(digest(bytes), None);
        }
    }
}
