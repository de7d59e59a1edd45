//! Tensors compared in two parts: key biases, and the rest.

use tch::{Device, Kind, Tensor};

use super::compare::{Group, Own};
use super::set::{Set, sampling_stride};
use super::yardstick::Yardstick;
use crate::Error;

/// Two groups of comparisons, one of them for the key third of every qkv.bias.
///
/// The gradient of that third is mathematically 0. AdamW blows its rounding noise up, and so it is measured apart.
pub(super) struct Split {
    values: Group,
    keys: Group,
}

impl Split {
    pub fn new(title: &str) -> Self {
        Self {
            values: Group::new(title),
            keys: Group::keys(format!("{title}: key biases")),
        }
    }

    /// Compares a tensor with a whole or sampled one, both less `base`.
    #[allow(
        clippy::too_many_arguments,
        reason = "what, with what, by which measure, and where to tell of faults"
    )]
    pub fn tensors(
        &mut self,
        set: &Set,
        file: &str,
        name: &str,
        ours: &Tensor,
        reference: &Tensor,
        base: Option<&Tensor>,
        own: Yardstick,
    ) -> Result<(), Error> {
        let (mut reference, count) = (reference.flatten(0, -1), ours.numel() as i64);
        let stride = if reference.numel() as i64 == count {
            1
        } else {
            sampling_stride(count)
        };
        let sample = |tensor: &Tensor| tensor.detach().flatten(0, -1).slice(0, None, None, stride);
        let mut ours = sample(ours).to_device(Device::Cpu);
        let length = ours.size()[0];
        if reference.size()[0] != length {
            let found = reference.size()[0];
            return Err(set.fault(
                file,
                format!("`{name}` has {found} elements, expected {count} or {length} of them"),
            ));
        }
        if let Some(base) = base {
            let base = sample(base).to_kind(Kind::Double);
            (ours, reference) = (ours - &base, reference - &base);
        }
        let compare = |group: &mut Group, from: i64, to: i64, own: Own| {
            let part = |tensor: &Tensor| tensor.narrow(0, from, to - from);
            group.tensors(name, &part(&ours), &part(&reference), own);
        };
        match own.keys {
            Some(keys) if name.ends_with("attn.qkv.bias") => {
                let place = |element: i64| (element + stride - 1) / stride;
                let (first, last) = (place(count / 3), place(2 * count / 3));
                compare(&mut self.keys, first, last, keys);
                if let Own::Autocast { .. } = own.values {
                    // A norm is one of all that is compared.
                    let rest = |tensor: &Tensor| {
                        let parts = [(0, first), (last, length)];
                        let parts = parts.map(|(from, to)| tensor.narrow(0, from, to - from));
                        Tensor::cat(&parts, 0)
                    };
                    self.values
                        .tensors(name, &rest(&ours), &rest(&reference), own.values);
                } else {
                    compare(&mut self.values, 0, first, own.values);
                    compare(&mut self.values, last, length, own.values);
                }
            }
            _ => compare(&mut self.values, 0, length, own.values),
        }
        Ok(())
    }

    pub fn groups(self) -> impl Iterator<Item = Group> {
        [self.values, self.keys]
            .into_iter()
            .filter(|group| group.count > 0)
    }
}
