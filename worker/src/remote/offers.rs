//! What a worker has: every compiler of every architecture that is known.

use std::collections::BTreeSet;

use bombproof_core::digest::Digest;
use bombproof_core::farm::{Capabilities, Platform};
use bombproof_core::id::TargetName;
use bombproof_core::order::Offer;
use bombproof_core::target::{Arch, BaseConfig, Build, Compiler, Kbuild, TargetSpec, Toolchain};
use bombproof_store::home::Home;

use crate::sandbox::Launcher;
use crate::toolchain::find_toolchain;

/// A target that asks for a compiler, and for nothing else.
fn asking(arch: &Arch, compiler: Compiler, prefix: &str) -> TargetSpec {
    TargetSpec {
        name: TargetName::from("offer"),
        timeout_s: 60,
        build: Build::Kbuild(Kbuild {
            arch: arch.clone(),
            compiler,
            cross_compile: prefix.to_owned(),
            base_config: BaseConfig::Goal("defconfig".to_owned()),
            fragments: Vec::new(),
            make_args: Vec::new(),
            goals: Vec::new(),
        }),
    }
}

/// The toolchain of a target where builds run; `None`: it is not there.
pub(super) async fn toolchain(launcher: &Launcher, home: &Home, spec: &TargetSpec) -> Option<Toolchain> {
    match launcher {
        Launcher::Containers(containers) => containers.toolchain(spec).await.ok()?.ok(),
        Launcher::Here(_) => {
            let (spec, remembered) = (spec.clone(), home.toolchains());
            tokio::task::spawn_blocking(move || find_toolchain(&spec, &remembered).ok()).await.ok()?
        }
    }
}

/// All compilers that are there.
pub(super) async fn find(launcher: &Launcher, home: &Home) -> Vec<Offer> {
    let own = Arch::parse(std::env::consts::ARCH);
    let arches: BTreeSet<Arch> = Arch::known_names().filter_map(Arch::parse).collect();
    let mut offers = Vec::new();
    for arch in arches {
        let mut ways = vec![(Compiler::Clang, String::new())];
        if own.as_ref() == Some(&arch) {
            ways.push((Compiler::Gcc, String::new()));
        }
        if let Some(triplet) = arch.triplet() {
            ways.push((Compiler::Gcc, format!("{triplet}-")));
        }
        for (compiler, prefix) in ways {
            let spec = asking(&arch, compiler, &prefix);
            if let Some(toolchain) = toolchain(launcher, home, &spec).await {
                offers.push(Offer { arch: arch.clone(), compiler, prefix, toolchain });
            }
        }
    }
    offers
}

/// What that comes to for the queue.
pub(super) fn capabilities(offers: &[Offer], slots: u32, step_slots: u32) -> Capabilities {
    // Commands of users need no compiler that we know of.
    let any = Platform { arch: None, toolchain: Digest::of(b"command") };
    let platforms = offers.iter().map(Offer::platform).chain([any]).collect();
    Capabilities { platforms, slots, step_slots }
}
