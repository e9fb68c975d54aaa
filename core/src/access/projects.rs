//! Projects: whose sources and results somebody may see.
//!
//! A series belongs to one project, and so do the commits and trees that came with it. Callers have to do with some projects; a series of any
//! other one is to them as one that does not exist.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Role;

/// Longest name of a project, in bytes.
const MAX_NAME_BYTES: usize = 100;

/// The project of everything that names none.
const DEFAULT: &str = "default";

/// The name of a project: 1 to 100 letters, digits and `-_.`, the first one a letter or a digit. It can be the name of a folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProjectId(String);

/// A text that is no name of a project.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "'{0}' is no name of a project: 1 to {MAX_NAME_BYTES} letters, digits and -_. make one, and the first is a letter or a digit"
)]
pub struct NoProject(String);

impl ProjectId {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the project of everything that names none.
    pub fn is_default(&self) -> bool {
        self.0 == DEFAULT
    }
}

impl Default for ProjectId {
    fn default() -> Self {
        Self(DEFAULT.to_owned())
    }
}

impl FromStr for ProjectId {
    type Err = NoProject;

    fn from_str(text: &str) -> Result<Self, NoProject> {
        let fits = text.len() <= MAX_NAME_BYTES
            && text.starts_with(|first: char| first.is_ascii_alphanumeric())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if fits { Ok(Self(text.to_owned())) } else { Err(NoProject(text.chars().take(40).collect())) }
    }
}

impl TryFrom<String> for ProjectId {
    type Error = NoProject;

    fn try_from(text: String) -> Result<Self, NoProject> {
        text.parse()
    }
}

impl From<ProjectId> for String {
    fn from(project: ProjectId) -> Self {
        project.0
    }
}

impl fmt::Display for ProjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A series cannot be of the project that is asked for.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ProjectError {
    /// Its user has nothing to do with it, whether there is such a project or not.
    #[error("project '{asked}' is none of yours: {yours}")]
    NotYours {
        /// As asked for.
        asked: ProjectId,
        /// Those that are, with commas.
        yours: String,
    },
    /// None is named, and any of several may be meant.
    #[error("you are in several projects ({yours}): name one with --project")]
    Several {
        /// Those that are, with commas.
        yours: String,
    },
}

/// The projects that somebody has to do with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All that there are and that there will be.
    All,
    /// These.
    Of(BTreeSet<ProjectId>),
}

impl Scope {
    /// Of somebody with these roles whose line names these projects.
    pub fn of(roles: &[Role], projects: &BTreeSet<ProjectId>) -> Self {
        if roles.contains(&Role::Admin) { Self::All } else { Self::Of(projects.clone()) }
    }

    /// Whether what is of that project can be seen.
    pub fn includes(&self, project: &ProjectId) -> bool {
        match self {
            Self::All => true,
            Self::Of(projects) => projects.contains(project),
        }
    }

    /// The project that a new series is of.
    ///
    /// # Errors
    /// When it is not to be, or it is not clear which one is meant.
    pub fn choose(&self, asked: Option<&ProjectId>) -> Result<ProjectId, ProjectError> {
        let projects = match (self, asked) {
            (Self::All, asked) => return Ok(asked.cloned().unwrap_or_default()),
            (Self::Of(projects), _) => projects,
        };
        let yours = || projects.iter().map(ProjectId::as_str).collect::<Vec<_>>().join(", ");
        match asked {
            Some(asked) if projects.contains(asked) => Ok(asked.clone()),
            Some(asked) => Err(ProjectError::NotYours { asked: asked.clone(), yours: yours() }),
            None => match projects.first() {
                Some(only) if projects.len() == 1 => Ok(only.clone()),
                Some(_) | None => Err(ProjectError::Several { yours: yours() }),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(name: &str) -> ProjectId {
        name.parse().unwrap()
    }

    fn scope(roles: &[Role], names: &[&str]) -> Scope {
        Scope::of(roles, &names.iter().map(|name| project(name)).collect())
    }

    #[test]
    fn a_name_is_a_word_that_can_be_a_folder() {
        for name in ["default", "a", "9", "Net-next_6.1", &"x".repeat(100)] {
            assert_eq!(project(name).as_str(), name);
            assert_eq!(serde_json::from_str::<ProjectId>(&format!("\"{name}\"")).unwrap(), project(name));
        }
        for name in ["", ".", "..", ".git", "-x", "_x", "a/b", "a b", "a,b", "a\n", "é", "a\0", &"x".repeat(101)] {
            assert!(name.parse::<ProjectId>().is_err(), "{name:?}");
            let text = serde_json::to_string(name).unwrap();
            assert!(serde_json::from_str::<ProjectId>(&text).is_err(), "{name:?}");
        }
        assert!(ProjectId::default().is_default() && project("default").is_default() && !project("other").is_default());
    }

    #[test]
    fn who_sees_what() {
        for (roles, projects, seen, unseen) in [
            (&[Role::Read][..], &["default"][..], &["default"][..], &["a", "defaul", "default2"][..]),
            (&[Role::Submit], &["a", "b"], &["a", "b"], &["default", "A", "c"]),
            (&[Role::Admin], &["a"], &["a", "b", "default"], &[]),
            (&[Role::Read, Role::Admin], &["default"], &["a", "default"], &[]),
            (&[Role::Submit], &[], &[], &["default", "a"]),
        ] {
            let scope = scope(roles, projects);
            for name in seen {
                assert!(scope.includes(&project(name)), "{scope:?}: {name}");
            }
            for name in unseen {
                assert!(!scope.includes(&project(name)), "{scope:?}: {name}");
            }
        }
    }

    #[test]
    fn which_project_a_series_is_of() {
        for (roles, projects, asked, want) in [
            (Role::Submit, &["a"][..], None, Ok("a")),
            (Role::Submit, &["a"], Some("a"), Ok("a")),
            (Role::Submit, &["a"], Some("b"), Err("project 'b' is none of yours: a")),
            (Role::Submit, &["a"], Some("default"), Err("project 'default' is none of yours: a")),
            (Role::Submit, &["b", "a"], None, Err("you are in several projects (a, b): name one")),
            (Role::Submit, &["b", "a"], Some("b"), Ok("b")),
            (Role::Submit, &["default", "a"], None, Err("you are in several projects (a, default)")),
            (Role::Admin, &["a", "b"], None, Ok("default")),
            (Role::Admin, &["a"], Some("c"), Ok("c")),
            (Role::Submit, &[], None, Err("several")),
        ] {
            let got = scope(&[roles], projects).choose(asked.map(project).as_ref());
            match (got, want) {
                (Ok(got), Ok(want)) => assert_eq!(got.as_str(), want),
                (Err(got), Err(want)) => assert!(got.to_string().contains(want), "{got}"),
                (got, want) => panic!("{projects:?} {asked:?}: {got:?} instead of {want:?}"),
            }
        }
    }
}
