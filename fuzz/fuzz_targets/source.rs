//! Sources and headers of a patch, and what is read of the configuration and of commands.
#![no_main]
use bombproof_core::source::macros::Sensitive;
use bombproof_core::source::symbols::config_symbols;
use bombproof_core::source::{Autoconf, Facts, Options, SearchPath, Texts, reduce};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let facts = Facts::of(data);
    let symbols = config_symbols(data);
    assert_eq!(facts.symbols, symbols, "options are named once");
    let text = String::from_utf8_lossy(data);
    let project = |text: &str| Options::read(text).project(symbols.iter().map(String::as_str));
    let projected = project(&text);
    assert_eq!(project(&projected), projected, "what is projected stays");
    let argv: Vec<String> = text.split(' ').map(str::to_owned).collect();
    SearchPath::of(&argv);
    // The text is its own configuration as well.
    for config in [Autoconf::unknown(), Autoconf::read("#define CONFIG_64BIT 1\n"), Autoconf::read(&text)] {
        let Ok(reduced) = reduce(data, &config) else { continue };
        let lines = |text: &[u8]| text.iter().filter(|byte| **byte == b'\n').count();
        assert!(lines(reduced.text()) <= lines(data) * 3 + 2, "a text does not grow");
        let macros: Vec<_> = reduced.macros().iter().collect();
        let is_word = |it| reduced.words().contains(&it);
        let sensitive = Sensitive::of(&macros, &is_word);
        assert_eq!(lines(&reduced.with_lines(&sensitive)), lines(reduced.text()), "numbers are no lines");
        let mut texts = Texts::new(config);
        assert!(texts.same("a", data, data), "a text is the same as itself");
    }
});
