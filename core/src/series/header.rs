//! The headers in front of a patch: those of a mail, of quilt and of Debian's DEP-3, in any mixture.
//!
//! Source of the DEP-3 fields: the Debian enhancement proposal "Patch Tagging Guidelines".

use super::diff::{first_change, lines};

/// What the headers say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) subject: Option<String>,
    pub(super) author: Option<String>,
    pub(super) date: Option<String>,
    pub(super) body: String,
}

/// Reads what stands before the first change of a patch file.
pub(super) fn read(text: &[u8]) -> Header {
    let head = String::from_utf8_lossy(&text[..first_change(text)]).replace('\r', "");
    let mut fields: Vec<(String, String)> = Vec::new();
    let mut rest = Vec::new();
    let mut in_fields = true;
    for (number, line) in head.lines().enumerate() {
        if in_fields {
            if number == 0 && line.starts_with("From ") {
                continue;
            }
            if let (true, Some((_, value))) =
                (line.starts_with([' ', '\t']) && !line.trim().is_empty(), fields.last_mut())
            {
                value.push('\n');
                value.push_str(line.trim());
                continue;
            }
            if let Some((name, value)) = field(line) {
                fields.push((name.to_ascii_lowercase(), value.to_owned()));
                continue;
            }
            in_fields = line.is_empty() && fields.is_empty();
        }
        rest.push(line);
    }
    let get = |name: &str| fields.iter().find(|(key, _)| key == name).map(|(_, value)| decode(value));
    let mut author = get("from").or_else(|| get("author"));
    let mut subject = get("subject").or_else(|| get("description")).map(|value| without_tag(&value).1);
    let date = get("date").and_then(|date| date_of(&date));
    let mut body = body_of(&rest);
    // In-body headers of a forwarded patch: `From:` first, a blank line after.
    if let Some((first, after)) = body.clone().split_once('\n').filter(|_| get("from").is_some())
        && let Some(("From", name)) = field(first)
    {
        author = Some(decode(name));
        body = after.trim_start_matches('\n').to_owned();
    }
    if subject.is_none() {
        subject = body.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned);
    }
    let one_line = |text: String| text.lines().next().unwrap_or_default().trim().to_owned();
    // A folded subject is one line; a DEP-3 description is a short line and a long text.
    let folded = get("subject").is_some();
    let subject =
        subject.map(|text| if folded { text.split_whitespace().collect::<Vec<_>>().join(" ") } else { one_line(text) });
    for name in ["origin", "git-commit", "applied-upstream", "commit"] {
        if let Some(value) = get(name) {
            body.push_str(&format!("\n{name}: {value}"));
        }
    }
    Header { subject: subject.filter(|text| !text.is_empty()), author: author.map(one_line), date, body }
}

/// `Name: value`, where the name can be one of a header.
fn field(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once(':')?;
    let fits =
        !name.is_empty() && name.len() < 40 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    // A line such as `net: fix it` of a message without headers is none: known names only, or those with a dash.
    const KNOWN: &[&str] = &[
        "from",
        "subject",
        "date",
        "author",
        "description",
        "origin",
        "forwarded",
        "bug",
        "to",
        "cc",
        "sender",
        "references",
        "commit",
        "patchname",
        "acked-by",
        "tags",
        "version",
    ];
    let known = KNOWN.contains(&name.to_ascii_lowercase().as_str())
        || (name.contains('-') && name.starts_with(|c: char| c.is_ascii_uppercase()));
    (fits && known).then(|| (name, value.trim()))
}

/// The message: up to the line that separates it from notes and statistics.
fn body_of(rest: &[&str]) -> String {
    let end = rest.iter().position(|line| *line == "---").unwrap_or(rest.len());
    rest[..end].join("\n").trim().to_owned()
}

/// Decodes RFC 2047 words of a header's value.
pub(super) fn decode(value: &str) -> String {
    if !value.contains("=?") {
        return value.to_owned();
    }
    let line = format!("X: {}\n", value.replace('\n', " "));
    mailparse::parse_header(line.as_bytes()).map_or_else(|_| value.to_owned(), |(header, _)| header.get_value())
}

/// A mail's date in git's form.
pub(super) fn date_of(text: &str) -> Option<String> {
    let seconds = mailparse::dateparse(text).ok()?;
    let zone = text.split_whitespace().find(|word| word.len() == 5 && word.starts_with(['+', '-'])).unwrap_or("+0000");
    let digits = zone.bytes().skip(1).all(|byte| byte.is_ascii_digit());
    (seconds >= 0).then(|| format!("{seconds} {}", if digits { zone } else { "+0000" }))
}

/// Splits `[PATCH v3 2/7] text` into the words in brackets that belong to it and the text. Other brackets at the front
/// stay (`[media] x`), as with `git am --keep-non-patch`... but for the tag itself.
pub(super) fn without_tag(subject: &str) -> (Vec<String>, String) {
    let mut rest = subject.trim();
    let mut words = Vec::new();
    loop {
        if let Some(tail) =
            rest.strip_prefix("Re:").or_else(|| rest.strip_prefix("RE:")).or_else(|| rest.strip_prefix("re:"))
        {
            rest = tail.trim_start();
            words.push("Re".to_owned());
            continue;
        }
        let Some((tag, tail)) = rest.strip_prefix('[').and_then(|tail| tail.split_once(']')) else { break };
        let is_tag = tag.to_ascii_uppercase().contains("PATCH")
            || tag.eq_ignore_ascii_case("RFC")
            || tag.eq_ignore_ascii_case("RESEND");
        if !is_tag {
            break;
        }
        words.extend(tag.split_whitespace().map(str::to_owned));
        rest = tail.trim_start();
    }
    (words, rest.to_owned())
}

/// The commit upstream that a message names, if any; the forms are those of stable, RHEL, SUSE and Debian.
pub fn upstream(body: &str) -> Option<String> {
    let hex = |text: &str| -> Option<String> {
        let id: String = text.trim().chars().take_while(char::is_ascii_hexdigit).collect();
        (id.len() == 40).then(|| id.to_ascii_lowercase())
    };
    body.lines().map(str::trim).find_map(|line| {
        let low = line.to_ascii_lowercase();
        for mark in ["(cherry picked from commit ", "[ upstream commit ", "git-commit:", "commit ", "commit: "] {
            if let Some(rest) = low.strip_prefix(mark)
                && let Some(id) = hex(rest)
            {
                return Some(id);
            }
        }
        low.strip_prefix("origin:").and_then(|rest| rest.split(['/', '=', ' ', '\n']).find_map(hex))
    })
}

/// The commit that a `base-commit:` line of a message or mail names.
pub fn base_commit(text: &[u8]) -> Option<String> {
    lines(text).find_map(|line| {
        let id = std::str::from_utf8(line.strip_prefix(b"base-commit:")?).ok()?.trim();
        let fits = (7..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        fits.then(|| id.to_owned())
    })
}
