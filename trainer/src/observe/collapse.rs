//! Says in words what the signs of a step mean, where they cross a threshold.
//!
//! A fault is said once, and again only after it had passed: the value at which it counts as passed lies on the good
//! side of the threshold. `trainer/LEARNING.md` explains each, and what to do.

use std::collections::BTreeSet;

use super::Signs;

/// Where there is more to read.
const PAGE: &str = "see trainer/LEARNING.md#signs-of-collapse";
/// Fewer images say nothing about ranks and cosines.
const LEAST_IMAGES: f64 = 128.0;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    /// All images look the same.
    Same(&'static str),
    /// Images differ in a few directions only.
    Rank(&'static str),
    /// Targets are a function of the position.
    Position,
    /// The target encoder does not move.
    Frozen,
    /// Weights are thrown about.
    Huge,
    /// Predictions are far outside the targets' range.
    Far,
}

/// Follows the signs of a run.
#[derive(Debug, Default)]
pub(super) struct Watch {
    said: BTreeSet<Fault>,
}

/// What a value is of a fault.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Fault,
    /// Neither: what was said before holds.
    Between,
    Fine,
}

impl Watch {
    /// Returns what there is to say of these signs, a sentence each.
    pub(super) fn look(&mut self, signs: &Signs) -> Vec<String> {
        let mut sentences = Vec::new();
        let images = signs.images;
        for (network, cosine, rank, patches) in [
            (
                "target",
                signs.target_cosine,
                signs.target_rank,
                signs.target_patch_std,
            ),
            (
                "context",
                signs.context_cosine,
                signs.context_rank,
                signs.context_patch_std,
            ),
        ] {
            let is_same = patches < 0.03 || (cosine > 0.999 && images >= LEAST_IMAGES);
            let same = State::of(is_same, patches > 0.04 && cosine < 0.998);
            let text = format!(
                "the {network} encoder hardly tells patches and images apart: patches deviate by {patches:.4} from \
                 their mean, and two images have a cosine of {cosine:.4}: complete collapse"
            );
            self.judge(Fault::Same(network), same, text, &mut sentences);
            // Of what does not vary the rank is noise.
            let highest = signs.width.min(images / 2.0);
            let state = match same {
                State::Fine if images >= LEAST_IMAGES => {
                    State::of(rank < 0.1 * highest, rank > 0.125 * highest)
                }
                _ => State::Between,
            };
            let text = format!(
                "the {network} encoder's pooled features of {images} images have an effective rank of {rank:.1} of \
                 {highest}: dimensional collapse, which is usual early in short runs on small data"
            );
            self.judge(Fault::Rank(network), state, text, &mut sentences);
        }
        let share = signs.target_position_share;
        let state = State::of(share > 0.9, share < 0.85);
        let text = format!(
            "position alone explains {:.1} % of the variance of the targets: hardly anything of the images is in them",
            100.0 * share
        );
        self.judge(Fault::Position, state, text, &mut sentences);
        let moves = signs.target_update_ratio;
        let state = State::of(moves == 0.0 && signs.update_norm > 0.0, moves > 0.0);
        let text =
            "the target encoder does not move at all: with a momentum of 1 it stays what it is, \
                    and the others learn to predict that"
                .to_owned();
        self.judge(Fault::Frozen, state, text, &mut sentences);
        let ratio = signs.update_ratio;
        let state = State::of(ratio > 0.1, ratio < 0.05);
        let text = format!(
            "one step moved the weights by {:.0} % of their norm: the learning rate is too high",
            100.0 * ratio
        );
        self.judge(Fault::Huge, state, text, &mut sentences);
        let far = signs.predictor_patch_std;
        let state = State::of(far > 3.0, far < 2.0);
        let text = format!(
            "predictions deviate by {far:.1} from their mean, where targets can by 1 at most: training has come apart"
        );
        self.judge(Fault::Far, state, text, &mut sentences);
        sentences
    }

    fn judge(&mut self, fault: Fault, state: State, text: String, sentences: &mut Vec<String>) {
        match state {
            State::Fault if self.said.insert(fault) => sentences.push(format!("{text}; {PAGE}")),
            State::Fine => drop(self.said.remove(&fault)),
            _ => {}
        }
    }
}

impl State {
    fn of(is_fault: bool, is_fine: bool) -> State {
        match (is_fault, is_fine) {
            (true, _) => State::Fault,
            (false, true) => State::Fine,
            _ => State::Between,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the signs of a run that learns.
    fn fine() -> Signs {
        let text = r#"{"images": 512, "width": 192, "target_std": 0.3, "target_rank": 43, "target_cosine": 0.84,
            "target_patch_std": 0.55, "target_patch_rank": 57, "target_position_share": 0.3, "context_std": 0.5,
            "context_rank": 73, "context_cosine": 0.14, "context_patch_std": 0.9, "context_patch_rank": 78,
            "predictor_std": 0.04, "predictor_rank": 10, "predictor_cosine": 0.99, "predictor_patch_std": 0.07,
            "predictor_patch_rank": 6.5, "update_norm": 0.1, "update_ratio": 0.001, "target_update_ratio": 3e-5}"#;
        serde_json::from_str(text).unwrap()
    }

    /// Tells a watch that has seen a run that learns these signs, twice; returns what it says.
    fn said(change: impl Fn(&mut Signs)) -> Vec<String> {
        let mut watch = Watch::default();
        assert_eq!(watch.look(&fine()), [""; 0]);
        let mut signs = fine();
        change(&mut signs);
        let sentences = watch.look(&signs);
        assert_eq!(watch.look(&signs), [""; 0], "said once");
        sentences
    }

    #[test]
    fn each_fault_is_said_once() {
        for (change, words) in [
            (
                &(|signs: &mut Signs| signs.target_rank = 7.0) as &dyn Fn(&mut Signs),
                "pooled features of 512 images have an effective rank of 7.0 of 192: dimensional collapse",
            ),
            (
                &|signs| signs.context_rank = 7.0,
                "the context encoder's pooled",
            ),
            (&|signs| signs.target_cosine = 0.9995, "complete collapse"),
            (&|signs| signs.context_patch_std = 0.01, "complete collapse"),
            (
                &|signs| signs.target_position_share = 0.95,
                "position alone explains 95.0 %",
            ),
            (
                &|signs| signs.target_update_ratio = 0.0,
                "does not move at all",
            ),
            (&|signs| signs.update_ratio = 0.5, "by 50 % of their norm"),
            (&|signs| signs.predictor_patch_std = 9.0, "deviate by 9.0"),
        ] {
            let sentences = said(change);
            assert_eq!(sentences.len(), 1, "{sentences:?}");
            assert!(sentences[0].contains(words), "{sentences:?}");
            assert!(sentences[0].ends_with(PAGE), "{sentences:?}");
        }
    }

    #[test]
    fn what_is_not_known_is_not_said() {
        let few = said(|signs| (signs.images, signs.target_rank) = (64.0, 2.0));
        assert_eq!(few, [""; 0]);
        let unknown = said(|signs| (signs.target_rank, signs.target_cosine) = (f64::NAN, f64::NAN));
        assert_eq!(unknown, [""; 0]);
        // Where all is the same, its rank is noise.
        let same = said(|signs| (signs.target_patch_std, signs.target_rank) = (0.001, 1.0));
        assert_eq!(same.len(), 1, "{same:?}");
    }

    #[test]
    fn a_fault_is_said_again_only_after_it_had_passed() {
        let mut watch = Watch::default();
        let mut with_rank = |target_rank| {
            let signs = Signs {
                target_rank,
                ..fine()
            };
            watch.look(&signs).len()
        };
        let said = [19.0, 23.0, 19.0, 25.0, 19.0].map(&mut with_rank);
        assert_eq!(said, [1, 0, 0, 0, 1]);
    }
}
