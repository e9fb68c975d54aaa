//! Interfaces of objects that a real compiler made.

use std::process::Command;

use bombproof_core::kbuild::interface::read;

fn object_of(source: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let (file, out) = (folder.path().join("a.c"), folder.path().join("a.o"));
    std::fs::write(&file, source).unwrap();
    let done = Command::new("gcc").args(["-O1", "-c", "-o"]).arg(&out).arg(&file).status().unwrap();
    assert!(done.success());
    std::fs::read(out).unwrap()
}

#[test]
fn what_the_link_sees_and_what_not() {
    let base = "int b(void); static int h(int x) { return x + 1; } int a(int x) { return h(x); }";
    let one = read(&object_of(base)).unwrap();
    for (source, same) in [
        ("int b(void); static int h(int x) { return x * 77; } int a(int x) { return h(x); }", true),
        ("int b(void); int a(int x) { return x + b(); }", false),
        ("int a(int x) { return x; } int c(void) { return 1; }", false),
        ("int b(void); int a(int x) { return x + 1; } static int h(int x) { return x; } int (*p)(int) = h;", false),
        ("__attribute__((weak)) int a(int x) { return x; }", false),
        ("__attribute__((section(\".init.text\"))) int a(int x) { return x; }", false),
    ] {
        assert_eq!(read(&object_of(source)).as_ref() == Some(&one), same, "{source}");
    }
}

#[test]
fn references_to_what_is_thrown_away_count_one_by_one() {
    let with = |body: &str| {
        object_of(&format!(
            "#define I __attribute__((noinline, noclone, section(\".init.text\")))\n\
             I int once(int x) {{ return x * 3; }} I int twice(int x) {{ return x * 5; }}\n\
             int a(int x) {{ return {body}; }} int c(int x) {{ return x; }}"
        ))
    };
    let (one, other, none) = (read(&with("once(x)")), read(&with("twice(x)")), read(&with("x")));
    assert!(one.is_some() && one != other && one != none && other != none);
}

#[test]
fn any_bytes_have_an_answer() {
    let object = object_of("int a(int x) { return x; }");
    assert_eq!(read(b"rubbish"), None);
    for cut in (0..object.len()).step_by(7) {
        let _ = read(&object[..cut]);
        let mut bytes = object.clone();
        bytes[cut] ^= 0xff;
        let _ = read(&bytes);
    }
}
