use proptest::prelude::*;

use super::*;

const CHANGE: &str = "---\n x | 2 +-\n\ndiff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n-- \n2.39\n";

fn mail(subject: &str, body: &str) -> String {
    format!(
        "From 0123456789 Mon Sep 17 00:00:00 2001\nFrom: A <a@b>\nDate: Tue, 3 Oct 2023 10:00:00 +0200\nSubject: {subject}\n\n{body}\n"
    )
}

fn series(texts: &[String]) -> Result<Series, MailError> {
    let whole = texts.concat();
    let mails = split_mbox(whole.as_bytes());
    assert_eq!(mails.len(), texts.len());
    assemble(
        mails.iter().enumerate().map(|(n, bytes)| (format!("mbox:{}", n + 1), parse(bytes, "m").unwrap())).collect(),
    )
}

fn subjects(texts: &[String]) -> Vec<String> {
    series(texts).unwrap().patches.into_iter().map(|patch| patch.subject).collect()
}

#[test]
fn order_is_by_number_cover_and_answers_are_left_out_and_the_highest_version_wins() {
    let texts = [
        mail("[PATCH v2 0/2] the whole", "cover\n\nbase-commit: 0123456789012345678901234567890123456789"),
        mail("[PATCH v2 2/2] two", CHANGE),
        mail("Re: [PATCH v2 2/2] two", &format!("> quoted\n{CHANGE}")),
        mail("[PATCH v2 1/2] one", CHANGE),
        mail("[PATCH 1/1] old", CHANGE),
    ];
    let series = series(&texts).unwrap();
    assert_eq!(series.name, "the whole");
    assert_eq!(series.base_commit.as_deref(), Some("0123456789012345678901234567890123456789"));
    assert_eq!(series.patches.iter().map(|patch| patch.subject.as_str()).collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!(series.patches[0].date.as_deref(), Some("1696320000 +0200"));
}

#[test]
fn missing_and_double_numbers_are_named() {
    let missing = series(&[mail("[PATCH 1/4] a", CHANGE), mail("[PATCH 3/4] c", CHANGE)]).unwrap_err();
    assert_eq!(missing.to_string(), "patches of the series are missing: 2/4, 4/4");
    let same = [mail("[PATCH 1/1] a", CHANGE), mail("[PATCH 1/1] a", CHANGE)];
    assert_eq!(subjects(&same), ["a"]);
    let other = mail("[PATCH 1/1] a", &CHANGE.replace("+b", "+c"));
    assert!(matches!(series(&[mail("[PATCH 1/1] a", CHANGE), other]), Err(MailError::Twice { number: 1, .. })));
    assert!(matches!(series(&[mail("hello", "no patch")]), Err(MailError::NoPatch { mails: 1 })));
}

#[test]
fn tags_in_many_forms() {
    for (subject, version, number, text) in [
        ("[PATCH RFC net-next v2 02/10] net: x", 2, Some(2), "net: x"),
        ("[RESEND PATCH] y", 1, None, "y"),
        ("[PATCH] [media] z", 1, None, "[media] z"),
        ("[PATCHv3 1/2] w", 1, Some(1), "w"),
    ] {
        let mail = parse(mail(subject, CHANGE).as_bytes(), "m").unwrap();
        assert_eq!((mail.version, mail.number, mail.subject.as_str()), (version, number, text), "{subject}");
    }
}

#[test]
fn encodings_of_the_transport() {
    let base64 = "From: =?utf-8?q?J=C3=B6rg?= <j@b>\nSubject: [PATCH] =?utf-8?b?w6Q=?=\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\n\n";
    let body = "ZGlmZiAtLWdpdCBhL3ggYi94Ci0tLSBhL3gKKysrIGIveApAQCAtMSArMSBAQAotYQorYgo=\n";
    let read = parse(format!("{base64}{body}").as_bytes(), "m").unwrap();
    assert_eq!((read.subject.as_str(), read.author.as_str()), ("ä", "Jörg <j@b>"));
    assert!(assemble(vec![("m".into(), read)]).is_ok());
    let quoted = "Subject: [PATCH] q\nContent-Transfer-Encoding: quoted-printable\n\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a =3D 1\n+a =3D 2=\n2\n";
    let read = parse(quoted.as_bytes(), "m").unwrap();
    assert!(String::from_utf8(read.text).unwrap().contains("+a = 22\n"));
    let multi = "Subject: [PATCH] m\nContent-Type: multipart/mixed; boundary=B\n\n--B\nContent-Type: text/plain\n\nhello\n--B\nContent-Type: text/x-patch\nContent-Disposition: attachment\n\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n--B--\n";
    assert!(assemble(vec![("m".into(), parse(multi.as_bytes(), "m").unwrap())]).is_ok());
    let dos = mail("[PATCH] d", CHANGE).replace('\n', "\r\n");
    assert!(!parse(dos.as_bytes(), "m").unwrap().text.contains(&b'\r'));
}

#[test]
fn the_author_of_the_body_wins() {
    let text = mail("[PATCH] x", &format!("From: Real <r@b>\n\nbody\n{CHANGE}"));
    let read = parse(text.as_bytes(), "m").unwrap();
    assert_eq!((read.author.as_str(), read.body.as_str()), ("Real <r@b>", "body"));
}

proptest! {
    #[test]
    fn any_bytes_give_a_value_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for part in split_mbox(&bytes) {
            let _ = parse(part, "m").map(|mail| assemble(vec![("m".into(), mail)]));
        }
    }

    #[test]
    fn any_mail_like_text_gives_an_answer(text in "(From: |Subject: \\[PATCH 1/2\\] |\n|a|=|Content-Type: multipart/mixed; boundary=B\n|--B\n|--- a/x\n|\\+\\+\\+ b/x\n|@@ -1 \\+1 @@\n){0,30}") {
        for part in split_mbox(text.as_bytes()) {
            let _ = parse(part, "m").map(|mail| assemble(vec![("m".into(), mail)]));
        }
    }
}
