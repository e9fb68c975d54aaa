//! A repository of the coordinator's own: it borrows from one of the operator's, and takes packs of what is missing there.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use bombproof_core::id::Oid;

use super::git::Git;
use super::{Repository, StatesError};

/// A bare repository that only we write to.
#[derive(Clone, Debug)]
pub struct Depot {
    git: Git,
    path: PathBuf,
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
        if let Some(lender) = lender {
            let path = folder.join("objects/info/alternates");
            let text = format!("{}\n", lender.path.join("objects").display());
            bombproof_store::atomic::write(&path, text.as_bytes())
                .map_err(|error| StatesError::Write { path, detail: error.to_string() })?;
        }
        Ok(Self { git, path: folder.to_owned() })
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Those of the commits that are there with their trees.
    ///
    /// # Errors
    /// When git cannot be started.
    pub fn has(&self, commits: &[Oid]) -> Result<Vec<Oid>, StatesError> {
        let mut talk = self.git.talk(["cat-file", "--batch-check"])?;
        let mut there = Vec::new();
        for commit in commits {
            talk.write(format!("{commit}^{{tree}}\n").as_bytes())?;
            if talk.object(false)?.is_some_and(|object| object.kind == "tree") {
                there.push(commit.clone());
            }
        }
        Ok(there)
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
        let pack = folder.path().join("pack");
        let missing = Missing { base: true, to: Some(to.clone()) };
        client.pack(base, &missing, &mut File::create(&pack).unwrap()).unwrap();
        depot.add(&pack).unwrap();
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
