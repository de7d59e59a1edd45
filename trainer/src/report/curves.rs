//! The picture of a run: its loss curve above, learning rate and momentum below, drawn from the run's JSONL log.
//!
//! Used by `trainer plot`. Everything is pure Rust with an embedded font, so that it draws the same on a bare cluster
//! node as on a laptop.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;
use std::sync::Once;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{Error, named};
use crate::observe::Record;

/// Size of the picture in pixels; text and line widths below are chosen for it.
const SIZE: (u32, u32) = (1440, 960);
const FAMILY: &str = "sans-serif";
const INK: RGBColor = RGBColor(38, 44, 56);
const FAINT: RGBColor = RGBColor(112, 120, 134);
const GRID: RGBColor = RGBColor(231, 233, 238);
const BLUE: RGBColor = RGBColor(33, 96, 196);
const ORANGE: RGBColor = RGBColor(214, 106, 28);
const GREEN: RGBColor = RGBColor(20, 136, 106);

/// Draws `records` into the PNG file `out`.
///
/// # Errors
/// If the file cannot be written.
pub fn draw(records: &[Record], title: &str, out: &Path) -> Result<(), Error> {
    load_font();
    let mut pixels = vec![0u8; (SIZE.0 * SIZE.1 * 3) as usize];
    {
        let root = BitMapBackend::with_buffer(&mut pixels, SIZE).into_drawing_area();
        paint(&root, records, title).map_err(|cause| Error::Draw { cause })?;
    }
    named(out, write_png(out, &pixels))
}

/// The outcome of drawing. The library's own error type names the backend and says no more.
type Drawn = Result<(), Box<dyn std::error::Error + Send + Sync>>;

fn paint(root: &DrawingArea<BitMapBackend, Shift>, records: &[Record], title: &str) -> Drawn {
    root.fill(&WHITE)?;
    let (head, body) = root.split_vertically(76);
    let last = records.last().expect("never called without records");
    head.draw_text(
        title,
        &text(30).color(&INK).into_text_style(&head),
        (28, 22),
    )?;
    let summary = format!(
        "step {} of {}    loss {:.4}    {:.0} images/s",
        last.step + 1,
        last.total_steps,
        mean(records.iter().rev().take(50).map(|record| record.loss)),
        mean(
            records
                .iter()
                .rev()
                .take(50)
                .map(|record| record.images_per_s)
        ),
    );
    let right = text(22)
        .color(&FAINT)
        .into_text_style(&head)
        .pos(Pos::new(HPos::Right, VPos::Top));
    head.draw_text(&summary, &right, (SIZE.0 as i32 - 30, 30))?;

    let (loss, schedule) = body.split_vertically(596);
    paint_loss(&loss, records)?;
    let (lr, momentum) = schedule.split_horizontally(SIZE.0 / 2);
    let points = |value: fn(&Record) -> f64| {
        records
            .iter()
            .map(|record| (record.step as f64, value(record)))
            .collect()
    };
    paint_small(&lr, "learning rate", points(|record| record.lr), ORANGE)?;
    paint_small(
        &momentum,
        "target momentum",
        points(|record| record.momentum),
        GREEN,
    )?;
    root.present()?;
    Ok(())
}

fn paint_loss(area: &DrawingArea<BitMapBackend, Shift>, records: &[Record]) -> Drawn {
    let raw: Vec<(f64, f64)> = records
        .iter()
        .map(|record| (record.step as f64, record.loss))
        .collect();
    // A spike must not squeeze the rest into a line: the axis covers all but the wildest percent of the steps.
    let (low, high) = span(&raw, 0.005);
    let (from, to) = ends(&raw);
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
    let raw: Vec<(f64, f64)> = raw
        .into_iter()
        .map(|(step, loss)| (step, loss.clamp(low, high)))
        .collect();
    // Clipped before it is smoothed: one wild step must not lift its neighbourhood.
    let smooth = thinned(smoothed(&raw));
    chart
        .draw_series(LineSeries::new(raw, BLUE.mix(0.28).stroke_width(2)))?
        .label("every step")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 26, y)], BLUE.mix(0.28).stroke_width(3)));
    chart
        .draw_series(LineSeries::new(smooth, BLUE.stroke_width(4)))?
        .label("smoothed")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 26, y)], BLUE.stroke_width(4)));
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

fn paint_small(
    area: &DrawingArea<BitMapBackend, Shift>,
    name: &str,
    points: Vec<(f64, f64)>,
    color: RGBColor,
) -> Drawn {
    let (low, high) = span(&points, 0.0);
    let (from, to) = ends(&points);
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
    chart.draw_series(LineSeries::new(thinned(points), color.stroke_width(3)))?;
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
    let (first, last) = (points[0].0, points[points.len() - 1].0);
    (first, last.max(first + 1.0))
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

fn write_png(path: &Path, pixels: &[u8]) -> io::Result<()> {
    let mut encoder = png::Encoder::new(BufWriter::new(File::create(path)?), SIZE.0, SIZE.1);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;
    use crate::observe::RECORD_VERSION;
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
        };
        let log = folder.path().join("jepa_r0.jsonl");
        // A single step makes no line, but a picture; a torn row is skipped.
        for steps in [1, 60] {
            let rows: String = (0..steps)
                .map(|step| serde_json::to_string(&record(step)).unwrap() + "\n")
                .collect();
            std::fs::write(&log, rows + "{\"step\":").unwrap();
            let out = folder.path().join("loss.png");
            draw(&report::steps(folder.path()).unwrap(), "test", &out).unwrap();
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
