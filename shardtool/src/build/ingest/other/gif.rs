//! GIF files whose first frame leaves a part of the picture open.

/// Says so if the first frame covers a part of the picture only. The rest has no colour, and programs differ in what
/// they show there.
pub fn uncovered(bytes: &[u8]) -> Option<String> {
    let number = |at: usize| Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let screen = [number(6)?, number(8)?];
    let table = |flags: u8| match flags & 0x80 {
        0 => 0,
        _ => 3 << ((flags & 7) + 1),
    };
    let mut at = 13 + table(*bytes.get(10)?);
    loop {
        match bytes.get(at)? {
            // An extension: its kind, and blocks until one without bytes.
            0x21 => {
                at += 2;
                while let length @ 1.. = usize::from(*bytes.get(at)?) {
                    at += 1 + length;
                }
                at += 1;
            }
            0x2c => break,
            _ => return None,
        }
    }
    let (place, size) = (
        [number(at + 1)?, number(at + 3)?],
        [number(at + 5)?, number(at + 7)?],
    );
    let covers = place == [0, 0] && size[0] >= screen[0] && size[1] >= screen[1];
    (!covers).then(|| {
        let [width, height] = size;
        format!("its first frame is {width} × {height} pixels; what it leaves open is black")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_that_leaves_something_open_is_told() {
        let file = |place: [u8; 2], size: [u8; 2]| {
            let screen = [&b"GIF89a"[..], &[4, 0, 3, 0, 0x80, 0, 0], &[0; 6]].concat();
            let extension = [0x21, 0xf9, 4, 0, 0, 0, 0, 0];
            let frame = [0x2c, place[0], 0, place[1], 0, size[0], 0, size[1], 0, 0];
            [&screen[..], &extension, &frame].concat()
        };
        assert_eq!(uncovered(&file([0, 0], [4, 3])), None);
        assert_eq!(uncovered(&file([0, 0], [5, 3])), None);
        for (place, size) in [([1, 0], [4, 3]), ([0, 0], [4, 2])] {
            assert!(
                uncovered(&file(place, size)).is_some(),
                "{place:?} {size:?}"
            );
        }
        let whole = file([0, 0], [4, 2]);
        for length in 0..whole.len() - 1 {
            assert_eq!(uncovered(&whole[..length]), None, "{length} bytes");
        }
    }
}
