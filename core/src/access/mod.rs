//! Who may do what on a farm.
//!
//! A caller has roles; each role gives permissions; each call needs one permission. What no role gives nobody may do.
//!
//! Who is who is in a file, one caller a line; tokens and certificates are in it by their SHA-256 digests alone, so it is of no use
//! to whoever steals it:
//!
//! ```text
//! # KIND   SHA-256   ROLES   NAME       PROJECTS
//! token    9f86...   submit  ann        kernel,drivers
//! token    1b4f...   submit  bob
//! cert     60a9...   worker  builder-1
//! ```
//!
//! Who names no project is in the one that is called `default`. Workers build for all projects, and admins see all.

mod calls;
mod projects;

pub use calls::{CALLS, Needs, needs};
pub use projects::{NoProject, ProjectError, ProjectId, Scope};

use core::net::IpAddr;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::digest::Digest;

/// What somebody is to the farm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Sees series and reports.
    Read,
    /// Gives series, and cancels its own.
    Submit,
    /// Builds.
    Worker,
    /// Everything that people may do.
    Admin,
}

/// What a call needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Permission {
    /// To see series, their state and their reports.
    ReadSeries,
    /// To give series and cancel one's own.
    Submit,
    /// To cancel anybody's series.
    CancelAny,
    /// To read blobs and results of actions.
    ReadBlobs,
    /// To add blobs: they are named by their content, so nobody can be deceived by them.
    WriteBlobs,
    /// To say what an action gave. Everybody believes it.
    WriteActions,
    /// To be given work.
    Work,
    /// To see and change the farm itself.
    Operate,
}

/// A word that is no role.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("'{0}' is no role: read, submit, worker and admin are")]
pub struct UnknownRole(String);

impl Role {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Read, Self::Submit, Self::Worker, Self::Admin];

    /// As it is written in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Submit => "submit",
            Self::Worker => "worker",
            Self::Admin => "admin",
        }
    }

    /// Whether it gives that permission.
    ///
    /// Blobs hold sources and objects of every series, so only workers read them. An admin has no use for writing results
    /// of actions, and a stolen token of one could poison everybody's cache.
    pub fn gives(self, permission: Permission) -> bool {
        match permission {
            Permission::ReadSeries => matches!(self, Self::Read | Self::Submit | Self::Admin),
            Permission::Submit => matches!(self, Self::Submit | Self::Admin),
            Permission::CancelAny | Permission::Operate => matches!(self, Self::Admin),
            Permission::ReadBlobs | Permission::WriteBlobs | Permission::WriteActions | Permission::Work => {
                matches!(self, Self::Worker)
            }
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| UnknownRole(text.chars().take(40).collect()))
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadSeries => "read series",
            Self::Submit => "submit series",
            Self::CancelAny => "cancel series of others",
            Self::ReadBlobs => "read blobs and results of actions",
            Self::WriteBlobs => "write blobs",
            Self::WriteActions => "write results of actions",
            Self::Work => "work",
            Self::Operate => "operate the farm",
        })
    }
}

/// Whether any of the roles gives it.
pub fn may(roles: &[Role], permission: Permission) -> bool {
    roles.iter().any(|role| role.gives(permission))
}

/// Somebody that the farm knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// As the operator calls them.
    pub name: String,
    /// What they are.
    pub roles: Vec<Role>,
    /// What they have to do with.
    pub projects: BTreeSet<ProjectId>,
}

impl Known {
    /// Somebody who is in the default project.
    pub fn new(name: &str, roles: &[Role]) -> Self {
        Self { name: name.to_owned(), roles: roles.to_vec(), projects: [ProjectId::default()].into() }
    }

    /// Somebody who showed nothing.
    pub fn nobody() -> Self {
        Self { projects: BTreeSet::new(), ..Self::new("nobody", &[]) }
    }

    /// Whether they may.
    pub fn may(&self, permission: Permission) -> bool {
        may(&self.roles, permission)
    }

    /// The projects that they may see.
    pub fn scope(&self) -> Scope {
        Scope::of(&self.roles, &self.projects)
    }
}

/// What somebody shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Proof {
    /// A token, by the digest of its text.
    Token(Digest),
    /// A certificate, by the digest of its DER form.
    Certificate(Digest),
}

/// Everybody that the farm knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessList(HashMap<Proof, Known>);

/// A line that says of nobody who they are.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("line {line}: {why}")]
pub struct AccessError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong.
    pub why: String,
}

impl Proof {
    /// Of a token as it is sent.
    pub fn of_token(token: &str) -> Self {
        Self::Token(Digest::of(token.as_bytes()))
    }

    /// Of a certificate in DER form.
    pub fn of_certificate(der: &[u8]) -> Self {
        Self::Certificate(Digest::of(der))
    }

    /// Its line in the file.
    pub fn line(&self, known: &Known) -> String {
        let (kind, digest) = match self {
            Self::Token(digest) => ("token", digest),
            Self::Certificate(digest) => ("cert", digest),
        };
        let roles: Vec<&str> = known.roles.iter().map(|role| role.as_str()).collect();
        let projects: Vec<&str> = known.projects.iter().map(ProjectId::as_str).collect();
        // Written as it was before there were projects, where that says the same.
        let projects = if known.projects.iter().all(ProjectId::is_default) {
            String::new()
        } else {
            format!(" {}", projects.join(","))
        };
        format!("{kind} {digest} {} {}{projects}\n", roles.join(","), known.name)
    }
}

impl AccessList {
    /// Reads the file.
    ///
    /// # Errors
    /// With the first line that cannot be understood: a file of which some is left out might let somebody in, or nobody.
    pub fn parse(text: &str) -> Result<Self, AccessError> {
        let mut all = HashMap::new();
        for (number, line) in text.lines().enumerate() {
            let failed = |why: String| AccessError { line: number + 1, why };
            let words: Vec<&str> = line.split_whitespace().collect();
            let (kind, digest, roles, name, projects) = match words.as_slice() {
                [] => continue,
                [first, ..] if first.starts_with('#') => continue,
                [kind, digest, roles, name] => (*kind, *digest, *roles, *name, None),
                [kind, digest, roles, name, projects] => (*kind, *digest, *roles, *name, Some(*projects)),
                _ => return Err(failed("expected KIND SHA-256 ROLES NAME, and PROJECTS if there are any".to_owned())),
            };
            let digest: Digest = digest.parse().map_err(|error| failed(format!("{error}")))?;
            let proof = match kind {
                "token" => Proof::Token(digest),
                "cert" => Proof::Certificate(digest),
                _ => return Err(failed("the kind is neither token nor cert".to_owned())),
            };
            let roles: Result<Vec<Role>, UnknownRole> = roles.split(',').map(str::parse).collect();
            let roles = roles.map_err(|error| failed(error.to_string()))?;
            // Who reads such a line must not think that this worker sees no others.
            if projects.is_some() && roles.contains(&Role::Worker) {
                return Err(failed("a worker builds for all projects, and its line names none".to_owned()));
            }
            let mut known = Known::new(name, &roles);
            if let Some(projects) = projects {
                let projects: Result<_, NoProject> = projects.split(',').map(str::parse).collect();
                known.projects = projects.map_err(|error| failed(error.to_string()))?;
            }
            if all.insert(proof, known).is_some() {
                return Err(failed("the same token or certificate is there twice".to_owned()));
            }
        }
        Ok(Self(all))
    }

    /// Whose proof it is.
    pub fn find(&self, proof: &Proof) -> Option<&Known> {
        self.0.get(proof)
    }
}

/// A server would be open to a network in a way that nobody asked for.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum OpenServer {
    /// What goes over the network could be read and changed.
    #[error(
        "will not listen on {0} without TLS: sources, results and tokens could be read and changed on the way; \
         give certificates (see bombproof pki init), or listen on 127.0.0.1"
    )]
    Plain(IpAddr),
    /// Whoever reaches it could do everything.
    #[error(
        "will not listen on {0} where everybody may do everything; give a file of tokens and certificates \
         (see bombproof pki init), or listen on 127.0.0.1"
    )]
    Everybody(IpAddr),
}

/// Whether a server may listen there. `told`: its operator says that the network is closed.
///
/// # Errors
/// What is missing.
pub fn may_listen(address: IpAddr, encrypted: bool, callers_are_known: bool, told: bool) -> Result<(), OpenServer> {
    if address.is_loopback() || told {
        Ok(())
    } else if !encrypted {
        Err(OpenServer::Plain(address))
    } else if !callers_are_known {
        Err(OpenServer::Everybody(address))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_file_tells_who_is_who() {
        let (ann, builder) = (Known::new("ann", &[Role::Read, Role::Submit]), Known::new("builder-1", &[Role::Worker]));
        let projects = ["drivers", "net"].map(|name| name.parse().unwrap());
        let bob = Known { projects: projects.into(), ..Known::new("bob", &[Role::Submit]) };
        let (token, cert, bobs) = (Proof::of_token("secret"), Proof::of_certificate(b"der"), Proof::of_token("bobs"));
        let text = format!("# who\n\n{}{}{}", token.line(&ann), cert.line(&builder), bobs.line(&bob));
        assert!(!text.contains("secret"));
        let list = AccessList::parse(&text).unwrap();
        assert_eq!(list.find(&token), Some(&ann));
        assert_eq!(list.find(&bobs), Some(&bob));
        let ends: Vec<&str> = text.lines().skip(2).map(|line| line.splitn(3, ' ').last().unwrap()).collect();
        assert_eq!(ends, ["read,submit ann", "worker builder-1", "submit bob drivers,net"]);
        assert_eq!(list.find(&cert), Some(&builder));
        assert_eq!(list.find(&Proof::of_token("der")), None, "a certificate is no token");
        let digest = Digest::of(b"x");
        for (line, why) in [
            ("token", "expected KIND"),
            ("token 12 read ann", "is not a digest"),
            (&*format!("password {digest} read ann"), "neither token nor cert"),
            (&*format!("token {digest} root ann"), "'root' is no role"),
            (&*format!("token {digest} read, ann"), "'' is no role"),
            (&*format!("token {digest} read ann a b"), "expected KIND"),
            (&*format!("token {digest} read ann a,"), "'' is no name of a project"),
            (&*format!("token {digest} read ann ../a"), "'../a' is no name of a project"),
            (&*format!("token {digest} submit,worker ann a"), "builds for all projects"),
            (&*format!("token {digest} read a\ntoken {digest} worker b"), "twice"),
        ] {
            let error = AccessList::parse(line).unwrap_err();
            assert!(error.why.contains(why), "{line}: {error}");
        }
    }

    #[test]
    fn only_a_server_that_is_closed_listens_to_a_network() {
        let (here, there): (IpAddr, IpAddr) = ("127.0.0.1".parse().unwrap(), "0.0.0.0".parse().unwrap());
        assert_eq!(may_listen(here, false, false, false), Ok(()));
        assert_eq!(may_listen("::1".parse().unwrap(), false, false, false), Ok(()));
        assert_eq!(may_listen(there, false, true, false), Err(OpenServer::Plain(there)));
        assert_eq!(may_listen(there, true, false, false), Err(OpenServer::Everybody(there)));
        assert_eq!(may_listen(there, true, true, false), Ok(()));
        assert_eq!(may_listen(there, false, false, true), Ok(()));
    }

    proptest! {
        #[test]
        fn any_file_gives_an_answer(text in "((token|cert|#) ?[0-9a-f]{0,64} (read|worker|,){0,3} [a-z]{0,3}\n|.{0,20}\n){0,5}") {
            let _ = AccessList::parse(&text);
        }
    }

    #[test]
    fn each_role_gives_what_the_table_says() {
        use Permission::{CancelAny, Operate, ReadBlobs, ReadSeries, Submit, Work, WriteActions, WriteBlobs};
        let all = [ReadSeries, Submit, CancelAny, ReadBlobs, WriteBlobs, WriteActions, Work, Operate];
        let table: [(Role, &[Permission]); 4] = [
            (Role::Read, &[ReadSeries]),
            (Role::Submit, &[ReadSeries, Submit]),
            (Role::Worker, &[ReadBlobs, WriteBlobs, WriteActions, Work]),
            (Role::Admin, &[ReadSeries, Submit, CancelAny, Operate]),
        ];
        for (role, given) in table {
            for permission in all {
                assert_eq!(role.gives(permission), given.contains(&permission), "{role}: {permission}");
            }
            assert_eq!(role.as_str().parse(), Ok(role));
        }
        assert!(!may(&[], ReadSeries));
        assert!(may(&[Role::Read, Role::Worker], Work));
        assert!("root".parse::<Role>().is_err());
    }
}
