//! The outlines of the objects: signed distances, from which edges, bevels and shadows are drawn.
//!
//! A shape is centred on the origin, about one unit in radius, with `y` pointing up. Only `+ - * / sqrt` are used, so
//! that every IEEE machine computes the same bits.

/// What an object looks like from the front. The main object's kind is the image's class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A ball.
    Circle,
    /// A square.
    Square,
    /// An equilateral triangle, point upward.
    Triangle,
    /// A five-pointed star.
    Star,
    /// A ring with a hole.
    Ring,
    /// A cross with four equal arms.
    Cross,
    /// A heart.
    Heart,
    /// A regular hexagon, lying on a side.
    Hexagon,
    /// A rhombus standing on its point.
    Diamond,
    /// A crescent moon, open to the right.
    Crescent,
    /// An arrow pointing upward.
    Arrow,
    /// A flash of lightning.
    Bolt,
}

/// Where a point lies relative to an outline.
#[derive(Clone, Copy, Debug)]
pub struct Distance {
    /// Distance to the outline, negative inside, in units of the shape's radius.
    pub value: f32,
    /// The direction in which the distance grows, of length one or zero.
    pub gradient: [f32; 2],
}

type Points = &'static [[f32; 2]];

const SQUARE: Points = &[[-0.86, -0.86], [0.86, -0.86], [0.86, 0.86], [-0.86, 0.86]];
const TRIANGLE: Points = &[[-1.0, -0.68], [1.0, -0.68], [0.0, 1.05]];
const HEXAGON: Points = &[
    [1.0, 0.0],
    [0.5, 0.866],
    [-0.5, 0.866],
    [-1.0, 0.0],
    [-0.5, -0.866],
    [0.5, -0.866],
];
const DIAMOND: Points = &[[0.0, -1.15], [0.74, 0.0], [0.0, 1.15], [-0.74, 0.0]];
const STAR: Points = &[
    [0.0, 1.1],
    [-0.285, 0.392],
    [-1.046, 0.34],
    [-0.461, -0.15],
    [-0.647, -0.89],
    [0.0, -0.485],
    [0.647, -0.89],
    [0.461, -0.15],
    [1.046, 0.34],
    [0.285, 0.392],
];
const CROSS: Points = &[
    [-0.34, -1.0],
    [0.34, -1.0],
    [0.34, -0.34],
    [1.0, -0.34],
    [1.0, 0.34],
    [0.34, 0.34],
    [0.34, 1.0],
    [-0.34, 1.0],
    [-0.34, 0.34],
    [-1.0, 0.34],
    [-1.0, -0.34],
    [-0.34, -0.34],
];
const ARROW: Points = &[
    [-0.34, -1.0],
    [0.34, -1.0],
    [0.34, 0.05],
    [0.92, 0.05],
    [0.0, 1.1],
    [-0.92, 0.05],
    [-0.34, 0.05],
];
const BOLT: Points = &[
    [-0.3, -1.1],
    [0.72, 0.22],
    [0.14, 0.22],
    [0.5, 1.05],
    [-0.28, 1.05],
    [-0.66, -0.12],
    [-0.06, -0.12],
];

const RING_MIDDLE: f32 = 0.73;
const RING_HALF_WIDTH: f32 = 0.27;
/// The bite out of the crescent: a circle about `(CRESCENT_OFFSET, 0)`.
const CRESCENT_OFFSET: f32 = 0.5;
const CRESCENT_BITE: f32 = 0.78;
/// The heart's formula is written for a heart one unit high standing on its tip.
const HEART_SCALE: f32 = 1.75;
const HEART_MIDDLE: f32 = 0.55;

impl Shape {
    /// Every shape, in the order in which `--classes K` takes them.
    pub const ALL: [Shape; 12] = [
        Shape::Circle,
        Shape::Square,
        Shape::Triangle,
        Shape::Star,
        Shape::Ring,
        Shape::Cross,
        Shape::Heart,
        Shape::Hexagon,
        Shape::Diamond,
        Shape::Crescent,
        Shape::Arrow,
        Shape::Bolt,
    ];

    /// Returns the name of the class.
    pub fn name(self) -> &'static str {
        match self {
            Shape::Circle => "circle",
            Shape::Square => "square",
            Shape::Triangle => "triangle",
            Shape::Star => "star",
            Shape::Ring => "ring",
            Shape::Cross => "cross",
            Shape::Heart => "heart",
            Shape::Hexagon => "hexagon",
            Shape::Diamond => "diamond",
            Shape::Crescent => "crescent",
            Shape::Arrow => "arrow",
            Shape::Bolt => "bolt",
        }
    }

    fn points(self) -> Option<Points> {
        match self {
            Shape::Square => Some(SQUARE),
            Shape::Triangle => Some(TRIANGLE),
            Shape::Star => Some(STAR),
            Shape::Cross => Some(CROSS),
            Shape::Hexagon => Some(HEXAGON),
            Shape::Diamond => Some(DIAMOND),
            Shape::Arrow => Some(ARROW),
            Shape::Bolt => Some(BOLT),
            Shape::Circle | Shape::Ring | Shape::Heart | Shape::Crescent => None,
        }
    }

    /// Returns the signed distance of `point` to the outline.
    pub fn distance(self, point: [f32; 2]) -> Distance {
        let [x, y] = point;
        match self {
            Shape::Circle => circle(x, y, 1.0),
            Shape::Ring => {
                let radial = circle(x, y, RING_MIDDLE);
                let side = if radial.value < 0.0 { -1.0 } else { 1.0 };
                Distance {
                    value: radial.value * side - RING_HALF_WIDTH,
                    gradient: radial.gradient.map(|g| g * side),
                }
            }
            Shape::Crescent => {
                let outer = circle(x, y, 1.0);
                let bite = circle(x - CRESCENT_OFFSET, y, CRESCENT_BITE);
                if outer.value > -bite.value {
                    outer
                } else {
                    Distance {
                        value: -bite.value,
                        gradient: bite.gradient.map(|g| -g),
                    }
                }
            }
            Shape::Heart => heart(x / HEART_SCALE, y / HEART_SCALE + HEART_MIDDLE),
            _ => polygon(self.points().expect("the other shapes are polygons"), x, y),
        }
    }

    /// Returns how far the shape reaches along the unit vector `direction`, from its centre.
    pub fn reach(self, direction: [f32; 2]) -> f32 {
        let along = |p: [f32; 2]| p[0] * direction[0] + p[1] * direction[1];
        match self {
            Shape::Circle | Shape::Ring | Shape::Crescent => 1.0,
            // Two round lobes and the tip.
            Shape::Heart => {
                let lobe = |x: f32| along([x, 0.75 - HEART_MIDDLE]) + 0.353_553_4;
                lobe(0.25).max(lobe(-0.25)).max(along([0.0, -HEART_MIDDLE])) * HEART_SCALE
            }
            _ => {
                let points = self.points().expect("the other shapes are polygons");
                points.iter().map(|&p| along(p)).fold(f32::MIN, f32::max)
            }
        }
    }
}

fn circle(x: f32, y: f32, radius: f32) -> Distance {
    let length = (x * x + y * y).sqrt();
    let scale = if length > 0.0 { 1.0 / length } else { 0.0 };
    Distance {
        value: length - radius,
        gradient: [x * scale, y * scale],
    }
}

/// Returns the heart of two arcs and two straight sides: the nearest point lies on an arc, at the notch, or on a side.
fn heart(x: f32, y: f32) -> Distance {
    let mirror = if x < 0.0 { -1.0 } else { 1.0 };
    let x = x.abs();
    let (value, gradient) = if x + y > 1.0 {
        let lobe = circle(x - 0.25, y - 0.75, 0.353_553_4);
        (lobe.value, lobe.gradient)
    } else {
        let foot = 0.5 * (x + y).max(0.0);
        let (notch, side) = ([x, y - 1.0], [x - foot, y - foot]);
        let square = |v: [f32; 2]| v[0] * v[0] + v[1] * v[1];
        let nearest = if square(notch) < square(side) {
            notch
        } else {
            side
        };
        let length = square(nearest).sqrt();
        let sign = if x > y { 1.0 } else { -1.0 };
        let scale = if length > 0.0 { sign / length } else { 0.0 };
        (sign * length, nearest.map(|v| v * scale))
    };
    Distance {
        value: value * HEART_SCALE,
        gradient: [gradient[0] * mirror, gradient[1]],
    }
}

fn polygon(points: Points, x: f32, y: f32) -> Distance {
    let mut nearest = [0.0; 2];
    let mut square = f32::MAX;
    let mut inside = false;
    let mut previous = points[points.len() - 1];
    for &current in points {
        let edge = [previous[0] - current[0], previous[1] - current[1]];
        let from = [x - current[0], y - current[1]];
        let share =
            (from[0] * edge[0] + from[1] * edge[1]) / (edge[0] * edge[0] + edge[1] * edge[1]);
        let share = share.clamp(0.0, 1.0);
        let foot = [from[0] - edge[0] * share, from[1] - edge[1] * share];
        let length = foot[0] * foot[0] + foot[1] * foot[1];
        if length < square {
            (square, nearest) = (length, foot);
        }
        // A ray to the right of the point crosses this edge.
        if (current[1] > y) != (previous[1] > y)
            && x < current[0] + edge[0] * (y - current[1]) / edge[1]
        {
            inside = !inside;
        }
        previous = current;
    }
    let length = square.sqrt();
    let sign = if inside { -1.0 } else { 1.0 };
    let scale = if length > 0.0 { sign / length } else { 0.0 };
    Distance {
        value: sign * length,
        gradient: nearest.map(|v| v * scale),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points over the square around a shape.
    fn grid() -> impl Iterator<Item = [f32; 2]> {
        (-30..=30).flat_map(|y| {
            (-30..=30).map(move |x| [x as f32 * 0.05 + 0.011, y as f32 * 0.05 + 0.007])
        })
    }

    #[test]
    fn distances_never_grow_faster_than_the_way_walked() {
        for shape in Shape::ALL {
            for p in grid() {
                let here = shape.distance(p);
                let there = shape.distance([p[0] + 0.01, p[1]]);
                assert!(
                    (here.value - there.value).abs() < 0.010_1,
                    "{shape:?} at {p:?}"
                );
                let [gx, gy] = here.gradient;
                assert!((gx * gx + gy * gy - 1.0).abs() < 1e-3, "{shape:?} at {p:?}");
            }
        }
    }

    #[test]
    fn the_gradient_leads_to_the_outline() {
        for shape in Shape::ALL {
            // Beyond the horns of the crescent its distance is only a bound.
            for p in grid().filter(|p| shape != Shape::Crescent || p[1].abs() < 0.6 && p[0] < 0.5) {
                let here = shape.distance(p);
                let foot = [0, 1].map(|i| p[i] - here.gradient[i] * here.value);
                assert!(
                    shape.distance(foot).value.abs() < 1e-3,
                    "{shape:?} at {p:?}"
                );
            }
        }
    }

    #[test]
    fn reach_bounds_the_shape_and_is_touched_from_below() {
        for shape in Shape::ALL {
            for direction in [
                [1.0, 0.0],
                [-1.0, 0.0],
                [0.0, 1.0],
                [0.0, -1.0],
                [0.6, 0.8],
                [-0.28, -0.96],
            ] {
                let reach = shape.reach(direction);
                let furthest = grid()
                    .filter(|&p| shape.distance(p).value < 0.0)
                    .map(|p| p[0] * direction[0] + p[1] * direction[1])
                    .fold(f32::MIN, f32::max);
                assert!(
                    furthest <= reach + 1e-3,
                    "{shape:?} {direction:?}: {furthest} > {reach}"
                );
                // The crescent is bounded by its full circle on the side it opens to.
                if direction[0] <= 0.0 || shape != Shape::Crescent {
                    assert!(
                        furthest > reach - 0.12,
                        "{shape:?} {direction:?}: {furthest} < {reach}"
                    );
                }
            }
        }
    }

    #[test]
    fn names_are_distinct() {
        let mut names: Vec<_> = Shape::ALL.iter().map(|s| s.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Shape::ALL.len());
    }
}
