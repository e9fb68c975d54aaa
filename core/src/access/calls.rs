//! What each call needs.
//!
//! A call is named by its full path, as it is on the wire. One that has no row here nobody may make: who adds a method says in this table
//! who may call it, or it is of no use.

use super::Permission::{self, ReadBlobs, ReadSeries, Submit, Work, WriteActions, WriteBlobs};

/// What a call needs of who makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Whoever reaches the server may.
    Nothing,
    /// Whoever has a role may, whatever it is.
    Known,
    /// That.
    Permission(Permission),
}

const fn to(permission: Permission) -> Needs {
    Needs::Permission(permission)
}

/// Every call that a coordinator answers.
///
/// Somebody who is not known is told whether the server is healthy and which versions of the protocol it takes, to find out why
/// he is refused; not what else there is to call.
///
/// Which blobs are there tells about their content as reading them does. Cancelling one's own series needs what giving it
/// needs; to cancel those of others needs more, which depends on the series and is asked where that is known.
pub const CALLS: &[(&str, Needs)] = &[
    ("/grpc.health.v1.Health/Check", Needs::Nothing),
    ("/grpc.health.v1.Health/Watch", Needs::Nothing),
    ("/bombproof.farm.v1.About/Version", Needs::Nothing),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Needs::Known),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Needs::Known),
    ("/bombproof.farm.v1.Series/Have", to(Submit)),
    ("/bombproof.farm.v1.Series/Submit", to(Submit)),
    ("/bombproof.farm.v1.Series/Cancel", to(Submit)),
    ("/bombproof.farm.v1.Series/Watch", to(ReadSeries)),
    ("/bombproof.farm.v1.Series/List", to(ReadSeries)),
    ("/bombproof.farm.v1.Series/Status", to(ReadSeries)),
    ("/bombproof.farm.v1.Series/Report", to(ReadSeries)),
    ("/bombproof.farm.v1.Series/Explain", to(ReadSeries)),
    ("/bombproof.farm.v1.Workers/Synchronize", to(Work)),
    ("/bombproof.farm.v1.Workers/Fetch", to(Work)),
    ("/bombproof.farm.v1.Trees/Changes", to(Work)),
    ("/bombproof.farm.v1.Trees/Objects", to(Work)),
    ("/bombproof.farm.v1.Manifests/Get", to(Work)),
    ("/bombproof.farm.v1.Manifests/Add", to(WriteActions)),
    ("/build.bazel.remote.execution.v2.Capabilities/GetCapabilities", to(ReadBlobs)),
    ("/build.bazel.remote.execution.v2.ContentAddressableStorage/FindMissingBlobs", to(ReadBlobs)),
    ("/build.bazel.remote.execution.v2.ContentAddressableStorage/BatchReadBlobs", to(ReadBlobs)),
    ("/build.bazel.remote.execution.v2.ContentAddressableStorage/GetTree", to(ReadBlobs)),
    ("/build.bazel.remote.execution.v2.ContentAddressableStorage/BatchUpdateBlobs", to(WriteBlobs)),
    ("/build.bazel.remote.execution.v2.ActionCache/GetActionResult", to(ReadBlobs)),
    ("/build.bazel.remote.execution.v2.ActionCache/UpdateActionResult", to(WriteActions)),
    ("/google.bytestream.ByteStream/Read", to(ReadBlobs)),
    ("/google.bytestream.ByteStream/Write", to(WriteBlobs)),
    ("/google.bytestream.ByteStream/QueryWriteStatus", to(WriteBlobs)),
];

/// What the call of that path needs. `None`: nobody may make it.
pub fn needs(path: &str) -> Option<Needs> {
    CALLS.iter().find(|(call, _)| *call == path).map(|(_, needs)| *needs)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::Role;
    use super::*;

    /// Those that somebody of that role alone may make, without their packages.
    fn calls_of(role: Role) -> Vec<&'static str> {
        let given = |needs: &Needs| matches!(needs, Needs::Permission(permission) if role.gives(*permission));
        let calls = CALLS.iter().filter(|(_, needs)| given(needs));
        calls.map(|(path, _)| path.rsplit('.').next().unwrap()).collect()
    }

    #[test]
    fn each_role_has_the_calls_that_it_is_for() {
        let reads = ["Series/Watch", "Series/List", "Series/Status", "Series/Report", "Series/Explain"];
        let gives = ["Series/Have", "Series/Submit", "Series/Cancel"];
        assert_eq!(calls_of(Role::Read), reads);
        assert_eq!(calls_of(Role::Submit), [&gives[..], &reads[..]].concat());
        assert_eq!(calls_of(Role::Admin), calls_of(Role::Submit), "an admin may do nothing that workers are for");
        let of = |wanted: Needs| CALLS.iter().filter(move |(_, needs)| *needs == wanted).map(|(path, _)| *path);
        let open: Vec<&str> = of(Needs::Nothing).collect();
        let version = "/bombproof.farm.v1.About/Version";
        assert_eq!(open, ["/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch", version]);
        let known: Vec<&str> = of(Needs::Known).collect();
        assert!(known.iter().all(|path| path.ends_with(".ServerReflection/ServerReflectionInfo")), "{known:?}");
        let roles = calls_of(Role::Worker).len() + calls_of(Role::Submit).len();
        assert_eq!(roles + open.len() + known.len(), CALLS.len());
    }

    #[test]
    fn a_call_has_one_row_and_its_path_is_exact() {
        let paths: BTreeSet<&str> = CALLS.iter().map(|(path, _)| *path).collect();
        assert_eq!(paths.len(), CALLS.len());
        for (path, expected) in CALLS {
            assert_eq!(needs(path), Some(*expected), "{path}");
            for other in [
                path.trim_start_matches('/'),
                &path.to_lowercase(),
                &format!("{path}/"),
                &format!("/{path}"),
                &format!("{path}2"),
            ] {
                assert_eq!(needs(other), None, "{other}");
            }
        }
        assert_eq!(needs(""), None);
    }
}
