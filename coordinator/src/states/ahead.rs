//! Reads blobs before they are needed, in the order in which a series needs them first.
//!
//! Git unpacks the next files while a patch is applied here: two cores work instead of one.

use std::collections::{HashMap, VecDeque};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bombproof_core::id::Oid;

use super::StatesError;
use super::git::Talk;

/// How many questions git is given before it answers the first: they fit into a pipe.
const ASKED_AT_ONCE: usize = 64;
/// How many files wait to be taken, at most.
const WAITING: usize = 256;

/// A path with its content; `None`: git does not have it.
type Answer = Result<(String, Option<Vec<u8>>), StatesError>;

/// Contents that are on their way.
pub(super) struct Ahead {
    answers: Receiver<Answer>,
    /// Came before it was their turn.
    early: HashMap<String, Option<Vec<u8>>>,
}

impl Ahead {
    /// Begins to read; `git` is a `cat-file --batch` of its own.
    pub(super) fn start(git: Talk, wanted: VecDeque<(String, Oid)>) -> Self {
        let (give, answers) = sync_channel(WAITING);
        std::thread::spawn(move || read(git, wanted, &give));
        Self { answers, early: HashMap::new() }
    }

    /// The content of a path; each can be taken once.
    pub(super) fn take(&mut self, path: &str) -> Result<Option<Vec<u8>>, StatesError> {
        if let Some(content) = self.early.remove(path) {
            return Ok(content);
        }
        loop {
            let answer = self.answers.recv().map_err(|_| StatesError::damaged(format!("'{path}' was not read")))?;
            let (found, content) = answer?;
            if found == path {
                return Ok(content);
            }
            self.early.insert(found, content);
        }
    }
}

/// Ends when all is read, or nobody listens any more.
fn read(mut git: Talk, mut wanted: VecDeque<(String, Oid)>, give: &SyncSender<Answer>) {
    let mut asked: VecDeque<String> = VecDeque::new();
    loop {
        let mut questions = String::new();
        while asked.len() < ASKED_AT_ONCE
            && let Some((path, oid)) = wanted.pop_front()
        {
            questions.push_str(oid.as_str());
            questions.push('\n');
            asked.push_back(path);
        }
        if asked.is_empty() {
            return;
        }
        let answer = if questions.is_empty() { Ok(()) } else { git.write(questions.as_bytes()) };
        let answer = answer.and_then(|()| git.object(true)).map(|object| object.map(|object| object.bytes));
        let path = asked.pop_front().unwrap_or_default();
        let failed = answer.is_err();
        if give.send(answer.map(|content| (path, content))).is_err() || failed {
            return;
        }
    }
}
