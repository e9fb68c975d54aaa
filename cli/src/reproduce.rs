//! `reproduce`: a shell script that builds one state on one target with git and make alone.

use std::fmt::Write;

use bombproof_core::target::{BaseConfig, Build};
use bombproof_store::home::Home;
use bombproof_worker::kbuild::{build_environment, make_variables};

use crate::args::OneArgs;
use crate::fail::{CLEAN, Fail};
use crate::stored::one;

pub(crate) fn run(home: &Home, args: &OneArgs) -> Result<u8, Fail> {
    let one = one(home, args)?;
    let (commit, tree) = one.request.states.get(one.patch.as_usize()).cloned().unwrap_or_default();
    let spec = one.request.targets.get(one.target).ok_or_else(|| Fail::machine("the run does not hold its targets"))?;
    let title = match one.report.series.patches.get(one.patch.as_usize().wrapping_sub(1)) {
        Some(patch) => format!("patch {} of {}: {}", one.patch, one.report.series.patches.len(), patch.subject),
        None => format!("the base {}", one.report.series.base.name),
    };
    let title: String = title.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut out = String::new();
    let _ = writeln!(
        out,
        "#!/bin/sh\n# Builds {title}\n# on {} with {}.",
        spec.name, one.report.targets[one.target].toolchain
    );
    let _ = writeln!(
        out,
        "# Usage: sh repro.sh [FOLDER]      git, make and the compiler are all it needs.\nset -eu\nunset MAKEFLAGS GIT_DIR GIT_WORK_TREE || true"
    );
    let folder = plain(&format!("bombproof-repro-{}-{}", one.patch, spec.name));
    let _ = writeln!(out, "dir=$(realpath -m \"${{1:-{folder}}}\")\nmkdir -p \"$dir/src\" \"$dir/out\"");
    let _ = writeln!(out, "# commit {commit}, tree {tree}");
    let objects = quote(&one.record.objects.display().to_string());
    let _ = writeln!(
        out,
        "if [ -e \"$dir/src/.complete\" ]; then\n    \
             [ \"$(cat \"$dir/src/.complete\")\" = {tree} ] || {{ echo \"$dir holds another tree: name another folder\" >&2; exit 64; }}\n\
         else\n    \
             git -C {objects} archive {tree} | tar x -C \"$dir/src\"\n    echo {tree} > \"$dir/src/.complete\"\nfi"
    );
    for (name, value) in build_environment() {
        let _ = writeln!(out, "export {name}={}", quote(&value));
    }
    match &spec.build {
        Build::Command { command } => {
            let _ = writeln!(out, "cd \"$dir/src\"\nexec sh -c {}", quote(command));
        }
        Build::Kbuild(kbuild) => {
            let words: Vec<String> = make_variables(kbuild).iter().map(|word| quote(word)).collect();
            let _ = writeln!(out, "run() {{ make -C \"$dir/src\" O=\"$dir/out\" {} \"$@\"; }}", words.join(" "));
            match &kbuild.base_config {
                BaseConfig::Goal(goal) => {
                    let _ = writeln!(out, "run {}", quote(goal));
                }
                BaseConfig::File(file) => here(&mut out, ">", &file.text),
            }
            for fragment in &kbuild.fragments {
                here(&mut out, ">>", &fragment.text);
            }
            let goals: Vec<String> = kbuild.goals.iter().map(|goal| quote(goal)).collect();
            let _ =
                writeln!(out, "run olddefconfig || yes '' | run oldconfig\nrun -k -j\"$(nproc)\" {}", goals.join(" "));
        }
    }
    crate::print(&out);
    Ok(CLEAN)
}

/// A file of the build folder, written or added to.
fn here(out: &mut String, arrow: &str, text: &str) {
    // The end mark must not stand in the text.
    let mut mark = "END_OF_CONFIG".to_owned();
    while text.contains(&mark) {
        mark.push('_');
    }
    let _ = writeln!(out, "cat {arrow} \"$dir/out/.config\" <<'{mark}'\n{}\n{mark}", text.trim_end_matches('\n'));
}

/// A name of which nothing means anything to a shell.
fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-+".contains(c) { c } else { '_' }).collect()
}

/// A word as a shell reads it back.
fn quote(word: &str) -> String {
    let plain = !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "._-+/=,:@%".contains(c));
    if plain { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}
