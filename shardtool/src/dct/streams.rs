//! The byte streams that a component is taken apart into, and the order in which a payload holds them.
//!
//! Sparse blocks become, for each horizontal frequency, a stream of masks and one of values, so that a reader unpacks
//! whole vectors and need not even decode the frequencies that its scale has no use for.

/// Streams of one component.
pub const STREAMS: usize = 21;

/// The streams of a component, by number.
pub mod stream {
    /// Distances between blocks with escapes: each escape's is the sum of bytes of 255 and one below.
    pub const ESCAPE_STEPS: usize = 0;
    /// Places of escapes in their blocks, `8 * u + v`.
    pub const ESCAPE_PLACES: usize = 1;
    /// What escapes add to their coefficients, in 256ths, signed.
    pub const ESCAPE_HIGHS: usize = 2;
    /// DC differences, zigzag coded, low bytes.
    pub const DC_LOW: usize = 3;
    /// DC differences, high bytes.
    pub const DC_HIGH: usize = 4;

    /// Masks of a horizontal frequency.
    pub const fn masks(u: usize) -> usize {
        5 + 2 * u
    }

    /// Returns the values of a horizontal frequency.
    pub const fn values(u: usize) -> usize {
        6 + 2 * u
    }
}

/// Groups of streams. Group 0 holds what every reader needs; group `1 + k` the frequencies that matter at k + 1 samples
/// per eight pixels of the finest component.
pub const GROUPS: usize = 9;

/// Returns the order of the streams of an image with so many components, as (group, component, stream): `shares` says
/// for each component its horizontal sampling factor and the largest of any.
pub fn order(
    shares: [(u8, u8); 3],
    components: usize,
) -> impl Iterator<Item = (usize, usize, usize)> {
    let components = 0..components;
    let first = components.clone().flat_map(|component| {
        (stream::ESCAPE_STEPS..=stream::DC_HIGH).map(move |stream| (0, component, stream))
    });
    let rest = (1..GROUPS).flat_map(move |group| {
        components.clone().flat_map(move |component| {
            let (factor, largest) = shares[component];
            let of_group =
                move |u: &usize| 1 + u * usize::from(factor) / usize::from(largest) == group;
            (0..8)
                .filter(of_group)
                .flat_map(move |u| [stream::masks(u), stream::values(u)])
                .map(move |stream| (group, component, stream))
        })
    });
    first.chain(rest)
}

/// Makes unsigned numbers of signed ones: 0, -1, 1, -2, 2, … become 0, 1, 2, 3, 4, …
pub fn zigzag(number: i16) -> u16 {
    ((number << 1) ^ (number >> 15)) as u16
}

/// Returns the inverse of [`zigzag`].
pub fn unzigzag(code: u16) -> i16 {
    (code >> 1) as i16 ^ -((code & 1) as i16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zigzag_is_a_bijection() {
        for number in i16::MIN..=i16::MAX {
            assert_eq!(unzigzag(zigzag(number)), number);
        }
        assert_eq!([0, -1, 1, -2].map(zigzag), [0, 1, 2, 3]);
    }

    #[test]
    fn every_stream_comes_once_and_chroma_with_its_equals() {
        let order: Vec<_> = order([(2, 2), (1, 2), (1, 2)], 3).collect();
        assert_eq!(order.len(), 3 * STREAMS);
        let mut seen: Vec<_> = order
            .iter()
            .map(|&(_, component, stream)| (component, stream))
            .collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 3 * STREAMS);
        assert!(order.is_sorted_by_key(|&(group, ..)| group));
        // Half as fine, so frequency 5 of chroma is as high as 2.5 of luma.
        assert!(order.contains(&(3, 1, stream::masks(5))));
        assert!(order.contains(&(3, 0, stream::masks(2))));
    }
}
