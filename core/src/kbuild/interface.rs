//! What a link sees of an object: its symbol interface.
//!
//! Two objects with one interface are the same to the linker's symbol resolution and to modpost: defined and undefined
//! symbols with their sections, references from and to code and data that is thrown away after boot one by one, the sections
//! that exist, and the contents of those that modpost and objtool read at the link. What instructions a function holds is not in
//! it, except in sections where objtool checks every call (`.noinstr.text`, `.entry.text`).
//!
//! Sources: the ELF specification, through the `object` crate; `scripts/mod/modpost.c` for what is looked at.

use std::collections::{BTreeMap, BTreeSet};

use object::read::elf::ElfFile;
use object::{Object, ObjectSection, ObjectSymbol, RelocationTarget, SectionIndex, SymbolIndex};
use serde::{Deserialize, Serialize};

use super::exports::{self, Export};
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

/// References from here only keep the compiler from dropping what they name: every link throws the section away, and modpost
/// passes over it (`section_white_list`).
const KEPT_BY_COMPILER: &str = ".discard.addressable";

/// Changed whenever an interface is read otherwise: those kept from before are read anew.
pub const VERSION: u32 = 5;

/// The interface of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Global symbols that it defines, with kind and section.
    pub defined: BTreeMap<String, String>,
    /// Symbols that it needs, each with the sections that refer to it: all that stay are one, written `.`.
    pub undefined: BTreeMap<String, String>,
    /// Its sections, each with kind and flags.
    pub sections: BTreeSet<String>,
    /// Symbols that it exports to modules. What it does not export in the way of [`exports`] is in `rest`.
    pub exports: BTreeMap<String, Export>,
    /// Everything else that counts.
    pub rest: Digest,
    /// It declares a licence under which all exports may be used.
    pub gpl: bool,
}

/// Reads an object; `None`: it is no ELF object, or is not understood.
pub fn read(object: &[u8]) -> Option<Interface> {
    let (interface, facts) = parse(object)?;
    let builder = DigestBuilder::new("bombproof/object-interface/v5");
    Some(Interface { rest: builder.list(facts.iter().map(String::as_str)).finish(), ..interface })
}

/// The first fact beside symbols and sections that one of two objects has and the other has not, in words.
pub fn difference(before: &[u8], after: &[u8]) -> Option<String> {
    let ((_, before), (_, after)) = (parse(before)?, parse(after)?);
    let come = after.difference(&before).map(|fact| format!("new: {fact}"));
    let gone = before.difference(&after).map(|fact| format!("gone: {fact}"));
    come.chain(gone).next()
}

fn parse(object: &[u8]) -> Option<(Interface, BTreeSet<String>)> {
    use object::Endianness;
    use object::elf::{FileHeader32, FileHeader64};
    match object::FileKind::parse(object).ok()? {
        object::FileKind::Elf64 => facts(&ElfFile::<FileHeader64<Endianness>>::parse(object).ok()?),
        object::FileKind::Elf32 => facts(&ElfFile::<FileHeader32<Endianness>>::parse(object).ok()?),
        _ => None,
    }
}

/// The interface without its digest, and what the digest is of.
fn facts<'data>(file: &impl Object<'data>) -> Option<(Interface, BTreeSet<String>)> {
    let mut facts = BTreeSet::new();
    let (mut defined, mut undefined, mut gpl) = (BTreeMap::new(), BTreeMap::<String, BTreeSet<&str>>::new(), false);
    let mut sections = BTreeSet::new();
    let exports = exports::read(file);
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
        if symbol.is_undefined() && !symbol.is_weak() {
            undefined.entry(name.to_owned()).or_default();
        } else if symbol.is_global() || symbol.is_weak() {
            let weak = if symbol.is_weak() { "weak" } else { "" };
            let common = if symbol.is_common() { symbol.size() } else { 0 };
            let fact = format!("{section} {:?} {:?} {weak} {common}", symbol.kind(), symbol.scope());
            if symbol.is_undefined() || symbol.is_weak() || symbol.is_common() {
                facts.insert(format!("symbol {name} {} {fact}", symbol.is_undefined()));
            } else {
                defined.insert(name.to_owned(), fact);
            }
        }
        // The tables that modpost makes aliases of.
        if name.contains("__mod_") {
            facts.insert(format!("table {name} {}", symbol.size()));
        }
    }
    for section in file.sections() {
        let name = section.name().ok()?;
        if exports.is_some() && exports::is_of_exports(name) {
            continue;
        }
        sections.insert(format!("{name} {:?} {:?}", section.kind(), section.flags()));
        if READ_WHOLE.iter().any(|head| name.starts_with(head)) {
            facts.insert(format!("content {name} {}", Digest::of(section.data().ok()?)));
        }
        for (offset, relocation) in section.relocations() {
            let (symbol, to) = target(file, relocation.target(), &section_name)?;
            if name.contains("__ex_table") {
                // Only what may run belongs there.
                facts.insert(format!("exception {to}"));
            } else if discarded(&to) && name != KEPT_BY_COMPILER && !(is_initcall(name) && to.starts_with(".init.")) {
                // modpost forgives some references by the names of both ends.
                let from = around(file, section.index(), offset);
                facts.insert(format!("reference {name} {from} {to} {symbol}"));
            }
            if let Some(from) = undefined.get_mut(&symbol) {
                from.insert(if discarded(name) { name } else { "." });
            } else if to.is_empty() && !symbol.is_empty() {
                let name = if discarded(name) { name } else { "." };
                facts.insert(format!("weak reference {name} {symbol}"));
            }
        }
        if name == ".modinfo" {
            let text = section.data().ok()?;
            gpl = text.split(|byte| *byte == 0).any(|entry| {
                let licence = entry.strip_prefix(b"license=").unwrap_or_default();
                licence.starts_with(b"GPL") || licence.starts_with(b"Dual ")
            });
        }
    }
    // The empty first entry of every symbol table.
    undefined.remove("");
    let join = |(name, from): (String, BTreeSet<&str>)| (name, from.into_iter().collect::<Vec<_>>().join(" "));
    let undefined = undefined.into_iter().map(join).collect();
    let exports = exports.unwrap_or_default();
    Some((Interface { defined, undefined, sections, exports, rest: Digest::of(b""), gpl }, facts))
}

/// What is known of the last link.
#[derive(Clone, Debug, Default)]
pub struct Linked {
    /// Global symbols of the image (`System.map`).
    pub image: BTreeSet<String>,
    /// Sections that any of its objects has: a link knows what to do with them.
    pub sections: BTreeSet<String>,
    /// The section of every global symbol that an object defines.
    pub places: BTreeMap<String, String>,
    /// Exported symbols (`Module.symvers`), and whether any licence may use each. Symbols of a namespace are not in it.
    pub exports: BTreeMap<String, bool>,
    /// Every exported symbol; `None`: no list of them was made.
    pub exported: Option<BTreeSet<String>>,
}

/// What changed objects bring that no object had at the last link.
#[derive(Clone, Debug, Default)]
pub struct Fresh {
    /// Symbols of the image, each with its section and how many objects define it.
    pub image: BTreeMap<String, (String, u32)>,
    /// Exports of the image and of all modules, and how many objects have each.
    pub exports: BTreeMap<String, (Export, u32)>,
}

impl Linked {
    /// Reads `System.map` and `Module.symvers`.
    ///
    /// Formats: nm(1), `ADDRESS KIND NAME`, capital kinds are global; `Documentation/kbuild/modules.rst` of the kernel,
    /// `CRC\tSYMBOL\tMODULE\tEXPORT TYPE\tNAMESPACE`.
    pub fn read(system_map: &str, symvers: &str) -> Self {
        let image = system_map.lines().filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (kind, name) = (words.next()?, words.next()?);
            // A weak symbol may be there without a definition.
            matches!(kind, "T" | "D" | "B" | "R" | "A").then(|| name.to_owned())
        });
        let exports = symvers.lines().filter_map(|line| {
            let columns: Vec<&str> = line.split('\t').collect();
            let [_, name, _, kind, ref rest @ ..] = columns[..] else { return None };
            let plain = rest.iter().all(|namespace| namespace.trim().is_empty());
            (plain && !name.is_empty()).then(|| (name.to_owned(), kind == "EXPORT_SYMBOL"))
        });
        let names = symvers.lines().filter_map(|line| line.split('\t').nth(1)).filter(|name| !name.is_empty());
        let exported: BTreeSet<String> = names.map(str::to_owned).collect();
        let exported = Some(exported).filter(|names| !names.is_empty());
        Self { image: image.collect(), exports: exports.collect(), exported, ..Self::default() }
    }

    /// Takes in an object that was linked.
    pub fn add(&mut self, object: &Interface) {
        self.sections.extend(object.sections.iter().cloned());
        for (name, fact) in &object.defined {
            let section = section_of(fact);
            // Of two of one name, in two modules, that counts which may be thrown away.
            let place = self.places.entry(name.clone()).or_insert_with(|| section.to_owned());
            if discarded(section) {
                section.clone_into(place);
            }
        }
    }

    /// Whether a symbol is defined where everything may refer to it.
    fn stays(&self, name: &str) -> bool {
        self.places.get(name).is_some_and(|section| !section.is_empty() && !discarded(section))
    }
}

/// What a link would make of an object that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum View {
    /// It sees no difference.
    Same,
    /// Symbols changed, and every one of them is found.
    Resolved,
    /// Only the link can tell; why.
    Unclear(String),
}

/// What the sections of a changed object come to, before its symbols are looked at: `None`, where these decide.
///
/// A section that another object of the last link had, with the same kind and flags, is nothing new to a link.
fn by_sections(before: &Interface, after: &Interface, linked: &Linked) -> Option<View> {
    let known = |section: &&String| before.sections.contains(*section) || linked.sections.contains(*section);
    if let Some(section) = after.sections.iter().find(|section| !known(section)) {
        let name = section.split(' ').next().unwrap_or_default();
        return Some(View::Unclear(format!("it has a section '{name}', which nothing had")));
    }
    // References from elsewhere to what stays are no difference; those to what is thrown away are modpost's.
    let moved = |name: &String, from: &String| before.undefined.get(name).is_some_and(|it| it != from);
    if let Some((name, _)) = after.undefined.iter().find(|(name, from)| moved(name, from) && !linked.stays(name)) {
        return Some(View::Unclear(format!("it refers to '{name}' from elsewhere")));
    }
    let same = before.defined == after.defined
        && before.undefined.keys().eq(after.undefined.keys())
        && before.gpl == after.gpl
        && before.exports == after.exports
        && before.rest == after.rest;
    same.then_some(View::Same)
}

/// The symbols that an object needs and did not need before.
fn needed_anew<'a>(before: &'a Interface, after: &'a Interface) -> impl Iterator<Item = &'a String> {
    after.undefined.keys().filter(|name| !before.undefined.contains_key(*name))
}

/// What speaks against the exports of a changed object: what was exported must be so still, and what is new must be defined
/// here, stay, and be exported once.
fn by_exports(before: &Interface, after: &Interface, linked: &Linked, fresh: &Fresh) -> Option<View> {
    if let Some((name, _)) = before.exports.iter().find(|(name, export)| after.exports.get(*name) != Some(export)) {
        return Some(View::Unclear(format!("its export of '{name}' is not what it was")));
    }
    let known = |name: &String| linked.exported.as_ref().is_none_or(|exported| exported.contains(name));
    let stays = |name: &String| {
        let section = after.defined.get(name).map(|fact| section_of(fact));
        section.is_some_and(|section| !section.is_empty() && !discarded(section))
    };
    let once = |name: &String| fresh.exports.get(name).is_some_and(|(_, count)| *count == 1);
    let mut anew = after.exports.keys().filter(|name| !before.exports.contains_key(*name));
    let odd = anew.find(|name| known(name) || !stays(name) || !once(name))?;
    Some(View::Unclear(format!("it exports '{odd}', which may not be exported")))
}

/// Judges a changed object of the image; `fresh` is what it and other changed objects bring.
///
/// A symbol that it defines no more is left to the link: objects may need it that are not understood.
pub fn view_in_image(before: &Interface, after: &Interface, linked: &Linked, fresh: &Fresh) -> View {
    if let Some(view) = by_sections(before, after, linked) {
        return view;
    }
    if before.rest != after.rest {
        return View::Unclear("it refers to something else".to_owned());
    }
    if let Some(view) = by_exports(before, after, linked, fresh) {
        return view;
    }
    if let Some((name, _)) = before.defined.iter().find(|(name, fact)| after.defined.get(*name) != Some(fact)) {
        return View::Unclear(format!("'{name}' is not what it was"));
    }
    for name in after.defined.keys().filter(|name| !before.defined.contains_key(*name)) {
        let once = fresh.image.get(name).is_some_and(|(_, count)| *count == 1);
        if !once || linked.image.contains(name) || linked.places.contains_key(name) {
            return View::Unclear(format!("'{name}' may be defined twice"));
        }
    }
    for name in needed_anew(before, after) {
        let known = linked.image.contains(name) && linked.stays(name);
        let new = fresh.image.get(name).is_some_and(|(section, count)| *count == 1 && !discarded(section));
        if !known && !new {
            return View::Unclear(format!("it needs '{name}', which the image did not have for all to use"));
        }
    }
    View::Resolved
}

/// Judges a changed object of a module; `others` are the other objects of the module as they are now, `fresh` is what all changed
/// objects bring.
pub fn view_in_module(
    before: &Interface,
    after: &Interface,
    others: &[Interface],
    linked: &Linked,
    fresh: &Fresh,
) -> View {
    if let Some(view) = by_sections(before, after, linked) {
        return view;
    }
    if before.rest != after.rest {
        return View::Unclear("it refers to something else".to_owned());
    }
    if let Some(view) = by_exports(before, after, linked, fresh) {
        return view;
    }
    let gpl = after.gpl || others.iter().any(|other| other.gpl);
    let gone = before.defined.keys().filter(|name| !after.defined.contains_key(*name));
    for name in gone {
        if others.iter().any(|other| other.undefined.contains_key(name)) || after.undefined.contains_key(name) {
            return View::Unclear(format!("'{name}' is needed and no longer there"));
        }
    }
    for name in after.defined.keys().filter(|name| !before.defined.contains_key(*name)) {
        if others.iter().any(|other| other.defined.contains_key(name)) {
            return View::Unclear(format!("'{name}' is defined twice"));
        }
    }
    for name in needed_anew(before, after) {
        let stays = |fact: &String| !discarded(section_of(fact));
        let own = others.iter().any(|other| other.defined.get(name).is_some_and(stays));
        let exported = linked.stays(name) && linked.exports.get(name).is_some_and(|anyone| *anyone || gpl);
        let anew = |(export, count): &(Export, u32)| *count == 1 && export.is_open(gpl);
        if !own && !exported && !fresh.exports.get(name).is_some_and(anew) {
            return View::Unclear(format!("it needs '{name}'"));
        }
    }
    View::Resolved
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
            let name = symbol.name().ok()?;
            let name = if symbol.is_local() { unnumbered(name) } else { name.to_owned() };
            Some((name, section_name(symbol.section_index())?))
        }
        RelocationTarget::Section(index) => Some((String::new(), section_name(Some(index))?)),
        RelocationTarget::Absolute => Some((String::new(), String::new())),
        _ => None,
    }
}

/// The section in what is known of a defined symbol.
pub(crate) fn section_of(fact: &str) -> &str {
    fact.split(' ').next().unwrap_or_default()
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

/// Whether a section holds pointers to what runs at boot, of which no step looks at single ones.
fn is_initcall(section: &str) -> bool {
    section.strip_prefix(".initcall").is_some_and(|rest| rest.ends_with(".init"))
}

/// A name without its numbers: those of local symbols count lines and uses of a macro.
fn unnumbered(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for letter in name.chars() {
        match letter {
            '0'..='9' if text.ends_with('#') => {}
            '0'..='9' => text.push('#'),
            letter => text.push(letter),
        }
    }
    text
}

/// The name of the symbol that lies at or before an offset of a section.
fn around<'data>(file: &impl Object<'data>, section: SectionIndex, offset: u64) -> String {
    file.symbols()
        .filter(|symbol| symbol.section_index() == Some(section) && symbol.address() <= offset)
        .filter_map(|symbol| {
            let name = symbol.name().ok().filter(|name| !name.is_empty())?;
            Some((symbol.address(), name.to_owned(), symbol.is_local()))
        })
        .max()
        .map(|(_, name, local)| if local { unnumbered(&name) } else { name })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_object_has_no_interface() {
        for bytes in [b"".as_slice(), b"rubbish", b"\x7fELF", b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0"] {
            assert_eq!(read(bytes), None);
        }
    }

    #[test]
    fn numbers_of_local_names_do_not_count() {
        for (name, want) in [
            ("__initcall__kmod_core__469_9736_migration_initearly", "__initcall__kmod_core__#_#_migration_initearly"),
            ("init", "init"),
            ("a1", "a#"),
            ("", ""),
        ] {
            assert_eq!(unnumbered(name), want);
        }
    }

    fn object(defined: &[&str], undefined: &[&str]) -> Interface {
        Interface {
            sections: BTreeSet::from([".text".to_owned()]),
            defined: defined.iter().map(|name| ((*name).to_owned(), ".text Text".to_owned())).collect(),
            undefined: undefined.iter().map(|name| ((*name).to_owned(), ".".to_owned())).collect(),
            exports: BTreeMap::new(),
            rest: Digest::of(b""),
            gpl: false,
        }
    }

    fn linked() -> Linked {
        let linked = Linked::read(
            "00 T printk\n01 t local\n02 W maybe\n03 T once\nrubbish\n",
            "0x0\tprintk\tvmlinux\tEXPORT_SYMBOL\t\n0x0\tgpl\tvmlinux\tEXPORT_SYMBOL_GPL\t\n0x0\tns\tm\tEXPORT_SYMBOL\tCRYPTO\nx\n",
        );
        let place = |(name, section): (&str, &str)| (name.to_owned(), section.to_owned());
        let places = [("printk", ".text"), ("gpl", ".text"), ("once", ".init.text"), ("maybe", ".text")].map(place);
        Linked { sections: BTreeSet::from([".data".to_owned()]), places: places.into(), ..linked }
    }

    #[test]
    fn what_is_thrown_away_is_referred_to_from_what_is_too() {
        let from = |section: &str| {
            let mut it = object(&["a"], &["printk", "once"]);
            it.undefined.insert("printk".to_owned(), ".".to_owned());
            it.undefined.insert("once".to_owned(), section.to_owned());
            it
        };
        let mut elsewhere = from(".init.text");
        elsewhere.undefined.insert("printk".to_owned(), ". .init.text".to_owned());
        let view = |after: &Interface| view_in_image(&from(".init.text"), after, &linked(), &Fresh::default());
        assert_eq!(view(&from(".init.text")), View::Same);
        assert_eq!(view(&elsewhere), View::Same);
        assert!(matches!(view(&from(". .init.text")), View::Unclear(_)));
    }

    #[test]
    fn what_the_link_makes_of_a_changed_object() {
        let before = object(&["a", "b"], &["printk"]);
        let gpl = Interface { gpl: true, ..object(&["c"], &["b"]) };
        let other = object(&["c"], &["b"]);
        let changed = Interface { rest: Digest::of(b"x"), ..before.clone() };
        let fresh =
            [("c", 1), ("d", 2), ("gpl", 2)].map(|(name, count)| (name.to_owned(), (".text".to_owned(), count)));
        let fresh = Fresh { image: BTreeMap::from(fresh), ..Fresh::default() };
        // The object afterwards, what a module whose other object needs `b` and has `c` says, what the image says.
        let with = |section: &str| {
            let mut it = before.clone();
            it.sections.insert(section.to_owned());
            it
        };
        for (after, module, image) in [
            (before.clone(), "same", "same"),
            (with(".data"), "same", "same"),
            (with(".odd"), "unclear", "unclear"),
            (changed, "unclear", "unclear"),
            (object(&["a", "b"], &[]), "resolved", "resolved"),
            (object(&["a", "b"], &["printk", "c"]), "resolved", "resolved"),
            (object(&["a", "b"], &["printk", "gpl"]), "unclear", "unclear"),
            (object(&["a", "b"], &["printk", "ns"]), "unclear", "unclear"),
            (object(&["a", "b"], &["printk", "local"]), "unclear", "unclear"),
            (object(&["a", "b"], &["printk", "once"]), "unclear", "unclear"),
            (object(&["a", "b"], &["printk", "maybe"]), "unclear", "unclear"),
            (object(&["a"], &["printk"]), "unclear", "unclear"),
            (object(&["b"], &["printk"]), "resolved", "unclear"),
            (object(&["b"], &["printk", "a"]), "unclear", "unclear"),
            (object(&["a", "b", "c"], &["printk"]), "unclear", "resolved"),
            (object(&["a", "b", "gpl"], &["printk"]), "resolved", "unclear"),
            (object(&["a", "b", "d"], &["printk"]), "resolved", "unclear"),
        ] {
            let word = |view| match view {
                View::Same => "same",
                View::Resolved => "resolved",
                View::Unclear(_) => "unclear",
            };
            let seen = view_in_module(&before, &after, std::slice::from_ref(&other), &linked(), &fresh);
            assert_eq!(word(seen), module, "module: {after:?}");
            assert_eq!(word(view_in_image(&before, &after, &linked(), &fresh)), image, "image: {after:?}");
        }
        let needs = object(&["a", "b"], &["printk", "gpl"]);
        assert_eq!(view_in_module(&before, &needs, &[gpl], &linked(), &fresh), View::Resolved);
        assert_eq!(view_in_image(&before, &object(&["a", "b"], &["printk", "printk"]), &linked(), &fresh), View::Same);
    }

    #[test]
    fn what_the_link_makes_of_exports() {
        let exporting = |names: &[(&str, bool)], section: &str| {
            let mut it = object(&["old", "new", "once_more"], &[]);
            it.defined.insert("new".to_owned(), format!("{section} Text"));
            let export = |(name, gpl): &(&str, bool)| {
                ((*name).to_owned(), Export { gpl: *gpl, namespace: String::new(), kind: "a".to_owned() })
            };
            it.exports = names.iter().map(export).collect();
            it
        };
        let before = exporting(&[("old", false)], ".text");
        let fresh = |after: &Interface, count: u32| {
            let anew = after.exports.iter().filter(|(name, _)| *name != "old");
            let exports = anew.map(|(name, export)| (name.clone(), (export.clone(), count)));
            Fresh { exports: exports.collect(), ..Fresh::default() }
        };
        // What it exports afterwards, where `new` lies, how many export it, and what comes of it.
        for (names, section, count, want) in [
            (&[("old", false)][..], ".text", 1, "same"),
            (&[("old", false), ("new", false)], ".text", 1, "resolved"),
            (&[("old", false), ("new", true)], ".text", 1, "resolved"),
            (&[("old", false), ("new", false)], ".text", 2, "unclear"),
            (&[("old", false), ("new", false)], ".init.text", 1, "unclear"),
            (&[("old", false), ("printk", false)], ".text", 1, "unclear"),
            (&[("old", false), ("ns", false)], ".text", 1, "unclear"),
            (&[("old", true)], ".text", 1, "unclear"),
            (&[], ".text", 1, "unclear"),
        ] {
            let after = exporting(names, section);
            let mut before = before.clone();
            before.defined.clone_from(&after.defined);
            let fresh = fresh(&after, count);
            for view in [
                view_in_image(&before, &after, &linked(), &fresh),
                view_in_module(&before, &after, &[], &linked(), &fresh),
            ] {
                let word = match view {
                    View::Same => "same",
                    View::Resolved => "resolved",
                    View::Unclear(_) => "unclear",
                };
                assert_eq!(word, want, "{names:?} {section} {count}");
            }
        }
        // A module may need what is exported anew, if its licence allows it.
        let (user, needs) = (object(&["x"], &[]), object(&["x"], &["new"]));
        for (gpl_only, licence, resolved) in [(false, false, true), (true, false, false), (true, true, true)] {
            let fresh = fresh(&exporting(&[("new", gpl_only)], ".text"), 1);
            let needs = Interface { gpl: licence, ..needs.clone() };
            let user = Interface { gpl: licence, ..user.clone() };
            let view = view_in_module(&user, &needs, &[], &linked(), &fresh);
            assert_eq!(view == View::Resolved, resolved, "{gpl_only} {licence}");
        }
        // Where nobody wrote down what is exported, nothing is known of an export.
        let after = exporting(&[("old", false), ("new", false)], ".text");
        let unknown = Linked { exported: None, ..linked() };
        assert!(matches!(view_in_image(&before, &after, &unknown, &fresh(&after, 1)), View::Unclear(_)));
    }
}
