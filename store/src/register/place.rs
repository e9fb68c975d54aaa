//! Where the register of a farm is: a file, or a server that several coordinators share.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use super::{FileRegister, RedisPlace, RedisRegister, Register, RegisterError};
use crate::atomic;

/// Where a register is.
#[derive(Clone, Debug)]
pub enum Place {
    /// A file, for one coordinator.
    File(PathBuf),
    /// A server, for several coordinators with one home.
    Redis {
        /// The server.
        server: Box<RedisPlace>,
        /// A file that says what the register is called that this farm has used: an empty one, or that of another farm, is not
        /// taken for it.
        known: PathBuf,
    },
}

impl Place {
    /// Opens the register, or makes it where this farm never had one.
    ///
    /// # Errors
    /// When it cannot be opened, or is another one.
    pub fn open(&self) -> Result<Arc<dyn Register>, RegisterError> {
        match self {
            Self::File(path) => Ok(Arc::new(FileRegister::open(path)?)),
            Self::Redis { server, known } => {
                let failed = |error: atomic::FileError| RegisterError::Unusable {
                    place: server.to_string(),
                    detail: error.to_string(),
                };
                let id = atomic::read(known).map_err(failed)?;
                let id = id.map(|text| String::from_utf8_lossy(&text).trim().to_owned());
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                let now_s = now.map_or(0, |now| now.as_secs());
                let register = RedisRegister::open(server, id.as_deref(), now_s)?;
                if id.is_none() {
                    atomic::write(known, format!("{}\n", register.id()).as_bytes()).map_err(failed)?;
                }
                Ok(Arc::new(register))
            }
        }
    }
}
