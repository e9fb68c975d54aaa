//! Mails of `git format-patch`, one and many.
#![no_main]
use bombproof_core::series::mail;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    mail::looks_like_mail(bytes);
    let mut mails = Vec::new();
    for (number, part) in mail::split_mbox(bytes).into_iter().enumerate() {
        if let Ok(mail) = mail::parse(part, "fuzz") {
            mails.push((format!("{number}"), mail));
        }
    }
    if let Ok(series) = mail::assemble(mails) {
        assert!(!series.patches.is_empty(), "a series has a patch");
    }
});
