//! What went wrong, what to do, and the exit code that says whose fault it is.

use std::fmt;
use std::process::ExitCode;

/// Nothing was found.
pub(crate) const CLEAN: u8 = 0;
/// Something was found.
pub(crate) const FINDINGS: u8 = 1;
/// It could not be decided: the machine's fault, or ours.
pub(crate) const UNDECIDED: u8 = 2;
/// The request or its input is wrong.
pub(crate) const WRONG_REQUEST: u8 = 64;

/// An error for the user.
#[derive(Debug)]
pub(crate) struct Fail {
    pub(crate) code: u8,
    message: String,
    hint: Option<String>,
}

impl Fail {
    /// The request is wrong.
    pub(crate) fn request(message: impl fmt::Display) -> Self {
        Self { code: WRONG_REQUEST, message: message.to_string(), hint: None }
    }

    /// The machine failed, or we did.
    pub(crate) fn machine(message: impl fmt::Display) -> Self {
        Self { code: UNDECIDED, message: message.to_string(), hint: None }
    }

    /// What went wrong, and what the user may do.
    pub(crate) fn parts(&self) -> (&str, Option<&str>) {
        (&self.message, self.hint.as_deref())
    }

    /// Adds what the user may do.
    pub(crate) fn hint(mut self, hint: Option<impl fmt::Display>) -> Self {
        self.hint = hint.map(|hint| hint.to_string());
        self
    }
}

impl fmt::Display for Fail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

/// Maps an exit code to those of `git bisect run`.
pub(crate) fn for_bisect(code: u8) -> u8 {
    match code {
        CLEAN => 0,
        FINDINGS => 1,
        UNDECIDED => 125,
        _ => 128,
    }
}

/// As the process ends.
pub(crate) fn exit(code: u8) -> ExitCode {
    ExitCode::from(code)
}
