//! Sizes as people write and read them.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Units, each 1,024 times the one before.
const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];

/// A number of bytes; shown as `1.5 GiB`, read as `20GiB`, `20 GiB` or `21474836480`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

/// A text that is not a size.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("'{0}' is not a size: give whole bytes, or a whole number of KiB, MiB, GiB or TiB, such as 20GiB")]
pub struct ParseBytesError(String);

impl FromStr for Bytes {
    type Err = ParseBytesError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseBytesError(text.chars().take(80).collect());
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let number: u64 = number.parse().map_err(|_| error())?;
        let unit = Some(unit.trim_start()).filter(|unit| !unit.is_empty()).unwrap_or("B");
        let power = UNITS.iter().position(|name| name.eq_ignore_ascii_case(unit)).ok_or_else(error)?;
        let factor = u32::try_from(power).ok().and_then(|power| 1024_u64.checked_pow(power));
        factor.and_then(|factor| number.checked_mul(factor)).map(Self).ok_or_else(error)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut factor = 1_u64;
        let mut unit = UNITS[0];
        for next in UNITS.iter().skip(1) {
            if self.0 / factor < 1024 {
                break;
            }
            factor *= 1024;
            unit = next;
        }
        if factor == 1 {
            return write!(f, "{} B", self.0);
        }
        // In whole tenths, cut: never more than there is.
        let tenths = (self.0 % factor).saturating_mul(10) / factor;
        write!(f, "{}.{tenths} {unit}", self.0 / factor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_read() {
        let table = [
            ("0", Some(0)),
            ("1023", Some(1023)),
            ("7B", Some(7)),
            ("1KiB", Some(1024)),
            ("20GiB", Some(20 << 30)),
            ("20 gib", Some(20 << 30)),
            ("16777215TiB", Some(16_777_215 << 40)),
            ("16777216TiB", None),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("", None),
            ("GiB", None),
            ("-1", None),
            ("+1", None),
            ("1.5GiB", None),
            ("20GB", None),
            ("20 GiB x", None),
            ("é", None),
        ];
        for (text, want) in table {
            assert_eq!(text.parse().ok(), want.map(Bytes), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown() {
        let table = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1023.9 KiB"),
            (20 << 30, "20.0 GiB"),
            (u64::MAX, "16777215.9 TiB"),
        ];
        for (bytes, want) in table {
            assert_eq!(Bytes(bytes).to_string(), want);
        }
    }

    proptest! {
        #[test]
        fn any_text_gives_an_answer(text in "\\PC*") {
            let _ = text.parse::<Bytes>();
        }

        #[test]
        fn any_size_is_shown(bytes in any::<u64>()) {
            prop_assert!(!Bytes(bytes).to_string().is_empty());
        }
    }
}
