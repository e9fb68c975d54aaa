//! Who calls, and whether they may.
//!
//! Every request passes [`Auth`], which writes a [`Caller`] into its extensions, and then the gate (`gate.rs`), which asks what the
//! call needs. Every method of a service begins with [`require`] nevertheless: it says who calls, and a request without a caller in it came past
//! the first two, and is refused. Which version of the protocol it is in is looked at
//! first of all: whoever speaks another one is told so, known or not.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use bombproof_core::access::{self, AccessError, AccessList, Permission, ProjectId, Proof, Role};
use bombproof_core::protocol;
use thiserror::Error;
use tonic::service::Interceptor;
use tonic::{Extensions, Request, Status};

/// Who sent a request; `nobody` without any role, where nothing was shown.
pub type Caller = access::Known;

/// Who sent the request that these belong to.
pub(super) fn caller_of(extensions: &Extensions) -> Caller {
    extensions.get::<Caller>().cloned().unwrap_or_else(Caller::nobody)
}

/// It is not known who may call.
#[derive(Debug, Error)]
pub enum AuthError {
    /// The file.
    #[error("cannot read '{}', which says who may call: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// What is in it.
    #[error("'{}', which says who may call, {error}", path.display())]
    Text {
        /// Which file.
        path: PathBuf,
        /// Where and what.
        error: AccessError,
    },
}

/// How callers are known.
#[derive(Clone, Debug)]
pub struct Auth(Arc<Known>);

#[derive(Debug)]
enum Known {
    /// Everybody is the same one.
    All(Caller),
    /// Those in a file, which is read again when it changed.
    Listed { path: PathBuf, read: RwLock<Read> },
}

/// What tells one version of the file from another: also two of the same moment, where one took the other's place.
type Stamp = (SystemTime, u64, u64);

fn stamp(path: &Path) -> std::io::Result<Stamp> {
    let meta = path.metadata()?;
    Ok((meta.modified()?, meta.len(), meta.ino()))
}

#[derive(Debug)]
struct Read {
    stamp: Option<Stamp>,
    list: AccessList,
}

impl Auth {
    /// Whoever can reach the server may do everything: for tests, and for one machine.
    pub fn open() -> Self {
        Self::everybody_is(Caller::new("local", &Role::ALL))
    }

    /// Whoever can reach the server is this one.
    pub fn everybody_is(caller: Caller) -> Self {
        Self(Arc::new(Known::All(caller)))
    }

    /// Callers show a token or a certificate that is in this file (see [`bombproof_core::access`]). When it changes, it counts
    /// as it is from the next call on; should it be wrong then, what it said before counts.
    ///
    /// # Errors
    /// When it cannot be read, or a line is wrong.
    pub fn listed(path: &Path) -> Result<Self, AuthError> {
        let read = RwLock::new(read(path)?);
        Ok(Self(Arc::new(Known::Listed { path: path.to_owned(), read })))
    }

    /// Whether callers have to show something.
    pub fn knows_callers(&self) -> bool {
        matches!(*self.0, Known::Listed { .. })
    }

    /// Who shows that, as the list is now. A token that nobody has is refused rather than taken for none.
    fn caller(&self, proof: Option<&Proof>) -> Result<Caller, Status> {
        let (path, read) = match &*self.0 {
            Known::All(caller) => return Ok(caller.clone()),
            Known::Listed { path, read } => (path, read),
        };
        read_again(path, read);
        let read = read.read().unwrap_or_else(PoisonError::into_inner);
        match (proof, proof.and_then(|proof| read.list.find(proof))) {
            (_, Some(known)) => Ok(known.clone()),
            (Some(Proof::Token(_)), None) => Err(Status::unauthenticated("the token is none of this farm")),
            (Some(Proof::Certificate(_)) | None, None) => Ok(Caller::nobody()),
        }
    }
}

fn read(path: &Path) -> Result<Read, AuthError> {
    let failed = |source| AuthError::File { path: path.to_owned(), source };
    // Before the text: a change in between is seen the next time.
    let stamp = stamp(path).map_err(failed)?;
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let list = AccessList::parse(&text).map_err(|error| AuthError::Text { path: path.to_owned(), error })?;
    Ok(Read { stamp: Some(stamp), list })
}

/// Reads the file if it is another one than last time. This costs one look at it for each call.
fn read_again(path: &Path, known: &RwLock<Read>) {
    let now = stamp(path).ok();
    if known.read().unwrap_or_else(PoisonError::into_inner).stamp == now {
        return;
    }
    let new = read(path);
    let mut known = known.write().unwrap_or_else(PoisonError::into_inner);
    match new {
        Ok(new) => *known = new,
        // Half-written: it is looked at again when it is another one.
        Err(_) => known.stamp = now,
    }
}

/// The token that a request shows, else the certificate of its connection. What is no token at all is one that nobody has.
fn shown(request: &Request<()>) -> Option<Proof> {
    let Some(header) = request.metadata().get("authorization") else {
        return request.peer_certs().and_then(|chain| Some(Proof::of_certificate(chain.first()?)));
    };
    let token = header.to_str().ok().and_then(|text| text.split_once(' '));
    let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
    Some(Proof::of_token(token.unwrap_or_default()))
}

/// What somebody showed when a call began: whether it still counts can be asked for as long as the call lasts.
#[derive(Clone, Debug)]
pub struct Admission(Option<(Auth, Option<Proof>)>);

/// How often it is asked in a call that lasts.
const ASK_AGAIN: Duration = Duration::from_secs(1);

impl Admission {
    /// Of who sent a request.
    pub fn of<T>(request: &Request<T>) -> Self {
        request.extensions().get::<Self>().cloned().unwrap_or(Self(None))
    }

    /// Waits until who began the call may do that no more, or has nothing to do with that project any more; gives what it is told
    /// then.
    pub async fn lost(&self, permission: Permission, project: &ProjectId) -> Status {
        loop {
            tokio::time::sleep(ASK_AGAIN).await;
            if let Err(status) = self.holds(permission, project) {
                return status;
            }
        }
    }

    fn holds(&self, permission: Permission, project: &ProjectId) -> Result<(), Status> {
        let caller = match &self.0 {
            Some((auth, proof)) => auth.caller(proof.as_ref())?,
            None => Caller::nobody(),
        };
        if !caller.may(permission) {
            return Err(refused(&caller, permission));
        }
        if !caller.scope().includes(project) {
            return Err(Status::permission_denied(format!("'{}' is not in project '{project}' any more", caller.name)));
        }
        Ok(())
    }
}

/// The sender of a request speaks a version that we take, and said so. Clients of others, which know the services of others
/// alone, say nothing.
#[derive(Clone, Copy, Debug)]
struct Understood;

fn understood(request: &Request<()>) -> Result<Option<Understood>, Status> {
    let Some(said) = request.metadata().get(protocol::HEADER) else { return Ok(None) };
    protocol::accept(said.to_str().unwrap_or_default()).map_err(Status::failed_precondition)?;
    Ok(Some(Understood))
}

/// Whether only services of ours ask for it. What they say is understood by who speaks the same protocol.
fn is_of_ours(permission: Permission) -> bool {
    match permission {
        Permission::ReadSeries
        | Permission::Submit
        | Permission::CancelAny
        | Permission::Work
        | Permission::Operate => true,
        Permission::ReadBlobs | Permission::WriteBlobs | Permission::WriteActions => false,
    }
}

impl Interceptor for Auth {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(understood) = understood(&request)? {
            request.extensions_mut().insert(understood);
        }
        let proof = shown(&request);
        let caller = self.caller(proof.as_ref())?;
        request.extensions_mut().insert(caller);
        request.extensions_mut().insert(Admission(Some((self.clone(), proof))));
        Ok(request)
    }
}

/// The caller, if they may do that.
///
/// # Errors
/// `UNAUTHENTICATED` for somebody who showed nothing, `PERMISSION_DENIED` for everybody else; `FAILED_PRECONDITION` for who does not say
/// which protocol it speaks to a service of ours.
pub fn require<T>(request: &Request<T>, permission: Permission) -> Result<Caller, Status> {
    admit(request.extensions(), permission)
}

/// The same, of what belongs to a request that no service has read yet.
pub(super) fn admit(extensions: &Extensions, permission: Permission) -> Result<Caller, Status> {
    let caller = caller_of(extensions);
    if caller.may(permission) {
        if is_of_ours(permission) && extensions.get::<Understood>().is_none() {
            return Err(Status::failed_precondition(format!(
                "the caller does not say which protocol it speaks ('{}'), and this coordinator speaks {}: use the bombproof \
                 of this version",
                protocol::HEADER,
                protocol::VERSION
            )));
        }
        return Ok(caller);
    }
    Err(refused(&caller, permission))
}

fn refused(caller: &Caller, permission: Permission) -> Status {
    if caller.roles.is_empty() {
        return Status::unauthenticated(format!("to {permission} needs a token or a certificate of this farm"));
    }
    let roles: Vec<&str> = caller.roles.iter().map(|role| role.as_str()).collect();
    Status::permission_denied(format!("'{}' may not {permission}: the roles are {}", caller.name, roles.join(", ")))
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn a_request_that_nobody_looked_at_is_refused() {
        let error = require(&Request::new(()), Permission::ReadBlobs).unwrap_err();
        assert_eq!(error.code(), Code::Unauthenticated);
    }

    #[test]
    fn a_caller_may_what_the_roles_give() {
        let mut auth = Auth::everybody_is(Caller::new("ann", &[Role::Submit]));
        let request = auth.call(speaking(&protocol::VERSION.to_string())).unwrap();
        assert_eq!(require(&request, Permission::Submit).unwrap().name, "ann");
        let error = require(&request, Permission::WriteActions).unwrap_err();
        assert_eq!(error.code(), Code::PermissionDenied);
        assert!(error.message().contains("'ann' may not write results of actions"), "{}", error.message());
    }

    fn speaking(version: &str) -> Request<()> {
        let mut request = Request::new(());
        request.metadata_mut().insert(protocol::HEADER, version.parse().unwrap());
        request
    }

    #[test]
    fn a_caller_of_another_version_is_told_so() {
        let mut auth = Auth::everybody_is(Caller::new("ann", &Role::ALL));
        let newer = (protocol::VERSION + 1).to_string();
        let error = auth.call(speaking(&newer)).unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition);
        assert!(error.message().contains("upgrade the coordinator first"), "{}", error.message());
        let silent = auth.call(Request::new(())).unwrap();
        assert!(
            require(&silent, Permission::ReadBlobs).is_ok(),
            "other clients of the Remote Execution API say nothing"
        );
        for permission in [Permission::Submit, Permission::ReadSeries, Permission::Work] {
            assert_eq!(require(&silent, permission).unwrap_err().code(), Code::FailedPrecondition, "{permission}");
        }
    }

    fn with(header: &str) -> Request<()> {
        let mut request = Request::new(());
        request.metadata_mut().insert("authorization", header.parse().unwrap());
        request
    }

    #[test]
    fn a_token_tells_who_calls_and_a_wrong_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access");
        let line = |token: &str, name: &str| Proof::of_token(token).line(&Caller::new(name, &[Role::Worker]));
        std::fs::write(&path, line("one", "ann")).unwrap();
        let mut auth = Auth::listed(&path).unwrap();
        let name = |auth: &mut Auth, request| {
            auth.call(request).map(|request| request.extensions().get::<Caller>().unwrap().name.clone())
        };
        assert_eq!(name(&mut auth, with("Bearer one")).unwrap(), "ann");
        assert_eq!(name(&mut auth, with("bearer  one")).unwrap(), "ann");
        assert_eq!(name(&mut auth, Request::new(())).unwrap(), "nobody");
        let admission = Admission::of(&auth.call(with("Bearer one")).unwrap());
        let (default, other) = (ProjectId::default(), "other".parse().unwrap());
        assert!(admission.holds(Permission::Work, &default).is_ok());
        assert_eq!(admission.holds(Permission::Work, &other).unwrap_err().code(), Code::PermissionDenied);
        assert_eq!(admission.holds(Permission::Submit, &default).unwrap_err().code(), Code::PermissionDenied);
        assert!(Admission::of(&Request::new(())).holds(Permission::Work, &default).is_err(), "nobody looked at it");
        for wrong in ["Bearer two", "one", "Basic one", "Bearer "] {
            assert_eq!(name(&mut auth, with(wrong)).unwrap_err().code(), Code::Unauthenticated, "{wrong}");
        }
        // The file changes while the server runs.
        let later = SystemTime::now() + Duration::from_secs(5);
        std::fs::write(&path, line("two", "bob")).unwrap();
        std::fs::File::open(&path).unwrap().set_modified(later).unwrap();
        assert_eq!(name(&mut auth, with("Bearer two")).unwrap(), "bob");
        assert!(name(&mut auth, with("Bearer one")).is_err());
        let holds = admission.holds(Permission::Work, &default);
        assert_eq!(holds.unwrap_err().code(), Code::Unauthenticated, "it lasts no longer");
        std::fs::write(&path, "rubbish").unwrap();
        assert_eq!(name(&mut auth, with("Bearer two")).unwrap(), "bob", "what it said before counts");
        assert!(matches!(Auth::listed(&path), Err(AuthError::Text { .. })));
        assert!(matches!(Auth::listed(&folder.path().join("none")), Err(AuthError::File { .. })));
    }
}
