//! From a payload to the planes of a crop.

use std::time::{Duration, Instant};

use super::coefficients::{Coefficients, Component, blocks_along};
use super::detail::samples;
use super::payload::{ComponentHead, Entropy, Head};
use super::render::{Escapes, Renderer, SLACK, Scale, Streams, Window, factors};
use super::streams::{GROUPS, STREAMS, stream};
use super::tables::Tables;
use crate::Corrupt;
use crate::planes::{Area, Plane, Planes, Resolution};
use crate::rans;
use crate::simd::Simd;

/// Decodes payloads; keep one per thread. Its buffers grow to what the largest image needs and stay.
pub struct Decoder {
    simd: Simd,
    renderer: Renderer,
    zstd: zstd::bulk::Decompressor<'static>,
    streams: Vec<u8>,
    samples: Vec<u8>,
    entropy: Duration,
}

/// Most bytes that a byte of zstd or rANS can stand for. zstd repeats one byte at most 2^17 times by a block of 4
/// bytes. A symbol of rANS with the largest frequency, 4095 of 4096, takes a state from above x down to x - (x div
/// 4096), so it takes 46,000 of them to go from 2^31 to 2^15, where two bytes are due.
pub(crate) const MOST_PER_BYTE: usize = 1 << 15;

/// The bytes of streams that a block comes to at most: DC, masks, values, and an escape for every value.
const MOST_STREAMS: usize = 2 + 8 + 64 + (65 + 64 + 64);

/// How large the buffers have to be for some images, whatever their payloads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Room {
    streams: usize,
    samples: usize,
    columns: usize,
}

impl Room {
    /// Sees to it that an image of this size can be decoded, too.
    pub fn include(&mut self, (width, height): (u32, u32)) {
        let components = 3;
        let [columns, rows] = [width, height].map(|side| blocks_along(side, 1, 1));
        let full = Scale {
            columns: 8,
            rows: 8,
        };
        let streams = components * MOST_STREAMS * columns * rows + SLACK;
        let samples = components * full.stride(columns) * full.rows * rows + Plane::PADDING;
        self.streams = self.streams.max(streams);
        self.samples = self.samples.max(samples);
        self.columns = self.columns.max(columns);
    }
}

/// Where the streams of a component lie in the buffer.
type Places = [usize; STREAMS];

/// What is to be rendered of a component.
#[derive(Debug, Clone, Copy)]
struct Part {
    window: Window,
    scale: Scale,
    /// The area on the component's own full-resolution grid.
    area: Area,
    /// Where its samples begin in the buffer.
    start: usize,
}

impl Decoder {
    /// Makes a decoder with empty buffers.
    pub fn new(simd: Simd) -> Decoder {
        Decoder {
            simd,
            renderer: Renderer::new(simd),
            zstd: zstd::bulk::Decompressor::default(),
            streams: Vec::new(),
            samples: Vec::new(),
            entropy: Duration::ZERO,
        }
    }

    /// Makes as much room as there is address space for, so that nothing is allocated for such images.
    pub fn reserve(&mut self, room: &Room) {
        // What cannot be had now is asked for again when it is needed.
        let _ = self.streams.try_reserve(room.streams);
        let _ = self.samples.try_reserve(room.samples);
        self.renderer.reserve(room.columns);
    }

    /// Returns how much of the last decoding went into undoing the entropy coding.
    pub fn entropy_time(&self) -> Duration {
        self.entropy
    }

    /// Decodes an area of an image of `size`, which must contain it. An error is the reason alone.
    ///
    /// # Errors
    /// [`Corrupt`] with the rule that the payload breaks, or for an area outside the image.
    pub fn decode(
        &mut self,
        payload: &[u8],
        tables: Option<&Tables>,
        size: (u32, u32),
        area: Area,
        resolution: Resolution,
    ) -> Result<Planes<'_>, Corrupt> {
        let inside = |start: f64, length: f64, limit: u32| {
            start >= 0.0 && length > 0.0 && start + length <= f64::from(limit)
        };
        if !inside(area.left, area.width, size.0) || !inside(area.top, area.height, size.1) {
            return Err(Corrupt::Area {
                area: format!("{area:?}"),
                size,
            });
        }
        let (head, coded) = Head::parse(payload, size.0, size.1)?;
        let largest = head.sampling();
        let mut length = 0;
        let parts: [Option<Part>; 3] = std::array::from_fn(|number| {
            let component = head.components().get(number)?;
            let part = component.part(largest, area, resolution, length);
            length += part.length();
            Some(part)
        });
        let needed = parts.map(|part| part.map_or(0, |part| part.scale.columns));

        let start = Instant::now();
        let places = self.undo_entropy(&head, coded, tables, needed)?;
        self.entropy = start.elapsed();

        grow(&mut self.samples, length + Plane::PADDING);
        for (number, component) in head.components().iter().enumerate() {
            let part = parts[number].expect("a part for each component");
            let streams = component.streams(&places[number], &self.streams);
            self.renderer
                .render(
                    &streams,
                    &factors(&component.quantization),
                    part.window,
                    part.scale,
                    &mut self.samples[part.start..],
                )
                .map_err(|fault| Corrupt::Malformed(format!("component {number}: {fault}")))?;
        }
        let samples = &self.samples;
        let plane = |number: usize| {
            let part = parts[number].or(parts[0]).expect("at least one component");
            part.plane(&samples[part.start..])
        };
        Ok(Planes {
            colour: head.colour,
            planes: std::array::from_fn(plane),
        })
    }

    /// Decodes everything: the coefficients that the payload was made from.
    ///
    /// # Errors
    /// [`Corrupt`] with the rule that the payload breaks.
    pub fn coefficients(
        &mut self,
        payload: &[u8],
        tables: Option<&Tables>,
        size: (u32, u32),
    ) -> Result<Coefficients, Corrupt> {
        let (head, coded) = Head::parse(payload, size.0, size.1)?;
        let places = self.undo_entropy(&head, coded, tables, [8; 3])?;
        let component = |(number, component): (usize, &ComponentHead)| {
            let streams = component.streams(&places[number], &self.streams);
            Ok(Component {
                h: component.h,
                v: component.v,
                quantization: component.quantization,
                blocks_wide: component.blocks_wide,
                blocks_high: component.blocks_high,
                blocks: streams
                    .blocks()
                    .map_err(|fault| Corrupt::Malformed(format!("component {number}: {fault}")))?,
            })
        };
        let components = head.components().iter().enumerate().map(component);
        Ok(Coefficients {
            width: size.0,
            height: size.1,
            colour: head.colour,
            components: components.collect::<Result<_, Corrupt>>()?,
        })
    }

    /// Decodes the streams of the frequencies that are needed, for each component, and says where they are.
    fn undo_entropy(
        &mut self,
        head: &Head,
        coded: &[u8],
        tables: Option<&Tables>,
        needed: [usize; 3],
    ) -> Result<[Places; 3], Corrupt> {
        let mut places = [[0; STREAMS]; 3];
        // The end of the last stream that is needed, and the group it belongs to.
        let (mut length, mut end, mut last_group) = (0, 0, 0);
        let mut group_ends = [0; GROUPS];
        for (group, component, number) in head.order() {
            places[component][number] = length;
            length += head.components()[component].lengths[number];
            group_ends[group] = length;
            if number < stream::masks(needed[component]) {
                (end, last_group) = (length, group);
            }
        }
        let room = match head.entropy {
            Entropy::Rans => end,
            Entropy::Zstd => group_ends[last_group],
        };
        if room > MOST_PER_BYTE.saturating_mul(coded.len()) {
            let coded = coded.len();
            return Err(format!("{coded} bytes cannot hold {room} of streams").into());
        }
        grow(&mut self.streams, room + SLACK);
        match head.entropy {
            Entropy::Rans => {
                let tables = tables.ok_or("the shard has no rANS tables")?;
                let mut run =
                    rans::Decoder::new(self.simd, coded).map_err(|error| error.to_string())?;
                for (_, component, number) in head.order() {
                    let place = places[component][number];
                    if place >= end && end < length {
                        return Ok(places);
                    }
                    let component = &head.components()[component];
                    let table = component.tables[number];
                    let table = tables
                        .get(table)
                        .ok_or_else(|| format!("no rANS table {table}"))?;
                    let symbols = &mut self.streams[place..place + component.lengths[number]];
                    run.next(table, symbols)
                        .map_err(|error| error.to_string())?;
                }
                run.finish().map_err(|error| error.to_string())?;
            }
            Entropy::Zstd => {
                let (mut rest, mut begin) = (coded, 0);
                let groups = group_ends.iter().zip(head.frames).take(last_group + 1);
                for (&end, length) in groups {
                    let end = end.max(begin);
                    let (frame, behind) = rest
                        .split_at_checked(length)
                        .ok_or("the payload ends inside a frame")?;
                    rest = behind;
                    let got = self
                        .zstd
                        .decompress_to_buffer(frame, &mut self.streams[begin..end])
                        .map_err(|error| error.to_string())?;
                    if got != end - begin {
                        return Err(
                            format!("{got} bytes of streams, expected {}", end - begin).into()
                        );
                    }
                    begin = end;
                }
                if last_group + 1 == GROUPS && !rest.is_empty() {
                    return Err(format!("{} bytes behind the last frame", rest.len()).into());
                }
            }
        }
        Ok(places)
    }
}

impl ComponentHead {
    /// Returns what to render for an area of the image, from `start` on in the buffer.
    fn part(&self, largest: (u8, u8), area: Area, resolution: Resolution, start: usize) -> Part {
        let across = f64::from(self.h) / f64::from(largest.0);
        let down = f64::from(self.v) / f64::from(largest.1);
        let area = Area {
            left: area.left * across,
            top: area.top * down,
            width: area.width * across,
            height: area.height * down,
        };
        // Rounding in the products above may take an edge past the last block by a hair.
        let blocks = |start: f64, length: f64, count: usize| {
            let first = ((start / 8.0) as usize).min(count - 1);
            let end = ((start + length) / 8.0).ceil() as usize;
            (first, end.clamp(first + 1, count) - first)
        };
        let (left, columns) = blocks(area.left, area.width, self.blocks_wide);
        let (top, rows) = blocks(area.top, area.height, self.blocks_high);
        Part {
            window: Window {
                left,
                top,
                columns,
                rows,
            },
            scale: Scale {
                columns: samples(resolution, area.width, &self.detail[0]),
                rows: samples(resolution, area.height, &self.detail[1]),
            },
            area,
            start,
        }
    }

    fn streams<'a>(&self, places: &Places, bytes: &'a [u8]) -> Streams<'a> {
        let range = |number: usize| places[number]..places[number] + self.lengths[number];
        Streams {
            bytes,
            columns: self.blocks_wide,
            rows: self.blocks_high,
            dc: [places[stream::DC_LOW], places[stream::DC_HIGH]],
            masks: std::array::from_fn(|u| places[stream::masks(u)]),
            values: std::array::from_fn(|u| {
                let range = range(stream::values(u));
                (range.start, range.end)
            }),
            escapes: Escapes {
                steps: &bytes[range(stream::ESCAPE_STEPS)],
                places: &bytes[range(stream::ESCAPE_PLACES)],
                highs: &bytes[range(stream::ESCAPE_HIGHS)],
            },
        }
    }
}

impl Part {
    fn stride(&self) -> usize {
        self.scale.stride(self.window.columns)
    }

    fn rows(&self) -> usize {
        self.scale.rows * self.window.rows
    }

    /// Returns the bytes of its samples.
    fn length(&self) -> usize {
        self.stride() * self.rows()
    }

    fn plane<'a>(&self, samples: &'a [u8]) -> Plane<'a> {
        let (columns, rows) = (self.scale.columns * self.window.columns, self.rows());
        let place = |start: f64, length: f64, block: usize, samples: usize, limit: usize| {
            let share = samples as f64 / 8.0;
            let start = (start - (8 * block) as f64) * share;
            (start, (length * share).min(limit as f64 - start))
        };
        let (left, width) = place(
            self.area.left,
            self.area.width,
            self.window.left,
            self.scale.columns,
            columns,
        );
        let (top, height) = place(
            self.area.top,
            self.area.height,
            self.window.top,
            self.scale.rows,
            rows,
        );
        Plane {
            samples: &samples[..self.length() + Plane::PADDING],
            stride: self.stride(),
            columns,
            rows,
            left,
            top,
            width,
            height,
        }
    }
}

/// Makes a buffer at least so long. It is never cut: cutting would clear the difference again for each larger image.
fn grow(buffer: &mut Vec<u8>, length: usize) {
    if buffer.len() < length {
        buffer.resize(length, 0);
    }
}
