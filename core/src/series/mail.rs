//! Mails of `git format-patch`: an mbox is taken apart, a mail is read, and the patches of a series are put in order.
//!
//! Sources of the formats: RFC 5322, RFC 2045 (by the mailparse crate), git-format-patch(1) for `[PATCH v3 2/7]` and the
//! `base-commit:` trailer.

use std::collections::BTreeMap;

use mailparse::ParsedMail;
use thiserror::Error;

use super::diff::{self, DiffError, lines};
use super::{Patch, Series, header};

/// A mail, or a series of mails, that cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum MailError {
    /// The mail itself.
    #[error("{mail}: {message}")]
    Mail {
        /// Which mail.
        mail: String,
        /// What is wrong.
        message: String,
    },
    /// The patch in it.
    #[error("{mail}: {error}")]
    Patch {
        /// Which mail.
        mail: String,
        /// What is wrong.
        error: DiffError,
    },
    /// Numbers are missing.
    #[error("{} of the series {} missing: {}", if missing.len() == 1 { "a patch" } else { "patches" }, if missing.len() == 1 { "is" } else { "are" }, missing.join(", "))]
    Missing {
        /// `3/7`.
        missing: Vec<String>,
    },
    /// A number is there twice, with different changes.
    #[error("patch {number} is there twice with different changes: {first} and {second}")]
    Twice {
        /// The number.
        number: u32,
        /// One mail.
        first: String,
        /// The other.
        second: String,
    },
    /// No mail holds a patch.
    #[error("none of the {mails} mails holds a patch")]
    NoPatch {
        /// How many there are.
        mails: usize,
    },
}

/// One mail of a series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// Without `[PATCH ...]`.
    pub subject: String,
    /// `v3`; 1 where none is named.
    pub version: u32,
    /// `2` of `2/7`.
    pub number: Option<u32>,
    /// `7` of `2/7`.
    pub total: Option<u32>,
    /// An answer to another mail (`Re:`).
    pub reply: bool,
    /// `Name <address>`; the one of the body, where it has a `From:` line.
    pub author: String,
    /// In git's form.
    pub date: Option<String>,
    /// The message.
    pub body: String,
    /// The whole text with the change, line ends of the transport removed.
    pub text: Vec<u8>,
    /// The commit of a `base-commit:` line.
    pub base_commit: Option<String>,
}

/// Cuts an mbox at its `From ` lines (a blank line before them is not required, as with `git mailsplit`); a text that does not begin with one is one mail.
pub fn split_mbox(text: &[u8]) -> Vec<&[u8]> {
    let mut starts = Vec::new();
    let mut offset = 0;
    for line in lines(text) {
        if is_from_line(line) {
            starts.push(offset);
        }
        offset += line.len();
    }
    if starts.first() != Some(&0) {
        starts.insert(0, 0);
    }
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    let parts = starts.iter().zip(ends).map(|(start, end)| &text[*start..end]);
    parts.filter(|part| part.iter().any(|byte| !byte.is_ascii_whitespace())).collect()
}

/// `From ` somebody and a time: the line must hold a time of day, as prose seldom does.
fn is_from_line(line: &[u8]) -> bool {
    line.strip_prefix(b"From ").is_some_and(|rest| {
        rest.windows(6).any(|w| {
            w[0] == b':' && w[1].is_ascii_digit() && w[2].is_ascii_digit() && w[3] == b':' && w[4].is_ascii_digit()
        })
    })
}

/// Whether a text looks like a mail: header lines at its top, a subject among them.
pub fn looks_like_mail(text: &[u8]) -> bool {
    let first = lines(text).next().unwrap_or_default();
    let mut top = lines(text).take(200).take_while(|line| !line.iter().all(u8::is_ascii_whitespace));
    let head = is_from_line(first)
        || first
            .split(|byte| *byte == b':')
            .next()
            .is_some_and(|name| !name.is_empty() && name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-'));
    head && top.any(|line| line.len() > 8 && line[..8].eq_ignore_ascii_case(b"subject:"))
}

/// Reads one mail.
///
/// # Errors
/// When it is not a mail.
pub fn parse(bytes: &[u8], source: &str) -> Result<Mail, MailError> {
    let wrong = |message: String| MailError::Mail { mail: source.to_owned(), message };
    if bytes.contains(&0) {
        return Err(wrong("holds NUL bytes: this is not a mail".to_owned()));
    }
    // The mbox line is not a header.
    let bytes = if is_from_line(lines(bytes).next().unwrap_or_default()) {
        &bytes[lines(bytes).next().map_or(0, <[u8]>::len)..]
    } else {
        bytes
    };
    let mail = mailparse::parse_mail(bytes).map_err(|error| wrong(format!("is not a mail: {error}")))?;
    let get = |name: &str| {
        mail.headers.iter().find(|head| head.get_key_ref().eq_ignore_ascii_case(name)).map(|head| head.get_value())
    };
    let (words, subject) = header::without_tag(&get("Subject").unwrap_or_default());
    let text = text_of(&mail).ok_or_else(|| wrong("no part of it is text".to_owned()))?;
    let inner = header::read(&with_headers(&mail, &text));
    let tag = tag_of(&words);
    Ok(Mail {
        subject: subject.split_whitespace().collect::<Vec<_>>().join(" "),
        version: tag.version,
        number: tag.number,
        total: tag.total,
        reply: tag.reply,
        author: inner.author.unwrap_or_default(),
        date: inner.date,
        body: inner.body,
        base_commit: header::base_commit(&text),
        text,
    })
}

/// The headers that matter, decoded, in front of the decoded text: what the file would be without its transport.
fn with_headers(mail: &ParsedMail<'_>, text: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    for name in ["From", "Date", "Subject"] {
        if let Some(head) = mail.headers.iter().find(|head| head.get_key_ref().eq_ignore_ascii_case(name)) {
            whole.extend_from_slice(format!("{name}: {}\n", head.get_value().replace('\n', " ")).as_bytes());
        }
    }
    whole.push(b'\n');
    whole.extend_from_slice(text);
    whole
}

/// The text of a mail: its text parts, in order; an attached patch counts as text. Line ends of the transport (CR LF on
/// every line) become line feeds, as `git mailsplit` does.
fn text_of(mail: &ParsedMail<'_>) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    collect(mail, &mut text, 0);
    let every_line_dos = lines(&text).all(|line| line.ends_with(b"\r\n") || !line.ends_with(b"\n"));
    if every_line_dos {
        text = lines(&text)
            .flat_map(|line| line.strip_suffix(b"\r\n").map_or_else(|| line.to_vec(), |line| [line, b"\n"].concat()))
            .collect();
    }
    (!text.is_empty()).then_some(text)
}

fn collect(mail: &ParsedMail<'_>, text: &mut Vec<u8>, depth: u32) {
    // Nested without end only on purpose.
    if depth > 16 {
        return;
    }
    if !mail.subparts.is_empty() {
        mail.subparts.iter().for_each(|part| collect(part, text, depth + 1));
        return;
    }
    let kind = mail.ctype.mimetype.to_ascii_lowercase();
    let is_text = kind.starts_with("text/") && kind != "text/html"
        || kind.ends_with("patch")
        || kind.ends_with("diff")
        || kind.ends_with("mbox");
    if !is_text {
        return;
    }
    // Patches are bytes: only the transfer encoding is undone; the text around them is decoded where it is not UTF-8.
    if let Ok(raw) = mail.get_body_raw() {
        match (std::str::from_utf8(&raw), mail.get_body()) {
            (Err(_), Ok(decoded)) if !mail.ctype.charset.eq_ignore_ascii_case("us-ascii") => {
                text.extend_from_slice(decoded.as_bytes());
            }
            _ => text.extend_from_slice(&raw),
        }
        if !text.ends_with(b"\n") && !text.is_empty() {
            text.push(b'\n');
        }
    }
}

struct Tag {
    version: u32,
    number: Option<u32>,
    total: Option<u32>,
    reply: bool,
}

fn tag_of(words: &[String]) -> Tag {
    let mut tag = Tag { version: 1, number: None, total: None, reply: false };
    let digits = |text: &str| {
        (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok()).flatten()
    };
    for word in words {
        if word == "Re" {
            tag.reply = true;
        } else if let Some(version) = word.strip_prefix(['v', 'V']).and_then(digits) {
            tag.version = version;
        } else if let Some((number, total)) = word.split_once('/')
            && let (Some(number), Some(total)) = (digits(number), digits(total))
        {
            (tag.number, tag.total) = (Some(number), Some(total));
        }
    }
    tag
}

/// Puts the patches of a series in order: cover letter and answers are left out, the highest version wins, the order is
/// that of the numbers. Without numbers it is the order of the mails.
///
/// # Errors
/// When a number is missing or there twice, when a patch cannot be read, or when there is none.
pub fn assemble(mails: Vec<(String, Mail)>) -> Result<Series, MailError> {
    let count = mails.len();
    let base_commit = mails.iter().rev().find_map(|(_, mail)| mail.base_commit.clone());
    let cover = mails.iter().find(|(_, mail)| mail.number == Some(0) && !mail.reply);
    let mut name = cover.map(|(_, mail)| mail.subject.clone()).unwrap_or_default();
    let mut patches: Vec<(Mail, Patch)> = Vec::new();
    for (source, mail) in mails {
        match diff::parse_patch(&mail.text, &source, 1) {
            Ok(patch) => {
                let patch = Patch {
                    subject: mail.subject.clone(),
                    author: mail.author.clone(),
                    date: mail.date.clone(),
                    body: mail.body.clone(),
                    upstream: header::upstream(&mail.body),
                    ..patch
                };
                patches.push((mail, patch));
            }
            // A cover letter, an answer or a note: no patch is expected in it.
            Err(error) if error.line == 0 => {
                if !mail.reply && mail.number.is_some_and(|number| number > 0) {
                    return Err(MailError::Patch { mail: source, error });
                }
            }
            Err(error) => return Err(MailError::Patch { mail: source, error }),
        }
    }
    // An answer that quotes a change is not a patch; an answer may be one (`--in-reply-to` with `Re:` is not made by git).
    if patches.iter().any(|(mail, _)| !mail.reply) {
        patches.retain(|(mail, _)| !mail.reply);
    }
    let Some(version) = patches.iter().map(|(mail, _)| mail.version).max() else {
        return Err(MailError::NoPatch { mails: count });
    };
    patches.retain(|(mail, _)| mail.version == version);
    if name.is_empty() {
        name = patches.first().map(|(mail, _)| mail.subject.clone()).unwrap_or_default();
    }
    let numbered = patches.iter().any(|(mail, _)| mail.number.is_some());
    let patches = if numbered { in_order(patches)? } else { patches.into_iter().map(|(_, patch)| patch).collect() };
    Ok(Series { name, patches, base_commit, fuzz: 0 })
}

fn in_order(patches: Vec<(Mail, Patch)>) -> Result<Vec<Patch>, MailError> {
    let total = patches.iter().filter_map(|(mail, _)| mail.total).max().unwrap_or(0);
    let mut by_number: BTreeMap<u32, Patch> = BTreeMap::new();
    for (mail, patch) in patches {
        let number = mail.number.unwrap_or(0);
        if number == 0 {
            let message = "has no number, while other mails of the series have one".to_owned();
            return Err(MailError::Mail { mail: patch.source, message });
        }
        if let Some(first) = by_number.get(&number) {
            if first.files != patch.files {
                return Err(MailError::Twice { number, first: first.source.clone(), second: patch.source });
            }
            continue;
        }
        by_number.insert(number, patch);
    }
    // A total that nobody can have sent is not worth a list of that length.
    let missing: Vec<String> = (1..=total.min(100_000))
        .filter(|number| !by_number.contains_key(number))
        .take(20)
        .map(|number| format!("{number}/{total}"))
        .collect();
    if !missing.is_empty() {
        return Err(MailError::Missing { missing });
    }
    Ok(by_number.into_values().collect())
}

#[cfg(test)]
#[path = "mail_tests.rs"]
mod tests;
