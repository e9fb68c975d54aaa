//! Small texts of hard lines, and edits in them.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bombproof_core::source::{Autoconf, Facts, Texts, reduce};

use super::edit::{self, Random};
use super::{Count, Failed, THREADS, keep, preprocess, say};

const AUTOCONF: &str =
    "#define CONFIG_64BIT 1\n#define CONFIG_HZ 250\n#define CONFIG_MOD_MODULE 1\n#define CONFIG_NAME \"x\"\n";

/// What hard lines use.
const HEAD: &str = "#define zz_id(x) x\n#define WARN_ON(x) ({ zz_warn(x, __LINE__, #x); })\n#define BUG_ON(x) if (x) WARN_ON(x)\n\
#define zz_paste(a, b) a##b\n#define zz_paste2(a, b) zz_paste(a, b)\n#define __UNIQUE_ID(x) zz_paste2(x, __COUNTER__)\n\
#define compiletime_assert(x, y) zz_paste2(zz_assert_, __LINE__)(x, y)\n#define BUILD_BUG_ON(x) compiletime_assert(!(x), #x)\n";

/// Lines like any other.
const PLAIN: &[&[u8]] = &[
    b"int a;\n",
    b"\tb = zz_id(1);\n",
    b"f(a,\n  b);\n",
    b"zz_id(a,\n  b)\n",
    b"WARN_ON(a);\n",
    b"{\n",
    b"}\n",
    b"zz_id\n",
    b"(1)\n",
    b"zz_id(\n",
    b")\n",
    b"\n",
    b"/* x */\n",
    b"#define X 1\n",
    b"#include \"c.h\"\n",
    b"zz_id(zz_id)(zz_id)\n",
    b"CONFIG_HZ CONFIG_NAME CONFIG_ZZ\n",
    b"#undef X\n",
];

const OPEN: &[&[u8]] = &[
    b"#ifdef X\n",
    b"#ifdef CONFIG_ZZ\n",
    b"#ifndef CONFIG_ZZ\n",
    b"#if CONFIG_HZ > 100\n",
    b"#if IS_ENABLED(CONFIG_MOD)\n",
    b"#if !defined(CONFIG_64BIT) || X\n",
    b"#if __LINE__ % 2\n",
    b"#if 0\n",
];

const NEXT: &[&[u8]] = &[
    b"#else\n",
    b"#elif defined(X)\n",
    b"#elif IS_MODULE(CONFIG_MOD)\n",
    b"#elif __LINE__ % 2\n",
    b"#elif zz_id\\\n(__LINE__ % 2)\n",
];

fn make(random: &mut Random, lines: usize, depth: usize) -> Vec<u8> {
    let mut text = Vec::new();
    for _ in 0..=random.below(lines) {
        if depth < 3 && random.below(5) == 0 {
            text.extend_from_slice(random.pick(OPEN));
            text.extend(make(random, lines.div_ceil(3), depth + 1));
            if random.below(2) == 0 {
                text.extend_from_slice(random.pick(NEXT));
                text.extend(make(random, lines.div_ceil(3), depth + 1));
            }
            text.extend_from_slice(b"#endif\n");
            continue;
        }
        let from = if random.below(3) == 0 { edit::HARD } else { PLAIN };
        let line = random.pick(from);
        // A file that includes itself twice never ends. Most texts are no use if anything in them is refused.
        let refused = reduce(line, &Autoconf::unknown()).is_err() && random.below(16) > 0;
        if !refused && (lines > 3 || !line.starts_with(b"#include")) {
            text.extend_from_slice(line);
        }
    }
    text
}

pub(super) fn run(kconfig: &Path, seed: u64, count: usize) -> Result<usize, Failed> {
    let scratch = tempfile::tempdir()?;
    let spent = Mutex::new(Duration::ZERO);
    let total = Mutex::new(Count::default());
    let refusals = AtomicUsize::new(0);
    let jobs: Vec<u64> = (0..count as u64).map(|number| seed.wrapping_mul(1_000_003).wrapping_add(number)).collect();
    for thread in 0..THREADS {
        std::fs::create_dir_all(scratch.path().join(format!("{thread}/generated")))?;
        std::fs::write(scratch.path().join(format!("{thread}/generated/autoconf.h")), AUTOCONF)?;
    }
    super::each(jobs, |thread, seed| {
        let folder = scratch.path().join(thread.to_string());
        let mut random = Random::new(seed);
        let assembler = random.below(3) == 0;
        let name = if assembler { "a.S" } else { "a.c" };
        let include: &[u8] = b"#include \"b.h\"\n";
        let mut files = vec![
            (name, [HEAD.as_bytes(), include, &make(&mut random, 12, 0)].concat()),
            ("b.h", make(&mut random, 6, 0)),
            ("c.h", make(&mut random, 3, 0)),
        ];
        let place = random.below(3);
        let before = files[place].1.clone();
        let mut after = before.clone();
        for _ in 0..=random.below(3) {
            after = edit::edit(&after, &mut random);
        }
        let fixed = std::fs::read(kconfig)?;
        let mut redefined = std::collections::BTreeSet::new();
        for text in files.iter().map(|(_, text)| text).chain([&after]) {
            redefined.extend(Facts::of(text).redefines);
        }
        let mut texts = Texts::new(Autoconf::read(AUTOCONF).doubting(&redefined));
        texts.take("kconfig.h", &fixed);
        texts.take("autoconf.h", AUTOCONF.as_bytes());
        for (path, text) in &files {
            texts.take(path, text);
        }
        let says = texts.same(files[place].0, &before, &after) && !texts.refuses_any();
        if texts.refuses_any() {
            refusals.fetch_add(1, Ordering::Relaxed);
        }
        if !says && random.below(4) > 0 {
            return Ok(());
        }
        let mut argv: Vec<String> =
            ["gcc", "-E", "-nostdinc", "-Wall", "-Wextra", "-Wundef", "-std=gnu11", "-I.", "-include"]
                .map(str::to_owned)
                .into();
        argv.extend([kconfig.to_string_lossy().into_owned(), name.to_owned()]);
        let mut truths = Vec::new();
        for version in [&before, &after] {
            files[place].1.clone_from(version);
            for (path, text) in &files {
                std::fs::write(folder.join(path), text)?;
            }
            truths.push(preprocess(&argv, &folder, &spent)?);
        }
        let truth = truths[0].0 == truths[1].0;
        total.lock().map_err(|_| "poisoned")?.add(says, truth);
        if says && !truth {
            keep(&format!("{seed}"), files[place].0, &before, &after)?;
            keep(&format!("{seed}.E"), "what gcc -E says", &truths[0].1, &truths[1].1)?;
        }
        Ok(())
    })?;
    let total = total.into_inner().map_err(|_| "poisoned")?;
    say(&format!("{count} made up, in {} a text is refused; compared: {total}", refusals.into_inner()));
    Ok(total.unsound)
}
