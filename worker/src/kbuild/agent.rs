//! The agent of a kbuild step: runs the compiles that make asks for, or answers them from what is known.
//!
//! The shims hand their compiles over through a socket. What is known (the same command with the same inputs, or with the same
//! text as the compiler sees it) is laid into the build folder and its diagnostics are said again; everything else is run
//! in a sandbox of its own, where the build's makefiles cannot reach, and kept. What is not understood goes back to the shim.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use bombproof_core::action::{ActionResult, InputFile, InputTree};
use bombproof_core::digest::{BlobDigest, Digest};
use bombproof_core::kbuild::depfile;
use bombproof_core::kbuild::record::{Known, Record};
use bombproof_core::kbuild::roots::Roots;
use bombproof_core::outcome::Trouble;
use bombproof_core::plan::alike::Alike;
use bombproof_core::plan::compile::{self, AUTOCONF, Understood};
use bombproof_core::source::{Facts, Options};
use bombproof_store::action_cache::ActionCache;
use bombproof_store::manifests::{DependencySet, ManifestKey, Manifests};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use super::resolve::Resolver;
use crate::Attempt;
use crate::action::{Actions, Run, View};
use crate::beneath::Root;
use crate::files::Files;
use crate::sandbox::Level;
use crate::shim::{Answer, Question};

/// A command that is longer than this, in bytes, is no compile.
const MAX_QUESTION_BYTES: u64 = 4 << 20;

/// Everything that compiles of all lanes share.
pub struct Compiles {
    /// Runs them.
    pub actions: Arc<Actions>,
    /// What actions gave.
    pub cache: Arc<dyn ActionCache>,
    /// Which files a command is known to read.
    pub manifests: Arc<dyn Manifests>,
    /// Files of lanes.
    pub files: Arc<Files>,
}

/// A compile that the agent ran or knew, as the graph needs it.
#[derive(Clone, Debug)]
pub(super) struct Made {
    pub(super) depfile: String,
    /// Below the input root.
    pub(super) inputs: Vec<String>,
    pub(super) object: BlobDigest,
}

/// What an agent saw in one step.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) records: Vec<Record>,
    /// By output below the build folder.
    pub(super) made: HashMap<String, Made>,
    /// A compile came to grief: the step gives no answer.
    pub(super) trouble: Option<Trouble>,
}

/// The agent of one step.
pub(super) struct Agent {
    pub(super) compiles: Arc<Compiles>,
    pub(super) source: PathBuf,
    pub(super) output: PathBuf,
    pub(super) scratch: PathBuf,
    pub(super) roots: Roots,
    pub(super) toolchain: Digest,
    alike: Option<Arc<Alike>>,
    pub(super) cancel: watch::Receiver<bool>,
    resolver: Resolver,
    /// The folders, held open from the first look on: they are looked into for every input of every compile.
    source_root: OnceLock<Root>,
    output_root: OnceLock<Root>,
    /// Files of the source tree that were looked at.
    sources: Mutex<HashMap<String, crate::files::Known>>,
    /// The configuration, by the content of its header.
    options: Mutex<Option<(BlobDigest, Arc<Options>)>>,
    seen: Mutex<Seen>,
    count: AtomicU64,
}

/// What a compile gave, what it reads as far as that is known, and how that is known.
type Hit = (ActionResult, Option<Vec<String>>, Known);

/// An action that would do what a compile does, if what is known of its inputs still holds.
struct Candidate {
    digest: BlobDigest,
    set: DependencySet,
    /// Of its files, but for the configuration.
    contents: Vec<BlobDigest>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn io(error: &dyn std::fmt::Display) -> Trouble {
    Trouble::Disk { detail: error.to_string() }
}

impl Agent {
    pub(super) fn new(
        compiles: Arc<Compiles>,
        (source, output, scratch): (PathBuf, PathBuf, PathBuf),
        roots: Roots,
        attempt: &Attempt,
        cancel: watch::Receiver<bool>,
    ) -> Arc<Self> {
        let (toolchain, alike) = (attempt.toolchain, attempt.alike.clone());
        let resolver = Resolver::new(&source, &output);
        let (seen, count) = (Mutex::default(), AtomicU64::new(0));
        Arc::new(Self {
            compiles,
            source,
            output,
            scratch,
            roots,
            toolchain,
            alike,
            cancel,
            resolver,
            seen,
            count,
            source_root: OnceLock::new(),
            output_root: OnceLock::new(),
            sources: Mutex::default(),
            options: Mutex::default(),
        })
    }

    /// Answers shims for ever.
    pub(super) async fn serve(self: Arc<Self>, listener: &UnixListener) {
        loop {
            let Ok((stream, _)) = listener.accept().await else { return };
            let agent = Arc::clone(&self);
            tokio::spawn(async move {
                // A shim that is gone was killed with its make.
                let _ = agent.talk(stream).await;
            });
        }
    }

    /// What was seen so far.
    pub(super) fn take(&self) -> Seen {
        std::mem::take(&mut *lock(&self.seen))
    }

    async fn talk(&self, stream: UnixStream) -> std::io::Result<()> {
        let (reader, mut writer) = stream.into_split();
        let mut line = String::new();
        BufReader::new(reader).take(MAX_QUESTION_BYTES).read_line(&mut line).await?;
        let answer = match serde_json::from_str::<Question>(&line) {
            Ok(question) => match self.compile(&question).await {
                Ok(answer) => answer,
                Err(trouble) => {
                    let stderr = format!("bombproof: {}\n", trouble.describe());
                    lock(&self.seen).trouble.get_or_insert(trouble);
                    Answer::Done { exit: 1, stderr }
                }
            },
            Err(_) => Answer::Local,
        };
        writer.write_all(serde_json::to_string(&answer)?.as_bytes()).await?;
        writer.shutdown().await
    }

    async fn compile(&self, question: &Question) -> Result<Answer, Trouble> {
        let Some(what) = compile::understand(&question.argv, &question.cwd, &self.roots) else {
            return Ok(Answer::Local);
        };
        let begin = Instant::now();
        let key = ManifestKey(compile::manifest_key(&question.argv, &self.toolchain));
        let hit = tokio::task::block_in_place(|| self.look_up(&key, question, &what))?;
        let (result, inputs, known) = match hit {
            Some(hit) => hit,
            None => {
                let number = self.count.fetch_add(1, Ordering::Relaxed);
                let scratch = self.scratch.join(number.to_string());
                let view = View { source: Some(self.source.clone()), output: self.output.clone() };
                let outputs = [what.output.clone(), what.depfile.clone()];
                let environment = compile::environment();
                let run = Run { argv: &question.argv, env: &environment, outputs: &outputs, changed: &[] };
                let result = self.compiles.actions.run_in(&view, &scratch, run, self.cancel.clone()).await;
                let _ = std::fs::remove_dir_all(&scratch);
                let result = result?;
                let inputs = tokio::task::block_in_place(|| self.keep(&key, question, &what, &result))?;
                (result, inputs, Known::Ran)
            }
        };
        tokio::task::block_in_place(|| self.lay_out(&result))?;
        self.note(question, &what, &result, inputs, known)?;
        if known == Known::Ran {
            self.compiles.actions.note_beside(begin, &result);
        }
        Ok(Answer::Done { exit: result.exit, stderr: result.stderr })
    }

    /// The result of this compile and what it reads, if it is known.
    fn look_up(&self, key: &ManifestKey, question: &Question, what: &Understood) -> Result<Option<Hit>, Trouble> {
        let sets = self.compiles.manifests.get(key).map_err(|error| io(&error))?;
        for set in &sets {
            let Some(candidate) = self.candidate(&set.inputs, question, what, None)? else { continue };
            // An include that leads elsewhere than it did makes another compile of the same files.
            if candidate.set.resolution != set.resolution {
                continue;
            }
            let found = self.compiles.cache.get(&candidate.digest).map_err(|error| io(&error))?;
            if let Some(result) = found.filter(|result| is_whole(result, what)) {
                return Ok(Some((result, Some(candidate.set.inputs), Known::Cached)));
            }
        }
        self.look_up_alike(&sets, key, question, what)
    }

    /// The result of the same compile of files that are the same to the compiler.
    fn look_up_alike(
        &self,
        sets: &[DependencySet],
        key: &ManifestKey,
        question: &Question,
        what: &Understood,
    ) -> Result<Option<Hit>, Trouble> {
        let Some(alike) = self.alike.as_ref().filter(|_| !what.debug) else { return Ok(None) };
        let autoconf = self.known(AUTOCONF).map_err(|error| io(&error))?;
        if !autoconf.is_some_and(|autoconf| alike.applies(&autoconf.file.blob)) {
            return Ok(None);
        }
        for set in sets {
            let Some(own) = self.candidate(&set.inputs, question, what, None)? else { continue };
            if !alike.covers(&key.0, own.contents) {
                continue;
            }
            let Some(other) = self.candidate(&set.inputs, question, what, Some(alike))? else { continue };
            if own.set.resolution != set.resolution || other.digest == own.digest {
                continue;
            }
            let found = self.compiles.cache.get(&other.digest).map_err(|error| io(&error))?;
            let silent = |result: &ActionResult| result.exit == 0 && result.stderr.is_empty();
            if let Some(result) = found.filter(|result| is_whole(result, what) && silent(result)) {
                self.compiles.cache.put(&own.digest, &result).map_err(|error| io(&error))?;
                self.compiles.manifests.add(key, &own.set).map_err(|error| io(&error))?;
                return Ok(Some((result, Some(own.set.inputs), Known::Token)));
            }
        }
        Ok(None)
    }

    /// The action of a compile that reads these files, as they are now or with those that stand for them; `None`: one of
    /// them is not there, or reads what no list names.
    fn candidate(
        &self,
        inputs: &[String],
        question: &Question,
        what: &Understood,
        alike: Option<&Alike>,
    ) -> Result<Option<Candidate>, Trouble> {
        let mut tree = InputTree::new();
        let mut facts: Vec<(&String, Arc<Facts>)> = Vec::new();
        let mut named: Vec<Arc<Facts>> = Vec::new();
        let mut contents = Vec::with_capacity(inputs.len());
        for path in inputs {
            let Some(known) = self.known(path).map_err(|error| io(&error))? else {
                return Ok(None);
            };
            if known.facts.reads_unknown().is_some() {
                return Ok(None);
            }
            let first = alike.and_then(|alike| alike.first(&known.file.blob));
            if path != AUTOCONF {
                named.push(Arc::clone(first.map_or(&known.facts, |first| &first.facts)));
                facts.push((path, Arc::clone(&known.facts)));
                contents.push(known.file.blob);
            }
            let blob = first.map_or(known.file.blob, |first| first.blob);
            tree.insert(path.clone(), InputFile { blob, ..known.file });
        }
        let symbols: BTreeSet<&str> = named.iter().flat_map(|facts| &facts.symbols).map(String::as_str).collect();
        let autoconf = match tree.contains_key(AUTOCONF) {
            true => Some(self.projected(&symbols)?),
            false => None,
        };
        let resolution = self.resolver.resolution(&question.argv, &self.roots, &facts);
        let outputs = vec![what.output.clone(), what.depfile.clone()];
        let action = compile::action(question.argv.clone(), outputs, tree, autoconf, &self.toolchain);
        let digest = bombproof_proto::reapi::digest(&action);
        let symbols = symbols.into_iter().map(str::to_owned).collect();
        let set = DependencySet { inputs: inputs.to_vec(), symbols, resolution };
        Ok(Some(Candidate { digest, set, contents }))
    }

    /// Where an input is: the folder, and the path below it.
    fn place<'a>(&self, input: &'a str) -> (&Path, &'a str) {
        match input.split_once('/') {
            Some(("src", path)) => (&self.source, path),
            Some((_, path)) => (&self.output, path),
            None => (&self.output, input),
        }
    }

    fn known(&self, input: &str) -> std::io::Result<Option<crate::files::Known>> {
        let (root, path) = self.place(input);
        let is_source = root == self.source;
        // Where nothing of a step can write the source tree, once looked at is enough.
        let stays = is_source && self.compiles.actions.launcher().level() != Level::None;
        if let Some(known) = lock(&self.sources).get(input).filter(|_| stays) {
            return Ok(Some(known.clone()));
        }
        let held = if is_source { &self.source_root } else { &self.output_root };
        let root = match held.get() {
            Some(root) => root,
            None => {
                let opened = Root::at(root)?;
                held.get_or_init(|| opened)
            }
        };
        let known = self.compiles.files.get(root, path)?;
        if let (true, Some(known)) = (stays, &known) {
            lock(&self.sources).insert(input.to_owned(), known.clone());
        }
        Ok(known)
    }

    /// The configuration header with these symbols only.
    fn projected(&self, symbols: &BTreeSet<&str>) -> Result<InputFile, Trouble> {
        let text = self.options()?.project(symbols.iter().copied());
        let blob = self.compiles.actions.cas().put(text.as_bytes()).map_err(|error| io(&error))?;
        Ok(InputFile { blob, executable: false })
    }

    /// The configuration header as it is now.
    fn options(&self) -> Result<Arc<Options>, Trouble> {
        let gone = || Trouble::Tree { detail: format!("'{AUTOCONF}' is gone") };
        let now = self.known(AUTOCONF).map_err(|error| io(&error))?.ok_or_else(gone)?.file.blob;
        let mut kept = lock(&self.options);
        if let Some((_, options)) = kept.as_ref().filter(|(of, _)| *of == now) {
            return Ok(Arc::clone(options));
        }
        let options = Arc::new(Options::read(&String::from_utf8_lossy(&self.blob(&now)?)));
        *kept = Some((now, Arc::clone(&options)));
        Ok(options)
    }

    /// Keeps what a compile gave, if it is understood what it read. Gives the files that it read, below the input root.
    fn keep(
        &self,
        key: &ManifestKey,
        question: &Question,
        what: &Understood,
        result: &ActionResult,
    ) -> Result<Option<Vec<String>>, Trouble> {
        let (true, Some(list)) = (is_whole(result, what), result.output(&what.depfile)) else { return Ok(None) };
        let text = self.blob(&list.blob)?;
        let names = depfile::prerequisites(&String::from_utf8_lossy(&text));
        let Some(mut inputs) = compile::inputs(&self.roots, &question.cwd, &names) else { return Ok(None) };
        if let Err(place) = inputs.binary_search(&what.source) {
            inputs.insert(place, what.source.clone());
        }
        if !self.add_assembled(&mut inputs, question)? {
            return Ok(None);
        }
        let Some(candidate) = self.candidate(&inputs, question, what, None)? else { return Ok(None) };
        self.compiles.cache.put(&candidate.digest, result).map_err(|error| io(&error))?;
        self.compiles.manifests.add(key, &candidate.set).map_err(|error| io(&error))?;
        Ok(Some(inputs))
    }

    /// Adds what the assembler included, which no dependency list names. Gives whether that is known.
    fn add_assembled(&self, inputs: &mut Vec<String>, question: &Question) -> Result<bool, Trouble> {
        let mut open = inputs.clone();
        while let Some(path) = open.pop() {
            let Some(known) = self.known(&path).map_err(|error| io(&error))? else {
                return Ok(false);
            };
            for name in &known.facts.assembler {
                let Some(place) = self.resolver.of_assembler(&question.argv, &self.roots, name) else {
                    return Ok(false);
                };
                if let Err(at) = inputs.binary_search(&place) {
                    inputs.insert(at, place.clone());
                    open.push(place);
                }
            }
        }
        Ok(true)
    }

    fn blob(&self, blob: &BlobDigest) -> Result<Vec<u8>, Trouble> {
        let found = self.compiles.actions.cas().get(blob).map_err(|error| io(&error))?;
        found.ok_or_else(|| Trouble::Tree { detail: format!("blob {blob} is gone from the store") })
    }

    /// Lays the outputs into the build folder, as files of its own: later steps of a build may change them.
    fn lay_out(&self, result: &ActionResult) -> Result<(), Trouble> {
        for output in &result.outputs {
            // The build runs meanwhile, and can make a folder a link to elsewhere.
            let to =
                Root::at(&self.output).and_then(|root| root.place(&output.path)).map_err(|error| Trouble::Disk {
                    detail: format!("the output '{}' has no folder in the build folder: {error}", output.path),
                })?;
            to.remove().map_err(|error| io(&error))?;
            let cas = self.compiles.actions.cas();
            if !cas.copy(&output.blob, &to.path(), output.executable).map_err(|error| io(&error))? {
                return Err(Trouble::Tree { detail: format!("the output '{}' is gone from the store", output.path) });
            }
            self.compiles.actions.launcher().hand_over(&to.path()).map_err(|error| io(&error))?;
        }
        Ok(())
    }

    fn note(
        &self,
        question: &Question,
        what: &Understood,
        result: &ActionResult,
        inputs: Option<Vec<String>>,
        known: Known,
    ) -> Result<(), Trouble> {
        let depfile = match result.output(&what.depfile) {
            Some(list) => Some(String::from_utf8_lossy(&self.blob(&list.blob)?).into_owned()),
            None => None,
        };
        let ran = known == Known::Ran;
        let mut seen = lock(&self.seen);
        let id = format!("agent {}", seen.records.len());
        seen.records.push(Record {
            id,
            cwd: question.cwd.clone(),
            argv: question.argv.clone(),
            exit: Some(result.exit),
            cpu_us: if ran { result.cpu_us } else { 0 },
            wall_us: if ran { result.wall_us } else { 0 },
            max_rss_kib: 0,
            stderr: result.stderr.clone(),
            depfile,
            known,
        });
        if let (Some(inputs), Some(object), 0) = (inputs, result.output(&what.output), result.exit) {
            let made = Made { depfile: what.depfile.clone(), inputs, object: object.blob };
            seen.made.insert(what.output.clone(), made);
        }
        Ok(())
    }
}

/// Whether a result says all that there is to say: what was made, or that it fails, and in both cases what was read.
fn is_whole(result: &ActionResult, what: &Understood) -> bool {
    result.output(&what.depfile).is_some() && (result.exit != 0 || result.output(&what.output).is_some())
}

/// Binds the socket of an agent.
///
/// # Errors
/// When it cannot be made.
pub(super) fn listen(socket: &Path) -> std::io::Result<UnixListener> {
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    UnixListener::bind(socket)
}
