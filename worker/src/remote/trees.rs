//! The files of states from a coordinator, kept here by git's names.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bombproof_core::digest::BlobDigest;
use bombproof_core::id::Oid;
use bombproof_core::tree::Change;
use bombproof_proto::farm::{MESSAGE_BYTES, change_from_wire, wire};
use bombproof_store::cas::{Cas, CasError};
use bombproof_store::remote::Channel;
use bombproof_store::trees::{BlobSink, TreeError, TreeSource};
use sha1::{Digest as _, Sha1};
use sha2::Sha256;
use tokio::runtime::Handle;
use tonic::{Code, Status};
use wire::trees_client::TreesClient;

use super::link::{patiently, wait};

/// Objects that one call asks for.
const AT_ONCE: usize = 2_000;
/// Largest object that is taken, in bytes.
const MAX_OBJECT_BYTES: usize = 512 << 20;

fn unreadable(detail: impl std::fmt::Display) -> TreeError {
    TreeError::Unreadable { detail: detail.to_string() }
}

fn local(error: impl std::fmt::Display) -> TreeError {
    TreeError::Local { detail: error.to_string() }
}

fn said(oid: &str, status: &Status) -> TreeError {
    if status.code() == Code::NotFound {
        return TreeError::Missing { oid: oid.to_owned(), detail: status.message().to_owned() };
    }
    unreadable(format!("the coordinator: {}", status.message()))
}

/// Which blob of the local store a git object is. The list grows on disk, a line for each; a line that is torn or wrong is one
/// object that is asked for again.
pub(super) struct Names {
    cas: Arc<dyn Cas>,
    known: Mutex<(HashMap<Oid, BlobDigest>, Option<File>)>,
}

impl Names {
    /// The names that were written to this file before, and new ones from now on.
    pub(super) fn open(path: &Path, cas: Arc<dyn Cas>) -> Self {
        let text = std::fs::read(path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let known = text.lines().filter_map(|line| {
            let mut words = line.split(' ');
            let (oid, hash, size) = (words.next()?, words.next()?, words.next()?);
            let blob = BlobDigest { hash: hash.parse().ok()?, size_bytes: size.parse().ok()? };
            Some((Oid::parse(oid).ok()?, blob))
        });
        // Without the file it is only slower after a new start.
        let file = File::options().create(true).append(true).open(path).ok();
        Self { cas, known: Mutex::new((known.collect(), file)) }
    }

    fn lock(&self) -> MutexGuard<'_, (HashMap<Oid, BlobDigest>, Option<File>)> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The content of an object, if it is here.
    fn get(&self, oid: &Oid) -> Result<Option<Vec<u8>>, CasError> {
        let blob = self.lock().0.get(oid).copied();
        match blob {
            Some(blob) => self.cas.get(&blob),
            None => Ok(None),
        }
    }

    /// Which of these objects are not here.
    fn missing(&self, oids: &[Oid]) -> Vec<Oid> {
        let blobs: Vec<Option<BlobDigest>> = {
            let known = self.lock();
            oids.iter().map(|oid| known.0.get(oid).copied()).collect()
        };
        let all: Vec<BlobDigest> = blobs.iter().flatten().copied().collect();
        let gone: std::collections::HashSet<BlobDigest> = self.cas.missing(&all).into_iter().collect();
        let lacks = |blob: &Option<BlobDigest>| blob.is_none_or(|blob| gone.contains(&blob));
        let mut missing: Vec<Oid> =
            oids.iter().zip(&blobs).filter(|(_, blob)| lacks(blob)).map(|(oid, _)| oid.clone()).collect();
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    fn put(&self, oid: &Oid, content: &[u8]) -> Result<(), CasError> {
        let blob = self.cas.put(content)?;
        let mut known = self.lock();
        known.0.insert(oid.clone(), blob);
        if let Some(file) = &mut known.1 {
            let _ = file.write_all(format!("{oid} {} {}\n", blob.hash, blob.size_bytes).as_bytes());
        }
        Ok(())
    }
}

/// Whether a content has this name: nobody is believed.
fn is_named(oid: &Oid, content: &[u8]) -> bool {
    let head = format!("blob {}\0", content.len());
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let name = if oid.as_str().len() == 40 {
        hex(&Sha1::new().chain_update(head.as_bytes()).chain_update(content).finalize())
    } else {
        hex(&Sha256::new().chain_update(head.as_bytes()).chain_update(content).finalize())
    };
    name == oid.as_str()
}

/// The trees of one repository of a coordinator.
#[derive(Clone)]
pub(super) struct RemoteTrees {
    client: TreesClient<Channel>,
    repository: String,
    names: Arc<Names>,
    runtime: Handle,
}

impl RemoteTrees {
    pub(super) fn new(channel: Channel, repository: &str, names: Arc<Names>, runtime: Handle) -> Self {
        let client = TreesClient::new(channel).max_decoding_message_size(MESSAGE_BYTES);
        Self { client, repository: repository.to_owned(), names, runtime }
    }

    async fn ask_changes(&self, from: Option<Oid>, to: Oid) -> Result<Vec<Change>, TreeError> {
        let request = wire::ChangesRequest {
            repository: self.repository.clone(),
            from: from.map(|from| from.to_string()).unwrap_or_default(),
            to: to.to_string(),
        };
        let messages = patiently(|| {
            let (mut client, request) = (self.client.clone(), request.clone());
            async move {
                let mut stream = client.changes(request).await?.into_inner();
                let mut changes = Vec::new();
                while let Some(message) = stream.message().await? {
                    changes.extend(message.changes);
                }
                Ok(changes)
            }
        });
        let messages = messages.await.map_err(|status| said(to.as_str(), &status))?;
        messages.into_iter().map(|change| change_from_wire(change).map_err(unreadable)).collect()
    }

    /// Brings those of these objects here that are not; off the threads of the runtime.
    fn bring_missing(&self, oids: &[Oid]) -> Result<(), TreeError> {
        let missing = self.names.missing(oids);
        if missing.is_empty() {
            return Ok(());
        }
        let this = self.clone();
        let brought = wait(&self.runtime, async move { this.bring(&missing).await });
        brought.unwrap_or_else(|| Err(unreadable("the worker ends")))
    }

    /// Brings objects here.
    async fn bring(&self, oids: &[Oid]) -> Result<(), TreeError> {
        let oids: Arc<[Oid]> = oids.into();
        let brought = patiently(|| self.clone().bring_once(Arc::clone(&oids))).await;
        let brought = brought.map_err(|status| said(oids.first().map(Oid::as_str).unwrap_or_default(), &status))?;
        brought.map_err(local)
    }

    /// The inner error is that of the store here, which another try does not mend.
    async fn bring_once(mut self, oids: Arc<[Oid]>) -> Result<Result<(), CasError>, Status> {
        let request = wire::ObjectsRequest {
            repository: self.repository.clone(),
            oids: oids.iter().map(Oid::to_string).collect(),
        };
        let mut stream = self.client.objects(request).await?.into_inner();
        let mut asked = oids.iter();
        let mut content = Vec::new();
        while let Some(message) = stream.message().await? {
            let mut whole = Vec::new();
            for object in message.objects {
                if content.len() + object.data.len() > MAX_OBJECT_BYTES {
                    return Err(Status::out_of_range(format!("object {} is too large", object.oid)));
                }
                content.extend_from_slice(&object.data);
                if object.more {
                    continue;
                }
                let content = std::mem::take(&mut content);
                let oid = asked.next().filter(|oid| oid.as_str() == object.oid && is_named(oid, &content));
                let wrong = || Status::data_loss(format!("object {} is not what it should be", object.oid));
                whole.push((oid.ok_or_else(wrong)?.clone(), content));
            }
            let names = Arc::clone(&self.names);
            let put = move || whole.iter().try_for_each(|(oid, content)| names.put(oid, content));
            let put = tokio::task::spawn_blocking(put).await;
            if let Err(error) = put.map_err(|error| Status::internal(error.to_string()))? {
                return Ok(Err(error));
            }
        }
        match asked.next() {
            None => Ok(Ok(())),
            Some(oid) => Err(Status::data_loss(format!("object {oid} did not come"))),
        }
    }
}

impl TreeSource for RemoteTrees {
    fn changes(&self, from: Option<&Oid>, to: &Oid) -> Result<Vec<Change>, TreeError> {
        let (this, from, to) = (self.clone(), from.cloned(), to.clone());
        wait(&self.runtime, async move { this.ask_changes(from, to).await })
            .unwrap_or_else(|| Err(unreadable("the worker ends")))
    }

    fn blobs(&self, blobs: &[Oid], sink: &mut BlobSink<'_>) -> Result<(), TreeError> {
        for some in blobs.chunks(AT_ONCE) {
            self.bring_missing(some)?;
            for oid in some {
                let content = match self.names.get(oid).map_err(local)? {
                    Some(content) => content,
                    // It was damaged, or is evicted since.
                    None => {
                        self.bring_missing(std::slice::from_ref(oid))?;
                        let again = self.names.get(oid).map_err(local)?;
                        again.ok_or_else(|| unreadable(format!("object {oid} is gone from the store again")))?
                    }
                };
                sink(oid, &content)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bombproof_store::cas::MemoryCas;

    use super::*;

    #[test]
    fn a_content_must_have_the_name_that_git_gives_it() {
        let sha1 = Oid::parse("ce013625030ba8dba906f756967f9e9ca394464a").unwrap();
        let sha256 = Oid::parse("2cf8d83d9ee29543b34a87727421fdecb7e3f3a183d337639025de576db9ebb4").unwrap();
        assert!(is_named(&sha1, b"hello\n") && is_named(&sha256, b"hello\n"));
        assert!(!is_named(&sha1, b"hello") && !is_named(&sha256, b"hello"));
    }

    #[test]
    fn names_are_known_after_a_new_start_and_rubbish_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("names");
        let cas: Arc<dyn Cas> = Arc::new(MemoryCas::default());
        let [one, other] = ["a", "b"].map(|digit| Oid::parse(&digit.repeat(40)).unwrap());
        std::fs::write(&path, b"rubbish\n\xff\xfe x y\n").unwrap();
        Names::open(&path, Arc::clone(&cas)).put(&one, b"content").unwrap();
        let names = Names::open(&path, Arc::clone(&cas));
        assert_eq!(names.get(&one).unwrap().as_deref(), Some(&b"content"[..]));
        assert_eq!(names.missing(&[one.clone(), other.clone(), other.clone()]), [other]);
        cas.gc(0).unwrap();
        assert_eq!(names.missing(std::slice::from_ref(&one)), [one], "it was evicted");
    }
}
