//! From a scene to pixels: sky, hills, ground, shadows, objects from far to near, then the sensor.
//!
//! Everything is blended in linear light and only the last step takes square roots to display values. Plain arithmetic
//! in `f32` throughout, so the same scene is the same bytes on every IEEE machine.

use super::noise::{self, Octaves, floor};
use super::palette::{Colour, Laid, each, mix};
use super::scene::{CAMERA_HEIGHT, Object, Pattern, Scene};
use super::shape::Shape;

/// The ground beyond this looks like the horizon.
const HORIZON_DISTANCE: f32 = 300.0;

/// Draws the scene as packed RGB8.
pub fn paint(scene: &Scene) -> Vec<u8> {
    let (width, height) = (scene.width as usize, scene.height as usize);
    let mut canvas = vec![[0.0f32; 3]; width * height];
    // The first row whose centre lies below the horizon.
    let first = ((scene.camera.horizon + 0.5).ceil() as usize).min(height);
    let (above, below) = canvas.split_at_mut(first * width);
    sky(scene, above);
    hills(scene, above);
    ground(scene, below, first);
    shadows(scene, below, first);
    for object in scene.objects.iter().rev() {
        stand(scene, object, &mut canvas);
    }
    develop(scene, &canvas)
}

fn clamp01(v: f32) -> f32 {
    v.clamp(0.0, 1.0)
}

fn smoothstep(low: f32, high: f32, v: f32) -> f32 {
    let t = clamp01((v - low) / (high - low));
    t * t * (3.0 - 2.0 * t)
}

/// Returns how much of a thing at distance `z` is lost in haze.
fn haze(scene: &Scene, z: f32) -> f32 {
    z / (z + scene.sky.haze)
}

fn sky(scene: &Scene, rows: &mut [Colour]) {
    let width = scene.width as usize;
    let camera = &scene.camera;
    let sky = &scene.sky;
    let clouds = Octaves {
        seed: sky.seed,
        frequency: 0.55,
        count: 5,
        gain: 0.52,
        stretch: 1.6,
    };
    // Brighter on the side the light comes from.
    let side = scene.light.shadow[0].clamp(-1.0, 1.0) * 0.22 / scene.width as f32;
    let mut cloud = vec![0.0; width];
    for (y, row) in rows.chunks_exact_mut(width).enumerate() {
        let up = (camera.horizon - (y as f32 + 0.5)).max(0.5) / camera.focal;
        let share = up / (up + 0.16);
        let clear = mix(sky.bottom, sky.top, share * 1.25 - 0.25 * share * share);
        // A flat layer of cloud, seen in perspective and lost toward the horizon.
        let depth = 1.0 / (up + 0.05);
        let step = depth / camera.focal;
        clouds.fill(
            &mut cloud,
            [-camera.middle * step, depth],
            step,
            step.max(depth * step * 0.5),
        );
        let fade = smoothstep(0.0, 0.12, up);
        for (x, (pixel, noise)) in row.iter_mut().zip(&cloud).enumerate() {
            let edge = 0.75 - 1.5 * sky.cover;
            let density = smoothstep(edge - 0.15, edge + 0.6, *noise) * fade;
            let shade = 0.92 + 0.12 * noise;
            let lit = 1.0 + side * (x as f32 - camera.middle);
            *pixel = mix(clear, each(|i| sky.cloud[i] * shade), density * 0.9);
            *pixel = each(|i| pixel[i] * lit);
        }
    }
}

fn hills(scene: &Scene, rows: &mut [Colour]) {
    let width = scene.width as usize;
    let height = scene.height as f32;
    let last = rows.len() / width;
    let mut ridge = vec![0.0; width];
    for hill in &scene.hills {
        let octaves = Octaves {
            seed: hill.seed,
            frequency: hill.frequency,
            count: 6,
            gain: 0.48,
            stretch: 1.0,
        };
        let step = 1.0 / scene.width as f32;
        octaves.fill(&mut ridge, [0.0, 0.5], step, step);
        for (x, noise) in ridge.iter().enumerate() {
            let top = scene.camera.horizon - height * hill.height * (1.0 + 0.75 * noise);
            for y in (top - 1.0).max(0.0) as usize..last {
                let cover = clamp01(y as f32 + 1.0 - top);
                // Mist gathers at the foot.
                let foot = clamp01((y as f32 - top) / (scene.camera.horizon - top).max(1.0));
                let colour = mix(hill.colour, scene.sky.bottom, 0.25 * foot);
                let pixel = &mut rows[y * width + x];
                *pixel = mix(*pixel, colour, cover);
            }
        }
    }
}

fn ground(scene: &Scene, rows: &mut [Colour], first: usize) {
    let width = scene.width as usize;
    let ground = &scene.ground;
    let camera = &scene.camera;
    let fine = Octaves {
        seed: ground.seed,
        frequency: ground.frequency,
        count: 6,
        gain: 0.72,
        stretch: ground.stretch,
    };
    let patches = Octaves {
        seed: !ground.seed,
        frequency: 0.35,
        count: 3,
        gain: 0.6,
        stretch: 1.3,
    };
    let light = lit(scene, 0.62, 1.0);
    let [mut texture, mut patch] = [vec![0.0; width], vec![0.0; width]];
    for (y, row) in rows.chunks_exact_mut(width).enumerate() {
        let from_horizon = (first + y) as f32 + 0.5 - camera.horizon;
        let z = (CAMERA_HEIGHT * camera.focal / from_horizon).min(HORIZON_DISTANCE);
        let step = z / camera.focal;
        // A pixel covers more ground in depth than in width.
        let deep = z / from_horizon.max(1.0);
        let footprint = step.max(0.4 * deep);
        let left = 0.5 * step - camera.middle * step;
        fine.fill(&mut texture, [left, z], step, footprint);
        patches.fill(&mut patch, [left, z], step, footprint);
        let lost = haze(scene, z);
        for (x, pixel) in row.iter_mut().enumerate() {
            let at = left + step * x as f32;
            let grain = texture[x] * ground.contrast;
            let mut colour = mix(
                ground.colours[0],
                ground.colours[1],
                clamp01(0.5 + 0.5 * grain),
            );
            colour = mix(
                colour,
                ground.colours[2],
                smoothstep(0.1, 0.9, patch[x]) * 0.7,
            );
            let shade = (1.0 + 0.28 * grain) * laid(scene, &mut colour, at, z, footprint);
            if let Some((speck, share, size)) = ground.specks {
                let cover = strewn(ground.seed ^ 0x5bd1_e995, at, z, share, size, footprint);
                colour = mix(colour, speck, cover);
            }
            let colour = each(|i| colour[i] * shade * light[i]);
            *pixel = mix(colour, scene.sky.bottom, lost);
        }
    }
}

/// Joints and tints of laid ground: changes the colour and returns a factor of brightness.
fn laid(scene: &Scene, colour: &mut Colour, x: f32, z: f32, footprint: f32) -> f32 {
    let ground = &scene.ground;
    let joint = |inside: f32, width: f32| {
        let line = clamp01((0.5 * width - inside) / footprint.max(0.2 * width) + 0.5);
        1.0 - 0.5 * line * (width / (width + footprint))
    };
    let (fraction, edge) = (|v: f32| v - floor(v), |f: f32| f.min(1.0 - f));
    match ground.laid {
        Laid::Loose => 1.0,
        Laid::Slabs(size) => {
            let row = floor(z / size);
            let u = x / size * 0.6 + 0.5 * (row as i32 & 1) as f32;
            let tint = 1.0 + 0.16 * noise::signed(ground.seed, floor(u) as i32, row as i32);
            let inside = edge(fraction(z / size)).min(edge(fraction(u)) / 0.6) * size;
            tint * joint(inside, 0.05 * size + 0.01)
        }
        Laid::Boards(size) => {
            let column = floor(x / size);
            let shift = noise::signed(!ground.seed, column as i32, 0);
            let v = z / (size * 9.0) + shift;
            let tint = 1.0 + 0.22 * noise::signed(ground.seed, column as i32, floor(v) as i32);
            let inside = edge(fraction(x / size)).min(edge(fraction(v)) * 9.0) * size;
            tint * joint(inside, 0.02)
        }
        Laid::Checks(size) => {
            let cell = floor(x / size) as i32 + floor(z / size) as i32;
            let contrast = clamp01(1.2 - footprint / size);
            let side = if cell & 1 == 0 {
                0.5 - 0.5 * contrast
            } else {
                0.5 + 0.5 * contrast
            };
            // Soften the border between tiles over one pixel.
            let inside = edge(fraction(x / size)).min(edge(fraction(z / size))) * size;
            let side = side + (0.5 - side) * clamp01(1.0 - inside / footprint * 1.5);
            let grain = *colour;
            *colour = mix(mix(ground.colours[0], ground.colours[1], side), grain, 0.2);
            1.0
        }
    }
}

/// Returns the coverage of a round speck, of which each cell holds at most one, entirely inside.
fn strewn(seed: u32, x: f32, z: f32, share: f32, size: f32, footprint: f32) -> f32 {
    if footprint > 0.3 * size {
        return 0.0;
    }
    let (u, v) = (x / size, z / size);
    let (column, row) = (floor(u), floor(v));
    let bits = noise::hash(seed, column as i32, row as i32);
    if (bits & 255) as f32 >= share * 256.0 {
        return 0.0;
    }
    let byte = |shift: u32| ((bits >> shift) & 255) as f32 / 255.0;
    let radius = 0.06 + 0.12 * byte(8);
    let (cu, cv) = (0.2 + 0.6 * byte(16), 0.2 + 0.6 * byte(24));
    let (du, dv) = (u - column - cu, v - row - cv);
    clamp01((radius - (du * du + dv * dv).sqrt()) * size / footprint + 0.5)
}

/// Returns the light on a surface: `facing` is the cosine to the sun, `open` the share of the sky it sees.
fn lit(scene: &Scene, facing: f32, open: f32) -> Colour {
    let light = &scene.light;
    each(|i| light.sun[i] * facing + light.ambient[i] * open)
}

fn shadows(scene: &Scene, rows: &mut [Colour], first: usize) {
    let width = scene.width as usize;
    let mut shade = vec![0.0f32; rows.len()];
    for object in &scene.objects {
        cast(scene, object, &mut shade, first);
    }
    // What remains in full shadow, next to full light.
    let (full, dark) = (lit(scene, 0.62, 1.0), lit(scene, 0.0, 0.85));
    let factor = each(|i| dark[i] / full[i]);
    for (i, (pixel, share)) in rows.iter_mut().zip(&shade).enumerate() {
        if *share > 0.0 {
            let y = (first + i / width) as f32 + 0.5;
            let lost = haze(scene, scene.camera.ground(y).min(HORIZON_DISTANCE));
            let shaded = each(|c| {
                let air = scene.sky.bottom[c] * lost;
                (pixel[c] - air) * factor[c] + air
            });
            *pixel = mix(*pixel, shaded, *share);
        }
    }
}

/// Adds an object's shadow: a ground point is dark if the way from it to the light passes through the outline.
fn cast(scene: &Scene, object: &Object, shade: &mut [f32], first: usize) {
    let (width, height) = (scene.width as usize, scene.height as usize);
    let camera = &scene.camera;
    let [lean, toward] = scene.light.shadow;
    let [right, left, up, _] = object.reach().map(|r| r * object.radius);
    let top = object.y + up;
    // The nearest and farthest depth that the shadow and the dark patch at the foot can have.
    let foot = 0.3 * object.radius;
    let depths = [object.z - toward * top, object.z].map(|z| z.max(0.5));
    let (near, far) = (
        depths[0].min(depths[1]) - foot,
        depths[0].max(depths[1]) + foot,
    );
    let row_of = |z: f32| camera.project([0.0, 0.0, z.max(0.4)])[1];
    let rows = (row_of(far).max(first as f32) as usize)
        ..((row_of(near) + 1.0).max(0.0) as usize).min(height);
    for y in rows {
        let z = camera.ground(y as f32 + 0.5);
        let step = z / camera.focal;
        let rise = (object.z - z) / toward;
        let shift = lean * rise;
        let reach = (right.max(left) + 0.1) * 1.1;
        let bounds = [
            object.x - shift - reach,
            object.x - shift + reach,
            object.x - reach,
            object.x + reach,
        ];
        let column = |x: f32| (camera.middle + x / step).clamp(0.0, width as f32);
        let low = column(bounds[0].min(bounds[2])) as usize;
        let high = column(bounds[1].max(bounds[3])).ceil() as usize;
        // The penumbra widens with the way the light has gone; a pixel is never sharper than itself.
        let soft = 0.02
            + 0.09 * rise.max(0.0)
            + step.max(z / (y as f32 + 0.5 - camera.horizon) * 0.5 / toward.abs());
        for x in low..high {
            let at = (x as f32 + 0.5 - camera.middle) * step;
            let mut dark = 0.0f32;
            if rise > -0.1 {
                let local = object.local(at + shift - object.x, rise - object.y);
                let distance = object.shape.distance(local).value * object.radius;
                dark = clamp01(0.5 - distance / soft) * clamp01(1.0 + rise / 0.1);
            }
            let (dx, dz) = (
                (at - object.x) / (0.7 * object.radius),
                (object.z - z) / foot,
            );
            let patch = clamp01(1.0 - dx * dx - dz * dz);
            let cell = &mut shade[(y - first) * width + x];
            *cell = cell.max(dark).max(0.55 * patch * patch);
        }
    }
}

/// Paints one object over what lies behind it.
fn stand(scene: &Scene, object: &Object, canvas: &mut [Colour]) {
    let (width, height) = (scene.width as usize, scene.height as usize);
    let placed = object.placed(&scene.camera);
    let [right, left, up, down] = object.reach().map(|r| r * placed.scale + 1.5);
    let bound = |v: f32, most: usize| v.clamp(0.0, most as f32) as usize;
    let columns = bound(placed.x - left, width)..bound(placed.x + right + 1.0, width);
    let rows = bound(placed.y - up, height)..bound(placed.y + down + 1.0, height);

    // Light falls from the side the shadow leaves, from above, and somewhat from the camera, so that no front is black.
    let [lean, toward] = scene.light.shadow;
    let back = if toward > 0.0 { 0.45 } else { 0.8 };
    let norm = 1.0 / (lean * lean + 1.0 + back * back).sqrt();
    let (sun, up_local) = (
        [lean * norm, norm, back * norm],
        [object.turn[1], object.turn[0]],
    );
    let [c, s] = object.turn;
    let sun = [c * sun[0] + s * sun[1], c * sun[1] - s * sun[0], sun[2]];
    // Halfway between sun and eye, for the highlight.
    let half = [sun[0], sun[1], sun[2] + 1.0];
    let norm = 1.0 / (half[0] * half[0] + half[1] * half[1] + half[2] * half[2]).sqrt();
    let half = half.map(|v| v * norm);

    let lost = haze(scene, object.z);
    let metres = scene.camera.focal.recip() * object.z;
    for y in rows {
        for x in columns.clone() {
            let (px, py) = (x as f32 + 0.5, y as f32 + 0.5);
            let local = object.local((px - placed.x) * metres, (placed.y - py) * metres);
            let distance = object.shape.distance(local);
            let cover = clamp01(0.5 - distance.value * placed.scale);
            if cover <= 0.0 {
                continue;
            }
            let tilt = tilt(object.shape, distance.value);
            let [gx, gy] = distance.gradient;
            let normal = [gx * tilt, gy * tilt, (1.0 - tilt * tilt).max(0.0).sqrt()];
            let dot = |v: [f32; 3]| normal[0] * v[0] + normal[1] * v[1] + normal[2] * v[2];
            let upward = normal[0] * up_local[0] + normal[1] * up_local[1];
            let light = lit(scene, dot(sun).max(0.0), 0.75 + 0.25 * upward);
            let mut shine = dot(half).max(0.0);
            for _ in 0..5 {
                shine *= shine;
            }
            // The foot sees little sky.
            let above = object.y + (placed.y - py) * metres;
            let contact = 0.6 + 0.4 * clamp01(above / (0.35 * object.radius));
            let paint = pattern(object, local, placed.scale);
            let colour = each(|i| {
                let gleam = shine * object.gloss * 0.5 * scene.light.sun[i];
                (paint[i] * light[i] + gleam) * contact
            });
            let colour = mix(colour, scene.sky.bottom, lost);
            let pixel = &mut canvas[y * width + x];
            *pixel = mix(*pixel, colour, cover);
        }
    }
}

/// Returns how far the surface leans outward near the edge: a ball, a torus, or a plate with a bevelled rim.
fn tilt(shape: Shape, distance: f32) -> f32 {
    let rim = match shape {
        Shape::Circle => 1.0,
        Shape::Ring => 0.27,
        Shape::Crescent => 0.3,
        Shape::Heart => 0.5,
        _ => 0.2,
    };
    let edge = clamp01(1.0 + distance / rim);
    match shape {
        Shape::Circle | Shape::Ring => edge * 0.98,
        _ => edge * edge * 0.8,
    }
}

fn pattern(object: &Object, [x, y]: [f32; 2], scale: f32) -> Colour {
    let [ru, rv] = object.repeat;
    let (u, v) = (x * ru + y * rv, y * ru - x * rv);
    let repeats = (ru * ru + rv * rv).sqrt();
    // Pixels per repeat: edges are one pixel wide, and what is finer fades.
    let pixels = scale / repeats;
    let wave = |t: f32| ((t - floor(t)) - 0.5).abs() - 0.25; // -0.25..0.25 over half a repeat
    let edge = |d: f32| clamp01(0.5 + d * pixels);
    let share = match object.pattern {
        Pattern::Plain => 0.0,
        Pattern::Stripes => edge(wave(u)),
        Pattern::Checks => {
            let (a, b) = (edge(wave(u)), edge(wave(v)));
            a + b - 2.0 * a * b
        }
        Pattern::Dots => {
            let centred = |t: f32| t - floor(t) - 0.5;
            let (a, b) = (centred(u * 1.3), centred(v * 1.3));
            edge(0.3 - (a * a + b * b).sqrt())
        }
        Pattern::Marble => {
            let bend = noise::point(object.seed, u * 1.1, v * 1.1)
                + 0.5 * noise::point(!object.seed, u * 2.3, v * 2.3);
            let vein = (noise::point(object.seed ^ 1, u * 0.8 + bend, v * 0.8 - bend)).abs();
            0.85 * (1.0 - smoothstep(0.0, 0.35, vein))
        }
    };
    mix(
        object.colours[0],
        object.colours[1],
        share * clamp01(pixels / 3.0),
    )
}

/// Lens and sensor: darker corners, noise, and the display's square-root response.
fn develop(scene: &Scene, canvas: &[Colour]) -> Vec<u8> {
    let width = scene.width as usize;
    let mut pixels = vec![0; canvas.len() * 3];
    let (cx, cy) = (0.5 * scene.width as f32, 0.5 * scene.height as f32);
    let corner = 1.0 / (cx * cx + cy * cy);
    let rows = canvas
        .chunks_exact(width)
        .zip(pixels.chunks_exact_mut(3 * width));
    for (y, (row, bytes)) in rows.enumerate() {
        let dy = y as f32 + 0.5 - cy;
        for (x, (colour, out)) in row.iter().zip(bytes.chunks_exact_mut(3)).enumerate() {
            let dx = x as f32 + 0.5 - cx;
            let lens = 1.0 - 0.28 * (dx * dx + dy * dy) * corner;
            let bits = noise::hash(scene.seed, x as i32, y as i32);
            // Brightness noise, the sum of two uniform draws, with a little of its own in every channel.
            let common = ((bits & 1023) + ((bits >> 10) & 1023)) as f32 / 1023.0 - 1.0;
            for i in 0..3 {
                let own = ((bits >> (20 + 4 * i)) & 15) as f32 / 7.5 - 1.0;
                let value = (colour[i] * lens).max(0.0).sqrt() + scene.grain * (common + 0.5 * own);
                // The cast clamps.
                out[i] = (value * 255.0 + 0.5) as u8;
            }
        }
    }
    pixels
}
