use proptest::prelude::*;

use super::*;

fn config() -> Autoconf {
    Autoconf::read("#define CONFIG_ON 1\n#define CONFIG_HZ 250\n")
}

fn reduced(text: &str) -> String {
    let text = reduce(text.as_bytes(), &config()).map(|it| it.text().to_vec());
    text.map_or_else(|refused| format!("refused: {refused}"), |text| String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn what_is_left_out_and_what_is_kept() {
    for (text, want) in [
        ("int a; /* x */\n\n  \nint b; // y\n", "int a;\nint b;\n"),
        ("int /* x */ a;\n", "int /* x */ a;\n"),
        ("/* a\n * b */ int c;\n", "/* a\n * b */ int c;\n"),
        ("int a;   \n\tint b;\n", "int a;\n\tint b;\n"),
        ("char *a = \"/* x */ // y\";\n", "char *a = \"/* x */ // y\";\n"),
        ("#ifdef CONFIG_ON\nint a;\n#else\nint b;\n#endif\n", "int a;\n"),
        ("#ifdef CONFIG_OFF\nint a;\n#else\nint b;\n#endif\n", "int b;\n"),
        ("#ifndef CONFIG_OFF\nint a;\n#endif\n", "int a;\n"),
        ("#if IS_ENABLED(CONFIG_OFF)\nint a;\n#elif CONFIG_HZ > 100\nint b;\n#else\nint c;\n#endif\n", "int b;\n"),
        ("#if defined(FOO)\nint a;\n#else\nint b;\n#endif\n", "#if defined(FOO)\nint a;\n#else\nint b;\n#endif\n"),
        ("#ifdef CONFIG_OFF\n#elif FOO\nint a;\n#else\nint b;\n#endif\n", "#if FOO\nint a;\n#else\nint b;\n#endif\n"),
        ("#ifdef CONFIG_OFF\n#if FOO\nint a;\n#endif\n#endif\nint b;\n", "int b;\n"),
        ("#if FOO\n#ifdef CONFIG_OFF\nint a;\n#endif\nint b;\n#endif\n", "#if FOO\nint b;\n#endif\n"),
        ("#define A(x) \\\n\tx\n", "#define A(x) \\\n\tx\n"),
        ("case 1:\n\tx();\n\t/* fall through */\ncase 2:\n", "case 1:\n\tx();\n\t/* fall through */\ncase 2:\n"),
        ("f\n#ifdef CONFIG_OFF\n#endif\n(1)\n", "f\n\u{1}a directive before (\n(1)\n"),
        ("f\n#ifdef CONFIG_OFF\n#endif\ng\n(1)\n", "f\ng\n(1)\n"),
        ("f\n#ifdef CONFIG_OFF\n#endif\n#if A\n(1)\n#endif\n", "f\n#if A\n(1)\n#endif\n"),
        ("int a;", "int a;\n\u{1}no newline\n"),
        ("#ifdef CONFIG_OFF\n#elif A == \\\n __LINE__\n#endif\n", "#if A ==  __LINE__\n\u{1}goes on\n#endif\n"),
        ("/* fall through */\n#ifdef CONFIG_OFF\n#endif\ncase 2:\n", "/* fall through */\n\u{1}a directive\ncase 2:\n"),
    ] {
        assert_eq!(reduced(text), want, "{text}");
    }
}

#[test]
fn lines_that_misleading_indentation_looks_at_leave_a_mark() {
    let body = "void f(void)\n{\n\tif (a)\n\t\tb();\nX\t\tc();\n}\n";
    let with = |line: &str| reduced(&body.replace('X', line));
    assert_eq!(with(""), with("\t\t/* as far */\n"));
    assert_ne!(with(""), with("\t/* less */\n"));
    assert_eq!(with("\t/* less */\n"), with("#ifdef CONFIG_OFF\n#endif\n"));
}

#[test]
fn what_is_not_clear_is_refused() {
    for text in [
        "#if 1\n",
        "#endif\n",
        "#else\n",
        "#ifdef CONFIG_ON\n#else\n#else\n#endif\n",
        "#ifdef CONFIG_ON\n#endif FOO\n",
        "#line 3\n",
        "# 1 \"a\"\n",
        "#pragma once\n",
        "int a = __COUNTER__ + sizeof(__TIME__);\n",
        "a\u{1}\n",
        "%:define A\n",
        "in\\\nt a;\n",
        "/* x\n",
        "R\"(x)\";\n",
        "int a = 1'000;\n",
        "#if __has_include(<a//b.h>)\n#endif\n",
        "#ifdef CONFIG_OFF\n#elif __has_include(<a//b.h>)\n#endif\n",
        "#include \"a\\\" /* x */\n",
        "#include <a\\b//c>\n",
        "#pragma GCC dependency \"a\"\n",
        "_Pragma(\"once\")\n",
        "#define A(a$b) a$b\n",
    ] {
        assert!(reduced(text).starts_with("refused"), "{text}: {}", reduced(text));
    }
    // Left open, not refused.
    assert!(reduced("#ifdef CONFIG_ON FOO\nint a;\n#endif\n").starts_with("#ifdef"));
    assert!(reduced("#if FOO\n#endif BAR\n").starts_with("#if"));
}

proptest! {
    #[test]
    fn any_text_gives_an_answer(text in "(#if |#ifdef |#else\n|#elif |#endif\n|CONFIG_ON|FOO|/\\*|\\*/|//|\\\\\n|\n|\"|'|\\(|\\)| |a){0,40}|.{0,60}") {
        if let Ok(reduced) = reduce(text.as_bytes(), &config()) {
            let macros: Vec<_> = reduced.macros().iter().collect();
            let sensitive = Sensitive::of(&macros, &|_| true);
            reduced.with_lines(&sensitive);
            let lines = reduced.text().iter().filter(|byte| **byte == b'\n').count();
            prop_assert_eq!(lines, reduced.lines.len());
        }
    }

    #[test]
    fn comments_blank_lines_and_dead_groups_change_nothing(
        lines in prop::collection::vec("(int a;|\\{|\\}|#define X 1|f\\(x\\);|#include <a.h>)", 1..12),
        at in any::<prop::sample::Index>(),
        what in prop::sample::select(vec!["\n", "/* some */\n", "// some\n", "/* a\n b */\n", "#ifdef CONFIG_OFF\nint z;\n#endif\n"]),
    ) {
        let plain: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let place = at.index(lines.len() + 1);
        let mut more = lines;
        more.insert(place, what.trim_end_matches('\n').to_owned());
        let more: String = more.iter().map(|line| format!("{line}\n")).collect();
        prop_assert_eq!(reduced(&plain), reduced(&more));
    }

    #[test]
    fn a_changed_token_is_always_seen(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "int a;\n",
                "#ifdef CONFIG_ON\nx = 1;\n#endif\n",
                "#ifdef CONFIG_OFF\nx = 2;\n#else\nx = 3;\n#endif\n",
                "#if FOO\n#ifndef CONFIG_ON\n#endif\n#else\n{\n#endif\n",
                "/* x */\n",
            ]),
            0..12,
        ),
    ) {
        let text = parts.concat();
        prop_assert!(!reduced(&text).starts_with("refused"));
        prop_assert_ne!(reduced(&format!("{text}int b;\n")), reduced(&format!("{text}int c;\n")));
    }
}
