//! Actions as messages of the Remote Execution API, version 2.
//!
//! Source: `build/bazel/remote/execution/v2/remote_execution.proto`. The digest of an action is the SHA-256 of its
//! serialized `Action` message, which names the digests of a `Command` and of the root `Directory` of a Merkle tree. The
//! messages are made in the one way that the specification allows: names sorted by bytes, no field that is not needed.

use std::collections::BTreeMap;

use bazel_remote_apis::build::bazel::remote::execution::v2 as wire;
use bombproof_core::action::{Action, InputFile, InputTree};
use bombproof_core::digest::{BlobDigest, Digest};
use prost::Message;

/// An action as messages; each with its digest, in the order in which a server needs them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The identity of the action.
    pub digest: BlobDigest,
    /// The `Action` message.
    pub action: Vec<u8>,
    /// The `Command` message.
    pub command: (BlobDigest, Vec<u8>),
    /// The `Directory` messages, children before their parents; the last one is the input root.
    pub directories: Vec<(BlobDigest, Vec<u8>)>,
}

/// Encodes an action.
pub fn encode(action: &Action) -> Encoded {
    let mut directories = Vec::new();
    let root = directory(&nested(&action.inputs), &mut directories);
    let command = wire::Command {
        arguments: action.argv.clone(),
        environment_variables: action
            .env
            .iter()
            .map(|(name, value)| wire::command::EnvironmentVariable { name: name.clone(), value: value.clone() })
            .collect(),
        working_directory: action.folder.clone(),
        output_paths: sorted(&action.outputs),
        ..wire::Command::default()
    };
    let command = command.encode_to_vec();
    let command = (BlobDigest::of(&command), command);
    let properties = action.platform.iter();
    let properties =
        properties.map(|(name, value)| wire::platform::Property { name: name.clone(), value: value.clone() });
    let message = wire::Action {
        command_digest: Some(to_wire(&command.0)),
        input_root_digest: Some(to_wire(&root)),
        platform: Some(wire::Platform { properties: properties.collect() }),
        ..wire::Action::default()
    };
    let action = message.encode_to_vec();
    Encoded { digest: BlobDigest::of(&action), action, command, directories }
}

/// The digest of an action: what [`encode`] gives, without keeping the messages.
pub fn digest(action: &Action) -> BlobDigest {
    encode(action).digest
}

/// A digest as a message.
pub fn to_wire(blob: &BlobDigest) -> wire::Digest {
    wire::Digest { hash: blob.hash.to_string(), size_bytes: i64::try_from(blob.size_bytes).unwrap_or(i64::MAX) }
}

/// A digest from a message; `None`: it is none of SHA-256, or its size is negative.
pub fn from_wire(digest: &wire::Digest) -> Option<BlobDigest> {
    let hash: Digest = digest.hash.parse().ok()?;
    // Upper case would be another name of the same blob.
    let canonical = hash.to_string() == digest.hash;
    u64::try_from(digest.size_bytes).ok().filter(|_| canonical).map(|size_bytes| BlobDigest { hash, size_bytes })
}

fn sorted(names: &[String]) -> Vec<String> {
    let mut names = names.to_vec();
    names.sort_unstable();
    names.dedup();
    names
}

/// A folder of the input root, by name.
#[derive(Default)]
struct Folder<'a> {
    files: BTreeMap<&'a str, InputFile>,
    folders: BTreeMap<&'a str, Folder<'a>>,
}

fn nested(inputs: &InputTree) -> Folder<'_> {
    let mut root = Folder::default();
    for (path, file) in inputs {
        let mut folder = &mut root;
        let mut parts = path.split('/').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_some() {
                folder = folder.folders.entry(part).or_default();
            } else {
                folder.files.insert(part, *file);
            }
        }
    }
    root
}

fn directory(folder: &Folder<'_>, into: &mut Vec<(BlobDigest, Vec<u8>)>) -> BlobDigest {
    let directories = folder.folders.iter().map(|(name, folder)| wire::DirectoryNode {
        name: (*name).to_owned(),
        digest: Some(to_wire(&directory(folder, into))),
    });
    let directories = directories.collect();
    let files = folder.files.iter().map(|(name, file)| wire::FileNode {
        name: (*name).to_owned(),
        digest: Some(to_wire(&file.blob)),
        is_executable: file.executable,
        node_properties: None,
    });
    let message = wire::Directory { files: files.collect(), directories, ..wire::Directory::default() };
    let bytes = message.encode_to_vec();
    let digest = BlobDigest::of(&bytes);
    into.push((digest, bytes));
    digest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn compile() -> Action {
        let file = |text: &str, executable| InputFile { blob: BlobDigest::of(text.as_bytes()), executable };
        Action {
            argv: ["gcc", "-c", "-o", "kernel/fork.o", "/bombproof/src/kernel/fork.c"].map(str::to_owned).to_vec(),
            env: [("LANG".to_owned(), "C".to_owned()), ("PATH".to_owned(), "/usr/bin".to_owned())].into(),
            folder: "out".to_owned(),
            outputs: vec!["kernel/fork.o".to_owned(), "kernel/.fork.o.d".to_owned()],
            inputs: [
                ("src/kernel/fork.c".to_owned(), file("int x;\n", false)),
                ("src/include/linux/a.h".to_owned(), file("", false)),
                ("src/include/linux-a.h".to_owned(), file("1", false)),
                ("out/tools/objtool/objtool".to_owned(), file("ELF", true)),
            ]
            .into(),
            platform: [("toolchain".to_owned(), "gcc 12".to_owned())].into(),
        }
    }

    #[test]
    fn golden_digests_do_not_change() {
        let encoded = encode(&compile());
        let shown: Vec<String> = [&encoded.digest, &encoded.command.0]
            .into_iter()
            .chain(encoded.directories.iter().map(|(digest, _)| digest))
            .map(ToString::to_string)
            .collect();
        insta::assert_snapshot!(shown.join("\n"));
    }

    #[test]
    fn everything_that_matters_changes_the_digest_and_order_does_not() {
        let plain = digest(&compile());
        let changes: [fn(&mut Action); 8] = [
            |it| it.argv.push("-g".to_owned()),
            |it| drop(it.env.insert("LANG".to_owned(), "de".to_owned())),
            |it| it.folder = "src".to_owned(),
            |it| it.outputs.truncate(1),
            |it| drop(it.platform.insert("toolchain".to_owned(), "gcc 13".to_owned())),
            |it| {
                it.inputs.remove("src/include/linux/a.h");
            },
            |it| {
                let file = it.inputs.remove("src/kernel/fork.c").unwrap();
                it.inputs.insert("src/kernel/exit.c".to_owned(), file);
            },
            |it| it.inputs.values_mut().for_each(|file| file.executable = !file.executable),
        ];
        let mut seen = vec![plain];
        for change in changes {
            let mut action = compile();
            change(&mut action);
            seen.push(digest(&action));
        }
        let distinct: std::collections::BTreeSet<_> = seen.iter().collect();
        assert_eq!(distinct.len(), seen.len());
        let mut swapped = compile();
        swapped.outputs.reverse();
        assert_eq!(digest(&swapped), plain);
    }

    #[test]
    fn digests_come_back_from_the_wire_and_rubbish_does_not() {
        let blob = BlobDigest::of(b"x");
        assert_eq!(from_wire(&to_wire(&blob)), Some(blob));
        let good = to_wire(&blob);
        for bad in [
            wire::Digest { hash: String::new(), ..good.clone() },
            wire::Digest { hash: good.hash.to_uppercase(), ..good.clone() },
            wire::Digest { size_bytes: -1, ..good.clone() },
        ] {
            assert_eq!(from_wire(&bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn each_directory_is_named_by_its_parent_and_comes_before_it(paths in prop::collection::btree_set("[a-c]{1,2}(/[d-f]{1,2}){0,3}", 0..20)) {
            let mut action = compile();
            // A path that is both a file and a folder cannot be laid out; callers never have one.
            let paths: Vec<String> = paths.iter().filter(|path| !paths.iter().any(|other| other.starts_with(&format!("{path}/")))).cloned().collect();
            action.inputs = paths.iter().map(|path| (path.clone(), InputFile { blob: BlobDigest::of(path.as_bytes()), executable: false })).collect();
            let encoded = encode(&action);
            let mut known = std::collections::BTreeSet::new();
            let mut files = 0;
            for (digest, bytes) in &encoded.directories {
                let message = wire::Directory::decode(&bytes[..]).unwrap();
                for child in &message.directories {
                    prop_assert!(known.contains(&child.digest.clone().unwrap().hash));
                }
                files += message.files.len();
                known.insert(digest.hash.to_string());
            }
            prop_assert_eq!(files, action.inputs.len());
        }
    }
}
