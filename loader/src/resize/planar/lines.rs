//! The output: three planes of a square, row by row.

/// The rows of the output's planes.
pub struct Lines<'a> {
    planes: [&'a mut [u8]; 3],
    side: usize,
}

impl<'a> Lines<'a> {
    /// Takes a square's planes apart: red, green, blue.
    ///
    /// # Panics
    /// If `out` is not three times `side` × `side` bytes, or `side` is 0.
    pub fn new(out: &'a mut [u8], side: usize) -> Lines<'a> {
        assert!(
            side > 0 && side.checked_mul(3 * side) == Some(out.len()),
            "{} bytes for planes of side {side}",
            out.len()
        );
        let (red, rest) = out.split_at_mut(side * side);
        let (green, blue) = rest.split_at_mut(side * side);
        Lines {
            planes: [red, green, blue],
            side,
        }
    }

    /// Returns row `y` of each plane.
    pub fn line(&mut self, y: usize) -> [&mut [u8]; 3] {
        let range = y * self.side..(y + 1) * self.side;
        let [red, green, blue] = &mut self.planes;
        [
            &mut red[range.clone()],
            &mut green[range.clone()],
            &mut blue[range],
        ]
    }
}
