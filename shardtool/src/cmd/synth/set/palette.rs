//! The tables a scene is drawn from: weathers, grounds, paints.

/// Linear red, green, blue.
pub type Colour = [f32; 3];

/// Returns a colour from its channels. `[0, 1, 2].map` says the same, but is compiled into calls, which cost a third of
/// all time.
#[inline(always)]
pub fn each(channel: impl Fn(usize) -> f32) -> Colour {
    [channel(0), channel(1), channel(2)]
}

/// Returns `a` moved toward `b`.
#[inline(always)]
pub fn mix(a: Colour, b: Colour, share: f32) -> Colour {
    each(|i| a[i] + (b[i] - a[i]) * share)
}

/// How the ground is laid.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Laid {
    /// Grown or strewn.
    Loose,
    /// Paving slabs of this size, with joints.
    Slabs(f32),
    /// Boards of this width, running away from the camera.
    Boards(f32),
    /// Two-coloured tiles of this size.
    Checks(f32),
}

/// Returns a display colour (`0xrrggbb`) as linear light. Gamma 2 stands in for sRGB: its inverse is a square root,
/// exact everywhere.
pub const fn colour(hex: u32) -> Colour {
    let (r, g, b) = ((hex >> 16) & 255, (hex >> 8) & 255, hex & 255);
    let (r, g, b) = (r as f32 / 255.0, g as f32 / 255.0, b as f32 / 255.0);
    [r * r, g * g, b * b]
}

/// A kind of weather, from which a sky and a light are drawn.
pub struct Weather {
    /// Overhead, at the horizon, and clouds.
    pub sky: [u32; 3],
    /// Colour of direct light.
    pub sun: u32,
    /// Colour of light from everywhere.
    pub ambient: u32,
    /// Strength of direct light.
    pub direct: f32,
    /// Range of cloud cover.
    pub cover: [f32; 2],
    /// Range of the distance at which half the contrast is lost.
    pub haze: [f32; 2],
}

pub const WEATHERS: [Weather; 7] = [
    // A clear morning, a fair day, the hour before sunset, dusk, an overcast day, mist, a thunderous sky.
    Weather {
        sky: [0x2f6fc4, 0xbfdcf0, 0xffffff],
        sun: 0xfff4e0,
        ambient: 0x9db4d8,
        direct: 1.15,
        cover: [0.0, 0.3],
        haze: [90.0, 200.0],
    },
    Weather {
        sky: [0x4a8ad4, 0xd5e6ef, 0xfdfdfb],
        sun: 0xfff6e8,
        ambient: 0xa9b9d2,
        direct: 1.05,
        cover: [0.3, 0.7],
        haze: [70.0, 160.0],
    },
    Weather {
        sky: [0x5d79b4, 0xf6c990, 0xffb88a],
        sun: 0xffcf94,
        ambient: 0x9c94b8,
        direct: 1.1,
        cover: [0.2, 0.65],
        haze: [45.0, 110.0],
    },
    Weather {
        sky: [0x3a3f77, 0xe79aa0, 0xb77aa0],
        sun: 0xf5a890,
        ambient: 0x8a86b4,
        direct: 0.75,
        cover: [0.3, 0.8],
        haze: [35.0, 90.0],
    },
    Weather {
        sky: [0x9aa6b2, 0xdde1e3, 0xc4cad0],
        sun: 0xf2f2f0,
        ambient: 0xc2c8d0,
        direct: 0.45,
        cover: [0.8, 1.0],
        haze: [45.0, 110.0],
    },
    Weather {
        sky: [0xc3ccd0, 0xe6e8e6, 0xdfe3e4],
        sun: 0xf6f2ea,
        ambient: 0xc8cdd0,
        direct: 0.4,
        cover: [0.3, 0.8],
        haze: [15.0, 30.0],
    },
    Weather {
        sky: [0x4d5a6c, 0xb9c2c4, 0x6d7886],
        sun: 0xf4ead2,
        ambient: 0x8c98a8,
        direct: 0.7,
        cover: [0.6, 1.0],
        haze: [45.0, 110.0],
    },
];

/// Colours, laying, contrast, frequency, stretch, speck colour (0: none).
pub type GroundKind = ([u32; 3], Laid, f32, f32, f32, u32);

/// The grounds; the place in this list is the label `ground`.
pub const GROUNDS: [GroundKind; 10] = [
    (
        [0x4f7a32, 0x86a84c, 0x6b7a38],
        Laid::Loose,
        0.9,
        2.6,
        1.0,
        0xf2e9a0,
    ), // meadow
    (
        [0xd9bf8c, 0xc29f68, 0xb08a58],
        Laid::Loose,
        0.55,
        3.0,
        5.0,
        0x8d7250,
    ), // rippled sand
    (
        [0x6d5138, 0x94714f, 0x55503a],
        Laid::Loose,
        0.8,
        2.2,
        1.4,
        0xb9a68c,
    ), // soil
    (
        [0x8b8a86, 0xa9a7a1, 0x74746f],
        Laid::Loose,
        0.9,
        7.0,
        1.0,
        0xd0cec6,
    ), // gravel
    (
        [0xe6ecf2, 0xf7f9fb, 0xc9d6e4],
        Laid::Loose,
        0.6,
        0.9,
        2.0,
        0,
    ), // snow
    (
        [0xa39a8c, 0xb9b1a2, 0x8e8a7c],
        Laid::Slabs(0.8),
        0.45,
        3.0,
        1.0,
        0,
    ), // paving
    (
        [0x9a5b44, 0xb4735a, 0x86503e],
        Laid::Slabs(0.36),
        0.5,
        4.0,
        1.0,
        0,
    ), // brick
    (
        [0x8a5f3a, 0xb58552, 0x74502f],
        Laid::Boards(0.28),
        0.7,
        1.3,
        0.08,
        0,
    ), // boards
    (
        [0xd8d2c4, 0x5d6a73, 0xbdb7aa],
        Laid::Checks(0.9),
        0.25,
        1.5,
        1.0,
        0,
    ), // tiles
    (
        [0x54585c, 0x6b6f72, 0x484b4e],
        Laid::Loose,
        0.7,
        9.0,
        1.0,
        0xc9a45a,
    ), // asphalt with leaves
];

/// What objects are painted with.
pub const PAINTS: [u32; 16] = [
    0xd8382f, 0xe8742a, 0xf2b632, 0xf3dd4e, 0x7fb53b, 0x2f8f4e, 0x2aa198, 0x3fb6d9, 0x2f6fd0,
    0x3b3f9e, 0x7a46a8, 0xb84aa0, 0xe86a92, 0xf1ece0, 0x35373c, 0x8c5a36,
];
