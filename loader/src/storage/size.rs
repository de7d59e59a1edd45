//! Numbers of bytes as people read them.

use std::fmt;

/// A number of bytes that is shown in the unit that suits it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size(pub(super) u64);

impl fmt::Display for Size {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
        let unit = (self.0.max(1).ilog2() / 10).min(4);
        let value = self.0 as f64 / (1_u64 << (10 * unit)) as f64;
        write!(out, "{value:.1} {}", UNITS[unit as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_in_their_units() {
        for (bytes, text) in [
            (0, "0.0 B"),
            (1023, "1023.0 B"),
            (1536, "1.5 KiB"),
            (256 << 20, "256.0 MiB"),
            (140 << 30, "140.0 GiB"),
            (3 << 40, "3.0 TiB"),
        ] {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }
}
