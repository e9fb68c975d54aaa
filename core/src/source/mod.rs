//! What the text of a C or assembler source says, as far as a build depends on it.
//!
//! [`facts`] reads what it includes, which options it names and what it reads unseen; [`search`] where a compiler looks for
//! includes; [`symbols`] projects a configuration onto the options that matter; [`mod@reduce`] gives what of a text a compiler
//! sees under a configuration, [`macros`] which names lead to the number of a line, and [`texts`] compares versions.

pub mod condition;
pub mod facts;
mod lex;
mod lines;
pub mod macros;
pub mod reduce;
pub mod search;
pub mod symbols;
pub mod texts;

pub use condition::Autoconf;
pub use facts::{Facts, Include};
pub use lex::Refused;
pub use reduce::{Reduced, reduce};
pub use search::SearchPath;
pub use symbols::{Chosen, Options};
pub use texts::Texts;
