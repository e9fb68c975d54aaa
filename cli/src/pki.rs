//! A first set of certificates and tokens for a farm: `pki init`, `pki server`, `pki client`, `pki token`.
//!
//! ```text
//! DIR/ca.pem                 what servers and callers trust
//! DIR/ca.key                 signs; needed by these commands alone, so it may lie elsewhere than on the coordinator
//! DIR/server.pem server.key  of the coordinator
//! DIR/access                 who may call, by SHA-256 of tokens and certificates (see `bombproof_core::access`)
//! DIR/NAME.pem NAME.key      of a caller
//! ```
//!
//! A site that has an authority of its own needs none of this but the file `access`.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bombproof_core::access::{AccessList, Known, ProjectId, Proof, Role};
use bombproof_store::atomic;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

use crate::args::PkiCommand;
use crate::fail::{CLEAN, Fail};
use crate::print;

/// How long the authority is good.
const CA_DAYS: u64 = 3650;
/// How long a certificate is good: one that is lost is taken out of `access` long before.
const DAYS: u64 = 398;
/// Clocks of a farm differ.
const BEFORE: Duration = Duration::from_secs(24 * 3600);
/// Random bytes of a token: nobody guesses 256 bits.
const TOKEN_BYTES: usize = 32;

pub(crate) fn run(command: &PkiCommand) -> Result<u8, Fail> {
    match command {
        PkiCommand::Init { dir, host } => init(dir, host),
        PkiCommand::Server { dir, host } => server(dir, host),
        PkiCommand::Client { dir, name, role, project } => client(dir, &known(name, role, project)?),
        PkiCommand::Token { dir, name, role, project } => token(dir, &known(name, role, project)?),
    }
}

fn init(dir: &Path, hosts: &[String]) -> Result<u8, Fail> {
    make_folder(dir)?;
    let key = KeyPair::generate().map_err(Fail::machine)?;
    let certificate = authority()?.self_signed(&key).map_err(Fail::machine)?;
    // The key first: an authority without a certificate is begun again, one without a key is of no use.
    new_file(&dir.join("ca.key"), key.serialize_pem().as_bytes(), 0o600)?;
    new_file(&dir.join("ca.pem"), certificate.pem().as_bytes(), 0o644)?;
    let access = dir.join("access");
    if !access.exists() {
        new_file(&access, b"# KIND SHA-256 ROLES NAME\n", 0o600)?;
    }
    server(dir, hosts)?;
    let dir = dir.display();
    print(&format!(
        "{dir}/ca.pem is what callers trust; {dir}/ca.key signs, and is best kept on another machine.\n\
         Next: bombproof pki client {dir} NAME --role worker, bombproof pki token {dir} NAME --role submit\n"
    ));
    Ok(CLEAN)
}

fn server(dir: &Path, hosts: &[String]) -> Result<u8, Fail> {
    let mut names = hosts.to_vec();
    for name in ["localhost", "127.0.0.1", "::1"] {
        if !names.iter().any(|host| host == name) {
            names.push(name.to_owned());
        }
    }
    let params = CertificateParams::new(names)
        .map_err(|error| Fail::request(format!("--host: no certificate can have these names: {error}")))?;
    let first = hosts.first().map_or("localhost", String::as_str);
    let (certificate, key) = issue(dir, params, first, ExtendedKeyUsagePurpose::ServerAuth)?;
    replace(&dir.join("server.key"), key.serialize_pem().as_bytes())?;
    replace(&dir.join("server.pem"), certificate.pem().as_bytes())?;
    print(&format!("wrote {0}/server.pem and {0}/server.key, good for {DAYS} days\n", dir.display()));
    Ok(CLEAN)
}

/// Who is to be admitted.
fn known(name: &str, roles: &[Role], projects: &[ProjectId]) -> Result<Known, Fail> {
    check_name(name)?;
    if !projects.is_empty() && roles.contains(&Role::Worker) {
        return Err(Fail::request("a worker builds for all projects: --project is for those who hand in and read"));
    }
    let mut known = Known::new(name, roles);
    if !projects.is_empty() {
        known.projects = projects.iter().cloned().collect();
    }
    Ok(known)
}

fn client(dir: &Path, known: &Known) -> Result<u8, Fail> {
    let name = known.name.as_str();
    let params = CertificateParams::default();
    let (certificate, key) = issue(dir, params, name, ExtendedKeyUsagePurpose::ClientAuth)?;
    let (key_file, file) = (dir.join(format!("{name}.key")), dir.join(format!("{name}.pem")));
    new_file(&key_file, key.serialize_pem().as_bytes(), 0o600)?;
    new_file(&file, certificate.pem().as_bytes(), 0o644)?;
    admit(dir, &Proof::of_certificate(certificate.der()), known)?;
    print(&format!("wrote {} and {}, good for {DAYS} days\n", file.display(), key_file.display()));
    Ok(CLEAN)
}

fn token(dir: &Path, known: &Known) -> Result<u8, Fail> {
    let mut bytes = [0; TOKEN_BYTES];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|error| Fail::machine(format!("cannot read /dev/urandom: {error}")))?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let token = format!("bp-{text}");
    admit(dir, &Proof::of_token(&token), known)?;
    // It is nowhere else: the file has its digest alone.
    print(&format!("{token}\n"));
    Ok(CLEAN)
}

/// The authority, always under the same name: certificates name it by that.
fn authority() -> Result<CertificateParams, Fail> {
    let mut params = CertificateParams::new(Vec::new()).map_err(Fail::machine)?;
    params.distinguished_name.push(DnType::CommonName, "bombproof farm");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    good_for(&mut params, CA_DAYS);
    Ok(params)
}

/// A certificate of the authority in this folder.
fn issue(
    dir: &Path,
    mut params: CertificateParams,
    name: &str,
    usage: ExtendedKeyUsagePurpose,
) -> Result<(Certificate, KeyPair), Fail> {
    let path = dir.join("ca.key");
    let pem = std::fs::read_to_string(&path).map_err(|error| {
        Fail::request(format!("cannot read '{}': {error}", path.display()))
            .hint((error.kind() == ErrorKind::NotFound).then(|| format!("bombproof pki init {}", dir.display())))
    })?;
    let authority_key = KeyPair::from_pem(&pem)
        .map_err(|error| Fail::request(format!("'{}' is no private key in PEM: {error}", path.display())))?;
    let issuer = Issuer::new(authority()?, authority_key);
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    good_for(&mut params, DAYS);
    let key = KeyPair::generate().map_err(Fail::machine)?;
    let certificate = params.signed_by(&key, &issuer).map_err(Fail::machine)?;
    Ok((certificate, key))
}

fn good_for(params: &mut CertificateParams, days: u64) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(BEFORE);
    params.not_after = epoch + (now + Duration::from_secs(days * 24 * 3600));
}

/// Adds somebody to those who may call.
fn admit(dir: &Path, proof: &Proof, known: &Known) -> Result<(), Fail> {
    let path = dir.join("access");
    let read = atomic::read(&path).map_err(Fail::machine)?.unwrap_or_default();
    let mut text = String::from_utf8(read).map_err(|_| Fail::request(format!("'{}' is no text", path.display())))?;
    AccessList::parse(&text).map_err(|error| Fail::request(format!("'{}' {error}", path.display())))?;
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(&proof.line(known));
    atomic::write(&path, text.as_bytes()).map_err(Fail::machine)
}

/// A name is a word in the file `access`, and part of names of files.
fn check_name(name: &str) -> Result<(), Fail> {
    let right = !name.is_empty()
        && !["ca", "server", "access"].contains(&name)
        && !name.starts_with(['.', '-'])
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte));
    if right { Ok(()) } else { Err(Fail::request(format!("'{name}' is no name: letters, digits and -_.@ are"))) }
}

fn make_folder(dir: &Path) -> Result<(), Fail> {
    std::fs::create_dir_all(dir).map_err(|error| Fail::machine(format!("cannot create '{}': {error}", dir.display())))
}

/// Writes a file that is not there yet: a key is never lost by a second `init`.
fn new_file(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Fail> {
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create_new(true).mode(mode).open(path);
    file.and_then(|mut file| file.write_all(bytes)).map_err(|error| {
        let hint = (error.kind() == ErrorKind::AlreadyExists)
            .then_some("it is there, and is not overwritten; remove it, or choose another name or folder");
        Fail::request(format!("cannot write '{}': {error}", path.display())).hint(hint)
    })
}

/// Writes a file anew, for its owner alone.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), Fail> {
    let path: PathBuf = path.to_owned();
    atomic::write(&path, bytes).map_err(Fail::machine)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    use bombproof_coordinator::services::BlobPlane;
    use bombproof_coordinator::services::auth::Auth;
    use bombproof_coordinator::services::server::{Security, ServerTls, serve};
    use bombproof_core::digest::BlobDigest;
    use bombproof_store::action_cache::MemoryActions;
    use bombproof_store::cas::MemoryCas;
    use bombproof_store::remote::{Connection, RemoteBlobs, Tls};

    use super::*;

    #[test]
    fn a_farm_is_set_up_and_no_secret_is_readable_or_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("pki");
        init(&dir, &["farm.example".to_owned()]).unwrap();
        client(&dir, &Known::new("builder-1", &[Role::Worker])).unwrap();
        token(&dir, &Known::new("ann", &[Role::Read, Role::Submit])).unwrap();
        let projects = ["net", "drivers"].map(|name| name.parse().unwrap());
        token(&dir, &known("bob", &[Role::Submit], &projects).unwrap()).unwrap();
        assert!(known("w", &[Role::Worker], &projects).is_err());
        for name in ["ca.key", "server.key", "builder-1.key", "access"] {
            let mode = dir.join(name).metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{name}");
        }
        let text = std::fs::read_to_string(dir.join("access")).unwrap();
        let lines: Vec<Vec<&str>> = text.lines().skip(1).map(|line| line.split(' ').collect()).collect();
        assert_eq!((lines[0][0], lines[0][2], lines[0][3]), ("cert", "worker", "builder-1"));
        assert_eq!((lines[1][0], lines[1][2], lines[1][3]), ("token", "read,submit", "ann"));
        assert_eq!(lines[2][2..], ["submit", "bob", "drivers,net"]);
        assert!(!text.contains("bp-"), "a token is there as its digest alone");
        let key = std::fs::read(dir.join("ca.key")).unwrap();
        assert!(init(&dir, &[]).unwrap_err().to_string().contains("is not overwritten"));
        assert!(client(&dir, &Known::new("builder-1", &[Role::Worker])).is_err());
        assert_eq!(std::fs::read(dir.join("ca.key")).unwrap(), key);
        // A certificate of the server that runs out is made anew.
        let before = std::fs::read(dir.join("server.pem")).unwrap();
        server(&dir, &["farm.example".to_owned(), "10.0.0.1".to_owned()]).unwrap();
        assert_ne!(std::fs::read(dir.join("server.pem")).unwrap(), before);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_made_here_is_believed_by_a_server_and_its_callers() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        init(dir, &[]).unwrap();
        client(dir, &Known::new("builder-1", &[Role::Worker])).unwrap();
        client(dir, &Known::new("ann", &[Role::Submit])).unwrap();
        // Made again, by an authority that is read from its key alone.
        server(dir, &["farm.example".to_owned()]).unwrap();
        let read = |name: &str| std::fs::read(dir.join(name)).unwrap();
        let tls = ServerTls { certificate: read("server.pem"), key: read("server.key"), callers: Some(read("ca.pem")) };
        let auth = Auth::listed(&dir.join("access")).unwrap();
        let security = Security { auth, tls: Some(tls), open_to_network: false };
        let (cas, actions) = (Arc::new(MemoryCas::default()), Arc::new(MemoryActions::default()));
        let plane = BlobPlane::new(cas, actions, dir.join("uploads")).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        tokio::spawn(serve(listener, security, plane.routes(), std::future::pending()));
        let ask = async |name: &str| {
            let identity = Some((read(&format!("{name}.pem")), read(&format!("{name}.key"))));
            let tls = Tls { ca: read("ca.pem"), identity, name: None };
            let blobs = RemoteBlobs::new(&Connection::to(&url).tls(Some(tls)))?;
            blobs.missing(&[BlobDigest::of(b"x")]).await
        };
        assert_eq!(ask("builder-1").await.unwrap(), [BlobDigest::of(b"x")]);
        let error = ask("ann").await.unwrap_err().to_string();
        assert!(error.contains("'ann' may not"), "{error}");
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let error = client(folder.path(), &Known::new("ann", &[Role::Read])).unwrap_err().to_string();
        assert!(error.contains("hint: bombproof pki init"), "{error}");
        for name in ["", "ca", "../x", "a b", ".x", "-x"] {
            assert!(known(name, &[Role::Read], &[]).is_err(), "{name}");
        }
    }
}
