//! Which paths a patch may name.

use thiserror::Error;

/// Longest path that is accepted, in bytes: `PATH_MAX` of Linux.
const MAX_BYTES: usize = 4096;

/// A path that a patch must not name.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("path '{path}' {problem}")]
pub struct PathError {
    /// The path, cut to 200 characters, control characters escaped.
    pub path: String,
    /// What is wrong with it; fits after the path.
    pub problem: &'static str,
}

/// Checks that a path stays inside the tree and out of git's own folder: relative, no empty, `.` or `..` component, no
/// component that any file system takes for `.git`, no NUL.
///
/// # Errors
/// With the first thing that is wrong.
pub fn check(path: &str) -> Result<(), PathError> {
    let problem = if path.is_empty() {
        "is empty"
    } else if path.len() > MAX_BYTES {
        "is longer than 4,096 bytes"
    } else if path.contains('\0') {
        "holds a NUL byte"
    } else if path.starts_with('/') {
        "is absolute: it leaves the tree"
    } else if path.split('/').any(|part| part == "..") {
        "leaves the tree by '..'"
    } else if path.split('/').any(|part| part.is_empty() || part == ".") {
        "has an empty or '.' component"
    } else if path.split('/').any(is_git) {
        "leads into git's own folder"
    } else {
        return Ok(());
    };
    let shown = path.chars().take(200).flat_map(char::escape_default).collect();
    Err(PathError { path: shown, problem })
}

/// `.git` as any file system may spell it: other case, and the short name of FAT.
fn is_git(part: &str) -> bool {
    let trimmed = part.trim_end_matches(['.', ' ']);
    trimmed.eq_ignore_ascii_case(".git") || trimmed.eq_ignore_ascii_case("git~1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        for good in ["a", "a/b.c", ".gitignore", "a/.github/x", "..a", "a..b/c", "Documentation/ä.rst"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "/etc/passwd",
            "../a",
            "a/../../b",
            "a//b",
            "./a",
            "a/",
            ".git/config",
            "a/.GIT/x",
            "git~1/x",
            ".git./x",
            "a\0b",
        ] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
        assert!(check(&"a".repeat(5000)).is_err());
    }
}
