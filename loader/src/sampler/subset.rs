//! The samples of a split that a plan shows: all, or those of a list.

use std::path::Path;
use std::sync::Arc;

use shardtool::{Escaped, regular};

use crate::config::LoaderConfig;
use crate::error::Error;

/// Bytes of the longest list that is read.
const MAX_LIST: u64 = 1 << 32;

/// The samples that a plan shows, in ascending order.
#[derive(Clone, Debug)]
pub(super) struct Subset {
    len: u64,
    /// None where all are shown.
    ids: Option<Arc<[u64]>>,
}

impl Subset {
    /// Returns the samples that a configuration shows of `samples`.
    pub(super) fn of(config: &LoaderConfig, samples: u64) -> Result<Subset, Error> {
        let ids = config.only.clone();
        // They ascend.
        if let Some(&last) = ids.as_deref().and_then(<[u64]>::last)
            && last >= samples
        {
            return Err(fault(
                last,
                &format!("is no sample of the split, which has {samples}"),
            ));
        }
        let len = ids.as_ref().map_or(samples, |ids| ids.len() as u64);
        if len == 0 {
            return Err(Error::Value {
                key: "loader.split".to_owned(),
                value: config.loader.split.clone(),
                problem: "has no samples".to_owned(),
            });
        }
        Ok(Subset { len, ids })
    }

    /// Returns the number of samples.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Returns the sample at a place; none behind the last.
    pub(super) fn at(&self, place: u64) -> Option<u64> {
        match &self.ids {
            None => (place < self.len).then_some(place),
            Some(ids) => ids.get(usize::try_from(place).ok()?).copied(),
        }
    }
}

/// Reads a list of sample numbers, a line each, ascending.
///
/// # Errors
/// If the file cannot be read, or a line is no number above that of the line before it.
pub fn read_samples(path: &Path) -> Result<Arc<[u64]>, Error> {
    let unread = |cause| Error::ConfigRead {
        path: path.to_owned(),
        cause,
    };
    let bytes = regular::read(path, MAX_LIST).map_err(unread)?;
    let mut ids: Vec<u64> = Vec::new();
    for line in String::from_utf8_lossy(&bytes).lines() {
        let id = line
            .parse()
            .map_err(|_| fault(Escaped::new(line), "is no sample number"))?;
        if ids.last().is_some_and(|last| *last >= id) {
            return Err(fault(id, "does not ascend"));
        }
        ids.push(id);
    }
    Ok(ids.into())
}

fn fault(value: impl ToString, problem: &str) -> Error {
    Error::Value {
        key: "--only".to_owned(),
        value: value.to_string(),
        problem: problem.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::config;

    #[test]
    fn lists_are_numbers_that_ascend_and_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read_samples(&path).map_err(|error| error.to_string())
        };
        assert_eq!(&*read("1\n5\n6\n").unwrap(), [1, 5, 6]);
        for (text, problem) in [
            ("1\n1\n", "does not ascend"),
            ("1\n-2\n", "is no sample number"),
            ("x", "is no sample number"),
        ] {
            let fault = read(text).unwrap_err();
            assert!(fault.contains(problem), "{fault}");
        }
        let of = |only: Option<Arc<[u64]>>, samples| {
            let config = LoaderConfig {
                only,
                ..config(14, &[]).unwrap()
            };
            Subset::of(&config, samples).map_err(|error| error.to_string())
        };
        let some = of(Some([1, 5, 6].into()), 7).unwrap();
        let at: Vec<_> = (0..4).map(|place| some.at(place)).collect();
        assert_eq!(at, [Some(1), Some(5), Some(6), None]);
        let fault = of(Some([1, 5, 6].into()), 6).unwrap_err();
        assert!(fault.contains("is no sample of the split"), "{fault}");
        assert!(of(Some([].into()), 6).is_err() && of(None, 0).is_err());
    }
}
