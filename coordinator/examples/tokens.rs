//! Holds what reduced texts say against `gcc -E`: whether two versions of a file are the same to the compilers that read it.
//!
//! `tokens series SOURCE BUILT PATCHES` goes through a series, state by state: every unit that reads what a patch changes.
//! `tokens says SOURCE BUILT PATCHES` only says what reduced texts find in a series, without `gcc -E`.
//! `tokens edits SOURCE BUILT SEED COUNT` makes edits in files of small units of that build.
//! `tokens texts KCONFIG SEED COUNT` makes small texts of hard lines up, and edits in them; `KCONFIG` is a kernel's
//! `include/linux/kconfig.h`. The first three change SOURCE and put it back. Used by `scripts/test-tokens`.
//!
//! What `gcc -E` says is its output without line markers and blank lines, its messages without places, and how it
//! ended. A pair that is said to be the same and is not makes the program fail.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bombproof_core::digest::Digest;
use bombproof_core::kbuild::{cmdfile, depfile};
use bombproof_core::source::texts::{set_by, understands};
use bombproof_core::source::{Autoconf, Facts, Texts, reduce};

#[path = "tokens/edit.rs"]
mod edit;
#[path = "tokens/made_up.rs"]
mod made_up;

pub(crate) type Failed = Box<dyn std::error::Error + Send + Sync>;

const THREADS: usize = 2;

fn main() -> Result<(), Failed> {
    let args: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
    let path = |text: &str| Ok::<_, Failed>(std::fs::canonicalize(text)?);
    let unsound = match words.as_slice() {
        ["series", source, built, patches] => series(&path(source)?, &path(built)?, &path(patches)?)?,
        ["says", source, built, patches] => says(&path(source)?, &path(built)?, &path(patches)?)?,
        ["edits", source, built, seed, count] => edits(&path(source)?, &path(built)?, seed.parse()?, count.parse()?)?,
        ["texts", kconfig, seed, count] => made_up::run(&path(kconfig)?, seed.parse()?, count.parse()?)?,
        _ => return Err("usage: tokens series|edits|texts ...".into()),
    };
    if unsound > 0 { Err(format!("{unsound} pairs are said to be the same and are not").into()) } else { Ok(()) }
}

#[expect(clippy::print_stdout, reason = "this is a program")]
pub(crate) fn say(text: &str) {
    println!("{text}");
}

/// What `gcc -E` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Truth(Digest);

/// Runs a preprocessor; the time it took is added.
pub(crate) fn preprocess(argv: &[String], cwd: &Path, spent: &Mutex<Duration>) -> Result<(Truth, Vec<u8>), Failed> {
    let (program, rest) = argv.split_first().ok_or("no command")?;
    let start = Instant::now();
    let output = Command::new(program).args(rest).current_dir(cwd).env("LC_ALL", "C").output()?;
    *spent.lock().map_err(|_| "poisoned")? += start.elapsed();
    let mut seen = Vec::with_capacity(output.stdout.len());
    for line in output.stdout.split(|byte| *byte == b'\n') {
        let marker = line.strip_prefix(b"# ").is_some_and(|rest| rest.first().is_some_and(u8::is_ascii_digit));
        if !marker && !line.trim_ascii().is_empty() {
            seen.extend_from_slice(line);
            seen.push(b'\n');
        }
    }
    for line in String::from_utf8_lossy(&output.stderr).lines() {
        let Some(at) = ["error: ", "warning: "].into_iter().find_map(|kind| line.find(kind)) else { continue };
        seen.extend_from_slice(line.get(at..).unwrap_or_default().as_bytes());
        seen.push(b'\n');
    }
    seen.extend_from_slice(format!("{:?}", output.status.code()).as_bytes());
    Ok((Truth(Digest::of(&seen)), seen))
}

/// A unit of a build.
pub(crate) struct Unit {
    name: String,
    argv: Vec<String>,
    deps: BTreeSet<PathBuf>,
    truth: Truth,
    took: Duration,
}

/// The words of a command of a shell: quotes and backslashes, nothing else.
fn split(line: &str) -> Vec<String> {
    let (mut words, mut word, mut open) = (Vec::new(), String::new(), false);
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\'' => {
                open = true;
                word.extend(letters.by_ref().take_while(|letter| *letter != '\''));
            }
            '"' => {
                open = true;
                while let Some(letter) = letters.next().filter(|letter| *letter != '"') {
                    if letter == '\\' {
                        word.extend(letters.next());
                    } else {
                        word.push(letter);
                    }
                }
            }
            '\\' => word.extend(letters.next()),
            letter if letter.is_whitespace() => {
                if open || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                open = false;
            }
            letter => word.push(letter),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// The saved compile commands of a build, as preprocessor commands without `-MF`.
fn commands(built: &Path) -> Result<Vec<(String, Vec<String>)>, Failed> {
    let mut found = Vec::new();
    let mut open = vec![built.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            } else if name.starts_with('.') && name.ends_with(".o.cmd") {
                let text = String::from_utf8_lossy(&std::fs::read(entry.path())?).into_owned();
                let Some(file) = cmdfile::read(&text) else { continue };
                let command = file.command.split(" ; ").next().unwrap_or_default();
                let words = split(command);
                let forced = words.iter().any(|word| word.ends_with("include/linux/kconfig.h"));
                if !forced || !words.iter().any(|word| word == "-c") {
                    continue;
                }
                let mut argv = Vec::new();
                let mut rest = words.into_iter();
                while let Some(word) = rest.next() {
                    match word.as_str() {
                        "-o" => drop(rest.next()),
                        "-c" => argv.extend(["-E", "-MD"].map(str::to_owned)),
                        _ if word.starts_with("-Wp,-M") => {}
                        _ => argv.push(word),
                    }
                }
                found.push((file.target, argv));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Runs one thing for each of many on some threads.
fn each<T: Send, R: Send>(many: Vec<T>, run: impl Fn(usize, T) -> Result<R, Failed> + Sync) -> Result<Vec<R>, Failed> {
    let todo = Mutex::new(many.into_iter().enumerate().collect::<Vec<_>>());
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let work = |thread: usize| {
            let (todo, done, run) = (&todo, &done, &run);
            move || -> Result<(), Failed> {
                loop {
                    let Some((place, one)) = todo.lock().map_err(|_| "poisoned")?.pop() else { return Ok(()) };
                    let made = run(thread, one)?;
                    done.lock().map_err(|_| "poisoned")?.push((place, made));
                }
            }
        };
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(work(thread))).collect();
        threads.into_iter().try_for_each(|it| it.join().map_err(|_| Failed::from("a thread died"))?)
    })?;
    let mut done = done.into_inner().map_err(|_| "poisoned")?;
    done.sort_by_key(|(place, _)| *place);
    Ok(done.into_iter().map(|(_, made)| made).collect())
}

struct Build {
    source: PathBuf,
    built: PathBuf,
    scratch: tempfile::TempDir,
    autoconf: Autoconf,
    spent: Mutex<Duration>,
    runs: AtomicUsize,
}

impl Build {
    fn open(source: &Path, built: &Path) -> Result<Self, Failed> {
        let autoconf = std::fs::read_to_string(built.join("include/generated/autoconf.h"))?;
        Ok(Self {
            source: source.to_owned(),
            built: built.to_owned(),
            // On the file system of the sources, for hard links.
            scratch: tempfile::tempdir_in(source.parent().unwrap_or(source))?,
            autoconf: Autoconf::read(&autoconf),
            spent: Mutex::default(),
            runs: AtomicUsize::new(0),
        })
    }

    /// What `gcc -E` says of a unit now.
    fn run(&self, thread: usize, name: String, argv: Vec<String>) -> Result<Unit, Failed> {
        let list = self.scratch.path().join(thread.to_string());
        let list_name = list.to_string_lossy().into_owned();
        let more = ["-MF", list_name.as_str(), "-MT", "x"].map(str::to_owned);
        let full: Vec<String> = argv.iter().cloned().chain(more).collect();
        let start = Instant::now();
        let (truth, _) = preprocess(&full, &self.built, &self.spent)?;
        let took = start.elapsed();
        self.runs.fetch_add(1, Ordering::Relaxed);
        let names = depfile::prerequisites(&std::fs::read_to_string(&list).unwrap_or_default());
        let absolute = |name: String| std::fs::canonicalize(self.built.join(name));
        let deps = names.into_iter().filter_map(|name| absolute(name).ok()).collect();
        Ok(Unit { name, argv, deps, truth, took })
    }

    fn units(&self) -> Result<Vec<Unit>, Failed> {
        let found = commands(&self.built)?;
        let units = each(found, |thread, (name, argv)| self.run(thread, name, argv))?;
        Ok(units.into_iter().filter(|unit| understands(&unit.argv)).collect())
    }

    /// The texts of all files that units read, and later versions of some.
    fn texts(&self, units: &[Unit], later: &[(PathBuf, Vec<u8>)]) -> Result<(Texts, Autoconf), Failed> {
        let files: BTreeSet<&PathBuf> = units.iter().flat_map(|unit| &unit.deps).collect();
        let words: BTreeSet<&str> = units.iter().flat_map(|unit| unit.argv.iter().map(String::as_str)).collect();
        let mut redefined: BTreeSet<String> = set_by(words.iter().copied()).map(str::to_owned).collect();
        let mut all: Vec<(&PathBuf, Vec<u8>)> = Vec::new();
        for file in files {
            all.push((file, std::fs::read(file)?));
        }
        all.extend(later.iter().map(|(file, text)| (file, text.clone())));
        for (file, text) in &all {
            if !file.ends_with("include/linux/kconfig.h") && !file.ends_with("include/generated/autoconf.h") {
                redefined.extend(Facts::of(text).redefines);
            }
        }
        let config = self.autoconf.clone().doubting(&redefined);
        let mut texts = Texts::new(config.clone());
        for (file, text) in &all {
            texts.take(&file.to_string_lossy(), text);
        }
        if !texts.command(words.iter().copied()) {
            return Err("a macro of a command is not understood".into());
        }
        Ok((texts, config))
    }
}

fn git(source: &Path, args: &[&str]) -> Result<(), Failed> {
    let status = Command::new("git").arg("-C").arg(source).args(args).stdout(std::process::Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(format!("git {args:?} failed").into()) }
}

/// What was counted of pairs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Count {
    pub(crate) pairs: usize,
    pub(crate) equal: usize,
    pub(crate) found: usize,
    pub(crate) unsound: usize,
}

impl Count {
    pub(crate) fn add(&mut self, says: bool, truth: bool) {
        self.pairs += 1;
        self.equal += usize::from(truth);
        self.found += usize::from(says && truth);
        self.unsound += usize::from(says && !truth);
    }
}

impl std::fmt::Display for Count {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { pairs, equal, found, unsound } = self;
        let share = if *equal == 0 { 100.0 } else { 100.0 * *found as f64 / *equal as f64 };
        write!(out, "{pairs} pairs, {equal} equal, {found} of them found ({share:.1} %), {unsound} unsound")
    }
}

fn series(source: &Path, built: &Path, patches: &Path) -> Result<usize, Failed> {
    git(source, &["checkout", "-q", "."])?;
    git(source, &["clean", "-fdq"])?;
    let build = Build::open(source, built)?;
    let mut units = build.units()?;
    say(&format!("{} units; gcc -E takes {:.3} s for one", units.len(), mean(&build)));
    let mut later: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    let start = Instant::now();
    let (mut texts, _) = build.texts(&units, &later)?;
    let sensitive = texts.sensitive().count();
    say(&format!("all texts of the base: {:.2} s, {sensitive} names lead to a line", start.elapsed().as_secs_f64()));
    for (path, why) in texts.refused() {
        let readers = units.iter().filter(|unit| unit.deps.contains(Path::new(path))).count();
        say(&format!("{path} is refused, {readers} units read it: {why}"));
    }
    let (mut states, mut files, mut compares, mut compared) = (Count::default(), Count::default(), Duration::ZERO, 0);
    let list = std::fs::read_to_string(patches.join("series"))?;
    let names = list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    for name in names {
        let patch = patches.join(name).to_string_lossy().into_owned();
        let stat = Command::new("git").arg("-C").arg(source).args(["apply", "--numstat", &patch]).output()?;
        let text = String::from_utf8_lossy(&stat.stdout).into_owned();
        let paths: Vec<PathBuf> =
            text.lines().filter_map(|line| line.split('\t').nth(2)).map(|path| source.join(path)).collect();
        let read: BTreeSet<PathBuf> = units.iter().flat_map(|unit| unit.deps.iter().cloned()).collect();
        let old: BTreeMap<&PathBuf, Option<Vec<u8>>> =
            paths.iter().map(|path| (path, std::fs::read(path).ok())).collect();
        git(source, &["apply", "--whitespace=nowarn", &patch])?;
        // As the planner does: a name that is newly redefined is doubted in all texts.
        let mut same: BTreeMap<&PathBuf, bool> = BTreeMap::new();
        for (path, before) in old.iter().filter(|(path, _)| read.contains(**path)) {
            let (Some(before), Ok(after)) = (before, std::fs::read(path)) else {
                same.insert(path, false);
                continue;
            };
            let (old, new) = (Facts::of(before).redefines, Facts::of(&after).redefines);
            later.push(((*path).clone(), after.clone()));
            if !new.is_subset(&old) {
                texts = build.texts(&units, &later)?.0;
            }
            let start = Instant::now();
            same.insert(path, texts.same(&path.to_string_lossy(), before, &after));
            compares += start.elapsed();
            compared += 1;
        }
        let (reached, others): (Vec<Unit>, Vec<Unit>) =
            units.into_iter().partition(|unit| same.keys().any(|path| unit.deps.contains(*path)));
        let again = each(reached, |thread, before| {
            let after = build.run(thread, before.name.clone(), before.argv.clone())?;
            Ok((before, after))
        })?;
        units = others;
        let mut here = Count::default();
        let mut grown = false;
        for (before, after) in again {
            let reads: Vec<bool> =
                same.iter().filter(|(path, _)| before.deps.contains(**path)).map(|it| *it.1).collect();
            let doubtful = before.deps.iter().any(|path| texts.refuses(&path.to_string_lossy()));
            let says = !doubtful && reads.iter().all(|same| *same);
            let truth = before.truth == after.truth;
            here.add(says, truth);
            if let [_] = reads.as_slice() {
                files.add(says, truth);
            }
            if says && !truth {
                say(&format!("UNSOUND: {} by {name}", before.name));
            }
            grown |= !after.deps.is_subset(&read);
            units.push(after);
        }
        if here.pairs > 0 {
            say(&format!("{name}: {here}"));
        }
        states.pairs += here.pairs;
        states.equal += here.equal;
        states.found += here.found;
        states.unsound += here.unsound;
        if grown {
            texts = build.texts(&units, &later)?.0;
        }
    }
    git(source, &["checkout", "-q", "."])?;
    git(source, &["clean", "-fdq"])?;
    say(&format!("units and states: {states}"));
    say(&format!("of these, where the unit reads one changed file: {files}"));
    let one = compares.as_secs_f64() * 1e3 / f64::from(compared.max(1));
    say(&format!(
        "{compared} comparisons of files, {one:.2} ms each; gcc -E takes {:.1} ms for one unit",
        mean(&build) * 1e3
    ));
    Ok(states.unsound)
}

/// What is found in each changed file that a unit of the base reads.
fn says(source: &Path, built: &Path, patches: &Path) -> Result<usize, Failed> {
    git(source, &["checkout", "-q", "."])?;
    git(source, &["clean", "-fdq"])?;
    let build = Build::open(source, built)?;
    let nothing = Truth(Digest::of(b""));
    let mut units = Vec::new();
    for (name, argv) in commands(built)? {
        let (folder, file) = name.rsplit_once('/').unwrap_or((".", &name));
        let text = std::fs::read(built.join(folder).join(format!(".{file}.cmd")))?;
        let inputs = cmdfile::read(&String::from_utf8_lossy(&text)).map(|file| file.inputs).unwrap_or_default();
        let mut deps: BTreeSet<PathBuf> =
            inputs.iter().filter_map(|name| std::fs::canonicalize(built.join(name)).ok()).collect();
        deps.insert(std::fs::canonicalize(built.join("include/generated/autoconf.h"))?);
        units.push(Unit { name, argv, deps, truth: nothing, took: Duration::ZERO });
    }
    let start = Instant::now();
    let (mut texts, _) = build.texts(&units, &[])?;
    let sensitive = texts.sensitive().count();
    say(&format!("all texts of the base: {:.2} s, {sensitive} names lead to a line", start.elapsed().as_secs_f64()));
    let list = std::fs::read_to_string(patches.join("series"))?;
    for name in list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let patch = patches.join(name).to_string_lossy().into_owned();
        let stat = Command::new("git").arg("-C").arg(source).args(["apply", "--numstat", &patch]).output()?;
        let text = String::from_utf8_lossy(&stat.stdout).into_owned();
        let paths = text.lines().filter_map(|line| line.split('\t').nth(2)).map(|path| source.join(path));
        let old: Vec<(PathBuf, Option<Vec<u8>>)> = paths.map(|path| (path.clone(), std::fs::read(path).ok())).collect();
        git(source, &["apply", "--whitespace=nowarn", &patch])?;
        for (path, before) in old {
            let readers = units.iter().filter(|unit| unit.deps.contains(&path)).count();
            let (Some(before), Ok(after), true) = (before, std::fs::read(&path), readers > 0) else { continue };
            let (old, new) = (reduce(&before, &build.autoconf), reduce(&after, &build.autoconf));
            let text = matches!((&old, &new), (Ok(old), Ok(new)) if old.text() == new.text());
            let same = texts.same(&path.to_string_lossy(), &before, &after);
            let what = if same {
                "same"
            } else if text {
                "lines differ"
            } else {
                "differs"
            };
            let path = path.strip_prefix(source).unwrap_or(&path).display();
            say(&format!("{name}: {path}, {readers} readers: {what}"));
        }
    }
    git(source, &["checkout", "-q", "."])?;
    git(source, &["clean", "-fdq"])?;
    Ok(0)
}

fn mean(build: &Build) -> f64 {
    let runs = build.runs.load(Ordering::Relaxed).max(1);
    build.spent.lock().map_or(0.0, |spent| spent.as_secs_f64()) / runs as f64
}

fn edits(source: &Path, built: &Path, seed: u64, count: usize) -> Result<usize, Failed> {
    git(source, &["checkout", "-q", "."])?;
    let build = Build::open(source, built)?;
    let mut units = build.units()?;
    let (texts, config) = build.texts(&units, &[])?;
    let texts = Mutex::new(texts);
    // Small units, and every tenth other.
    units.sort_by_key(|unit| unit.took);
    let tenth: Vec<Unit> = units.split_off(units.len().min(60)).into_iter().step_by(20).collect();
    units.extend(tenth);
    let folders: Vec<PathBuf> = (0..THREADS).map(|thread| build.scratch.path().join(format!("src{thread}"))).collect();
    for folder in &folders {
        let status = Command::new("cp").arg("-al").arg(source).arg(folder).status()?;
        if !status.success() {
            return Err("cp failed".into());
        }
    }
    let from = format!("{}/", source.display());
    let of: Vec<&Unit> = units.iter().collect();
    let total = Mutex::new(Count::default());
    let refusals = AtomicUsize::new(0);
    let jobs: Vec<u64> = (0..count as u64).map(|number| seed.wrapping_mul(1_000_003).wrapping_add(number)).collect();
    each(jobs, |thread, seed| {
        let mut random = edit::Random::new(seed);
        let unit = of[random.below(of.len())];
        let files: Vec<&PathBuf> = unit.deps.iter().filter(|path| path.starts_with(&build.source)).collect();
        // The source itself more often.
        let own = unit.argv.last().map(PathBuf::from);
        let file = match own.as_ref().filter(|_| random.below(4) == 0) {
            Some(own) => own,
            None => files[random.below(files.len())],
        };
        let text = std::fs::read(file)?;
        let mut before = text.clone();
        for _ in 0..random.below(4) {
            before = edit::harden(&before, &mut random);
        }
        let mut after = before.clone();
        for _ in 0..=random.below(3) {
            after = edit::edit(&after, &mut random);
        }
        let path = file.to_string_lossy().into_owned();
        let (old, new) = (reduce(&before, &config), reduce(&after, &config));
        let is_early = path.ends_with("kconfig.h") || path.ends_with("compiler-version.h");
        let redefines = [&text, &before, &after].map(|text| Facts::of(text).redefines);
        let plain = redefines.windows(2).all(|pair| pair[0] == pair[1]);
        let says = match (old, new) {
            // Rare: all texts once more, as the planner does.
            (Ok(_), Ok(_)) if !plain && !is_early => {
                let later = [(file.clone(), before.clone()), (file.clone(), after.clone())];
                build.texts(&units, &later)?.0.same(&path, &before, &after)
            }
            (Ok(old), Ok(new)) if old.text() == new.text() && !is_early => {
                let mut texts =
                    if old.macros() == reduce(&text, &config).map(|it| it.macros().to_vec()).unwrap_or_default() {
                        texts.lock().map_err(|_| "poisoned")?.clone()
                    } else {
                        let mut more = texts.lock().map_err(|_| "poisoned")?.clone();
                        more.take(&path, &before);
                        more
                    };
                texts.same(&path, &before, &after)
            }
            (Ok(_), Ok(_)) => false,
            _ => {
                refusals.fetch_add(1, Ordering::Relaxed);
                false
            }
        };
        // What is not the same is of interest for the share that is found only.
        if !says && random.below(4) > 0 {
            return Ok(());
        }
        let folder = &folders[thread];
        let argv: Vec<String> =
            unit.argv.iter().map(|word| word.replace(&from, &format!("{}/", folder.display()))).collect();
        let place = folder.join(file.strip_prefix(&build.source)?);
        let mut truths = Vec::new();
        for version in [&before, &after] {
            std::fs::remove_file(&place)?;
            std::fs::write(&place, version)?;
            truths.push(build.run(thread, unit.name.clone(), argv.clone())?.truth);
        }
        std::fs::remove_file(&place)?;
        std::fs::hard_link(file, &place)?;
        let truth = truths[0] == truths[1];
        total.lock().map_err(|_| "poisoned")?.add(says, truth);
        if says && !truth {
            keep(&format!("{seed}"), &path, &before, &after)?;
        }
        Ok(())
    })?;
    let total = total.into_inner().map_err(|_| "poisoned")?;
    say(&format!("{count} edits, {} refused; compared: {total}", refusals.into_inner()));
    Ok(total.unsound)
}

/// Keeps a pair for a look at it.
pub(crate) fn keep(name: &str, path: &str, before: &[u8], after: &[u8]) -> Result<(), Failed> {
    let folder = std::env::temp_dir().join("bombproof-tokens");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join(format!("{name}.old")), before)?;
    std::fs::write(folder.join(format!("{name}.new")), after)?;
    say(&format!("UNSOUND: {path}: {}/{name}.old, .new", folder.display()));
    Ok(())
}
