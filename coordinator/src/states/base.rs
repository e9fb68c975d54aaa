//! Finds the base, and helps when there is none of that name.

use bombproof_core::id::Oid;

use super::StatesError;
use super::git::Git;

/// The commit and the tree that `name` means.
pub(super) fn resolve(git: &Git, name: &str) -> Result<(Oid, Oid), StatesError> {
    let unknown = |hint: String| StatesError::Base { name: name.to_owned(), hint };
    if name.is_empty() || name.starts_with('-') || name.contains(['\0', '\n']) {
        return Err(unknown("give a tag, a branch or a commit".to_owned()));
    }
    // Both in one go. The name cannot be taken for an option.
    let found = git.text(["rev-parse", "--quiet", &format!("{name}^{{commit}}"), &format!("{name}^{{tree}}")]);
    let both = found.as_ref().ok().and_then(|text| {
        let (commit, tree) = text.split_once('\n')?;
        Some((Oid::parse(commit).ok()?, Oid::parse(tree).ok()?))
    });
    match (both, found) {
        (Some(both), _) => Ok(both),
        (None, Err(error @ StatesError::Start { .. })) => Err(error),
        (None, Ok(_) | Err(_)) => {
            let near = nearest(git, name);
            Err(unknown(if near.is_empty() {
                "fetch it, or give another --base".to_owned()
            } else {
                format!("nearest tags: {}; fetch it, or give another --base", near.join(", "))
            }))
        }
    }
}

/// Up to three tags whose names are most like `name`.
fn nearest(git: &Git, name: &str) -> Vec<String> {
    let tags = git.text(["tag", "--list"]).unwrap_or_default();
    let mut near: Vec<(usize, &str)> = tags.lines().map(|tag| (distance(name, tag), tag)).collect();
    near.sort();
    let limit = name.len().max(4);
    near.into_iter().filter(|(far, _)| *far < limit).take(3).map(|(_, tag)| tag.to_owned()).collect()
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(200).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(200).enumerate() {
        let mut before = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let here = row[j + 1];
            row[j + 1] = (before + usize::from(x != *y)).min(here + 1).min(row[j] + 1);
            before = here;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::distance;

    #[test]
    fn distances() {
        for (a, b, far) in [("v6.1", "v6.1", 0), ("v6.1.999", "v6.1.99", 1), ("", "abc", 3), ("abc", "axc", 1)] {
            assert_eq!(distance(a, b), far, "{a} {b}");
        }
    }
}
