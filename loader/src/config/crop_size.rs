//! `data.crop_size`: one side for the whole run, or sides that begin at given epochs.

use std::fmt;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The side of the crops in each epoch, in pixels: `224`, or by first epoch, `{0: 112, 80: 224}`.
///
/// It has a size for every epoch. What means the same is equal: a map of one size is that size. Inside are the phases:
/// first epochs with their sizes, ascending from epoch 0, no size equal to the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CropSize(Vec<(u64, u32)>);

impl CropSize {
    /// Returns the size in `epoch`, counted from 0.
    pub fn at(&self, epoch: u64) -> u32 {
        let phase = self.0.iter().rfind(|(first, _)| *first <= epoch);
        phase.expect("one begins at epoch 0").1
    }

    /// Returns the largest size of the run.
    pub fn largest(&self) -> u32 {
        let sizes = self.0.iter().map(|(_, size)| *size);
        sizes.max().expect("one begins at epoch 0")
    }

    /// Returns each size with the epoch from which on it holds.
    pub fn phases(&self) -> &[(u64, u32)] {
        &self.0
    }

    /// Returns the sizes of `epoch` and of all later ones.
    pub fn from_epoch(&self, epoch: u64) -> impl Iterator<Item = u32> {
        let later = self.0.iter().filter(move |(first, _)| *first > epoch);
        std::iter::once(self.at(epoch)).chain(later.map(|(_, size)| *size))
    }

    /// Returns the key that gives the size of a phase.
    pub(super) fn key(&self, first_epoch: u64) -> String {
        match self.0.len() {
            1 => "data.crop_size".to_owned(),
            _ => format!("data.crop_size.{first_epoch}"),
        }
    }

    /// Takes phases in any order.
    fn of(mut phases: Vec<(u64, u32)>) -> Result<CropSize, String> {
        phases.sort_by_key(|(first, _)| *first);
        if let Some(pair) = phases.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(format!("epoch {} stands here twice", pair[0].0));
        }
        match phases.first() {
            Some((0, _)) => {}
            Some((first, _)) => {
                return Err(format!(
                    "the first size begins at epoch {first}, and epoch 0 has none"
                ));
            }
            None => return Err("no size at all".to_owned()),
        }
        phases.dedup_by_key(|(_, size)| *size);
        Ok(CropSize(phases))
    }
}

impl From<u32> for CropSize {
    fn from(size: u32) -> CropSize {
        CropSize(vec![(0, size)])
    }
}

impl Serialize for CropSize {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if let [(_, size)] = self.0[..] {
            return size.serialize(to);
        }
        let mut map = to.serialize_map(Some(self.0.len()))?;
        for (first, size) in &self.0 {
            map.serialize_entry(first, size)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for CropSize {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<CropSize, D::Error> {
        struct Sizes;

        impl<'de> Visitor<'de> for Sizes {
            type Value = CropSize;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(
                    "a size in pixels, or sizes by their first epochs as {0: 112, 80: 224}",
                )
            }

            fn visit_u64<E: serde::de::Error>(self, size: u64) -> Result<CropSize, E> {
                let size = u32::try_from(size);
                let size = size.map_err(|_| E::custom("far more pixels than a crop may have"))?;
                Ok(size.into())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<CropSize, A::Error> {
                let mut phases = Vec::new();
                while let Some((epoch, size)) = map.next_entry::<String, u32>()? {
                    let first = epoch.parse().map_err(|_| {
                        A::Error::custom(format_args!("`{epoch}` is no number of an epoch"))
                    })?;
                    phases.push((first, size));
                }
                CropSize::of(phases).map_err(A::Error::custom)
            }
        }

        from.deserialize_any(Sizes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{config, parsed};

    fn read(text: &str) -> CropSize {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_size_holds_from_its_first_epoch_until_the_next() {
        let sizes = read(r#"{"80": 224, "0": 112, "100": 448, "9": 128}"#);
        let at = |epochs: &[u64]| Vec::from_iter(epochs.iter().map(|&epoch| sizes.at(epoch)));
        assert_eq!(
            at(&[0, 8, 9, 79, 80, 99, 100]),
            [112, 112, 128, 128, 224, 224, 448]
        );
        assert_eq!(sizes.at(u64::MAX), 448);
        assert_eq!(sizes.largest(), 448);
        assert_eq!(Vec::from_iter(sizes.from_epoch(9)), [128, 224, 448]);
        assert_eq!(Vec::from_iter(sizes.from_epoch(1000)), [448]);
        assert_eq!(read("{\"0\": 448, \"3\": 64}").largest(), 448);
        // In the order of the epochs, not of their digits: this text is hashed.
        let json = serde_json::to_string(&sizes).unwrap();
        assert_eq!(json, r#"{"0":112,"9":128,"80":224,"100":448}"#);
        assert_eq!(read(&json), sizes);
    }

    #[test]
    fn what_means_the_same_is_written_the_same() {
        let constant = CropSize::from(224);
        assert_eq!(serde_json::to_string(&constant).unwrap(), "224");
        for text in ["224", r#"{"0": 224}"#, r#"{"0": 224, "7": 224}"#] {
            assert_eq!(read(text), constant, "{text}");
        }
        let back = read(r#"{"0": 112, "5": 224, "6": 224, "7": 112}"#);
        assert_eq!(back.phases(), [(0, 112), (5, 224), (7, 112)]);
    }

    #[test]
    fn what_gives_no_size_to_every_epoch_is_refused() {
        for (text, words) in [
            ("{}", "no size at all"),
            (
                r#"{"5": 112}"#,
                "the first size begins at epoch 5, and epoch 0 has none",
            ),
            (r#"{"0": 112, "00": 224}"#, "epoch 0 stands here twice"),
            (r#"{"-1": 112}"#, "`-1` is no number of an epoch"),
            (r#"{"0": 112, "2.5": 224}"#, "`2.5` is no number"),
            (r#"{"0": 112, "80": "many"}"#, "expected u32"),
            (r#"{"0": 112, "80": null}"#, "expected u32"),
            (
                "[112, 224]",
                "sizes by their first epochs as {0: 112, 80: 224}",
            ),
            ("-5", "sizes by their first epochs"),
            ("99999999999", "far more pixels"),
        ] {
            let error = serde_json::from_str::<CropSize>(text)
                .unwrap_err()
                .to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn a_file_and_the_command_line_may_say_sizes_by_epoch() {
        let in_a_file = "data:\n  batch_size: 64\n  crop_size:\n    0: 128\n    80: 224\nmask: {patch_size: 16}";
        let wanted = read(r#"{"0": 128, "80": 224}"#);
        for (text, sets) in [
            (in_a_file, &[][..]),
            (
                "data: {batch_size: 64, crop_size: {0: 128, 80: 224}}\nmask: {patch_size: 16}",
                &[],
            ),
            (
                "data: {batch_size: 64, crop_size: 96}\nmask: {patch_size: 16}",
                &["data.crop_size={0: 128, 80: 224}"],
            ),
            (
                "data: {batch_size: 64, crop_size: {0: 128, 80: 96}}\nmask: {patch_size: 16}",
                &["data.crop_size.80=224"],
            ),
        ] {
            assert_eq!(
                parsed(text, sets).unwrap().data.crop_size,
                wanted,
                "{text} {sets:?}"
            );
        }
        let twice = "data: {batch_size: 64, crop_size: {0: 128, 0: 224}}\nmask: {patch_size: 16}";
        let message = parsed(twice, &[]).unwrap_err().to_string();
        assert!(message.contains("the key 0 stands here twice"), "{message}");
    }

    #[test]
    fn every_size_is_checked_and_named_with_its_epoch() {
        let message = |set: &str| config(14, &[set]).unwrap_err().to_string();
        for (set, beginning) in [
            (
                "data.crop_size={0: 112, 80: 225}",
                "--set data.crop_size.80: 225 is not a multiple of mask.patch_size 16",
            ),
            (
                "data.crop_size={0: 112, 80: 0}",
                "--set data.crop_size.80: 0 is outside 1..=",
            ),
            (
                "data.crop_size={0: 112, 80: 99999}",
                "--set data.crop_size.80: 99999 is outside 1..=",
            ),
            (
                "data.crop_size={0: 8, 80: 112}",
                "mask.patch_size: 16 is outside 1..=8",
            ),
            (
                "data.crop_size={3: 112}",
                r#"--set data.crop_size: {"3":112} does not fit: the first size"#,
            ),
            (
                "data.crop_size={0: 112, x: 224}",
                r#"--set data.crop_size: {"0":112,"x":224} does not fit: `x`"#,
            ),
            (
                "data.crop_size={0: 112, 80: big}",
                r#"--set data.crop_size.80: "big" does not fit"#,
            ),
        ] {
            let message = message(set);
            let message = message.strip_prefix("test.yaml: ").unwrap_or(&message);
            assert!(message.starts_with(beginning), "{set}: {message}");
        }
    }

    #[test]
    fn the_sampling_hash_tells_sizes_apart_and_keeps_that_of_one_size() {
        let hash = |set: &str| config(14, &[set]).unwrap().sampling_hash();
        let one = config(14, &[]).unwrap().sampling_hash();
        assert_eq!(hash("data.crop_size={0: 224}"), one);
        let hashes = [
            one,
            hash("data.crop_size=112"),
            hash("data.crop_size={0: 112, 80: 224}"),
            hash("data.crop_size={0: 112, 81: 224}"),
            hash("data.crop_size={0: 224, 80: 112}"),
        ];
        assert_eq!(
            hashes
                .into_iter()
                .collect::<std::collections::BTreeSet<_>>()
                .len(),
            5
        );
    }
}
