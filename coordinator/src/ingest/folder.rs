//! A folder as a series: a maildir, a folder with a `series` file, or a folder of patches.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bombproof_core::series::mail::{self, MailError};
use bombproof_core::series::{Series, diff};

use super::{IngestError, MAX_PATCH_BYTES, quilt_series, read_file, unreadable};

/// Endings of files that are patches or mails. Where a folder has such files the others are not looked at.
const PATCHES: &[&str] = &[".patch", ".diff", ".eml", ".mbox", ".mbx", ".mail"];
/// Endings of files that are not taken for patches.
const NOT_PATCHES: &[&str] = &["~", ".orig", ".rej", ".md", ".txt", ".sh", ".py", ".toml", ".json", ".yml", ".yaml"];

pub(super) fn read(folder: &Path, defined: &BTreeSet<String>) -> Result<Series, IngestError> {
    for list in [folder.join("series"), folder.join("patches/series"), folder.join("series.conf")] {
        if list.is_file() {
            let text = read_file(&list, MAX_PATCH_BYTES)?;
            let text = String::from_utf8(text).map_err(|_| IngestError::Unknown(list.clone()))?;
            return quilt_series(&list, &text, defined);
        }
    }
    let is_maildir = folder.join("cur").is_dir() && folder.join("new").is_dir();
    let mut files = Vec::new();
    if is_maildir {
        for part in ["cur", "new"] {
            list(&folder.join(part), &mut files)?;
        }
    } else {
        list(folder, &mut files)?;
        let ends = |file: &Path, endings: &[&str]| {
            let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            endings.iter().any(|ending| name.ends_with(ending)) && !name.starts_with('.')
        };
        if files.iter().any(|file| ends(file, PATCHES)) {
            files.retain(|file| ends(file, PATCHES));
        } else {
            // `ends` with nothing is true of every name that is not hidden.
            files.retain(|file| !ends(file, NOT_PATCHES) && ends(file, &[""]));
        }
    }
    if files.is_empty() {
        return Err(IngestError::Empty(folder.display().to_string()));
    }
    files.sort_by_key(|file| natural(file));
    let mut texts = Vec::with_capacity(files.len());
    for file in &files {
        texts.push((name_in(folder, file), read_file(file, MAX_PATCH_BYTES)?));
    }
    // Mails are put in order by their numbers; anything else by name.
    if texts.iter().all(|(_, text)| mail::looks_like_mail(text)) {
        let mails = texts.iter().map(|(name, text)| Ok((name.clone(), mail::parse(text, name)?)));
        let mails: Vec<_> = mails.collect::<Result<_, MailError>>()?;
        let numbered = mails.iter().filter(|(_, mail)| mail.number.is_some()).count();
        if is_maildir || numbered == mails.len() || mails.iter().any(|(_, mail)| mail.number == Some(0)) {
            return Ok(mail::assemble(mails)?);
        }
    }
    let mut series = Series { name: folder.display().to_string(), ..Series::default() };
    for (name, text) in &texts {
        let patch = diff::parse_patch(text, name, 1);
        series.patches.push(patch.map_err(|error| IngestError::Patch { file: name.clone(), error })?);
        series.base_commit = series.base_commit.or_else(|| bombproof_core::series::base_commit(text));
    }
    Ok(series)
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), IngestError> {
    for entry in std::fs::read_dir(folder).map_err(|error| unreadable(folder, &error))? {
        let path = entry.map_err(|error| unreadable(folder, &error))?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    Ok(())
}

fn name_in(folder: &Path, file: &Path) -> String {
    file.strip_prefix(folder).unwrap_or(file).display().to_string()
}

/// Sorts `2-x` before `10-x`: runs of digits count as numbers.
fn natural(path: &Path) -> Vec<(u64, String)> {
    let text = path.to_string_lossy().into_owned();
    let mut parts = vec![(0_u64, String::new())];
    let mut digits = false;
    for c in text.chars() {
        match c.to_digit(10) {
            Some(digit) => {
                if !digits {
                    parts.push((0, String::new()));
                }
                digits = true;
                if let Some(last) = parts.last_mut() {
                    last.0 = last.0.saturating_mul(10).saturating_add(u64::from(digit));
                }
            }
            None => {
                digits = false;
                if let Some(last) = parts.last_mut() {
                    last.1.push(c);
                }
            }
        }
    }
    parts
}
