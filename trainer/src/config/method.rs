//! The `method` section: options of the method that the official files do not have, all off by default.

use serde::{Deserialize, Serialize};

use super::Error;

/// The `method` section: options of the method that the official files do not have, all off by default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Method {
    /// Weight of a variance-covariance term on the context encoder's patches; 0 for the official loss.
    ///
    /// 0.001 keeps short runs on small data from collapsing; see
    /// [`variance_covariance`](crate::method::regularizer::variance_covariance).
    pub variance_covariance: f64,
}

impl Method {
    /// Keys that may differ between a checkpoint and the run that continues it.
    pub const FREE_ON_RESUME: &[&str] = &[];

    pub(super) fn check(&self) -> Result<(), Error> {
        let weight = self.variance_covariance;
        if !weight.is_finite() || weight < 0.0 {
            let reason = format!("{weight} is not a number of 0 or more");
            return Err(Error::value("method.variance_covariance", reason));
        }
        Ok(())
    }
}
