//! Names of things: typed, so that a patch number is never mistaken for a count.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The place of a patch in its series, from 1; state `k` is the tree after patch `k`, and 0 is the base.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PatchIndex(pub u32);

impl PatchIndex {
    /// The base: the state before the first patch.
    pub const BASE: Self = Self(0);

    /// As an index into a list whose entry 0 is the base.
    pub fn as_usize(self) -> usize {
        self.0 as usize
    }

    /// The state before this one; the base has none.
    pub fn previous(self) -> Option<Self> {
        self.0.checked_sub(1).map(Self)
    }

    /// The state after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// From an index into a list whose entry 0 is the base.
    pub fn from_usize(index: usize) -> Self {
        Self(u32::try_from(index).unwrap_or(u32::MAX))
    }
}

impl fmt::Display for PatchIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! text_id {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }
    };
}

text_id! {
    /// The name of a target in a run, for example `x86_64-tinyconfig`.
    TargetName
}
text_id! {
    /// The id of a run: time and a few digits, for example `20261123-2041-3f9c`.
    RunId
}
text_id! {
    /// The id of a diagnostic in a report.
    DiagnosticId
}
text_id! {
    /// The id of a series that a farm has accepted.
    SeriesId
}
text_id! {
    /// The name of a user of a farm.
    UserId
}
text_id! {
    /// The name of a worker of a farm: it keeps it when it is started again.
    WorkerId
}

/// A git object id: 40 (SHA-1) or 64 (SHA-256) lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Oid(String);

/// A text that is not a git object id.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("'{0}' is not a git object id")]
pub struct ParseOidError(String);

impl Oid {
    /// Reads 40 or 64 hexadecimal digits.
    ///
    /// # Errors
    /// When the text is anything else.
    pub fn parse(text: &str) -> Result<Self, ParseOidError> {
        let fits =
            matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if fits { Ok(Self(text.to_owned())) } else { Err(ParseOidError(text.chars().take(80).collect())) }
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Oid {
    type Error = ParseOidError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<Oid> for String {
    fn from(oid: Oid) -> Self {
        oid.0
    }
}

impl fmt::Display for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
