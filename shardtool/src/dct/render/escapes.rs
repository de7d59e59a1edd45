//! The coefficients that do not fit a byte, in the order of their blocks.

/// The coefficients beyond a byte, in the order of their blocks.
#[derive(Debug, Clone, Copy)]
pub struct Escapes<'a> {
    /// Distances from block to block: any number of bytes of 255, then a smaller one.
    pub steps: &'a [u8],
    /// Places in the blocks, one for each escape.
    pub places: &'a [u8],
    /// High bytes, one for each escape.
    pub highs: &'a [u8],
}

/// Walks through escapes.
pub struct Cursor<'a> {
    rest: Escapes<'a>,
    /// The next escape's block, if there is one.
    block: Option<usize>,
}

impl<'a> Cursor<'a> {
    /// Begins at the first escape.
    pub fn new(rest: Escapes<'a>) -> Cursor<'a> {
        let mut cursor = Cursor {
            rest,
            block: Some(0),
        };
        cursor.step();
        cursor
    }

    /// Takes the next escape, as block, place and high byte, if its block is before `end`.
    pub fn before(&mut self, end: usize) -> Option<(usize, u8, i8)> {
        let block = self.block.filter(|&block| block < end)?;
        let (place, places) = self.rest.places.split_first()?;
        let (high, highs) = self.rest.highs.split_first()?;
        (self.rest.places, self.rest.highs) = (places, highs);
        self.step();
        Some((block, place & 63, *high as i8))
    }

    /// Tells if nothing is left over.
    pub fn is_exhausted(&self) -> bool {
        self.rest.steps.is_empty() && self.block.is_none() && self.rest.places.is_empty()
    }

    /// Reads how far away the next escape's block is.
    fn step(&mut self) {
        let length = self.rest.steps.iter().position(|&step| step < 255);
        self.block = self.block.zip(length).map(|(block, length)| {
            let (steps, rest) = self.rest.steps.split_at(length + 1);
            self.rest.steps = rest;
            block + 255 * length + usize::from(steps[length])
        });
    }
}
