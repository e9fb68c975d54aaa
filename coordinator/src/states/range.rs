//! A git range as a series: its states are there already.

use bombproof_core::id::Oid;
use bombproof_core::series::{FileChange, Patch, Relation, Series, diff, upstream};

use super::StatesError;
use super::git::Git;

/// Largest text of changes that is read for a range, in bytes.
const MAX_CHANGES_BYTES: usize = 2 << 30;

/// A commit of a range.
pub(super) struct Step {
    pub(super) commit: Oid,
    pub(super) tree: Oid,
    pub(super) changes: Vec<FileChange>,
}

/// Reads the commits after `from` up to `to`, oldest first.
pub(super) fn read(git: &Git, from: &Oid, to: &Oid, name: &str) -> Result<(Series, Vec<Step>), StatesError> {
    let range = format!("{from}..{to}");
    let merges = git.text(["rev-list", "--merges", "--max-count=1", &range])?;
    if !merges.is_empty() {
        let short: String = merges.chars().take(12).collect();
        return Err(StatesError::Range {
            name: name.to_owned(),
            detail: format!("holds the merge commit {short}: a series is a line of commits"),
            hint: "give the range of the branch that was merged, or rebase it".to_owned(),
        });
    }
    // Unit separators and a NUL before each commit cannot stand in the message.
    let format = "--format=%x00%H%x1f%T%x1f%an <%ae>%x1f%ad%x1f%s%x1f%b%x1f%P%x1f";
    let args = ["log", "--reverse", "--topo-order", "--date=raw", "-p", "-U0", "-M", "--no-color", "--no-ext-diff"];
    let more = ["--no-textconv", "--full-index", "--src-prefix=a/", "--dst-prefix=b/", format, &range, "--"];
    let text = git.run(args.into_iter().chain(more))?;
    let bad = |detail: &str| StatesError::Range {
        name: name.to_owned(),
        detail: detail.to_owned(),
        hint: "give the series as patches".to_owned(),
    };
    if text.len() > MAX_CHANGES_BYTES {
        return Err(bad("its changes are larger than 2 GiB"));
    }
    let (mut patches, mut steps) = (Vec::new(), Vec::new());
    let mut parent = from.clone();
    for record in text.split(|byte| *byte == 0).skip(1) {
        let fields: Vec<&[u8]> = record.splitn(8, |byte| *byte == 0x1f).collect();
        let [commit, tree, author, date, subject, body, parents, changes] = fields[..] else {
            return Err(bad("git log printed what cannot be read"));
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let oid = |bytes: &[u8]| Oid::parse(&text(bytes)).map_err(|error| bad(&error.to_string()));
        let commit = oid(commit)?;
        if text(parents) != parent.as_str() {
            return Err(bad(&format!("commit {commit} does not follow the one before it: the range is not a line")));
        }
        let files = diff::parse(changes, 1).map_err(|error| bad(&format!("commit {commit}: {error}")))?;
        steps.push(Step {
            commit: commit.clone(),
            tree: oid(tree)?,
            changes: files.iter().map(super::change_of_plain_diff).collect(),
        });
        patches.push(Patch {
            subject: text(subject),
            author: text(author),
            date: Some(text(date)),
            upstream: upstream(&text(body)),
            body: text(body),
            source: commit.to_string(),
            reverse: false,
            files,
        });
        parent = commit;
    }
    Ok((Series { name: name.to_owned(), patches, base_commit: None, fuzz: 0 }, steps))
}

/// The paths of a change, when what it does to lines is told elsewhere.
pub(super) fn paths(diff: &bombproof_core::series::FileDiff, reverse: bool) -> (Option<String>, Option<String>) {
    let (old, new) = (diff.old_path.clone(), diff.new_path.clone());
    match (diff.relation, reverse) {
        // A copy adds a file; the old one stays as it is.
        (Relation::Copy, false) => (None, new),
        (Relation::Copy, true) => (new, None),
        (Relation::Same | Relation::Rename, false) => (old, new),
        (Relation::Same | Relation::Rename, true) => (new, old),
    }
}
