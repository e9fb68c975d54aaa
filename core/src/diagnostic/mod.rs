//! Diagnostics: what compilers and build tools say, as records, and when one of them is new.
//!
//! [`parse`] reads the text of one action or of a build log, [`locate`] maps lines through a patch, [`compare`] is the
//! rule that decides *new*, *fixed* and *moved*.

use serde::{Deserialize, Serialize};

pub mod compare;
pub mod locate;
pub mod normalise;
pub mod parse;

/// Who printed a diagnostic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tool {
    /// gcc, clang and everything that prints in their form, the assembler included
    Compiler,
    /// sparse
    Sparse,
    /// objtool
    Objtool,
    /// modpost
    Modpost,
    /// the linker
    Ld,
    /// Kconfig's conf
    Kconfig,
    /// the device tree compiler
    Dtc,
    /// make itself, fixdep and the scripts around them
    Make,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// A warning.
    Warning,
    /// An error, fatal ones included.
    Error,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Location {
    /// Path below the top of the source tree where it lies there; else below the build folder; else absolute.
    pub file: String,
    /// Line from 1; 0: none is known.
    pub line: u32,
    /// Column from 1.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub column: Option<u32>,
}

/// One diagnostic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Diagnostic {
    /// Who printed it.
    pub tool: Tool,
    /// How bad it is, as printed: a warning made an error by `-Werror` is an error with `werror` set.
    pub severity: Severity,
    /// The option that governs it, without `-W` and `error=`: `unused-variable`, `unit_address_vs_reg`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub flag: Option<String>,
    /// A warning that `-Werror` made an error.
    #[serde(default)]
    pub werror: bool,
    /// Where.
    pub location: Location,
    /// The enclosing function, the object's symbol (objtool, modpost) or the Kconfig symbol.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub function: Option<String>,
    /// The text after `warning:`, without the flag.
    pub message: String,
    /// The source line that the compiler quoted, blanks at its ends removed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source: Option<String>,
    /// The whole block as printed: heading lines, message, excerpt, notes; at most 40 lines.
    #[serde(default)]
    pub text: Vec<String>,
}
