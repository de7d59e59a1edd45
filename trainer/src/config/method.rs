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
    /// Weight of a term that makes the context encoder's patches normally distributed (SIGReg of LeJEPA); 0 for none.
    ///
    /// See [`normality`](crate::method::regularizer::normality).
    pub normality: f64,
    /// Weight of a loss on what the predictor says of visible patches (V-JEPA 2.1); 0 for none.
    ///
    /// It rises from 0 between a tenth and two tenths of the run; see [`visible`](crate::method::visible).
    pub visible_loss: f64,
    /// Deviation of the noise in the positions of hidden patches (StoP, where it is 0.25); 0 for exact positions.
    ///
    /// See [`Predictor::forward`](crate::method::predictor::Predictor::forward).
    pub position_noise: f64,
}

impl Method {
    /// Keys that may differ between a checkpoint and the run that continues it.
    pub const FREE_ON_RESUME: &[&str] = &[];

    pub(super) fn check(&self) -> Result<(), Error> {
        for (key, value) in [
            ("method.variance_covariance", self.variance_covariance),
            ("method.normality", self.normality),
            ("method.visible_loss", self.visible_loss),
            ("method.position_noise", self.position_noise),
        ] {
            if !value.is_finite() || value < 0.0 {
                let reason = format!("{value} is not a number of 0 or more");
                return Err(Error::value(key, reason));
            }
        }
        Ok(())
    }
}
