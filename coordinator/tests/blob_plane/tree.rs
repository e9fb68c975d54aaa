//! Trees of folders, in pages.

use std::collections::BTreeMap;

use bombproof_core::digest::BlobDigest;
use bombproof_proto::reapi::to_wire;
use bombproof_proto::wire::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use bombproof_proto::wire::reapi::{Directory, DirectoryNode, FileNode, GetTreeRequest};
use bombproof_store::cas::Cas;
use prost::Message;
use tonic::{Code, Status};

use super::served::Served;

/// A folder with a file of that name, and these folders.
fn folder(served: &Served, name: &str, children: &[(&str, BlobDigest)]) -> BlobDigest {
    let directories =
        children.iter().map(|(name, blob)| DirectoryNode { name: (*name).to_owned(), digest: Some(to_wire(blob)) });
    let files = vec![FileNode {
        name: name.to_owned(),
        digest: Some(to_wire(&BlobDigest::of(name.as_bytes()))),
        ..FileNode::default()
    }];
    let message = Directory { files, directories: directories.collect(), ..Directory::default() };
    served.cas.put(&message.encode_to_vec()).unwrap()
}

/// Names of files of all folders, page by page, and the token after each page.
async fn pages(
    served: &Served,
    root: &BlobDigest,
    page_size: i32,
    token: &str,
) -> Result<Vec<(Vec<String>, String)>, Status> {
    let mut client = ContentAddressableStorageClient::new(served.channel().await);
    let request = GetTreeRequest {
        root_digest: Some(to_wire(root)),
        page_size,
        page_token: token.to_owned(),
        ..GetTreeRequest::default()
    };
    let mut stream = client.get_tree(request).await?.into_inner();
    let mut all = Vec::new();
    while let Some(page) = stream.message().await? {
        let names = page.directories.iter().map(|folder| folder.files[0].name.clone()).collect();
        all.push((names, page.next_page_token));
    }
    Ok(all)
}

/// root -> a, b; a -> shared, deep; b -> shared; shared -> leaf; deep -> shared, leaf.
fn shared_folders(served: &Served) -> BTreeMap<&'static str, BlobDigest> {
    let leaf = folder(served, "leaf", &[]);
    let shared = folder(served, "shared", &[("leaf", leaf)]);
    let deep = folder(served, "deep", &[("shared", shared), ("leaf", leaf)]);
    let a = folder(served, "a", &[("shared", shared), ("deep", deep)]);
    let b = folder(served, "b", &[("shared", shared)]);
    let root = folder(served, "root", &[("a", a), ("b", b)]);
    [("leaf", leaf), ("shared", shared), ("deep", deep), ("a", a), ("b", b), ("root", root)].into()
}

const ORDER: [&str; 6] = ["root", "a", "b", "shared", "deep", "leaf"];

#[tokio::test(flavor = "multi_thread")]
async fn nested_and_shared_folders_come_once_each_in_pages_of_any_size() {
    let served = Served::start().await;
    let all = shared_folders(&served);
    for size in 0..8 {
        let pages = pages(&served, &all["root"], size, "").await.unwrap();
        let names: Vec<String> = pages.iter().flat_map(|(names, _)| names.clone()).collect();
        assert_eq!(names, ORDER, "pages of {size}");
        let most = if size == 0 { 6 } else { usize::try_from(size).unwrap() };
        assert!(pages.iter().all(|(names, _)| names.len() <= most && !names.is_empty()));
        assert_eq!(pages.last().unwrap().1, "", "nothing follows the last one");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_goes_on_with_the_next_folder_whatever_went_in_between() {
    let served = Served::start().await;
    let all = shared_folders(&served);
    let first = pages(&served, &all["root"], 2, "").await.unwrap().remove(0);
    assert_eq!(first.0, ["root", "a"]);
    let names = async |token: &str| {
        let pages = pages(&served, &all["root"], 2, token).await?;
        Ok::<_, Status>(pages.into_iter().flat_map(|(names, _)| names).collect::<Vec<String>>())
    };
    assert_eq!(names(&first.1).await.unwrap(), ["b", "shared", "deep", "leaf"]);
    // One that was told already goes: what only it names cannot be found any more, and everything else is.
    std::fs::remove_file(served.file(&all["a"])).unwrap();
    assert_eq!(names(&first.1).await.unwrap(), ["b", "shared", "leaf"]);
    std::fs::remove_file(served.file(&all["b"])).unwrap();
    assert_eq!(names(&first.1).await.unwrap_err().code(), Code::InvalidArgument, "begin again");
    assert_eq!(names("rubbish").await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_not_there_is_left_out_and_a_root_is_not_found() {
    let served = Served::start().await;
    let all = shared_folders(&served);
    std::fs::remove_file(served.file(&all["shared"])).unwrap();
    let got = pages(&served, &all["root"], 0, "").await.unwrap();
    assert_eq!(got[0].0, ["root", "a", "b", "deep", "leaf"]);
    std::fs::remove_file(served.file(&all["root"])).unwrap();
    assert_eq!(pages(&served, &all["root"], 0, "").await.unwrap_err().code(), Code::NotFound);
    let none = served.cas.put(b"\xffno folder").unwrap();
    assert_eq!(pages(&served, &none, 0, "").await.unwrap_err().code(), Code::FailedPrecondition);
}

#[tokio::test(flavor = "multi_thread")]
async fn three_thousand_folders_come_in_several_pages() {
    let served = Served::start().await;
    let names: Vec<String> = (0..3000).map(|number| format!("f{number:05}")).collect();
    let leaves: Vec<BlobDigest> = names.iter().map(|name| folder(&served, name, &[])).collect();
    let children: Vec<(&str, BlobDigest)> = names.iter().map(String::as_str).zip(leaves).collect();
    let root = folder(&served, "root", &children);
    let pages = pages(&served, &root, 0, "").await.unwrap();
    assert!(pages.len() > 2);
    let got: Vec<String> = pages.into_iter().flat_map(|(names, _)| names).collect();
    assert_eq!(got.len(), 3001);
    assert!(got[1..] == names[..]);
}
