//! A repository of the coordinator's own: it borrows from one of the operator's, and takes packs of what is missing there.
//!
//! A pack may hold a commit and its tree, and not what the tree names. Whoever knows nothing but the names in a tree could so hand in what
//! they never had, and be told what was found out of it for those who have. So a commit counts when everything is there that
//! its tree leads to; of those that came in packs it is written down which do.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use bombproof_core::id::Oid;

use super::git::Git;
use super::{Repository, StatesError};

/// Most commits of a range that come in a pack.
const MAX_COMMITS: usize = 10_000;

/// A bare repository that only we write to.
#[derive(Clone, Debug)]
pub struct Depot {
    git: Git,
    path: PathBuf,
    lender: Option<Git>,
}

/// Those of the commits that are in a repository with their trees.
fn found(git: &Git, commits: &[Oid]) -> Result<Vec<Oid>, StatesError> {
    let mut talk = git.talk(["cat-file", "--batch-check"])?;
    let mut there = Vec::new();
    for commit in commits {
        talk.write(format!("{commit}^{{tree}}\n").as_bytes())?;
        if talk.object(false)?.is_some_and(|object| object.kind == "tree") {
            there.push(commit.clone());
        }
    }
    Ok(there)
}

fn write_failed(path: &Path, error: &std::io::Error) -> StatesError {
    StatesError::Write { path: path.to_owned(), detail: error.to_string() }
}

impl Depot {
    /// The repository in this folder, which is made where it is not there; `lender`: a repository whose objects it has too.
    ///
    /// # Errors
    /// When the lender is no repository, or git fails.
    pub fn open(folder: &Path, lender: Option<&Path>) -> Result<Self, StatesError> {
        let lender = lender.map(Repository::open).transpose()?;
        std::fs::create_dir_all(folder).map_err(|error| write_failed(folder, &error))?;
        let git = Git::at(folder);
        if !folder.join("HEAD").is_file() {
            let format = lender.as_ref().map_or("sha1", |lender| lender.format.as_str());
            git.run(["init", "--quiet", "--bare", &format!("--object-format={format}"), "."])?;
        }
        if let Some(lender) = &lender {
            let path = folder.join("objects/info/alternates");
            let text = format!("{}\n", lender.path.join("objects").display());
            bombproof_store::atomic::write(&path, text.as_bytes())
                .map_err(|error| StatesError::Write { path, detail: error.to_string() })?;
        }
        Ok(Self { git, path: folder.to_owned(), lender: lender.map(|lender| lender.git) })
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Those of the commits that are there with their trees. What is in the trees may be missing.
    fn has(&self, commits: &[Oid]) -> Result<Vec<Oid>, StatesError> {
        found(&self.git, commits)
    }

    /// Those of the commits that the operator's repository has, or that a series stood on before: they need not come again.
    ///
    /// # Errors
    /// When git cannot be started.
    pub fn known(&self, commits: &[Oid]) -> Result<Vec<Oid>, StatesError> {
        let lent = self.lent(commits)?;
        let written = self.written();
        let whole: BTreeSet<&str> = written.iter().flat_map(|line| line.split(' ')).collect();
        Ok(commits.iter().filter(|commit| lent.contains(commit) || whole.contains(commit.as_str())).cloned().collect())
    }

    /// Those of the commits that the operator's repository has.
    fn lent(&self, commits: &[Oid]) -> Result<Vec<Oid>, StatesError> {
        self.lender.as_ref().map_or(Ok(Vec::new()), |lender| found(lender, commits))
    }

    /// The commits that came in packs and are whole: `BASE`, or `BASE TO` for all of a range.
    fn written(&self) -> BTreeSet<String> {
        // One that cannot be read is looked at again.
        let text = std::fs::read_to_string(self.path.join("whole")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The first of a base, and of the commits after it up to `to`, of which something is not there; `None`: all is.
    ///
    /// # Errors
    /// When the range is none, or is too long; when git fails.
    pub fn lacks(&self, base: &Oid, to: Option<&Oid>) -> Result<Option<Oid>, StatesError> {
        let named: Vec<Oid> = std::iter::once(base).chain(to).cloned().collect();
        let there = self.has(&named)?;
        if let Some(missing) = named.iter().find(|commit| !there.contains(commit)) {
            return Ok(Some(missing.clone()));
        }
        let lent = self.lent(&named)?;
        let mut written = self.written();
        let before = written.len();
        if !lent.contains(base) && !written.contains(base.as_str()) {
            if !self.is_whole(&["--no-walk", base.as_str()])? {
                return Ok(Some(base.clone()));
            }
            written.insert(base.to_string());
        }
        // What comes before a commit of the operator's is there too.
        if let Some(to) = to.filter(|to| !lent.contains(to)) {
            let range = format!("{base} {to}");
            if !written.contains(&range) {
                self.end_history_at(base)?;
                if !self.is_line(base, to)? || !self.is_whole(&[to.as_str(), &format!("^{base}")])? {
                    return Ok(Some(to.clone()));
                }
                written.insert(range);
            }
        }
        if written.len() > before {
            let path = self.path.join("whole");
            let text: String = written.iter().map(|line| format!("{line}\n")).collect();
            // Two that write at once lose a line, and it is looked at again.
            bombproof_store::atomic::write(&path, text.as_bytes())
                .map_err(|error| StatesError::Write { path, detail: error.to_string() })?;
        }
        Ok(None)
    }

    /// Whether every commit after `base` up to `to` is there.
    fn is_line(&self, base: &Oid, to: &Oid) -> Result<bool, StatesError> {
        let most = format!("--max-count={}", MAX_COMMITS + 1);
        match self.git.text(["rev-list", &most, to.as_str(), &format!("^{base}")]) {
            Ok(listed) if listed.lines().count() > MAX_COMMITS => Err(StatesError::Range {
                name: format!("{base}..{to}"),
                detail: format!("holds more than {MAX_COMMITS} commits that are not here"),
                hint: "give a base that is nearer".to_owned(),
            }),
            Ok(_) => Ok(true),
            // It names a commit that is missing.
            Err(StatesError::Git { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether everything is there that these commits lead to.
    fn is_whole(&self, commits: &[&str]) -> Result<bool, StatesError> {
        let args = ["rev-list", "--objects", "--quiet", "--missing=print"];
        // What is missing is printed, and nothing else.
        Ok(self.git.run(args.iter().chain(commits))?.is_empty())
    }

    /// Takes a pack in. Git reads every object, and refuses a pack that is damaged. That something leads to what is not there is
    /// meant: a base comes without its history.
    ///
    /// # Errors
    /// When it is no pack, or cannot be written.
    pub fn add(&self, pack: &Path) -> Result<(), StatesError> {
        let file = File::open(pack).map_err(|error| write_failed(pack, &error))?;
        let mut command = self.git.command(["index-pack", "--stdin", "--fix-thin"]);
        command.stdin(Stdio::from(file)).stdout(Stdio::null());
        let output = command.output().map_err(|error| StatesError::start("git index-pack", &error))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let detail = said.trim().lines().last().unwrap_or("it failed").to_owned();
        Err(StatesError::Git { what: "git index-pack".to_owned(), detail })
    }

    /// Says that the history of a commit ends there, where what comes before it is not here.
    ///
    /// # Errors
    /// When the commit is not there, or git fails.
    pub fn end_history_at(&self, commit: &Oid) -> Result<(), StatesError> {
        let text = self.git.text(["cat-file", "commit", commit.as_str()])?;
        let parents = text.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.strip_prefix("parent "));
        let parents: Vec<Oid> = parents.filter_map(|parent| Oid::parse(parent).ok()).collect();
        if self.has(&parents)?.len() == parents.len() {
            return Ok(());
        }
        let path = self.path.join("shallow");
        let known = std::fs::read_to_string(&path).unwrap_or_default();
        if known.lines().any(|line| line == commit.as_str()) {
            return Ok(());
        }
        bombproof_store::atomic::write(&path, format!("{known}{commit}\n").as_bytes())
            .map_err(|error| StatesError::Write { path, detail: error.to_string() })
    }
}

/// What a pack is to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The base is missing: it goes with its tree, and without what comes before it.
    pub base: bool,
    /// What comes after the base is missing, up to this commit.
    pub to: Option<Oid>,
}

impl Repository {
    /// What a name means: a commit.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn commit(&self, name: &str) -> Result<Oid, StatesError> {
        super::base::resolve(&self.git, name).map(|(commit, _)| commit)
    }

    /// Writes a pack of what is missing elsewhere.
    ///
    /// # Errors
    /// When git fails, or it cannot be written.
    pub fn pack(&self, base: &Oid, missing: &Missing, into: &mut dyn Write) -> Result<(), StatesError> {
        let mut objects = Vec::new();
        if missing.base {
            objects.extend(self.git.run(["rev-list", "--objects", "--no-object-names", "--no-walk", base.as_str()])?);
        }
        if let Some(to) = &missing.to {
            let range = format!("{base}..{to}");
            objects.extend(self.git.run(["rev-list", "--objects", "--no-object-names", &range])?);
        }
        let mut packer = self.git.talk(["pack-objects", "--stdout", "-q"])?;
        let mut input = packer.input.take();
        std::thread::scope(|scope| {
            // Git begins to answer when it has read everything, but nothing says that it always will.
            scope.spawn(move || {
                // A packer that is gone says so itself.
                let _ = input.as_mut().map(|input| input.write_all(&objects));
            });
            let mut buffer = vec![0; 1 << 16];
            loop {
                match packer.output.read(&mut buffer) {
                    Ok(0) => return Ok(()),
                    Ok(read) => into
                        .write_all(buffer.get(..read).unwrap_or_default())
                        .map_err(|error| write_failed(Path::new("the pack"), &error))?,
                    Err(error) => return Err(packer.failed(&error.to_string())),
                }
            }
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::process::Command;
    use std::sync::Arc;

    use super::super::pack::{Change, Kind, Pack, hex, unhex};
    use super::*;

    pub(crate) fn git(folder: &Path, args: &[&str]) -> String {
        let output = Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@example.org"])
            .args(args)
            .current_dir(folder)
            .output()
            .unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// A repository with four commits.
    pub(crate) fn repository(folder: &Path) -> Vec<Oid> {
        git(folder, &["init", "-q", "."]);
        let commit = |number: u32| {
            std::fs::write(folder.join("file"), format!("{number}\n")).unwrap();
            git(folder, &["add", "-A"]);
            git(folder, &["commit", "-q", "-m", &number.to_string()]);
            Oid::parse(&git(folder, &["rev-parse", "HEAD"])).unwrap()
        };
        (0..4).map(commit).collect()
    }

    /// A pack of what is missing of a repository elsewhere.
    pub(crate) fn packed(from: &Path, base: &Oid, missing: &Missing) -> PathBuf {
        let path = from.with_extension("pack");
        Repository::open(from).unwrap().pack(base, missing, &mut File::create(&path).unwrap()).unwrap();
        path
    }

    /// A pack with a commit and its tree, and without the `file` in that. Who makes it has to know nothing but its name.
    pub(crate) fn hollow(folder: &Path, file: &Oid, parent: Option<&Oid>) -> (PathBuf, Oid) {
        let packs = folder.join("objects/pack");
        std::fs::create_dir_all(&packs).unwrap();
        let mut pack = Pack::start(folder, false).unwrap();
        let tree = [b"100644 file\0", unhex(file.as_str()).as_slice()].concat();
        let tree = hex(&pack.add(Kind::Tree, "", &Arc::new(tree), Change::Unknown).unwrap());
        let parent = parent.map(|parent| format!("parent {parent}\n")).unwrap_or_default();
        let who = "m <m@example.org> 0 +0000";
        let text = format!("tree {tree}\n{parent}author {who}\ncommitter {who}\n\nmine\n");
        let commit = hex(&pack.add(Kind::Commit, "", &Arc::new(text.into_bytes()), Change::Unknown).unwrap());
        pack.finish().unwrap();
        let mut made = std::fs::read_dir(packs).unwrap().map(|entry| entry.unwrap().path());
        let path = made.find(|path| path.extension().is_some_and(|end| end == "pack")).unwrap();
        (path, Oid::parse(&commit).unwrap())
    }

    #[test]
    fn a_commit_counts_with_everything_that_it_leads_to() {
        let folder = tempfile::tempdir().unwrap();
        let theirs = folder.path().join("theirs");
        std::fs::create_dir(&theirs).unwrap();
        let commits = repository(&theirs);
        let secret = Oid::parse(&git(&theirs, &["rev-parse", "HEAD:file"])).unwrap();
        let upstream = folder.path().join("upstream");
        std::fs::create_dir(&upstream).unwrap();
        git(&upstream, &["clone", "-q", "--bare", "../theirs", "."]);
        git(&upstream, &["update-ref", "refs/heads/master", commits[1].as_str()]);
        git(&upstream, &["gc", "-q", "--prune=now"]);
        for (name, lender, base) in
            [("alone", None, commits[0].clone()), ("borrows", Some(upstream.as_path()), commits[1].clone())]
        {
            let depot = Depot::open(&folder.path().join(name), lender).unwrap();
            let lent: Vec<Oid> = commits.iter().take(if lender.is_some() { 2 } else { 0 }).cloned().collect();
            assert_eq!(depot.known(&commits).unwrap(), lent, "{name}");
            // A base, and what goes on a base, of which one file was never handed in.
            let (pack, root) = hollow(&folder.path().join(format!("{name}-root")), &secret, None);
            depot.add(&pack).unwrap();
            assert_eq!(depot.lacks(&root, None).unwrap(), Some(root.clone()), "{name}");
            let (pack, tip) = hollow(&folder.path().join(format!("{name}-tip")), &secret, Some(&base));
            depot.add(&pack).unwrap();
            let lacking = if lender.is_some() { &tip } else { &base };
            assert_eq!(depot.lacks(&base, Some(&tip)).unwrap().as_ref(), Some(lacking), "{name}");
            assert_eq!(depot.known(&[root.clone(), tip.clone()]).unwrap(), [], "{name}");
            // Handed in with all that is in them, they are known.
            let to = commits[3].clone();
            let missing = Missing { base: lender.is_none(), to: Some(to.clone()) };
            depot.add(&packed(&theirs, &base, &missing)).unwrap();
            assert_eq!(depot.known(std::slice::from_ref(&to)).unwrap(), [], "{name}: nobody has looked at it");
            for _ in 0..2 {
                assert_eq!(depot.lacks(&base, Some(&to)).unwrap(), None, "{name}");
                assert_eq!(depot.known(&[base.clone(), to.clone()]).unwrap(), [base.clone(), to.clone()], "{name}");
            }
            assert_eq!(depot.lacks(&root, None).unwrap(), None, "{name}: now the file is there");
            // A range that does not end at its base leads to what is not there.
            let (pack, gap) = hollow(&folder.path().join(format!("{name}-gap")), &secret, Some(&secret));
            depot.add(&pack).unwrap();
            assert_eq!(depot.lacks(&base, Some(&gap)).unwrap(), Some(gap), "{name}");
        }
    }

    #[test]
    fn what_is_missing_comes_in_a_pack_and_makes_the_same_states() {
        let folder = tempfile::tempdir().unwrap();
        let theirs = folder.path().join("theirs");
        std::fs::create_dir(&theirs).unwrap();
        let commits = repository(&theirs);
        let client = Repository::open(&theirs).unwrap();
        let depot = Depot::open(&folder.path().join("depot"), None).unwrap();
        let (base, to) = (&commits[1], &commits[3]);
        assert_eq!(depot.has(&[base.clone(), to.clone()]).unwrap(), []);
        depot.add(&packed(&theirs, base, &Missing { base: true, to: Some(to.clone()) })).unwrap();
        depot.end_history_at(base).unwrap();
        depot.end_history_at(base).unwrap();
        assert_eq!(depot.has(&[base.clone(), commits[0].clone(), to.clone()]).unwrap(), [base.clone(), to.clone()]);
        let range = (base.clone(), to.clone());
        let read = |repository: &Repository, name: &str| {
            let (series, states) = repository.states_of_range(&range, "a..b", &folder.path().join(name)).unwrap();
            let trees: Vec<Oid> = states.states.into_iter().map(|state| state.tree).collect();
            (series, trees)
        };
        let own = Repository::open(depot.path()).unwrap();
        assert_eq!(read(&own, "one"), read(&client, "two"));
    }

    #[test]
    fn a_depot_borrows_and_a_damaged_pack_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let theirs = folder.path().join("theirs");
        std::fs::create_dir(&theirs).unwrap();
        let commits = repository(&theirs);
        let depot = Depot::open(&folder.path().join("depot"), Some(&theirs)).unwrap();
        assert_eq!(depot.has(&commits).unwrap(), commits);
        let pack = folder.path().join("pack");
        std::fs::write(&pack, b"PACK nonsense").unwrap();
        assert!(matches!(depot.add(&pack), Err(StatesError::Git { .. })));
        assert!(matches!(Depot::open(&folder.path().join("x"), Some(folder.path())), Err(StatesError::Repository(_))));
    }
}
