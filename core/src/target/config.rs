//! Kernel configurations: reading them, and telling two apart.
//!
//! Source of the format: what Kconfig's `conf` writes (`CONFIG_A=y`, `# CONFIG_B is not set`).

use std::collections::BTreeMap;

use crate::shared::SharedMap;

/// A configuration: symbol without `CONFIG_` to value.
pub type Config = BTreeMap<String, String>;

/// Reads a `.config` or a fragment; symbols that are switched off have the value `n`. Later lines win.
pub fn read(text: &str) -> Config {
    let mut config = Config::new();
    for line in text.lines() {
        let line = line.trim();
        if let Some((symbol, value)) = line.strip_prefix("CONFIG_").and_then(|rest| rest.split_once('=')) {
            config.insert(symbol.to_owned(), value.to_owned());
        } else if let Some(symbol) = line.strip_prefix("# CONFIG_").and_then(|rest| rest.strip_suffix(" is not set")) {
            config.insert(symbol.to_owned(), "n".to_owned());
        }
    }
    config
}

/// A configuration as it took effect: symbols that are off are left out.
pub fn effective(text: &str) -> Config {
    let mut config = read(text);
    config.retain(|_, value| value != "n");
    config
}

/// Symbols that were asked for and have another value: symbol to (asked, got).
pub fn not_effective(asked: &Config, got: &Config) -> BTreeMap<String, (String, String)> {
    let value = |symbol: &String| got.get(symbol).map_or("n", String::as_str);
    asked
        .iter()
        .filter(|(symbol, asked)| value(symbol) != asked.as_str())
        .map(|(symbol, asked)| (symbol.clone(), (asked.clone(), value(symbol).to_owned())))
        .collect()
}

/// What differs between the configurations of two states, `FOO: n -> y`, sorted. What the compiler is
/// (`CC_VERSION_TEXT`) is no part of it.
pub fn drift(before: &SharedMap<String>, after: &SharedMap<String>) -> Vec<String> {
    let value = |value: Option<&String>| value.map_or("n".to_owned(), Clone::clone);
    before.differences(after).map(|it| format!("{}: {} -> {}", it.key, value(it.before), value(it.after))).collect()
}

/// Whether a change of this path may change what Kconfig says: Kconfig files, default configurations, makefiles on its
/// way, and everything under `scripts/`, which Kconfig runs.
pub fn may_affect(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.starts_with("Kconfig")
        // Those of busybox and buildroot: Config.in, and Config.src of which it is made.
        || name.starts_with("Config.")
        || name.ends_with("config")
        || name.ends_with(".config")
        || path.starts_with("scripts/")
        || path == "Makefile"
        || (path.starts_with("arch/") && name.starts_with("Makefile"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_and_telling_apart() {
        let config = read("CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=\"x=y\"\n# text\nCONFIG_A=m\n");
        let pairs: Vec<_> = config.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(pairs, [("A", "m"), ("B", "n"), ("C", "\"x=y\"")]);
        let got = effective("CONFIG_A=y\n# CONFIG_B is not set\n");
        let missing = not_effective(&config, &got);
        assert_eq!(missing.keys().collect::<Vec<_>>(), ["A", "C"]);
        assert_eq!(missing["A"], ("m".to_owned(), "y".to_owned()));
        let (got, other) = ((&got).into(), (&effective("CONFIG_D=y\n")).into());
        assert_eq!(drift(&got, &other), ["A: y -> n", "D: n -> y"]);
        assert_eq!(drift(&got, &got), Vec::<String>::new());
    }

    #[test]
    fn paths_that_may_affect_it() {
        for (path, want) in [
            ("drivers/net/Kconfig", true),
            ("arch/s390/configs/defconfig", true),
            ("scripts/Kconfig.include", true),
            ("Makefile", true),
            ("arch/x86/Makefile", true),
            ("networking/Config.src", true),
            ("Config.in", true),
            ("drivers/net/Makefile", false),
            ("kernel/fork.c", false),
        ] {
            assert_eq!(may_affect(path), want, "{path}");
        }
    }
}
