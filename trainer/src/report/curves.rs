//! The picture of runs: their loss curves above, learning rate and momentum below where a log has them.
//!
//! Used by `trainer plot`. Everything is pure Rust with an embedded font, so that it draws the same on a bare cluster
//! node as on a laptop.

use std::path::Path;
use std::sync::Once;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use shardtool::disk;

use super::{Curve, Error, More, named};

/// Size of the picture in pixels; text and line widths below are chosen for it.
const SIZE: (u32, u32) = (1440, 960);
const FAMILY: &str = "sans-serif";
const INK: RGBColor = RGBColor(38, 44, 56);
const FAINT: RGBColor = RGBColor(112, 120, 134);
const GRID: RGBColor = RGBColor(231, 233, 238);
const BLUE: RGBColor = RGBColor(33, 96, 196);
const ORANGE: RGBColor = RGBColor(214, 106, 28);
const GREEN: RGBColor = RGBColor(20, 136, 106);

/// Colours of the curves where there are several, from the first on.
const PALETTE: [RGBColor; 8] = [
    BLUE,
    ORANGE,
    GREEN,
    RGBColor(168, 50, 128),
    RGBColor(196, 48, 48),
    RGBColor(120, 92, 52),
    RGBColor(92, 84, 190),
    RGBColor(70, 150, 190),
];

/// Refuses a name that promises another kind of file than is written.
///
/// # Errors
/// [`Error::NotPng`].
pub fn check_name(out: &Path) -> Result<(), Error> {
    let is_other = |ending: &std::ffi::OsStr| !ending.eq_ignore_ascii_case("png");
    if out.extension().is_some_and(is_other) {
        return Err(Error::NotPng {
            path: out.to_owned(),
        });
    }
    Ok(())
}

/// Draws runs into the PNG file `out`: one with each of its steps, several each as one line.
///
/// # Errors
/// If the name is that of another kind of file, or it cannot be written.
pub fn draw(curves: &[Curve], title: &str, out: &Path) -> Result<(), Error> {
    check_name(out)?;
    load_font();
    let mut pixels = vec![0u8; (SIZE.0 * SIZE.1 * 3) as usize];
    {
        let root = BitMapBackend::with_buffer(&mut pixels, SIZE).into_drawing_area();
        paint(&root, curves, title).map_err(|cause| Error::Draw { cause })?;
    }
    let png = encode_png(&pixels).map_err(|cause| Error::Draw {
        cause: Box::new(cause),
    })?;
    named(out, disk::write_output(out, &png))
}

/// The outcome of drawing. The library's own error type names the backend and says no more.
type Drawn = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Points of a line, in the order of their steps.
type Line = Vec<(f64, f64)>;

fn paint(root: &DrawingArea<BitMapBackend, Shift>, curves: &[Curve], title: &str) -> Drawn {
    root.fill(&WHITE)?;
    let (head, body) = root.split_vertically(76);
    head.draw_text(
        title,
        &text(30).color(&INK).into_text_style(&head),
        (28, 22),
    )?;
    if let [curve] = curves {
        let right = text(22)
            .color(&FAINT)
            .into_text_style(&head)
            .pos(Pos::new(HPos::Right, VPos::Top));
        head.draw_text(&summary(curve), &right, (SIZE.0 as i32 - 30, 30))?;
    }
    let lines = |value: fn(&More) -> f64| -> Vec<Line> {
        let of = |curve: &Curve| {
            let points = curve.points.iter();
            points
                .filter_map(|point| Some((point.step as f64, value(&point.more?))))
                .collect()
        };
        curves.iter().map(of).collect()
    };
    let (rates, momenta) = (lines(|more| more.lr), lines(|more| more.momentum));
    if rates.iter().all(Vec::is_empty) {
        // The official log has losses alone.
        paint_loss(&body, curves)?;
    } else {
        let (loss, schedule) = body.split_vertically(596);
        paint_loss(&loss, curves)?;
        let (lr, momentum) = schedule.split_horizontally(SIZE.0 / 2);
        paint_small(&lr, "learning rate", rates, ORANGE)?;
        paint_small(&momentum, "target momentum", momenta, GREEN)?;
    }
    root.present()?;
    Ok(())
}

/// Returns where a run stands, in words.
fn summary(curve: &Curve) -> String {
    let last = &curve.points[curve.points.len() - 1];
    let latest = || curve.points.iter().rev().take(50);
    let mut words = format!("step {}", last.step + 1);
    if let Some(total) = curve.total_steps {
        words += &format!(" of {total}");
    }
    words += &format!("    loss {:.4}", mean(latest().map(|point| point.loss)));
    if last.more.is_some() {
        let rates = latest().filter_map(|point| Some(point.more?.images_per_s));
        words += &format!("    {:.0} images/s", mean(rates));
    }
    words
}

fn paint_loss(area: &DrawingArea<BitMapBackend, Shift>, curves: &[Curve]) -> Drawn {
    let raw: Vec<Line> = curves
        .iter()
        .map(|curve| {
            let points = curve.points.iter();
            points
                .map(|point| (point.step as f64, point.loss))
                .collect()
        })
        .collect();
    let all = raw.concat();
    // A spike must not squeeze the rest into a line: the axis covers all but the wildest percent of the steps.
    let (low, high) = span(&all, 0.005);
    let (from, to) = ends(&all);
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .margin_right(30)
        .x_label_area_size(54)
        .y_label_area_size(92)
        .build_cartesian_2d(from..to, low..high)?;
    chart
        .configure_mesh()
        .x_labels(10)
        .y_labels(8)
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(FAINT)
        .label_style(text(20).color(&INK))
        .axis_desc_style(text(22).color(&INK))
        .x_desc("step")
        .y_desc("loss (smooth L1)")
        .x_label_formatter(&|step| count(*step))
        .y_label_formatter(&|loss| decimal(*loss, high - low))
        .draw()?;
    let is_alone = curves.len() == 1;
    for (number, (curve, raw)) in curves.iter().zip(raw).enumerate() {
        let color = PALETTE[number % PALETTE.len()];
        let raw: Line = raw
            .into_iter()
            .map(|(step, loss)| (step, loss.clamp(low, high)))
            .collect();
        // Clipped before it is smoothed: one wild step must not lift its neighbourhood.
        let smooth = thinned(smoothed(&raw));
        let legend = move |style: ShapeStyle| {
            move |(x, y): (i32, i32)| PathElement::new([(x, y), (x + 26, y)], style)
        };
        if is_alone {
            chart
                .draw_series(LineSeries::new(raw, color.mix(0.28).stroke_width(2)))?
                .label("every step")
                .legend(legend(color.mix(0.28).stroke_width(3)));
        }
        let label = if is_alone {
            "smoothed"
        } else {
            &shortened(&curve.name)
        };
        chart
            .draw_series(LineSeries::new(smooth, color.stroke_width(4)))?
            .label(label)
            .legend(legend(color.stroke_width(4)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .margin(14)
        .legend_area_size(34)
        .label_font(text(20).color(&INK))
        .background_style(WHITE.mix(0.85))
        .border_style(GRID)
        .draw()?;
    Ok(())
}

/// Returns a name of at most 48 characters: the end of a longer one, where runs differ.
fn shortened(name: &str) -> String {
    let length = name.chars().count();
    if length <= 48 {
        return name.to_owned();
    }
    let end: String = name.chars().skip(length - 47).collect();
    format!("…{end}")
}

fn paint_small(
    area: &DrawingArea<BitMapBackend, Shift>,
    name: &str,
    lines: Vec<Line>,
    color: RGBColor,
) -> Drawn {
    let all = lines.concat();
    let (low, high) = span(&all, 0.0);
    let (from, to) = ends(&all);
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .margin_right(30)
        .caption(name, text(22).color(&INK))
        .x_label_area_size(40)
        .y_label_area_size(92)
        .build_cartesian_2d(from..to, low..high)?;
    chart
        .configure_mesh()
        .x_labels(6)
        .y_labels(5)
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(FAINT)
        .label_style(text(18).color(&INK))
        .x_label_formatter(&|step| count(*step))
        .y_label_formatter(&|value| decimal(*value, high - low))
        .draw()?;
    let is_alone = lines.len() == 1;
    for (number, points) in lines.into_iter().enumerate() {
        let color = if is_alone {
            color
        } else {
            PALETTE[number % PALETTE.len()]
        };
        if !points.is_empty() {
            chart.draw_series(LineSeries::new(thinned(points), color.stroke_width(3)))?;
        }
    }
    Ok(())
}

/// Returns means over a window around each step, a thirtieth of the run wide.
///
/// The window is narrower towards both ends: the curve neither lags behind the steps nor bends at its ends.
fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut sums = vec![0.0];
    for point in points {
        sums.push(sums[sums.len() - 1] + point.1);
    }
    let half = (points.len() / 60).max(2);
    let mean = |(index, point): (usize, &(f64, f64))| {
        let half = half.min(index).min(points.len() - 1 - index);
        let sum = sums[index + half + 1] - sums[index - half];
        (point.0, sum / (2 * half + 1) as f64)
    };
    points.iter().enumerate().map(mean).collect()
}

/// Keeps at most about 500 of the points, with the last one: a line drawn through each pixel's own point is jagged.
fn thinned(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let stride = (points.len() / 500).max(1);
    let last = points.len() - 1;
    let kept = points
        .into_iter()
        .enumerate()
        .filter(|(index, _)| index % stride == 0 || *index == last);
    kept.map(|(_, point)| point).collect()
}

/// Returns the range of the finite values without a share `tail` at either end, with a margin; never empty.
fn span(points: &[(f64, f64)], tail: f64) -> (f64, f64) {
    let mut values: Vec<f64> = points
        .iter()
        .map(|point| point.1)
        .filter(|value| value.is_finite())
        .collect();
    if values.is_empty() {
        return (0.0, 1.0);
    }
    values.sort_by(f64::total_cmp);
    let cut = (values.len() as f64 * tail) as usize;
    let (low, high) = (values[cut], values[values.len() - 1 - cut]);
    let margin = if high > low {
        (high - low) * 0.06
    } else {
        low.abs().max(1e-6) * 0.01
    };
    (low - margin, high + margin)
}

fn ends(points: &[(f64, f64)]) -> (f64, f64) {
    let steps = || points.iter().map(|point| point.0);
    let first = steps().fold(f64::INFINITY, f64::min);
    (first, steps().fold(first + 1.0, f64::max))
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0u32), |(sum, count), value| (sum + value, count + 1));
    sum / f64::from(count.max(1))
}

/// Returns 1500000 as "1.5M": long runs have steps no axis could hold.
fn count(value: f64) -> String {
    let trim = |text: String| text.trim_end_matches('0').trim_end_matches('.').to_owned();
    match value.abs() {
        size if size >= 1e6 => trim(format!("{:.2}", value / 1e6)) + "M",
        size if size >= 1e4 => trim(format!("{:.1}", value / 1e3)) + "k",
        _ => format!("{value:.0}"),
    }
}

/// Returns a value with as many decimals as tell the ticks of an axis of this width apart.
///
/// Tiny values come in powers of ten.
fn decimal(value: f64, width: f64) -> String {
    if value != 0.0 && width < 2e-3 && value.abs() < 0.1 {
        return format!("{value:.1e}");
    }
    let digits = (1.0 - width.max(1e-12).log10()).ceil().clamp(0.0, 8.0) as usize;
    format!("{value:.digits$}")
}

fn text(size: u32) -> TextStyle<'static> {
    (FAMILY, size).into()
}

/// Registers the font once per process, under the family name that the styles ask for.
fn load_font() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let font = epaint_default_fonts::UBUNTU_LIGHT;
        assert!(
            plotters::style::register_font(FAMILY, FontStyle::Normal, font).is_ok(),
            "the embedded font is damaged"
        );
    });
}

fn encode_png(pixels: &[u8]) -> Result<Vec<u8>, png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, SIZE.0, SIZE.1);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::BufReader;

    use super::*;
    use crate::observe::{RECORD_VERSION, Record};
    use crate::report;

    #[test]
    fn smoothing_keeps_lines_straight_and_meets_both_ends() {
        let line: Vec<(f64, f64)> = (0..1000)
            .map(|step| (f64::from(step), f64::from(step) * 0.5))
            .collect();
        for (one, other) in smoothed(&line).iter().zip(&line) {
            assert!((one.1 - other.1).abs() < 1e-9 && one.0 == other.0);
        }
        let zigzag: Vec<(f64, f64)> = (0..1000)
            .map(|step| (f64::from(step), f64::from(step % 2)))
            .collect();
        assert!(
            smoothed(&zigzag)[100..900]
                .iter()
                .all(|point| (point.1 - 0.5).abs() < 0.02)
        );
        assert_eq!(smoothed(&[(3.0, 7.0)]), [(3.0, 7.0)]);
        let thin = thinned(line);
        assert!(thin.len() <= 501 && thin[thin.len() - 1].0 == 999.0);
    }

    #[test]
    fn the_picture_is_a_png_with_ink_in_both_parts() {
        let folder = tempfile::tempdir().unwrap();
        let record = |step: u64| Record {
            version: RECORD_VERSION,
            step,
            total_steps: 100,
            epoch: 1,
            itr: step,
            loss: 0.5 - step as f64 * 1e-3,
            regularizer: None,
            gradient_norm: 0.1,
            skipped: false,
            context_len: 12.0,
            target_len: 9.0,
            lr: 1e-3,
            weight_decay: 0.04,
            momentum: 0.996,
            images: 8,
            replaced: 0,
            step_ms: 1.0,
            wait_ms: 0.0,
            images_per_s: 8000.0,
            memory: None,
            ranks: None,
            signs: None,
            online_top1: None,
        };
        let log = folder.path().join("jepa_r0.jsonl");
        // A single step makes no line, but a picture; a torn row is skipped.
        for steps in [1, 60] {
            let rows: String = (0..steps)
                .map(|step| serde_json::to_string(&record(step)).unwrap() + "\n")
                .collect();
            std::fs::write(&log, rows + "{\"step\":").unwrap();
            let out = folder.path().join("loss.png");
            draw(&[report::read(folder.path()).unwrap()], "test", &out).unwrap();
            let mut reader = png::Decoder::new(BufReader::new(File::open(&out).unwrap()))
                .read_info()
                .unwrap();
            let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
            let info = reader.next_frame(&mut pixels).unwrap();
            assert_eq!((info.width, info.height), SIZE);
            for color in [BLUE, ORANGE, GREEN] {
                let ink = [color.0, color.1, color.2];
                assert!(
                    steps == 1 || pixels.chunks(3).any(|pixel| pixel == ink),
                    "{color:?} with {steps} steps"
                );
            }
        }
    }

    #[test]
    fn several_runs_have_a_colour_each_and_need_no_rates() {
        let folder = tempfile::tempdir().unwrap();
        let run = |name: &str, loss: f64| Curve {
            name: name.to_owned(),
            total_steps: None,
            points: (0..60)
                .map(|step| report::Point {
                    step,
                    loss: loss - step as f64 * 1e-3,
                    more: None,
                })
                .collect(),
        };
        let out = folder.path().join("loss.PNG");
        draw(&[run("one", 0.5), run("other", 0.3)], "test", &out).unwrap();
        let decoder = png::Decoder::new(BufReader::new(File::open(&out).unwrap()));
        let mut reader = decoder.read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        let has = |color: RGBColor| {
            let ink = [color.0, color.1, color.2];
            pixels.chunks(3).any(|pixel| pixel == ink)
        };
        assert!(has(BLUE) && has(ORANGE) && !has(GREEN));
    }

    #[test]
    fn no_picture_is_written_under_the_name_of_another_kind() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["loss.pdf", "loss.png.svg", "loss.jpg"] {
            let message = draw(&[], "test", &folder.path().join(name));
            let message = message.unwrap_err().to_string();
            assert!(message.contains("a PNG file is written"), "{message}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn labels_stay_short_and_distinct() {
        assert_eq!(count(300.0), "300");
        assert_eq!(count(187_500.0), "187.5k");
        assert_eq!(count(1_500_000.0), "1.5M");
        assert_eq!(decimal(0.0002, 0.0008), "2.0e-4");
        assert_ne!(decimal(0.996, 0.004), decimal(0.997, 0.004));
    }

    #[test]
    fn a_wild_step_does_not_set_the_axis() {
        let mut points: Vec<(f64, f64)> = (0..400).map(|step| (f64::from(step), 0.5)).collect();
        points[7].1 = 1e6;
        points[8].1 = f64::NAN;
        let (low, high) = span(&points, 0.005);
        assert!(low < 0.5 && high > 0.5 && high < 1.0, "{low}..{high}");
    }
}
