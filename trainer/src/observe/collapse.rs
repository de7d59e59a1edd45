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
        if images >= LEAST_IMAGES {
            let target = ("target", signs.target_cosine, signs.target_rank);
            let context = ("context", signs.context_cosine, signs.context_rank);
            for (network, cosine, rank) in [target, context] {
                let state = State::of(cosine > 0.999, cosine < 0.998);
                let text = format!(
                    "the {network} encoder's pooled features of any two of {images} images have a cosine of \
                     {cosine:.5}: it tells images hardly apart, complete collapse"
                );
                self.judge(Fault::Same(network), state, text, &mut sentences);
                // Of what does not vary the rank is noise.
                let highest = signs.width.min(images - 1.0);
                let state = match state {
                    State::Fine => State::of(rank < 0.1 * highest, rank > 0.125 * highest),
                    _ => State::Between,
                };
                let text = format!(
                    "the {network} encoder's pooled features of {images} images have an effective rank of {rank:.1} of \
                     {highest}: dimensional collapse, as is usual early in short runs on small data"
                );
                self.judge(Fault::Rank(network), state, text, &mut sentences);
            }
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
