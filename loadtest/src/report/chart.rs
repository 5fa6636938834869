//! A line chart as SVG, with its data beside it for the page's tooltip.
//!
//! Bound: [`POINTS_MAX`] points per line.

use serde_json::{Value, json};

/// Points of a line; a pixel has about one.
pub const POINTS_MAX: usize = 1_000;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 28.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 44.0;

/// How values become heights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// From 0.
    Linear,
    /// From 0, with marks that are round in powers of 1,024.
    Bytes,
    /// Decades; values below 1 are drawn as 1.
    Log,
}

/// What the horizontal axis is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    /// Seconds since the start.
    Time,
    /// Nines: 1 is 90 %, 2 is 99 %.
    Nines,
}

/// One line. A value of `None` interrupts it.
#[derive(Debug, Clone)]
pub struct Line {
    pub name: &'static str,
    pub points: Vec<(f64, Option<f64>)>,
}

/// A chart.
#[derive(Debug, Clone)]
pub struct Chart {
    pub id: &'static str,
    pub title: &'static str,
    pub y_label: &'static str,
    pub scale: Scale,
    pub axis: Axis,
    /// A value with its unit.
    pub show: fn(f64) -> String,
    pub lines: Vec<Line>,
}

/// The figure, or a sentence that says why there is none.
pub fn figure(chart: &Chart) -> String {
    let mut out = format!("<figure id=\"{}\"><figcaption><h3>{}</h3>", chart.id, chart.title);
    let known = |line: &&Line| line.points.iter().any(|(_, value)| value.is_some());
    let lines: Vec<&Line> = chart.lines.iter().filter(known).collect();
    if lines.is_empty() {
        out.push_str("</figcaption><p class=\"none\">Not measured in this run.</p></figure>\n");
        return out;
    }
    out.push_str("<ul class=\"legend\">");
    for (at, line) in lines.iter().enumerate() {
        out.push_str(&format!("<li><svg viewBox=\"0 0 22 8\" aria-hidden=\"true\"><path class=\"l c{at}\" d=\"M1 4H21\"/></svg>{}</li>", line.name));
    }
    out.push_str("</ul></figcaption>");
    let frame = Frame::around(chart, &lines);
    out.push_str(&svg(chart, &lines, &frame));
    let data = tooltip(chart, &lines, &frame).to_string().replace('<', "\\u003c");
    out.push_str(&format!(
        "<script type=\"application/json\">{data}</script><output hidden></output></figure>\n"
    ));
    out
}

/// What part of the plane is seen.
struct Frame {
    x_min: f64,
    x_max: f64,
    y_min: f64,
    y_max: f64,
    scale: Scale,
}

impl Frame {
    fn around(chart: &Chart, lines: &[&Line]) -> Self {
        let points = || lines.iter().flat_map(|line| &line.points);
        let xs = || points().map(|(x, _)| *x);
        let ys = || points().filter_map(|(_, y)| *y);
        let x_min = match chart.axis {
            Axis::Time => 0.0,
            Axis::Nines => xs().fold(f64::INFINITY, f64::min),
        };
        let x_max = xs().fold(x_min + 1e-9, f64::max);
        let top = ys().fold(0.0, f64::max);
        let (y_min, y_max) = match chart.scale {
            Scale::Linear | Scale::Bytes => {
                (0.0, rows(top, chart.scale).last().copied().unwrap_or(1.0))
            }
            Scale::Log => {
                let low = ys().fold(f64::INFINITY, f64::min).max(1.0).log10().floor();
                (low, top.max(1.0).log10().ceil().max(low + 1.0))
            }
        };
        Self { x_min, x_max, y_min, y_max, scale: chart.scale }
    }

    fn x(&self, x: f64) -> f64 {
        LEFT + (x - self.x_min) / (self.x_max - self.x_min) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        let value = match self.scale {
            Scale::Linear | Scale::Bytes => value,
            Scale::Log => value.max(1.0).log10(),
        };
        let share = (value - self.y_min) / (self.y_max - self.y_min);
        HEIGHT - BOTTOM - share.clamp(0.0, 1.0) * (HEIGHT - TOP - BOTTOM)
    }
}

/// Round values from 0 to at least `top`, about `wanted` steps.
fn steps(top: f64, wanted: usize) -> Vec<f64> {
    let rough = top / wanted as f64;
    let decade = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 2.5, 5.0].into_iter().find(|factor| factor * decade >= rough * 0.999);
    let step = factor.unwrap_or(10.0) * decade;
    let count = (top / step - 1e-9).ceil().max(1.0) as usize;
    (0..=count).map(|at| at as f64 * step).collect()
}

/// The marks of a vertical axis that begins at 0.
fn rows(top: f64, scale: Scale) -> Vec<f64> {
    let top = top.max(1e-9);
    let unit = match scale {
        Scale::Bytes => 1_024f64.powf(top.max(1.0).log(1_024.0).floor()),
        Scale::Linear | Scale::Log => 1.0,
    };
    steps(top / unit, 5).into_iter().map(|mark| mark * unit).collect()
}

/// Seconds between two marks of an axis of time.
fn time_step(seconds: f64) -> f64 {
    const STEPS: [f64; 13] =
        [1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1_800.0, 3_600.0];
    let fits = STEPS.into_iter().find(|step| seconds / step <= 8.0);
    fits.unwrap_or_else(|| (seconds / 8.0 / 3_600.0).ceil() * 3_600.0)
}

fn svg(chart: &Chart, lines: &[&Line], frame: &Frame) -> String {
    let x_label = match chart.axis {
        Axis::Time => "time since the start",
        Axis::Nines => "percentile",
    };
    let mut out = format!(
        "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
         aria-label=\"{}, {}\">",
        chart.title, chart.y_label
    );
    grid(&mut out, chart, frame);
    for (at, line) in lines.iter().enumerate() {
        out.push_str(&format!(
            "<path class=\"l c{at}\" d=\"{}\"><title>{}</title></path>",
            path(line, frame),
            line.name
        ));
    }
    out.push_str(&format!(
        "<text class=\"t\" x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{x_label}</text>\
         <text class=\"t\" transform=\"translate(13 {:.0}) rotate(-90)\" \
         text-anchor=\"middle\">{}</text>\
         <line class=\"at\" y1=\"{TOP}\" y2=\"{:.0}\" visibility=\"hidden\"/></svg>",
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 6.0,
        (TOP + HEIGHT - BOTTOM) / 2.0,
        chart.y_label,
        HEIGHT - BOTTOM
    ));
    out
}

fn grid(out: &mut String, chart: &Chart, frame: &Frame) {
    let marks: Vec<f64> = match frame.scale {
        Scale::Linear | Scale::Bytes => rows(frame.y_max, frame.scale),
        Scale::Log => {
            (frame.y_min as i32..=frame.y_max as i32).map(|decade| 10f64.powi(decade)).collect()
        }
    };
    for value in marks {
        let y = frame.y(value);
        out.push_str(&format!(
            "<line class=\"g\" x1=\"{LEFT}\" x2=\"{:.0}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 7.0,
            y + 4.0,
            (chart.show)(value)
        ));
    }
    for (value, label) in columns(chart.axis, frame) {
        let x = frame.x(value);
        out.push_str(&format!(
            "<line class=\"g\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{:.0}\"/>\
             <text x=\"{x:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{label}</text>",
            HEIGHT - BOTTOM,
            HEIGHT - BOTTOM + 16.0
        ));
    }
}

fn columns(axis: Axis, frame: &Frame) -> Vec<(f64, String)> {
    match axis {
        Axis::Time => {
            let step = time_step(frame.x_max);
            let count = (frame.x_max / step).floor() as usize;
            let marks = (0..=count).map(|at| at as f64 * step);
            marks.map(|at| (at, super::unit::clock(at))).collect()
        }
        Axis::Nines => (0..=frame.x_max.floor() as i32)
            .map(|nines| (f64::from(nines), percentile(f64::from(nines))))
            .collect(),
    }
}

/// `2` as `99 %`.
fn percentile(nines: f64) -> String {
    let decimals = (nines.ceil() as usize).saturating_sub(2);
    format!("{:.decimals$} %", 100.0 * (1.0 - 10f64.powf(-nines)))
}

fn path(line: &Line, frame: &Frame) -> String {
    let mut out = String::new();
    let mut is_drawn = false;
    for (x, value) in &line.points {
        if let Some(value) = value {
            let letter = if is_drawn { 'L' } else { 'M' };
            out.push_str(&format!("{letter}{:.1} {:.1}", frame.x(*x), frame.y(*value)));
            if !is_drawn {
                // A single point is drawn as a dot.
                out.push_str("h0.01");
            }
        }
        is_drawn = value.is_some();
    }
    out
}

/// Where the marks are and what they say, for the script of the page.
fn tooltip(chart: &Chart, lines: &[&Line], frame: &Frame) -> Value {
    let marks = lines.iter().max_by_key(|line| line.points.len());
    let xs: Vec<f64> =
        marks.map(|line| line.points.iter().map(|p| p.0).collect()).unwrap_or_default();
    let label = |x: &f64| match chart.axis {
        Axis::Time => super::unit::clock(*x),
        Axis::Nines => percentile(*x),
    };
    let lines: Vec<Value> = lines
        .iter()
        .map(|line| {
            let shown = |point: &(f64, Option<f64>)| point.1.map(chart.show);
            json!({ "n": line.name, "v": line.points.iter().map(shown).collect::<Vec<_>>() })
        })
        .collect();
    json!({
        "w": WIDTH,
        "x": xs.iter().map(|x| (frame.x(*x) * 10.0).round() / 10.0).collect::<Vec<_>>(),
        "t": xs.iter().map(label).collect::<Vec<_>>(),
        "s": lines,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round_and_reach_the_top() {
        let cases = [
            (10_000.0, vec![0.0, 2_000.0, 4_000.0, 6_000.0, 8_000.0, 10_000.0]),
            (7.0, vec![0.0, 2.0, 4.0, 6.0, 8.0]),
            (1.0, vec![0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        ];
        for (top, wanted) in cases {
            let found = steps(top, 5);
            assert_eq!(found.len(), wanted.len(), "{top}: {found:?}");
            assert!(found.iter().zip(&wanted).all(|(a, b)| (a - b).abs() < 1e-9), "{found:?}");
        }
    }

    #[test]
    fn percentiles_have_their_nines() {
        let cases = [(0.0, "0 %"), (1.0, "90 %"), (2.0, "99 %"), (4.0, "99.99 %")];
        for (nines, text) in cases {
            assert_eq!(percentile(nines), text);
        }
    }

    #[test]
    fn a_hole_interrupts_a_line() {
        let points = vec![(0.0, Some(1.0)), (1.0, None), (2.0, Some(1.0)), (3.0, Some(1.0))];
        let line = Line { name: "x", points };
        let frame = Frame { x_min: 0.0, x_max: 3.0, y_min: 0.0, y_max: 1.0, scale: Scale::Linear };
        assert_eq!(path(&line, &frame).matches('M').count(), 2);
    }
}
