//! What is in a picture: camera, light, backdrop, ground and objects, drawn from one generator and nothing else.
//!
//! A scene is the truth from which both the pixels and the labels are made. Lengths are metres, the ground is the plane
//! `y = 0`, `z` is the distance from the camera along its view, colours are linear light in 0..1.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;

use super::palette::{Colour, GROUNDS, Laid, PAINTS, WEATHERS, colour, mix};
use super::shape::Shape;

/// Height of the camera above the ground. It is the same in every picture, so that distance can be learnt from the
/// ground.
pub const CAMERA_HEIGHT: f32 = 1.3;
/// No object stands farther away.
pub const FARTHEST: f32 = 32.0;
/// No picture has more objects.
pub const MOST_OBJECTS: u32 = 8;
/// An object counts only if this share of it can be seen; scenes are drawn so that every object does.
pub const LEAST_VISIBLE: f32 = 0.45;

/// Uniform draws. The mapping from generator words to values is written out here because it decides bytes of the set.
pub struct Draw(pub ChaCha8Rng);

impl Draw {
    /// Returns a number in 0..1, a multiple of 2⁻²⁴.
    pub fn unit(&mut self) -> f32 {
        (self.0.next_u32() >> 8) as f32 * (1.0 / 16_777_216.0)
    }

    /// Returns a number between two bounds.
    pub fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// Returns an integer below `n`.
    pub fn below(&mut self, n: u32) -> u32 {
        ((u64::from(self.0.next_u32()) * u64::from(n)) >> 32) as u32
    }

    /// Returns true with this probability.
    pub fn chance(&mut self, probability: f32) -> bool {
        self.unit() < probability
    }

    /// Returns one of several, each as likely.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u32) as usize]
    }

    /// Returns a texture seed.
    pub fn seed(&mut self) -> u32 {
        self.0.next_u32()
    }
}

/// The pinhole through which everything is seen.
#[derive(Clone, Copy, Debug)]
pub struct Camera {
    /// Pixels per metre at one metre.
    pub focal: f32,
    /// Centre column.
    pub middle: f32,
    /// Row of the horizon.
    pub horizon: f32,
}

/// Where the light comes from, as the shadow it casts.
#[derive(Clone, Copy, Debug)]
pub struct Light {
    /// A point at height 1 throws its shadow this far to the left and toward the camera.
    pub shadow: [f32; 2],
    /// Colour of direct light.
    pub sun: Colour,
    /// Colour of light from everywhere.
    pub ambient: Colour,
}

/// Sky, clouds, and the haze that takes the colour of the sky at the horizon.
#[derive(Clone, Debug)]
pub struct Sky {
    /// Overhead.
    pub top: Colour,
    /// At the horizon; distant things fade into it.
    pub bottom: Colour,
    /// Of the clouds.
    pub cloud: Colour,
    /// 0 for a clear sky, 1 for a covered one.
    pub cover: f32,
    /// Texture of the clouds.
    pub seed: u32,
    /// Distance at which half the contrast is lost.
    pub haze: f32,
}

/// A ridge on the horizon.
#[derive(Clone, Debug)]
pub struct Hill {
    /// Mean height above the horizon, as a share of the picture's height.
    pub height: f32,
    /// Colour, haze included.
    pub colour: Colour,
    /// Features per picture width.
    pub frequency: f32,
    /// Texture of the ridge.
    pub seed: u32,
}

/// What the objects stand on.
#[derive(Clone, Debug)]
pub struct Ground {
    /// Place of this ground in the list of grounds; a label.
    pub kind: usize,
    /// The two main colours and that of occasional patches.
    pub colours: [Colour; 3],
    /// How it is laid.
    pub laid: Laid,
    /// Strength of the texture.
    pub contrast: f32,
    /// Features per metre of the coarsest octave.
    pub frequency: f32,
    /// How much wider than deep its features are.
    pub stretch: f32,
    /// Pebbles, leaves or flowers: colour, share of cells that hold one, cell size.
    pub specks: Option<(Colour, f32, f32)>,
    /// Texture.
    pub seed: u32,
}

/// How an object is painted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// One colour.
    Plain,
    /// Parallel bands.
    Stripes,
    /// A chessboard.
    Checks,
    /// Round dots.
    Dots,
    /// Veined stone.
    Marble,
}

/// A thing standing on the ground, facing the camera.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its outline.
    pub shape: Shape,
    /// Metres to the right of the camera.
    pub x: f32,
    /// Distance from the camera.
    pub z: f32,
    /// Height of its centre; its lowest point touches the ground.
    pub y: f32,
    /// Metres per unit of the outline.
    pub radius: f32,
    /// Cosine and sine of its tilt.
    pub turn: [f32; 2],
    /// Main and second colour.
    pub colours: [Colour; 2],
    /// How the two are laid out.
    pub pattern: Pattern,
    /// Size and direction of the pattern: the vector along which it repeats, in repeats per unit.
    pub repeat: [f32; 2],
    /// Shine, 0..1.
    pub gloss: f32,
    /// Texture of marble.
    pub seed: u32,
}

/// An object's place in the picture.
#[derive(Clone, Copy, Debug)]
pub struct Placed {
    /// Centre, in pixels.
    pub x: f32,
    /// Centre, in pixels from the top.
    pub y: f32,
    /// Pixels per unit of the outline.
    pub scale: f32,
}

impl Camera {
    /// Returns the distance of the ground seen in row `y`, which lies below the horizon.
    pub fn ground(&self, y: f32) -> f32 {
        CAMERA_HEIGHT * self.focal / (y - self.horizon)
    }

    /// Returns column and row of a point in space.
    pub fn project(&self, [x, y, z]: [f32; 3]) -> [f32; 2] {
        let scale = self.focal / z;
        [
            self.middle + x * scale,
            self.horizon + (CAMERA_HEIGHT - y) * scale,
        ]
    }
}

impl Object {
    /// Returns where the camera sees it.
    pub fn placed(&self, camera: &Camera) -> Placed {
        let [x, y] = camera.project([self.x, self.y, self.z]);
        Placed {
            x,
            y,
            scale: self.radius * camera.focal / self.z,
        }
    }

    /// Converts metres right of and above the centre to units of the outline.
    pub fn local(&self, right: f32, up: f32) -> [f32; 2] {
        let [c, s] = self.turn;
        let (x, y) = (right / self.radius, up / self.radius);
        [c * x + s * y, c * y - s * x]
    }

    /// Returns how far it reaches from its centre to the right, left, up and down, in units of the outline.
    pub fn reach(&self) -> [f32; 4] {
        let [c, s] = self.turn;
        [[c, -s], [-c, s], [s, c], [-s, -c]].map(|direction| self.shape.reach(direction))
    }

    /// Returns the signed distance, in pixels, of a pixel's centre to the outline.
    pub fn pixel_distance(&self, camera: &Camera, x: f32, y: f32) -> f32 {
        let placed = self.placed(camera);
        let metres = self.z / camera.focal;
        let local = self.local((x - placed.x) * metres, (placed.y - y) * metres);
        self.shape.distance(local).value * placed.scale
    }
}

/// Everything in one picture.
#[derive(Clone, Debug)]
pub struct Scene {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// The view.
    pub camera: Camera,
    /// The light.
    pub light: Light,
    /// Above the horizon.
    pub sky: Sky,
    /// On the horizon, farthest first.
    pub hills: Vec<Hill>,
    /// Below the horizon.
    pub ground: Ground,
    /// Nearest first: the first is the main object, whose shape is the image's class.
    pub objects: Vec<Object>,
    /// Strength of the sensor's noise.
    pub grain: f32,
    /// Of the sensor's noise.
    pub seed: u32,
}

impl Scene {
    /// Draws a scene of this size whose main object has the given shape.
    pub fn draw(draw: &mut Draw, shape: Shape, width: u32, height: u32) -> Scene {
        let (w, h) = (width as f32, height as f32);
        let camera = Camera {
            focal: 1.1 * w.max(h),
            middle: 0.5 * w,
            horizon: h * draw.between(0.26, 0.46),
        };
        let weather = draw.pick(&WEATHERS);
        let sky = Sky {
            top: colour(weather.sky[0]),
            bottom: colour(weather.sky[1]),
            cloud: colour(weather.sky[2]),
            cover: draw.between(weather.cover[0], weather.cover[1]),
            seed: draw.seed(),
            haze: draw.between(weather.haze[0], weather.haze[1]),
        };
        let light = Light {
            shadow: shadow(draw),
            sun: colour(weather.sun).map(|c| c * weather.direct),
            ambient: colour(weather.ambient).map(|c| c * 0.75),
        };
        let ground = Ground::draw(draw);
        let hills = hills(draw, &sky, &ground);
        let objects = objects(draw, shape, &camera, w, h);
        let grain = draw.between(0.006, 0.022);
        Scene {
            width,
            height,
            camera,
            light,
            sky,
            hills,
            ground,
            objects,
            grain,
            seed: draw.seed(),
        }
    }
}

/// Returns a direction with a good part along the view, because light from the very side makes a flat object's shadow a
/// line. The tangent of half the angle is drawn instead of the angle: no trigonometry.
fn shadow(draw: &mut Draw) -> [f32; 2] {
    let t = draw.between(-0.55, 0.55);
    let length = draw.between(0.45, 1.5);
    let toward = if draw.chance(0.35) { 1.0 } else { -1.0 };
    let scale = length / (1.0 + t * t);
    [2.0 * t * scale, (1.0 - t * t) * scale * toward]
}

impl Ground {
    fn draw(draw: &mut Draw) -> Ground {
        let kind = draw.below(GROUNDS.len() as u32) as usize;
        let (colours, laid, contrast, frequency, stretch, speck) = GROUNDS[kind];
        let tint = [
            draw.between(0.85, 1.1),
            draw.between(0.88, 1.08),
            draw.between(0.85, 1.1),
        ];
        let tinted = |c: u32| {
            let c = colour(c);
            [c[0] * tint[0], c[1] * tint[1], c[2] * tint[2]]
        };
        let scale = draw.between(0.8, 1.25);
        let laid = match laid {
            Laid::Loose => Laid::Loose,
            Laid::Slabs(size) => Laid::Slabs(size * scale),
            Laid::Boards(size) => Laid::Boards(size * scale),
            Laid::Checks(size) => Laid::Checks(size * scale),
        };
        let share = draw.between(0.05, 0.5);
        let size = draw.between(0.1, 0.25);
        Ground {
            kind,
            colours: colours.map(tinted),
            laid,
            contrast: contrast * draw.between(0.8, 1.2),
            frequency: frequency * draw.between(0.8, 1.25),
            stretch,
            specks: (speck != 0).then(|| (colour(speck), share, size)),
            seed: draw.seed(),
        }
    }
}

fn hills(draw: &mut Draw, sky: &Sky, ground: &Ground) -> Vec<Hill> {
    let count = draw.below(4);
    let far = mix(colour(0x3f5a6e), ground.colours[0], 0.35);
    (0..count)
        .map(|i| Hill {
            height: draw.between(0.02, 0.07) + 0.035 * (count - 1 - i) as f32,
            colour: mix(
                mix(far, ground.colours[0], 0.3 * i as f32),
                sky.bottom,
                0.72 - 0.17 * i as f32,
            ),
            frequency: draw.between(1.2, 3.5) + 1.5 * i as f32,
            seed: draw.seed(),
        })
        .collect()
}

/// Returns the main object and then others behind it. An object that could hardly be seen, or would hide another, is
/// drawn again elsewhere; after some attempts it is left out, so the count is always the number of objects in the list.
fn objects(draw: &mut Draw, shape: Shape, camera: &Camera, width: f32, height: f32) -> Vec<Object> {
    // The nearest ground on which a foot is still in the picture, and some room below it.
    let near = camera.ground(height * 0.95);
    // Depth is uniform in picture rows, as things in photographs are.
    let depth = |draw: &mut Draw, from: f32, to: f32| 1.0 / draw.between(1.0 / from, 1.0 / to);
    let main = loop {
        let z = depth(draw, near, (near * 2.6).min(12.0));
        let object = Object::draw(draw, shape, z, camera, width, 0.62);
        if visible(std::slice::from_ref(&object), 0, camera, width, height) > 0.98 {
            break object;
        }
    };
    let mut objects = vec![main];
    let more = draw.below(MOST_OBJECTS);
    for _ in 0..more {
        for _attempt in 0..12 {
            let z = depth(draw, objects[0].z * 1.12, FARTHEST);
            let shape = *draw.pick(&Shape::ALL);
            let object = Object::draw(draw, shape, z, camera, width, 1.0);
            let place = objects.partition_point(|other| other.z < object.z);
            objects.insert(place, object);
            if (0..objects.len())
                .all(|i| visible(&objects, i, camera, width, height) >= LEAST_VISIBLE)
            {
                break;
            }
            objects.remove(place);
        }
    }
    objects
}

/// Returns the share of object `index` that is inside the picture and not behind a nearer one, on a grid of its own.
pub fn visible(objects: &[Object], index: usize, camera: &Camera, width: f32, height: f32) -> f32 {
    const GRID: i32 = 14;
    let placed = objects[index].placed(camera);
    let (mut all, mut seen) = (0u32, 0u32);
    for row in 0..GRID {
        for column in 0..GRID {
            let offset = |i: i32| (i as f32 + 0.5) * (2.4 / GRID as f32) - 1.2;
            let x = placed.x + offset(column) * placed.scale;
            let y = placed.y + offset(row) * placed.scale;
            if objects[index].pixel_distance(camera, x, y) > 0.0 {
                continue;
            }
            all += 1;
            let framed = x >= 0.0 && y >= 0.0 && x < width && y < height;
            let hidden = || {
                objects[..index]
                    .iter()
                    .any(|nearer| nearer.pixel_distance(camera, x, y) < 0.0)
            };
            seen += u32::from(framed && !hidden());
        }
    }
    seen as f32 / all.max(1) as f32
}

impl Object {
    /// Draws an object; `spread` is the share of the picture's width over which the centre may lie.
    fn draw(
        draw: &mut Draw,
        shape: Shape,
        z: f32,
        camera: &Camera,
        width: f32,
        spread: f32,
    ) -> Object {
        let radius = draw.between(0.32, 0.66);
        let tangent = draw.between(-0.12, 0.12);
        let turn =
            [(1.0 - tangent * tangent), 2.0 * tangent].map(|v| v / (1.0 + tangent * tangent));
        let [cosine, sine] = turn;
        let x = (draw.unit() - 0.5) * spread * width * z / camera.focal;
        let jitter = |draw: &mut Draw, c: u32| {
            colour(c).map(|v| (v * draw.between(0.8, 1.2)).clamp(0.01, 0.97))
        };
        let first = draw.below(PAINTS.len() as u32);
        // Never the same paint twice.
        let second = (first + 1 + draw.below(PAINTS.len() as u32 - 1)) % PAINTS.len() as u32;
        let pattern = *draw.pick(&[
            Pattern::Plain,
            Pattern::Plain,
            Pattern::Stripes,
            Pattern::Checks,
            Pattern::Dots,
            Pattern::Marble,
        ]);
        let slant = draw.between(-1.0, 1.0);
        let repeats = draw.between(1.1, 2.4);
        let colours = [first, second].map(|paint| jitter(draw, PAINTS[paint as usize]));
        Object {
            shape,
            x,
            z,
            y: shape.reach([-sine, -cosine]) * radius,
            radius,
            turn,
            colours,
            pattern,
            repeat: [(1.0 - slant * slant), 2.0 * slant]
                .map(|v| v / (1.0 + slant * slant) * repeats),
            gloss: draw.unit(),
            seed: draw.seed(),
        }
    }
}
