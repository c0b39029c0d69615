//! Curves of a run as SVG: the loss on the left axis, the gate on the right one.
use crate::draw::xml;
use std::fmt::Write;

/// A curve.
pub struct Series {
    pub name: String,
    pub color: &'static str,
    /// Step and value; values that are not finite leave a gap.
    pub points: Vec<(f64, f64)>,
    /// True for values from 0 to 1 on the right axis.
    pub right: bool,
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 52.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 40.0;
/// More points than a curve of this width can show.
const MOST: usize = 1000;

/// The chart as an SVG file.
pub fn svg(title: &str, series: &[Series]) -> String {
    let finite = || series.iter().flat_map(|s| s.points.iter().map(move |p| (s.right, *p)));
    let steps = finite().map(|(_, p)| p.0).fold(1.0, f64::max);
    let values: Vec<f64> = finite().filter(|(right, p)| !right && p.1.is_finite()).map(|(_, p)| p.1).collect();
    let (low, high) = range(&values);
    let x = |step: f64| LEFT + step / steps * (WIDTH - LEFT - RIGHT);
    let y = |v: f64, right: bool| {
        let part = if right { v } else { (v - low) / (high - low) };
        HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)
    };
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"18\" font-size=\"13\">{}</text>\n",
        xml(title)
    );
    let gate = series.iter().any(|s| s.right);
    for i in 0..=5 {
        let part = i as f64 / 5.0;
        let at = y(part, true);
        let label = low + part * (high - low);
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "<path d=\"M{LEFT},{at:.1} H{:.1}\" stroke=\"#e4e4e4\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label:.2}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0
        );
        if gate {
            let _ = writeln!(out, "<text x=\"{:.1}\" y=\"{:.1}\">{part:.1}</text>", WIDTH - RIGHT + 6.0, at + 4.0);
        }
        let step = part * steps;
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{step:.0}</text>",
            x(step),
            HEIGHT - BOTTOM + 18.0
        );
    }
    for (i, s) in series.iter().enumerate() {
        let path = path(&thinned(&s.points), |p| (x(p.0), y(p.1, s.right)));
        let _ = writeln!(out, "<path d=\"{path}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.5\"/>", s.color);
        let at = WIDTH - RIGHT - 130.0 * (series.len() - i) as f64 + 20.0;
        let side = if s.right { " (right)" } else { "" };
        let _ = writeln!(out, "<text x=\"{at:.1}\" y=\"32\" fill=\"{}\">{}{side}</text>", s.color, xml(&s.name));
    }
    out + "</svg>\n"
}

/// The range of an axis: that of the values, and never empty.
fn range(values: &[f64]) -> (f64, f64) {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    match (low.is_finite() && high.is_finite(), high > low) {
        (false, _) => (0.0, 1.0),
        (true, false) => (low - 0.5, low + 0.5),
        (true, true) => (low, high),
    }
}

/// At most [`MOST`] points: means of neighbours.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let size = points.len().div_ceil(MOST).max(1);
    let mean = |c: &[(f64, f64)]| {
        let n = c.len() as f64;
        (c.iter().map(|p| p.0).sum::<f64>() / n, c.iter().map(|p| p.1).sum::<f64>() / n)
    };
    points.chunks(size).map(mean).collect()
}

fn path(points: &[(f64, f64)], place: impl Fn((f64, f64)) -> (f64, f64)) -> String {
    let (mut out, mut pen_down) = (String::new(), false);
    for p in points {
        if !p.1.is_finite() {
            pen_down = false;
            continue;
        }
        let (x, y) = place(*p);
        let _ = write!(out, "{}{x:.1},{y:.1} ", if pen_down { "L" } else { "M" });
        pen_down = true;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_are_drawn_with_gaps_and_without_surprises() {
        let s =
            |points: &[(f64, f64)], right| Series { name: "a<b".into(), color: "#123", points: points.to_vec(), right };
        let text = svg("t & u", &[s(&[(0.0, 5.0), (1.0, f64::NAN), (2.0, 3.0)], false), s(&[(0.0, 0.5)], true)]);
        assert!(text.contains("a&lt;b") && text.contains("t &amp; u") && !text.contains("NaN"));
        assert_eq!(text.matches("M56.0,").count(), 2, "{text}");
        for empty in [svg("", &[]), svg("", &[s(&[], false)]), svg("", &[s(&[(0.0, 2.0)], false)])] {
            assert!(!empty.contains("NaN") && !empty.contains("inf"), "{empty}");
        }
        assert_eq!(thinned(&vec![(1.0, 2.0); 5000]).len(), 1000);
    }
}
