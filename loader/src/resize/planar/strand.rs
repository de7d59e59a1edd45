//! Rows between the passes: filtered across, not yet down. Only those that the next output row needs are kept.

use super::taps::Taps;

/// A ring of rows for each plane.
#[derive(Default)]
pub struct Rows {
    values: Vec<i16>,
    /// Values in a row.
    width: usize,
    rings: [Ring; 3],
}

#[derive(Clone, Copy, Default)]
struct Ring {
    /// Where the plane's ring begins in `values`.
    start: usize,
    /// Rows that the ring has room for, a power of two.
    capacity: usize,
    /// The first row that was ever wanted.
    origin: usize,
    /// The row to be made next.
    next: usize,
}

/// The rows under one output row of a plane, and their weights.
#[derive(Clone, Copy)]
pub struct Strand<'a> {
    ring: &'a [i16],
    width: usize,
    /// The first tap's slot, before it is wrapped around.
    slot: usize,
    /// Rows that the ring has room for, less one.
    wrap: usize,
    /// Weights from the first tap's on, `pitch` apart.
    weights: &'a [i16],
    pitch: usize,
    /// Taps.
    pub count: usize,
    /// True if the taps are few enough for the quick arithmetic.
    pub short: bool,
}

impl<'a> Strand<'a> {
    /// Returns the row under a tap, exactly as long as outputs are padded to.
    #[inline(always)]
    pub fn row(&self, tap: usize) -> &'a [i16] {
        let start = ((self.slot + tap) & self.wrap) * self.width;
        &self.ring[start..start + self.width]
    }

    /// Returns a tap's weight.
    #[inline(always)]
    pub fn weight(&self, tap: usize) -> i16 {
        self.weights[tap * self.pitch]
    }
}

impl Rows {
    /// Empties the rings and makes room for rows of `width` values.
    pub fn prepare(&mut self, width: usize, down: [&Taps; 3]) {
        self.width = width;
        let mut start = 0;
        for (ring, taps) in self.rings.iter_mut().zip(down) {
            // Rows come in pairs, so one more than needed may be there.
            let capacity = (taps.count + 1).next_power_of_two();
            let origin = taps.first[0] as usize;
            *ring = Ring {
                start,
                capacity,
                origin,
                next: origin,
            };
            start += capacity * width;
        }
        if self.values.len() < start {
            self.values.resize(start, 0);
        }
    }

    /// Returns the row to be made next for a plane, or `None` if all rows under output row `output` are there.
    pub fn missing(&self, plane: usize, taps: &Taps, output: usize) -> Option<usize> {
        let next = self.rings[plane].next;
        (next < taps.first[output] as usize + taps.count).then_some(next)
    }

    /// Returns room for the next two rows, one behind the other, and counts them as made.
    pub fn pair(&mut self, plane: usize) -> &mut [i16] {
        let ring = &mut self.rings[plane];
        let slot = (ring.next - ring.origin) & (ring.capacity - 1);
        let start = ring.start + slot * self.width;
        ring.next += 2;
        &mut self.values[start..start + 2 * self.width]
    }

    /// Returns the rows under an output row.
    #[inline(always)]
    pub fn strand<'a>(&'a self, plane: usize, taps: &'a Taps, output: usize) -> Strand<'a> {
        let ring = &self.rings[plane];
        Strand {
            ring: &self.values[ring.start..ring.start + ring.capacity * self.width],
            width: self.width,
            slot: taps.first[output] as usize - ring.origin,
            wrap: ring.capacity - 1,
            weights: &taps.weights[output..],
            pitch: taps.padded,
            count: taps.count,
            short: taps.short(),
        }
    }
}
