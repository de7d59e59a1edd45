//! From coefficients to payloads, when a dataset is built.

use zstd::zstd_safe::{CCtx, CParameter, compress_bound, get_error_name};

use super::coefficients::Coefficients;
use super::detail::measure;
use super::pack::{Packed, TooLarge};
use super::payload::{ComponentHead, Entropy, Head};
use super::streams::{GROUPS, STREAMS};
use crate::rans::{self, EncodeTable, Frequencies, normalize};
use crate::simd::Simd;

/// Luma and chroma differ too much to share tables.
const CLASSES: usize = 2;

/// How often each byte occurs in each kind of stream: what tables are made from.
pub struct Statistics(Box<[[[u32; 256]; STREAMS]; CLASSES]>);

impl Default for Statistics {
    fn default() -> Statistics {
        Statistics(Box::new([[[0; 256]; STREAMS]; CLASSES]))
    }
}

impl Statistics {
    /// Adds what another has counted.
    pub fn merge(&mut self, other: &Statistics) {
        let counts = self.0.as_flattened_mut().as_flattened_mut();
        for (count, more) in counts.iter_mut().zip(other.0.as_flattened().as_flattened()) {
            *count = count.saturating_add(*more);
        }
    }

    /// Returns a table for each kind of stream of each class. All can code any byte, seen or not.
    pub fn frequencies(&self) -> Vec<Frequencies> {
        let counts = self.0.as_flattened().iter();
        counts.map(|counts| normalize(counts, true)).collect()
    }
}

/// Returns the table of a component's stream.
fn table(component: usize, stream: usize) -> usize {
    STREAMS * component.min(CLASSES - 1) + stream
}

/// How an encoder codes streams.
#[derive(Debug, Clone)]
pub enum Coding {
    /// One zstd frame for each group. At level 0 literals only: Huffman without matches, which decodes fastest.
    Zstd(i32),
    /// rANS with [`Statistics::frequencies`].
    Rans(std::sync::Arc<[EncodeTable]>),
}

/// Encodes images; keep one per thread.
pub struct Encoder {
    simd: Simd,
    packed: [Packed; 3],
    rans: rans::Encoder,
    group: Vec<u8>,
}

impl Encoder {
    /// Makes an encoder with empty buffers.
    pub fn new(simd: Simd) -> Encoder {
        Encoder {
            simd,
            packed: Default::default(),
            rans: rans::Encoder::new(simd),
            group: Vec::new(),
        }
    }

    /// Counts an image's streams.
    ///
    /// # Errors
    /// If a coefficient has no place in the codec.
    pub fn count(
        &mut self,
        image: &Coefficients,
        statistics: &mut Statistics,
    ) -> Result<(), TooLarge> {
        for (number, component) in image.components.iter().enumerate() {
            self.packed[number].fill(component, self.simd)?;
            let class = &mut statistics.0[number.min(CLASSES - 1)];
            for (counts, stream) in class.iter_mut().zip(&self.packed[number].streams) {
                for byte in stream {
                    let count = &mut counts[usize::from(*byte)];
                    *count = count.saturating_add(1);
                }
            }
        }
        Ok(())
    }

    /// Appends an image's payload to `out`.
    ///
    /// # Errors
    /// If a coefficient has no place in the codec.
    pub fn encode(
        &mut self,
        image: &Coefficients,
        coding: &Coding,
        out: &mut Vec<u8>,
    ) -> Result<(), TooLarge> {
        for (packed, component) in self.packed.iter_mut().zip(&image.components) {
            packed.fill(component, self.simd)?;
        }
        let components: Vec<ComponentHead> = image
            .components
            .iter()
            .enumerate()
            .map(|(number, component)| ComponentHead {
                h: component.h,
                v: component.v,
                blocks_wide: component.blocks_wide,
                blocks_high: component.blocks_high,
                quantization: component.quantization,
                lengths: std::array::from_fn(|stream| self.packed[number].streams[stream].len()),
                tables: std::array::from_fn(|stream| table(number, stream) as u8),
                detail: measure(component),
            })
            .collect();
        match coding {
            Coding::Rans(tables) => {
                let head = Head::new(Entropy::Rans, image.colour, &components);
                head.write(out);
                let segments: Vec<(&EncodeTable, &[u8])> = head
                    .order()
                    .map(|(_, component, stream)| {
                        let symbols = &self.packed[component].streams[stream];
                        (&tables[table(component, stream)], &symbols[..])
                    })
                    .collect();
                self.rans
                    .encode(&segments, out)
                    .expect("every table codes every byte");
            }
            Coding::Zstd(level) => {
                let mut head = Head::new(Entropy::Zstd, image.colour, &components);
                let mut frames = Vec::new();
                let mut streams = head.order().peekable();
                for group in 0..GROUPS {
                    self.group.clear();
                    while let Some((_, component, stream)) = streams.next_if(|next| next.0 == group)
                    {
                        self.group.extend(&self.packed[component].streams[stream]);
                    }
                    let before = frames.len();
                    compress(&self.group, *level, &mut frames);
                    head.frames[group] = frames.len() - before;
                }
                head.write(out);
                out.extend(frames);
            }
        }
        Ok(())
    }
}

/// Appends one zstd frame. Level 0 stands for literals only: matches must be long and the table to find them in is the
/// smallest there is, so that hardly any are found.
fn compress(bytes: &[u8], level: i32, out: &mut Vec<u8>) {
    let mut context = CCtx::create();
    let mut set = |parameter| {
        let set = context.set_parameter(parameter);
        set.expect("a parameter within its bounds");
    };
    set(CParameter::CompressionLevel(level.max(1)));
    if level == 0 {
        set(CParameter::MinMatch(7));
        set(CParameter::HashLog(6));
    }
    let start = out.len();
    out.resize(start + compress_bound(bytes.len()), 0);
    let length = context.compress2(&mut out[start..], bytes);
    let length = length.unwrap_or_else(|code| panic!("zstd: {}", get_error_name(code)));
    out.truncate(start + length);
}
