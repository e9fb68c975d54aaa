//! Compilers: found by convention, identified by what they are.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use bombproof_core::digest::{Digest, DigestBuilder};
pub use bombproof_core::target::Toolchain;
use bombproof_core::target::{Build, Compiler, Kbuild, TargetSpec};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::shim::find;

/// The `PATH` of every build.
pub const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A compiler that is not there.
#[derive(Debug, Error, Serialize, Deserialize)]
#[error("target '{target}' needs '{program}', which is not installed")]
pub struct MissingTool {
    /// Which target.
    pub target: String,
    /// What it needs.
    pub program: String,
    /// The line that installs it, where one is known.
    pub install: Option<String>,
}

/// A program that builds need, and the Debian package that holds it.
const BUILD_TOOLS: &[(&str, &str)] = &[
    ("make", "make"),
    ("gcc", "gcc"),
    ("ld", "binutils"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("bc", "bc"),
    ("perl", "perl"),
    ("cpio", "cpio"),
    ("rsync", "rsync"),
];
/// A header that builds need, and the Debian package that holds it.
const BUILD_HEADERS: &[(&str, &str)] =
    &[("/usr/include/gelf.h", "libelf-dev"), ("/usr/include/openssl/evp.h", "libssl-dev")];

/// One thing that a target needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// Program or header.
    pub what: String,
    /// Where it was found.
    pub found: Option<PathBuf>,
    /// The Debian package that holds it.
    pub package: String,
    /// Nothing can be built without it; otherwise some configurations can.
    pub required: bool,
}

/// The programs by which a target's compilers are called; the first is the compiler.
pub fn programs(kbuild: &Kbuild) -> Vec<String> {
    let cross = |name: &str| format!("{}{name}", kbuild.cross_compile);
    match kbuild.compiler {
        Compiler::Gcc => vec![cross("gcc"), cross("ld"), cross("as"), cross("objcopy")],
        Compiler::Clang => ["clang", "ld.lld", "llvm-objcopy", "llvm-ar", "llvm-nm"].map(str::to_owned).to_vec(),
    }
}

/// The names that the shim takes for a target: its compiler, that of host programs, and checkers.
pub fn shim_names(kbuild: &Kbuild) -> Vec<String> {
    let mut names = vec!["gcc".to_owned(), "cc".to_owned(), "clang".to_owned(), "sparse".to_owned()];
    let compiler = programs(kbuild).swap_remove(0);
    if !names.contains(&compiler) {
        names.push(compiler);
    }
    names
}

fn package_of(kbuild: &Kbuild, program: &str) -> String {
    match kbuild.compiler {
        Compiler::Clang if program == "clang" => "clang".to_owned(),
        Compiler::Clang if program == "ld.lld" => "lld".to_owned(),
        Compiler::Clang => "llvm".to_owned(),
        Compiler::Gcc if kbuild.cross_compile.is_empty() && program == "gcc" => "gcc".to_owned(),
        Compiler::Gcc if kbuild.cross_compile.is_empty() => "binutils".to_owned(),
        Compiler::Gcc => kbuild.arch.debian_package().to_owned(),
    }
}

/// Everything that a target needs on this machine.
pub fn needs(spec: &TargetSpec) -> Vec<Need> {
    let path = OsStr::new(SYSTEM_PATH);
    let Build::Kbuild(kbuild) = &spec.build else { return Vec::new() };
    let compilers = programs(kbuild).into_iter().map(|program| Need {
        found: find(OsStr::new(&program), path),
        package: package_of(kbuild, &program),
        what: program,
        required: true,
    });
    let tools = BUILD_TOOLS.iter().map(|(program, package)| Need {
        what: (*program).to_owned(),
        found: find(OsStr::new(program), path),
        package: (*package).to_owned(),
        required: matches!(*program, "make" | "gcc" | "ld" | "flex" | "bison" | "bc"),
    });
    let headers = BUILD_HEADERS.iter().map(|(header, package)| Need {
        what: (*header).to_owned(),
        found: Path::new(header).exists().then(|| PathBuf::from(header)),
        package: (*package).to_owned(),
        required: false,
    });
    compilers.chain(tools).chain(headers).collect()
}

/// The line that installs these packages on Debian and its like.
pub fn install_line(packages: &[String]) -> Option<String> {
    let mut packages: Vec<&str> = packages.iter().map(String::as_str).filter(|package| !package.is_empty()).collect();
    packages.sort_unstable();
    packages.dedup();
    (!packages.is_empty()).then(|| format!("apt-get install --no-install-recommends {}", packages.join(" ")))
}

/// Finds the compiler of a target.
///
/// # Errors
/// When a program is missing.
pub fn find_toolchain(spec: &TargetSpec, remembered: &Path) -> Result<Toolchain, MissingTool> {
    let Build::Kbuild(kbuild) = &spec.build else {
        return Ok(Toolchain { version: String::new(), digest: Digest::of(b"command") });
    };
    let path = OsStr::new(SYSTEM_PATH);
    let needs = needs(spec);
    let missing: Vec<&Need> = needs.iter().filter(|need| need.required && need.found.is_none()).collect();
    if let Some(first) = missing.first() {
        let packages: Vec<String> = missing.iter().map(|need| need.package.clone()).collect();
        return Err(MissingTool {
            target: spec.name.to_string(),
            program: first.what.clone(),
            install: install_line(&packages),
        });
    }
    let mut files: Vec<PathBuf> =
        programs(kbuild).iter().chain(&["gcc".to_owned()]).filter_map(|name| find(OsStr::new(name), path)).collect();
    let compiler = files.first().cloned().unwrap_or_default();
    // gcc is a driver: the compiler proper lies elsewhere.
    for part in ["cc1", "collect2"] {
        if let Ok(output) = Command::new(&compiler).arg(format!("-print-prog-name={part}")).output() {
            let name = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
            if name.is_absolute() && name.is_file() {
                files.push(name);
            }
        }
    }
    let version = Command::new(&compiler).arg("--version").output().map(|output| output.stdout).unwrap_or_default();
    let version = String::from_utf8_lossy(&version).lines().next().unwrap_or_default().to_owned();
    let mut builder = DigestBuilder::new("bombproof/toolchain/v1").field(version.as_bytes());
    for file in &files {
        let digest = digest_of_file(file, remembered);
        builder = builder.field(file.as_os_str().as_encoded_bytes()).field(digest.to_string().as_bytes());
    }
    Ok(Toolchain { version, digest: builder.finish() })
}

/// The digest of a file's content; remembered by path, size and times, because a compiler has 30 MB.
fn digest_of_file(file: &Path, remembered: &Path) -> Digest {
    use std::os::unix::fs::MetadataExt;
    let real = file.canonicalize().unwrap_or_else(|_| file.to_owned());
    let Ok(kind) = std::fs::metadata(&real) else { return Digest::of(b"") };
    let key = format!("{} {} {} {} {}", real.display(), kind.len(), kind.mtime(), kind.ctime(), kind.ino());
    let note = remembered.join(Digest::of(key.as_bytes()).to_string());
    if let Some(digest) = std::fs::read_to_string(&note).ok().and_then(|text| text.parse().ok()) {
        return digest;
    }
    let digest = Digest::of(&std::fs::read(&real).unwrap_or_default());
    // Without the note it is only slower.
    let _ = bombproof_store::atomic::write(&note, digest.to_string().as_bytes());
    digest
}
