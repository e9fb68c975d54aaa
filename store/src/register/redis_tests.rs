//! The register with a real server: `redis-server` of this machine, or the program that `BOMBPROOF_REDIS` names.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use super::super::laws;
use super::*;

const LEASE: Duration = Duration::from_secs(60);

/// A server on a socket in a folder of its own; it ends with this value.
struct Server {
    folder: tempfile::TempDir,
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// `None`: there is none on this machine.
    fn start() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let program = std::env::var_os("BOMBPROOF_REDIS").filter(|name| !name.is_empty());
        let mut command = Command::new(program.unwrap_or_else(|| "redis-server".into()));
        command.args(["--port", "0", "--save", "", "--dir"]).arg(folder.path());
        command.arg("--unixsocket").arg(folder.path().join("socket")).stdout(Stdio::null()).stderr(Stdio::null());
        let Ok(child) = command.spawn() else {
            eprintln!("NOT TESTED: there is no redis-server; 'make test' installs it");
            return None;
        };
        let server = Self { folder, child };
        let begin = Instant::now();
        while let Err(error) = server.ask(&["PING"]) {
            assert!(begin.elapsed() < Duration::from_secs(30), "{error}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(server)
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    fn place(&self, prefix: &str) -> RedisPlace {
        RedisPlace::new(&format!("unix://{}", self.socket().display()), prefix, None).unwrap()
    }

    fn open(&self) -> RedisRegister {
        RedisRegister::open(&self.place("farm"), None, 1_000).unwrap()
    }

    fn ask(&self, words: &[&str]) -> Result<redis::Value, RedisError> {
        let mut connection = Client::open(self.place("farm").info)?.get_connection()?;
        redis::cmd(words[0]).arg(&words[1..]).query(&mut connection)
    }
}

#[test]
fn the_laws_hold() {
    let Some(server) = Server::start() else { return };
    laws::hold(&|| Box::new(server.open()));
}

#[test]
fn one_leads_and_what_an_earlier_reign_writes_is_refused() {
    let Some(server) = Server::start() else { return };
    let (one, two) = (server.open(), server.open());
    let entry = laws::entry("a");
    assert!(matches!(one.accept(&entry, b"x"), Err(RegisterError::Deposed)), "nobody leads");
    let first = one.begin(Duration::from_millis(200)).unwrap().unwrap();
    assert!(first > 1_000, "above the time when it was made");
    one.accept(&entry, b"x").unwrap();
    assert_eq!(two.begin(LEASE).unwrap(), None);
    one.renew(Duration::from_millis(300)).unwrap();
    assert_eq!(two.begin(LEASE).unwrap(), None);
    std::thread::sleep(Duration::from_millis(350));
    // Nobody else took it.
    one.change(&entry.id, &mut |entry| entry.patches = 1).unwrap();
    assert!(two.begin(LEASE).unwrap().unwrap() > first);
    assert!(matches!(one.accept(&laws::entry("b"), b"x"), Err(RegisterError::Deposed)));
    assert!(matches!(one.change(&entry.id, &mut |entry| entry.patches = 2), Err(RegisterError::Deposed)));
    assert!(matches!(one.renew(LEASE), Err(RegisterError::Deposed)));
    one.end().unwrap();
    two.renew(LEASE).unwrap();
    assert_eq!(two.list().unwrap(), [Entry { patches: 1, ..entry }]);
    two.end().unwrap();
    assert!(one.begin(LEASE).unwrap().is_some(), "at once when the other one gave it up");
}

#[test]
fn a_server_that_lost_its_data_is_not_a_farm_without_series() {
    let Some(server) = Server::start() else { return };
    let register = server.open();
    register.begin(LEASE).unwrap().unwrap();
    let entry = laws::entry("a");
    register.accept(&entry, b"x").unwrap();
    let look = |register: &RedisRegister| {
        [
            register.list().map(drop),
            register.entry(&entry.id).map(drop),
            register.submission(&entry.id).map(drop),
            register.accept(&laws::entry("b"), b"x"),
            register.change(&entry.id, &mut |_| {}).map(drop),
            register.renew(LEASE),
            register.begin(LEASE).map(drop),
        ]
    };
    server.ask(&["FLUSHALL"]).unwrap();
    for said in look(&register) {
        assert!(matches!(said, Err(RegisterError::Emptied { .. })), "{said:?}");
    }
    let known = |id: &str| RedisRegister::open(&server.place("farm"), Some(id), 2_000).map(drop);
    assert!(matches!(known(register.id()), Err(RegisterError::Emptied { .. })));
    let other = server.open();
    assert!(matches!(known(register.id()), Err(RegisterError::Emptied { .. })), "another one took its place");
    known(other.id()).unwrap();
    for said in look(&register) {
        assert!(matches!(said, Err(RegisterError::Emptied { .. })), "{said:?}");
    }
}

#[test]
fn a_register_of_a_newer_program_is_left_alone_and_others_on_the_server_too() {
    let Some(server) = Server::start() else { return };
    let register = server.open();
    let other = RedisRegister::open(&server.place("other"), None, 0).unwrap();
    other.begin(LEASE).unwrap().unwrap();
    register.begin(LEASE).unwrap().unwrap();
    register.accept(&laws::entry("a"), b"x").unwrap();
    assert_eq!(other.list().unwrap(), []);
    server.ask(&["HSET", "farm:about", "schema", &(SCHEMA + 1).to_string()]).unwrap();
    let newer = RedisRegister::open(&server.place("farm"), None, 0).map(drop);
    assert!(matches!(newer, Err(RegisterError::Newer { .. })), "{newer:?}");
    let newer = register.begin(LEASE).map(drop);
    assert!(matches!(newer, Err(RegisterError::Newer { .. })), "it was opened before: {newer:?}");
}

#[test]
fn a_register_of_an_older_program_is_read_and_then_left_alone_by_it() {
    let Some(server) = Server::start() else { return };
    let register = server.open();
    server.ask(&["HSET", "farm:about", "schema", "1"]).unwrap();
    server.ask(&["HSET", "farm:series", "old", laws::OF_SCHEMA_1]).unwrap();
    let schema = || u64::from_redis_value(server.ask(&["HGET", "farm:about", "schema"]).unwrap()).unwrap();
    assert_eq!(server.open().list().unwrap(), [laws::of_schema_1()]);
    assert_eq!(schema(), 1, "an older program may lead yet");
    register.begin(LEASE).unwrap().unwrap();
    assert_eq!(schema(), SCHEMA);
}

#[test]
fn a_server_that_only_reads_or_is_away_says_so_and_is_found_again() {
    let Some(mut server) = Server::start() else { return };
    let register = server.open();
    register.begin(LEASE).unwrap().unwrap();
    server.ask(&["REPLICAOF", "127.0.0.1", "1"]).unwrap();
    let said = register.accept(&laws::entry("a"), b"x");
    assert!(matches!(said, Err(RegisterError::Away { .. })), "{said:?}");
    server.ask(&["REPLICAOF", "NO", "ONE"]).unwrap();
    register.accept(&laws::entry("a"), b"x").unwrap();
    server.ask(&["CLIENT", "KILL", "TYPE", "normal"]).unwrap();
    assert_eq!(register.list().unwrap().len(), 1, "over a new connection");
    server.ask(&["CLIENT", "PAUSE", "4000", "ALL"]).unwrap();
    let said = register.list().map(drop);
    assert!(matches!(said, Err(RegisterError::Away { .. })), "{said:?}");
    let begin = Instant::now();
    while register.list().is_err() {
        assert!(begin.elapsed() < Duration::from_secs(30));
    }
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    let said = register.list().map(drop);
    assert!(matches!(said, Err(RegisterError::Away { .. })), "{said:?}");
}

#[test]
fn a_place_is_shown_without_what_is_secret() {
    let place = RedisPlace::new("redis://ann:secret@farm.example:7000/3", "farm", Some("other")).unwrap();
    assert_eq!(
        (place.to_string().as_str(), format!("{place:?}").as_str()),
        ("redis://farm.example:7000/3", "RedisPlace(redis://farm.example:7000/3)")
    );
    assert_eq!(place.info.redis_settings().password(), Some("secret"));
    let place = RedisPlace::new("redis://farm.example", "farm", Some("other")).unwrap();
    assert_eq!(place.info.redis_settings().password(), Some("other"));
    for (url, words) in [
        ("rediss://:secret@farm", "tunnel"),
        ("http://:secret@farm", "expected"),
        ("redis://:secret@farm/x/y", "expected"),
    ] {
        let why = RedisPlace::new(url, "farm", None).unwrap_err();
        assert!(why.contains(words) && !why.contains("secret"), "{url}: {why}");
    }
}
