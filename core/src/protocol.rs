//! The version of what goes over the wire between the parts of a farm, and which versions go together.
//!
//! Each request of ours says in its metadata which version its sender speaks. A coordinator takes its own and the one before, so that a farm
//! is upgraded without a break: the coordinator first, then workers and users, in any order. Which version a change of messages
//! needs: a new field that may be left out needs none; a field that others have to understand, and a message that means something
//! else, need the next one.

/// The version that this program speaks.
///
/// 2: a series may say which project it is of. A coordinator of 1 would not hear it, and show the series to everybody.
pub const VERSION: u32 = 2;

/// The oldest version that a coordinator of this program takes.
pub const OLDEST: u32 = 1;

/// The name in the metadata.
pub const HEADER: &str = "bombproof-protocol";

/// The version that a request says it speaks.
///
/// # Errors
/// In words for its sender: it is no version, or one that this program does not take.
pub fn accept(said: &str) -> Result<u32, String> {
    let Ok(theirs) = said.parse::<u32>() else {
        return Err(format!("the caller's '{HEADER}' is no number; this coordinator speaks {VERSION}"));
    };
    if theirs > VERSION {
        return Err(format!(
            "the caller speaks protocol {theirs}, and this coordinator {OLDEST} to {VERSION}: upgrade the coordinator first"
        ));
    }
    if theirs < OLDEST {
        return Err(format!(
            "the caller speaks protocol {theirs}, and this coordinator {OLDEST} to {VERSION}: upgrade bombproof where the call is from"
        ));
    }
    Ok(theirs)
}

/// Whether a coordinator that takes these versions takes what this program speaks.
///
/// # Errors
/// In words: which side is to be upgraded.
pub fn goes_with(newest: u32, oldest: u32) -> Result<(), String> {
    if VERSION > newest {
        Err(format!("this program speaks {VERSION}: upgrade the coordinator first"))
    } else if VERSION < oldest {
        Err(format!("this program speaks {VERSION}: upgrade it"))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coordinator_takes_what_lies_between_its_oldest_and_its_newest() {
        for (newest, oldest, said) in [
            (VERSION, VERSION, None),
            (VERSION + 1, VERSION, None),
            (VERSION, OLDEST, None),
            (VERSION - 1, VERSION - 1, Some("upgrade the coordinator first")),
            (VERSION + 2, VERSION + 1, Some("upgrade it")),
            (0, 0, Some("upgrade the coordinator first")),
            (u32::MAX, u32::MAX, Some("upgrade it")),
        ] {
            let found = goes_with(newest, oldest);
            assert_eq!(found.is_err(), said.is_some(), "{newest} {oldest}");
            assert!(said.is_none_or(|said| found.is_err_and(|it| it.contains(said))), "{newest} {oldest}");
        }
    }

    #[test]
    fn neighbouring_versions_go_together() {
        for version in OLDEST..=VERSION {
            assert_eq!(accept(&version.to_string()), Ok(version));
        }
        for (said, why) in [
            ((VERSION + 1).to_string(), "upgrade the coordinator first"),
            ((OLDEST - 1).to_string(), "upgrade bombproof where the call is from"),
            (String::new(), "no number"),
            ("1.0".to_owned(), "no number"),
            ("99999999999999999999".to_owned(), "no number"),
        ] {
            assert!(accept(&said).is_err_and(|it| it.contains(why)), "{said}");
        }
    }
}
