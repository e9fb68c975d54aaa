//! The register in a Redis server: for several coordinators, one of which leads.
//!
//! ```text
//! PREFIX:about            hash: "schema" -> SCHEMA, "id" -> what this register is called, "epoch" -> the last epoch
//! PREFIX:lease            the token of who leads; goes by itself when it is not renewed
//! PREFIX:series           hash: id -> Entry as JSON
//! PREFIX:submission:ID    what was submitted
//! ```
//!
//! Every access is a script that runs as a whole. It looks first whether this is still the register that was opened: a server that lost its
//! data is found out by the first word it says, and an empty register is never taken for a farm without series. A script that writes
//! then looks whether the reign in whose name it comes is the latest: who was stopped in the middle and wakes up later writes nothing. Scripts may be
//! sent again when an answer was lost.
//!
//! Works with Redis 6.2 and later, and with Valkey. What the server loses when it dies, this loses: one that answers before it has written to disk
//! may lose what was accepted.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bombproof_core::id::SeriesId;
use redis::{
    Client, Connection, ConnectionAddr, ConnectionInfo, FromRedisValue, IntoConnectionInfo, RedisError, Script,
};

use super::{Entry, Register, RegisterError, SCHEMA};

/// A server that cannot be connected to for so long is away.
const CONNECT: Duration = Duration::from_secs(1);
/// A server that gives no answer for so long is away; what it was told may happen yet.
const ANSWER: Duration = Duration::from_secs(2);
/// Connections that are kept for the next call.
const KEPT: usize = 4;
/// How often a change is tried that others come before.
const CONTESTED: u32 = 100;

/// Said by every script: `emptied` when another register is there, `deposed` when there was a later reign.
const STANDING: &str = r"
local function standing(id, epoch)
  local about = redis.call('HMGET', KEYS[1], 'id', 'epoch')
  if about[1] ~= id then return 'emptied' end
  if epoch ~= nil and about[2] ~= epoch then return 'deposed' end
end
";

struct Scripts {
    open: Script,
    begin: Script,
    renew: Script,
    end: Script,
    accept: Script,
    change: Script,
    read: Script,
}

impl Scripts {
    fn new() -> Self {
        let script = |text: &str| Script::new(&format!("{STANDING}{text}"));
        Self {
            // ARGV: schema, id for a new one, epoch before the first, whether it may be made
            open: script(
                r"
local schema = redis.call('HGET', KEYS[1], 'schema')
if schema then return {'there', schema, redis.call('HGET', KEYS[1], 'id')} end
if ARGV[4] ~= 'new' then return {'emptied'} end
redis.call('HSET', KEYS[1], 'schema', ARGV[1], 'id', ARGV[2], 'epoch', ARGV[3])
return {'there', ARGV[1], ARGV[2]}",
            ),
            // KEYS: about, lease; ARGV: id, token, ms, schema. A newer program may have reigned since it was opened.
            begin: script(
                r"
local wrong = standing(ARGV[1], nil)
if wrong then return {wrong} end
local schema = redis.call('HGET', KEYS[1], 'schema')
if tonumber(schema) > tonumber(ARGV[4]) then return {'newer', schema} end
local holder = redis.call('GET', KEYS[2])
if holder and holder ~= ARGV[2] then return {'held'} end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
redis.call('HSET', KEYS[1], 'schema', ARGV[4])
return {'ok', tostring(redis.call('HINCRBY', KEYS[1], 'epoch', 1))}",
            ),
            // KEYS: about, lease; ARGV: id, epoch, token, ms. A lease that ran out and that nobody took is ours still.
            renew: script(
                r"
local wrong = standing(ARGV[1], ARGV[2])
if wrong then return {wrong} end
redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[4])
return {'ok'}",
            ),
            // KEYS: about, lease; ARGV: token
            end: script(
                r"
if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[2]) end
return {'ok'}",
            ),
            // KEYS: about, series, submission; ARGV: id, epoch, series, entry, submission
            accept: script(
                r"
local wrong = standing(ARGV[1], ARGV[2])
if wrong then return {wrong} end
local there = redis.call('HGET', KEYS[2], ARGV[3])
if there then
  if there == ARGV[4] and redis.call('GET', KEYS[3]) == ARGV[5] then return {'ok'} end
  return {'taken'}
end
redis.call('SET', KEYS[3], ARGV[5])
redis.call('HSET', KEYS[2], ARGV[3], ARGV[4])
return {'ok'}",
            ),
            // KEYS: about, series; ARGV: id, epoch, series, entry as it was, entry
            change: script(
                r"
local wrong = standing(ARGV[1], ARGV[2])
if wrong then return {wrong} end
if redis.call('HGET', KEYS[2], ARGV[3]) ~= ARGV[4] then return {'changed'} end
redis.call('HSET', KEYS[2], ARGV[3], ARGV[5])
return {'ok'}",
            ),
            // KEYS: about, a key; ARGV: id, command, a field if it wants one
            read: script(
                r"
local wrong = standing(ARGV[1], nil)
if wrong then return {wrong} end
if ARGV[2] == 'HGETALL' then
  local all = redis.call('HGETALL', KEYS[2])
  table.insert(all, 1, 'ok')
  return all
end
local found
if ARGV[3] then found = redis.call(ARGV[2], KEYS[2], ARGV[3]) else found = redis.call(ARGV[2], KEYS[2]) end
if found then return {'ok', found} end
return {'ok'}",
            ),
        }
    }
}

/// Where a register is, and with which password.
#[derive(Clone)]
pub struct RedisPlace {
    info: ConnectionInfo,
    shown: String,
    prefix: String,
}

impl std::fmt::Debug for RedisPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the password.
        write!(f, "RedisPlace({})", self.shown)
    }
}

impl RedisPlace {
    /// `redis://[USER:PASSWORD@]HOST[:PORT][/DB]`, or `unix:///SOCKET`. A `password` counts where the address has none. Farms that share a
    /// server have a `prefix` each.
    ///
    /// # Errors
    /// What is wrong with the address, without what may be secret in it.
    pub fn new(url: &str, prefix: &str, password: Option<&str>) -> Result<Self, String> {
        if url.starts_with("rediss:") {
            return Err(
                "a register is reached over 'redis://', without TLS: have a tunnel encrypt what goes over a network"
                    .to_owned(),
            );
        }
        let expected = || "expected redis://[USER:PASSWORD@]HOST[:PORT][/DB]".to_owned();
        let mut info = url.into_connection_info().map_err(|_| expected())?;
        if let (Some(password), None) = (password, info.redis_settings().password()) {
            let settings = info.redis_settings().clone().set_password(password);
            info = info.set_redis_settings(settings);
        }
        let db = info.redis_settings().db();
        let shown = match info.addr() {
            ConnectionAddr::Tcp(host, port) => format!("redis://{host}:{port}/{db}"),
            ConnectionAddr::Unix(path) => format!("unix://{}", path.display()),
            ConnectionAddr::TcpTls { .. } | _ => return Err(expected()),
        };
        Ok(Self { info, shown, prefix: prefix.to_owned() })
    }
}

impl std::fmt::Display for RedisPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown)
    }
}

/// A register in a Redis server, for one coordinator.
pub struct RedisRegister {
    client: Client,
    idle: Mutex<Vec<Connection>>,
    place: RedisPlace,
    scripts: Scripts,
    id: String,
    /// Who we are, among those who want to lead.
    token: String,
    /// Our reign; 0: none yet, and nothing can be written.
    epoch: AtomicU64,
}

/// So many random bits that there are no two of them.
fn random() -> String {
    let bits = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", bits(), bits())
}

impl RedisRegister {
    /// Opens a register. `known`: what it is called, where that is known; without it a register is made if there is none. `now_s`: the
    /// time in seconds since 1970, below which no epoch of a new register is, so that one that takes the place of another goes on
    /// above it.
    ///
    /// # Errors
    /// When the server is away, there is another register than the known one or none, or a newer program made it.
    pub fn open(place: &RedisPlace, known: Option<&str>, now_s: u64) -> Result<Self, RegisterError> {
        let register = Self {
            client: Client::open(place.info.clone()).map_err(|error| away(place, &error))?,
            idle: Mutex::default(),
            place: place.clone(),
            scripts: Scripts::new(),
            id: random(),
            token: random(),
            epoch: AtomicU64::new(0),
        };
        let said = register.call(&register.scripts.open, &["about"], |call| {
            let may = if known.is_none() { "new" } else { "" };
            call.arg(SCHEMA).arg(&register.id).arg(now_s).arg(may);
        })?;
        let words: Vec<&str> = said.iter().filter_map(|word| std::str::from_utf8(word).ok()).collect();
        let (theirs, id) = match words.as_slice() {
            [_, schema, id] => (schema.parse().unwrap_or(u64::MAX), (*id).to_owned()),
            _ => return Err(register.emptied()),
        };
        if theirs > SCHEMA {
            return Err(RegisterError::Newer { place: place.to_string(), theirs });
        }
        if known.is_some_and(|known| known != id) {
            return Err(register.emptied());
        }
        Ok(Self { id, ..register })
    }

    /// What it is called: another one in its place has another name.
    pub fn id(&self) -> &str {
        &self.id
    }

    fn key(&self, name: &str) -> String {
        format!("{}:{name}", self.place.prefix)
    }

    fn emptied(&self) -> RegisterError {
        RegisterError::Emptied { place: self.place.to_string() }
    }

    fn damaged(&self, detail: impl std::fmt::Display) -> RegisterError {
        RegisterError::Unusable { place: self.place.to_string(), detail: detail.to_string() }
    }

    fn connection(&self) -> Result<Connection, RedisError> {
        let connection = self.client.get_connection_with_timeout(CONNECT)?;
        connection.set_read_timeout(Some(ANSWER))?;
        connection.set_write_timeout(Some(ANSWER))?;
        Ok(connection)
    }

    /// Runs a script. One that a kept connection is too old for is sent once more over a new one.
    fn call(
        &self,
        script: &Script,
        keys: &[&str],
        give: impl Fn(&mut redis::ScriptInvocation<'_>),
    ) -> Result<Vec<Vec<u8>>, RegisterError> {
        let mut invocation = script.prepare_invoke();
        for key in keys {
            invocation.key(self.key(key));
        }
        give(&mut invocation);
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let fresh = kept.is_none();
        let run = |kept: Option<Connection>| -> Result<Vec<Vec<u8>>, RedisError> {
            let mut connection = kept.map_or_else(|| self.connection(), Ok)?;
            let value: redis::Value = invocation.invoke(&mut connection)?;
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < KEPT {
                idle.push(connection);
            }
            Ok(FromRedisValue::from_redis_value(value)?)
        };
        let said = match run(kept) {
            Err(error) if !fresh && (error.is_io_error() && !error.is_timeout()) => run(None),
            said => said,
        };
        let said = said.map_err(|error| away(&self.place, &error))?;
        match said.first().map(Vec::as_slice) {
            Some(b"emptied") => Err(self.emptied()),
            Some(b"deposed") => Err(RegisterError::Deposed),
            Some(_) => Ok(said),
            None => Err(self.damaged("a script gave nothing")),
        }
    }

    fn epoch(&self) -> String {
        self.epoch.load(Ordering::Acquire).to_string()
    }

    fn decode(&self, text: &[u8]) -> Result<Entry, RegisterError> {
        serde_json::from_slice(text).map_err(|error| self.damaged(error))
    }

    fn encode(&self, entry: &Entry) -> Result<Vec<u8>, RegisterError> {
        serde_json::to_vec(entry).map_err(|error| self.damaged(error))
    }

    fn text(&self, id: &SeriesId) -> Result<Option<Vec<u8>>, RegisterError> {
        let said = self.call(&self.scripts.read, &["about", "series"], |call| {
            call.arg(&self.id).arg("HGET").arg(id.as_str());
        })?;
        Ok(said.into_iter().nth(1))
    }
}

fn away(place: &RedisPlace, error: &RedisError) -> RegisterError {
    RegisterError::Away { place: place.to_string(), detail: error.to_string() }
}

fn submission(id: &SeriesId) -> String {
    format!("submission:{id}")
}

impl Register for RedisRegister {
    fn accept(&self, entry: &Entry, bytes: &[u8]) -> Result<(), RegisterError> {
        let (text, epoch) = (self.encode(entry)?, self.epoch());
        let said = self.call(&self.scripts.accept, &["about", "series", &submission(&entry.id)], |call| {
            call.arg(&self.id).arg(&epoch).arg(entry.id.as_str()).arg(&text).arg(bytes);
        })?;
        if said.first().is_some_and(|word| word == b"ok") {
            return Ok(());
        }
        Err(RegisterError::Taken { id: entry.id.clone() })
    }

    fn change(&self, id: &SeriesId, change: &mut dyn FnMut(&mut Entry)) -> Result<Entry, RegisterError> {
        let epoch = self.epoch();
        for _ in 0..CONTESTED {
            let before = self.text(id)?.ok_or_else(|| RegisterError::Unknown { id: id.clone() })?;
            let mut entry = self.decode(&before)?;
            change(&mut entry);
            let after = self.encode(&entry)?;
            let said = self.call(&self.scripts.change, &["about", "series"], |call| {
                call.arg(&self.id).arg(&epoch).arg(id.as_str()).arg(&before).arg(&after);
            })?;
            if said.first().is_some_and(|word| word == b"ok") {
                return Ok(entry);
            }
        }
        Err(self.damaged(format!("series {id} is changed by others all the time")))
    }

    fn entry(&self, id: &SeriesId) -> Result<Option<Entry>, RegisterError> {
        self.text(id)?.map(|text| self.decode(&text)).transpose()
    }

    fn list(&self) -> Result<Vec<Entry>, RegisterError> {
        let said = self.call(&self.scripts.read, &["about", "series"], |call| {
            call.arg(&self.id).arg("HGETALL");
        })?;
        let mut entries = BTreeMap::new();
        for pair in said.get(1..).unwrap_or_default().chunks_exact(2) {
            let entry = self.decode(&pair[1])?;
            entries.insert(entry.id.clone(), entry);
        }
        Ok(entries.into_values().collect())
    }

    fn submission(&self, id: &SeriesId) -> Result<Option<Vec<u8>>, RegisterError> {
        let said = self.call(&self.scripts.read, &["about", &submission(id)], |call| {
            call.arg(&self.id).arg("GET");
        })?;
        Ok(said.into_iter().nth(1))
    }

    fn begin(&self, lease: Duration) -> Result<Option<u64>, RegisterError> {
        let said = self.call(&self.scripts.begin, &["about", "lease"], |call| {
            call.arg(&self.id).arg(&self.token).arg(ms(lease)).arg(SCHEMA);
        })?;
        let Some(number) = said.get(1) else { return Ok(None) };
        let number = std::str::from_utf8(number).ok().and_then(|text| text.parse().ok());
        let number = number.ok_or_else(|| self.damaged("a number of the register is none"))?;
        if said.first().is_some_and(|word| word == b"newer") {
            return Err(RegisterError::Newer { place: self.place.to_string(), theirs: number });
        }
        self.epoch.store(number, Ordering::Release);
        Ok(Some(number))
    }

    fn renew(&self, lease: Duration) -> Result<(), RegisterError> {
        let epoch = self.epoch();
        self.call(&self.scripts.renew, &["about", "lease"], |call| {
            call.arg(&self.id).arg(&epoch).arg(&self.token).arg(ms(lease));
        })?;
        Ok(())
    }

    fn end(&self) -> Result<(), RegisterError> {
        self.call(&self.scripts.end, &["about", "lease"], |call| {
            call.arg(&self.token);
        })?;
        Ok(())
    }
}

fn ms(lease: Duration) -> u64 {
    u64::try_from(lease.as_millis()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
#[path = "redis_tests.rs"]
mod tests;
