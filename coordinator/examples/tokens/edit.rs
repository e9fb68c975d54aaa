//! Random edits of sources: most leave the tokens as they are, many look as if they did.

/// Numbers that look random, the same for the same seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        let mut made = Self(seed ^ 0x9e37_79b9_7f4a_7c15);
        for _ in 0..4 {
            made.next();
        }
        made
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mixed = (self.0 ^ (self.0 >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 29)
    }

    /// Below this, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).unwrap_or(0)
    }

    pub(crate) fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

/// Lines that are hard to read. `CONFIG_64BIT` is on and `CONFIG_ZZ` is not; names in `zz` are free.
pub(crate) const HARD: &[&[u8]] = &[
    b"#ifdef CONFIG_64BIT\n#define ZZ_A 1\n#else\n#define ZZ_A 2\n#endif\nZZ_A\n",
    b"#if 0\ndon't /* x */\n#endif\n",
    b"#if 0\ndon't /* x\n*/\n#endif\n",
    b"#ifdef CONFIG_ZZ\n\"open /* \n#endif\n/* */\n",
    b"BUG_ON(1);\n",
    b"WARN_ON(\n1\n);\n",
    b"WARN_ON\n(1)\n",
    b"int __UNIQUE_ID(zz);\n",
    b"int zz_line = __LINE__;\n",
    b"compiletime_assert(1, \"x\");\n",
    b"BUILD_BUG_ON(0);\n",
    b"#define zz_f(x) [x]\nzz_f\n#ifdef CONFIG_ZZ\n#endif\n(1)\n",
    b"#define zz_g(x, y) [x y __LINE__]\nzz_g\n(1,\n2)\nzz_g(1,\n\n2\n)\n",
    b"#define zz_id(x) x\nzz_id(\n1,\n__LINE__\n)\nzz_id(zz_id)\n(\n__LINE__)\n",
    b"char *zz_s = \"// /* \\\" \";\n",
    b"char zz_c = '\"'; char zz_d = '\\'';\n",
    b"\"abc \\\n def\" WARN_ON(1) \"\n",
    b"\"zz \\\n __LINE__\" __LINE__ '\\\n'\n",
    b"\xff\xfe\n",
    b"zz\xc3\xa9 = 1;\n",
    b"/* zz\xc3\xa9 */\n",
    b"zz ??/\n zz\n",
    b"??=define ZZ_T 1\n",
    b"%:define ZZ_D 1\nZZ_D\n",
    b"<: :> <% %> %:%:\n",
    b"#ifdef CONFIG_ZZ\n#include <linux/zz.h>\n#endif\n",
    b"#undef CONFIG_64BIT\n",
    b"#define CONFIG_ZZ 1\n",
    b"#ifdef CONFIG_ZZ\n#define CONFIG_ZZ2 1\n#endif\n",
    b"#undef IS_ENABLED\n#define IS_ENABLED(x) 1\n",
    b"#if defined CONFIG_ZZ || defined ( CONFIG_64BIT )\nzz_1\n#else\nzz_2\n#endif\n",
    b"#if defined(CONFIG_64BIT) && ZZ_A\nzz_3\n#endif\n",
    b"#if IS_ENABLED(CONFIG_64BIT) == 0\nzz_4\n#elif !defined(CONFIG_ZZ) && (1 < 2)\nzz_5\n#else\nzz_6\n#endif\n",
    b"#if CONFIG_ZZ\nzz_7\n#endif\n",
    b"#if __has_attribute(noreturn)\nzz_8\n#endif\n",
    b"#define zz_v(a, ...) a __VA_OPT__(,) __VA_ARGS__\nzz_v(1, __LINE__)\nzz_v(1,\n2,\n__LINE__)\n",
    b"_Pragma(\"GCC diagnostic push\")\n",
    b"#pragma GCC poison zz_poison\n",
    b"#line 77\n",
    b"#if 0\n#line 78\n#endif\n",
    b"#ident \"zz\"\n",
    b"#ifdef CONFIG_ZZ\n#error don't\n#endif\n",
    b"#ifdef CONFIG_64BIT\n#warning don't /* x */\n#endif\n",
    b"#ifdef CONFIG_ZZ\n#zz unknown\n#endif\n",
    b"#define zz_cat(a, b) a##b\nzz_cat(__LI, NE__)\nzz_cat(WARN_, ON)(1)\n",
    b"#define zz_cat2(a, b) a##b\n#define zz_cat3(a, b) zz_cat2(a, b)\nzz_cat3(__L, zz_cat2(IN, E__))\n",
    b"#define zz_open zz_id(\n#define zz_id(x) x\nzz_open 1,\n__LINE__)\n\n__LINE__\n",
    b"#define zz_obj WARN_ON\nzz_obj\n(1)\n",
    b"#define zz_a zz_b\n#define zz_b(x) zz_l x\n#define zz_l __LINE__\nzz_a\n\n(\n1)\nzz_a;\n",
    b"__COUNTER__\n",
    b"/* a */ #define zz_k 1 /* b\n c */\nzz_k\n",
    b"#if 0 /* x\n*/\nzz_9\n#endif // y\n",
    b"#if 1 // zz \\\n#endif\nzz_9\n#endif\n",
    b"#define zz_m(x) /* c */ x \\\n /* d */ + x\nzz_m(\n__LINE__)\n",
    b"zz_10 \\\n // \\\n zz_11\n",
    b"/\\\n* zz */\n",
    b"zz_12 // c \\\n zz_13\n",
    b"zz_14 // it's \\\n /* \nzz_15 /* */\n",
    b"#if 1\n#elif __LINE__ > 5\n#endif\n",
    b"#ifdef CONFIG_ZZ\n#elif __LINE__ % 2\nzz_16\n#endif\n",
    b"#ifdef CONFIG_ZZ\n#elif zz_cond \\\n || __LINE__ % 2\nzz_16\n#endif\n",
    b"#if __COUNTER__ % 2\nzz_17\n#endif\n",
    b"#pragma push_macro(\"CONFIG_64BIT\")\n",
    b"#pragma pop_macro(\"CONFIG_64BIT\")\n",
    b"#ifndef ZZ_GUARD\n#define ZZ_GUARD\nzz_18\n#else\nzz_19\n#endif\n",
    b"#\n",
    b"# /* x */ /* y\n */ define zz_n(x) #x\nzz_n(/* a */ 1 /* b */)\n",
    b"#define zz_e\nzz_e zz_id(zz_e\n#ifdef CONFIG_64BIT\n1,\n#else\n2,\n#endif\n__LINE__)\n",
    b"zz_id((1,\n#if 0\n)\n#endif\n__LINE__)\n)\n",
    b"#if ZZ_X\nzz_id(1,\n#else\nzz_id(2,\n#endif\n\n__LINE__)\n",
    b"#if '\\'' == 39 && \"\nzz\n#endif\n",
    b"1'000 + 2'0\n",
    b"0x1.p+__LINE__ .5__LINE__ 1__LINE__\n",
    b"L'a' u8\"x\" R\"(a // )\" b\n",
    b"R\"(a\n/* )\" */\n",
    b"\\\n",
    b"zz_20 \\  \n zz_21\n",
    b"@ ` $zz zz$__LINE__ \\ \n",
    b"#define zz$q __LINE__\nzz$q\n",
    b"\x0c\n\x0b#\x0cifdef CONFIG_ZZ\n#endif\n",
    b"\r\n",
    b"#if 0\n#if zz(\n#else garbage\n#endif\n#elif\n#endif\n",
    b"#include_next <linux/zz.h>\n",
    b"#include <linux//kconfig.h>\n",
    b"#include \"linux/*zz.h\" /* */\n",
    b"#ifdef CONFIG_64BIT /* a */ // b\nzz_22\n#endif /* c\nd */\n",
    b"#if (defined(CONFIG_64BIT))\\\n && \\\n 1\nzz_23\n#endif\n",
    b"#if !IS_BUILTIN(CONFIG_64BIT) || IS_MODULE(CONFIG_ZZ)\nzz_24\n#else\nzz_25\n#endif\n",
    b"#if 0x10 == 020u && 16ul >= 1\nzz_26\n#else\nzz_27\n#endif\n",
    b"#ifdef CONFIG_64BIT zz\nzz_28\n#endif\n",
    b"case 1: /* fall through */\n#ifdef CONFIG_ZZ\n#endif\ncase 2:\n",
    b"#define zz_strange(x...) f(x, ##x) __LINE__\nzz_strange()\nzz_strange(1,\n2)\n",
    b"if (zz)\n\tzz_29();\n\t\tzz_30();\n",
];

/// What takes no part in the tokens, if it stands on lines of its own.
const NEUTRAL: &[&[u8]] = &[
    b"\n",
    b"\n\n\n",
    b" \t\n",
    b"/* some words */\n",
    b"/* some\n * more\n */\n",
    b"// some words\n",
    b"#ifdef CONFIG_ZZ\n#endif\n",
    b"#ifdef CONFIG_ZZ\nzz_dead\n#endif\n",
    b"#ifdef CONFIG_ZZ\n#include <zz.h>\n# define zz_dead(x) __LINE__\n#endif\n",
    b"#ifndef CONFIG_64BIT\n#error zz\n#endif\n",
    b"#if 0\nzz \"dead\"\n#elif 0\n#endif\n",
    b"#if IS_ENABLED(CONFIG_ZZ)\n#if zz\n#else\n#endif\n#else\n#endif\n",
    b"#if 1\n#endif\n",
    b"  /* a */ /* b */ // c\n",
];

/// Bytes and pieces of tokens that may change what stands around them.
const PIECES: &[&[u8]] = &[
    b"/**/",
    b"/*",
    b"*/",
    b"//",
    b"\\\n",
    b"\\",
    b"\"",
    b"'",
    b"(",
    b")",
    b"#",
    b"##",
    b" ",
    b"\t",
    b"\n",
    b"zz",
    b"__LINE__",
    b"1",
    b",",
    b"{",
    b"}",
    b";",
    b"\x01",
    b"\xc3\xa9",
    b"?",
    b"%:",
    b"$",
    b" /* it's */ ",
    b"\\\n\\\n",
    b"/* \\\n */",
    b"/* a\nb */",
];

fn starts(text: &[u8]) -> Vec<usize> {
    let ends = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    std::iter::once(0).chain(ends).collect()
}

fn insert(text: &[u8], at: usize, what: &[u8]) -> Vec<u8> {
    [&text[..at], what, &text[at..]].concat()
}

/// Puts something hard to read into a text.
pub(crate) fn harden(text: &[u8], random: &mut Random) -> Vec<u8> {
    let starts = starts(text);
    insert(text, starts[random.below(starts.len())], random.pick(HARD))
}

/// Edits a text.
pub(crate) fn edit(text: &[u8], random: &mut Random) -> Vec<u8> {
    let starts = starts(text);
    let number = random.below(starts.len());
    let from = starts[number];
    let to = starts.get(number + 1).copied().unwrap_or(text.len());
    let line = &text[from..to];
    match random.below(24) {
        0..=8 => insert(text, from, random.pick(NEUTRAL)),
        // A line that is blank or only a comment goes.
        9..=11 => {
            let blank = |place: usize| {
                let line = &text[starts[place]..starts.get(place + 1).copied().unwrap_or(text.len())];
                let line = line.trim_ascii();
                line.is_empty() || line.starts_with(b"/*") && line.ends_with(b"*/") || line.starts_with(b"//")
            };
            let places: Vec<usize> = (0..starts.len()).filter(|place| blank(*place)).collect();
            let Some(place) = places.get(random.below(places.len())).copied() else { return text.to_vec() };
            let end = starts.get(place + 1).copied().unwrap_or(text.len());
            [&text[..starts[place]], &text[end..]].concat()
        }
        // Something behind the line.
        12 | 13 => {
            let behind: &[&[u8]] = &[b" ", b"\t", b" /* x */", b" // x", b" /* x\n y */", b" /* it's \" */ "];
            insert(text, to.saturating_sub(1).max(from), random.pick(behind))
        }
        14 => [&text[..from], &text[to..]].concat(),
        15 => insert(text, from, line),
        16 => {
            let next = starts.get(number + 2).copied().unwrap_or(text.len());
            [&text[..from], &text[to..next], line, &text[next..]].concat()
        }
        // Some lines become a group.
        17 => {
            let last = (number + 1 + random.below(6)).min(starts.len() - 1);
            let groups: &[(&[u8], &[u8])] = &[
                (b"#if 1\n", b"#endif\n"),
                (b"#ifdef CONFIG_64BIT\n", b"#endif /* x */\n"),
                (b"#ifdef CONFIG_ZZ\nzz_dead\n#else\n", b"#endif\n"),
                (b"#if !IS_ENABLED(CONFIG_ZZ)\n", b"#else\nzz_dead(\n#endif\n"),
                (b"#ifdef CONFIG_ZZ\n", b"#endif\n"),
                (b"#if 0\n", b"#endif\n"),
            ];
            let (open, close) = groups[random.below(groups.len())];
            [&text[..from], open, &text[from..starts[last].max(from)], close, &text[starts[last].max(from)..]].concat()
        }
        // A parenthesis goes to the next line.
        18 | 19 => {
            let calls: Vec<usize> =
                (1..text.len()).filter(|at| text[*at] == b'(' && text[at - 1].is_ascii_alphanumeric()).collect();
            if calls.is_empty() {
                return text.to_vec();
            }
            let what: &[&[u8]] = &[
                b"\n",
                b"\n#ifdef CONFIG_ZZ\n#endif\n",
                b"\n/* x */\n",
                b"\n#if 1\n#endif\n/* y */",
                b" \\\n",
                b"\n#if 0\n#endif\n\n /**/",
                b"\n#ifdef CONFIG_64BIT\n",
            ];
            insert(text, calls[random.below(calls.len())], random.pick(what))
        }
        20 => harden(text, random),
        21 => insert(text, from, b"#define zz_unused 1\n"),
        _ => insert(text, random.below(text.len() + 1), random.pick(PIECES)),
    }
}
