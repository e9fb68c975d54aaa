//! `GetTree`: all folders below one, in pages.
//!
//! Folders come in the order of a walk level by level, each content once however often it is used. One that is not there is
//! left out, with what only it names. The token of a page is the digest of the folder that comes next: the walk is made again
//! from the root up to it, so the server keeps nothing between pages, and no folder is lost or told twice should
//! another one have come or gone in between.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use bombproof_core::digest::{BlobDigest, Digest};
use bombproof_proto::reapi::from_wire;
use bombproof_proto::wire::reapi::{Directory, GetTreeRequest, GetTreeResponse};
use futures::StreamExt;
use futures::stream::{BoxStream, try_unfold};
use prost::Message;
use tonic::Status;

use super::blobs::not_found;
use super::plane::{Shared, digest};

/// Folders in one page where the client has no wish.
const PAGE: usize = 1_000;
/// Content of one page, in bytes: a client may read no more than 4 MiB as one message.
const PAGE_BYTES: usize = 1 << 20;
/// One folder that is larger is none that a client could read, in bytes.
const FOLDER_BYTES: u64 = 3 << 20;
/// Folders of one tree; a kernel has 6,000.
const FOLDERS: usize = 1_000_000;

type Pages = BoxStream<'static, Result<GetTreeResponse, Status>>;

/// The pages, from the one that the token names.
pub(super) async fn serve(shared: Arc<Shared>, request: &GetTreeRequest) -> Result<Pages, Status> {
    shared.check(&request.instance_name, request.digest_function)?;
    let root = digest("root_digest", request.root_digest.as_ref())?;
    let size = match usize::try_from(request.page_size) {
        Ok(0) => PAGE,
        Ok(size) => size.min(PAGE),
        Err(_) => return Err(Status::invalid_argument("page_size is less than nothing")),
    };
    let from = token(&request.page_token)?;
    let walk = shared.on_disk(move |shared| Walk::begin(shared, root, from)).await?;
    let pages = try_unfold((shared, Some(walk)), move |(shared, walk)| async move {
        let Some(mut walk) = walk else { return Ok(None) };
        let (page, walk) = shared.on_disk(move |shared| walk.page(shared, size).map(|page| (page, walk))).await?;
        let rest = (!page.next_page_token.is_empty()).then_some(walk);
        Ok(Some((page, (shared, rest))))
    });
    Ok(pages.boxed())
}

fn token(text: &str) -> Result<Option<BlobDigest>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = text.split_once('/').and_then(|(hash, size)| {
        Some(BlobDigest { hash: hash.parse::<Digest>().ok()?, size_bytes: size.parse().ok()? })
    });
    parsed.map(Some).ok_or_else(|| Status::invalid_argument("page_token is none that this server gave"))
}

/// A walk level by level.
struct Walk {
    queue: VecDeque<BlobDigest>,
    seen: HashSet<BlobDigest>,
    /// A folder that was read, and belongs to the next page.
    next: Option<(BlobDigest, Directory, usize)>,
}

impl Walk {
    /// Goes to the folder that comes first.
    fn begin(shared: &Shared, root: BlobDigest, from: Option<BlobDigest>) -> Result<Self, Status> {
        let mut walk = Self { queue: VecDeque::from([root]), seen: HashSet::from([root]), next: None };
        let Some(first) = walk.read(shared)? else { return Err(not_found(&root)) };
        let root_is_here = first.0 == root;
        walk.next = Some(first);
        if !root_is_here {
            return Err(not_found(&root));
        }
        if let Some(from) = from {
            while walk.next.as_ref().is_some_and(|(blob, ..)| *blob != from) {
                walk.next = walk.read(shared)?;
            }
            if walk.next.is_none() {
                return Err(Status::invalid_argument(
                    "the folder of page_token is no longer in this tree: begin without a token",
                ));
            }
        }
        Ok(walk)
    }

    /// The next folder that is there. Those that it names are put into the queue, each once.
    fn read(&mut self, shared: &Shared) -> Result<Option<(BlobDigest, Directory, usize)>, Status> {
        while let Some(blob) = self.queue.pop_front() {
            if blob.size_bytes > FOLDER_BYTES {
                return Err(Status::resource_exhausted(format!("the folder {blob} is too large for a message")));
            }
            let Some(bytes) = shared.get(&blob)? else { continue };
            let folder = Directory::decode(bytes.as_slice())
                .map_err(|_| Status::failed_precondition(format!("the blob {blob} is no folder")))?;
            for child in &folder.directories {
                let child = child.digest.as_ref().and_then(from_wire);
                let child = child.ok_or_else(|| {
                    Status::failed_precondition(format!("the folder {blob} names a folder by no digest"))
                })?;
                if self.seen.insert(child) {
                    self.queue.push_back(child);
                }
            }
            if self.seen.len() > FOLDERS {
                return Err(Status::resource_exhausted(format!("the tree has more than {FOLDERS} folders")));
            }
            return Ok(Some((blob, folder, bytes.len())));
        }
        Ok(None)
    }

    /// The next page; its token is empty where it is the last one.
    fn page(&mut self, shared: &Shared, size: usize) -> Result<GetTreeResponse, Status> {
        let mut page = GetTreeResponse::default();
        let mut filled = 0;
        while let Some((blob, folder, bytes)) = self.next.take() {
            let full = page.directories.len() >= size || filled + bytes > PAGE_BYTES;
            if full && !page.directories.is_empty() {
                page.next_page_token = blob.to_string();
                self.next = Some((blob, folder, bytes));
                break;
            }
            filled += bytes;
            page.directories.push(folder);
            self.next = self.read(shared)?;
        }
        Ok(page)
    }
}
