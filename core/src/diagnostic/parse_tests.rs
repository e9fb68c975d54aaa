//! Real output of real tools, and anything else.

use proptest::prelude::*;

use super::*;

fn roots() -> Roots {
    Roots { source: "/b/src".to_owned(), output: "/b/out".to_owned() }
}

fn read(text: &str) -> Vec<Diagnostic> {
    compiler(text, "/b/out", &roots(), Tool::Compiler)
}

#[test]
fn gcc_with_function_include_chain_excerpt_and_note() {
    let text = "\
In file included from /b/src/include/linux/kernel.h:5,
                 from /b/src/kernel/softirq.c:13:
/b/src/kernel/softirq.c: In function 'raise_timer_softirq':
/b/src/kernel/softirq.c:705:13: error: implicit declaration of function 'local_pending_timers' [-Werror=implicit-function-declaration]
  705 |         if (local_pending_timers() && __this_cpu_read(timersd))
      |             ^~~~~~~~~~~~~~~~~~~~
/b/src/include/x.h:3:2: note: declared here
    3 | int x;
/b/src/kernel/softirq.c:710:5: warning: unused variable 'y' [-Wunused-variable]
cc1: some warnings being treated as errors
";
    let found = read(text);
    assert_eq!(found.len(), 2);
    let first = &found[0];
    assert_eq!(first.location, Location { file: "kernel/softirq.c".into(), line: 705, column: Some(13) });
    assert_eq!(first.flag.as_deref(), Some("implicit-function-declaration"));
    assert!(first.werror && first.severity == Severity::Error);
    assert_eq!(first.function.as_deref(), Some("raise_timer_softirq"));
    assert_eq!(first.source.as_deref(), Some("if (local_pending_timers() && __this_cpu_read(timersd))"));
    assert_eq!(first.message, "implicit declaration of function 'local_pending_timers'");
    assert_eq!(first.text.len(), 8, "{:#?}", first.text);
    assert_eq!(first.text[0], "In file included from include/linux/kernel.h:5,");
    assert_eq!((found[1].severity, found[1].werror), (Severity::Warning, false));
}

#[test]
fn other_compilers_and_the_assembler() {
    let one = |text: &str| {
        let mut found = read(text);
        assert_eq!(found.len(), 1, "{text}");
        let found = found.remove(0);
        (found.location.file, found.location.line, found.severity, found.flag, found.message)
    };
    let flag = |text: &str| Some(text.to_owned());
    assert_eq!(
        one("a.c:3:1: error: unused function 'x' [-Werror,-Wunused-function]\n"),
        ("a.c".into(), 3, Severity::Error, flag("unused-function"), "unused function 'x'".into())
    );
    assert_eq!(
        one("/b/src/a.S: Assembler messages:\n/b/src/a.S:12: Error: no such instruction: `foo'\n"),
        ("a.S".into(), 12, Severity::Error, None, "no such instruction: `foo'".into())
    );
    assert_eq!(
        one("/b/src/a.c:1:10: fatal error: linux/gone.h: No such file or directory\n"),
        ("a.c".into(), 1, Severity::Error, None, "linux/gone.h: No such file or directory".into())
    );
    assert_eq!(
        one("a.c:5:9: warning: the frame size of 2064 bytes is larger than 2048 bytes [-Wframe-larger-than=]\n"),
        (
            "a.c".into(),
            5,
            Severity::Warning,
            flag("frame-larger-than"),
            "the frame size of 2064 bytes is larger than 2048 bytes".into()
        )
    );
    assert_eq!(
        one("gcc: error: unrecognized command-line option '-fno-such'\n"),
        (String::new(), 0, Severity::Error, None, "unrecognized command-line option '-fno-such'".into())
    );
}

#[test]
fn what_is_not_a_diagnostic_counts_for_nothing() {
    for text in [
        "cc1: all warnings being treated as errors\n",
        "compilation terminated.\n",
        "  CC      kernel/error.o\n",
        "error: nothing\n",
        "make[1]: *** [a.o] Error 1\n",
        "      | warning: quoted\n",
        ":1:2: error: \n",
        "",
    ] {
        assert_eq!(read(text), [], "{text}");
    }
}

#[test]
fn tools_around_the_compiler() {
    let rows: &[(&str, Tool, Severity, &str, Option<&str>)] = &[
        (
            "kernel/fork.o: warning: objtool: copy_process()+0x12: unreachable instruction",
            Tool::Objtool,
            Severity::Warning,
            "kernel/fork.o",
            Some("copy_process"),
        ),
        (
            "ERROR: modpost: \"foo\" [drivers/x.ko] undefined!",
            Tool::Modpost,
            Severity::Error,
            "drivers/x.ko",
            Some("foo"),
        ),
        (
            "WARNING: modpost: vmlinux.o: section mismatch in reference: a_fn (section: .text) -> b (section: .init.text)",
            Tool::Modpost,
            Severity::Warning,
            "vmlinux.o",
            Some("a_fn"),
        ),
        ("ERROR: \"bar\" [drivers/y.ko] undefined!", Tool::Modpost, Severity::Error, "drivers/y.ko", Some("bar")),
        ("drivers/x/Kconfig:12: syntax error", Tool::Kconfig, Severity::Error, "drivers/x/Kconfig", None),
        ("WARNING: unmet direct dependencies detected for FOO", Tool::Kconfig, Severity::Warning, "", Some("FOO")),
        ("fork.c:(.text+0x1): undefined reference to `gone'", Tool::Ld, Severity::Error, "fork.c", Some("gone")),
        ("aarch64-linux-gnu-ld: warning: orphan section", Tool::Ld, Severity::Warning, "", None),
        (
            "arch/arm64/x.dts:12.3-14.5: Warning (unit_address_vs_reg): /soc: no",
            Tool::Dtc,
            Severity::Warning,
            "arch/arm64/x.dts",
            None,
        ),
        (
            "scripts/Makefile.build:12: warning: overriding recipe for target 'x'",
            Tool::Make,
            Severity::Warning,
            "scripts/Makefile.build",
            None,
        ),
    ];
    for (line, tool, severity, file, symbol) in rows {
        let found = log(line, "/b/src", &roots());
        assert_eq!(found.len(), 1, "{line}");
        let it = &found[0].diagnostic;
        assert_eq!(
            (it.tool, it.severity, it.location.file.as_str(), it.function.as_deref()),
            (*tool, *severity, *file, *symbol),
            "{line}"
        );
    }
    let two = "ld: kernel/fork.o: in function `f':\nfork.c:(.text+0x1): undefined reference to `g'\n";
    assert_eq!(log(two, "/b/out", &roots())[0].diagnostic.location.file, "kernel/fork.o");
    assert_eq!(log("  CC      kernel/fork.o\nmake: Leaving directory\n", "/b/out", &roots()), []);
}

proptest! {
    #[test]
    fn any_text_gives_an_answer(text in "(a|:|1|: error: |: warning: |\\[-W|\\]| |\n|é|\u{1b}\\[1m|In function '|objtool|Kconfig|ld|undefined reference to ){0,40}") {
        let _ = read(&text);
        let _ = log(&text, "/b/out", &roots());
    }
}
