//! Who is lost, when somebody is: libtorch tells of a closed connection or of a wait that is over, never of a rank.
//!
//! Whoever leaves for a reason says so in the store first. Whoever is left says that it lives. So those who said
//! neither are the ones that died or do not answer.

use std::time::Duration;

use super::store::Store;

/// Time in which survivors say that they live.
const SURVIVORS: Duration = Duration::from_secs(2);

/// The last words of ranks.
#[derive(Clone, Debug)]
pub(super) struct Obituaries {
    store: Store,
    run: String,
}

/// The last words of one rank.
#[derive(Clone, Debug)]
pub struct LastWords {
    pub(super) rank: u32,
    pub(super) obituaries: Option<Obituaries>,
}

impl LastWords {
    /// Says why the rank leaves; a rank that is alone says it to nobody.
    pub fn say(&self, reason: &str) {
        if let Some(obituaries) = &self.obituaries {
            obituaries.leave(self.rank, reason);
        }
    }
}

impl Obituaries {
    pub(super) fn new(store: Store, run: String) -> Obituaries {
        Obituaries { store, run }
    }

    /// Says why `rank`, this one, leaves.
    pub(super) fn leave(&self, rank: u32, reason: &str) {
        // A store that is gone hears nothing; the others then know only that somebody left.
        let _ = self.store.set(&self.key("left", rank), reason);
    }

    /// Says that `rank`, this one, lives, and returns in words who does not.
    pub(super) fn find(&self, rank: u32, names: &[String]) -> String {
        self.look(rank, names).unwrap_or_else(|_| {
            let first = names.first().map_or("rank 0", |name| name);
            format!("a rank is lost, and with it the ranks' meeting place, perhaps {first}")
        })
    }

    fn look(&self, rank: u32, names: &[String]) -> Result<String, super::Error> {
        self.store.set(&self.key("lives", rank), "")?;
        std::thread::sleep(SURVIVORS);
        let (mut left, mut silent) = (Vec::new(), Vec::new());
        for (other, name) in names.iter().enumerate() {
            let key = self.key("left", other as u32);
            if self.store.has(&key)? {
                let reason = self.store.get(&key, SURVIVORS)?;
                left.push(format!("{name} left: {reason}"));
            } else if !self.store.has(&self.key("lives", other as u32))? {
                silent.push(format!("{name} died, or does not answer"));
            }
        }
        // Who left took the others with it.
        let found = if left.is_empty() { silent } else { left };
        Ok(match found.is_empty() {
            true => "the connection between two ranks that both live broke".to_owned(),
            false => found.join("; "),
        })
    }

    fn key(&self, kind: &str, rank: u32) -> String {
        format!("{}/{kind}/{rank}", self.run)
    }
}
