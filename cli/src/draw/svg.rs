//! A drawing as SVG: boxes in layers, arrows downwards.
use super::layers::layout;
use super::{Drawing, Node, xml};
use std::fmt::Write;

const LINE: f64 = 13.0;
const LETTER: f64 = 6.1;
const RANK: f64 = 64.0;
const BOX: f64 = 34.0;

/// The drawing as an SVG file.
pub fn svg(d: &Drawing) -> String {
    let widths: Vec<f64> = d.nodes.iter().map(width).collect();
    let l = layout(&widths, &d.edges, RANK);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:.0} {:.0}\" font-family=\"sans-serif\" font-size=\"10\">\n\
         <title>{}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <marker id=\"a\" viewBox=\"0 0 6 6\" refX=\"6\" refY=\"3\" markerWidth=\"6\" markerHeight=\"6\" orient=\"auto\">\
         <path d=\"M0,0 L6,3 L0,6 z\" fill=\"#777\"/></marker>\n",
        l.width.max(1.0),
        l.height.max(1.0),
        xml(&d.title)
    );
    for ((from, to), bends) in d.edges.iter().zip(&l.bends) {
        let (a, b) = (l.places[*from], l.places[*to]);
        let points =
            std::iter::once((a.0, a.1 + BOX / 2.0)).chain(bends.iter().copied()).chain([(b.0, b.1 - BOX / 2.0)]);
        arrow(&mut out, &points.collect::<Vec<_>>());
    }
    for (n, at) in d.nodes.iter().zip(&l.places) {
        draw(&mut out, n, *at);
    }
    out + "</svg>\n"
}

fn width(n: &Node) -> f64 {
    let letters = n.lines.iter().map(|l| l.chars().count()).max().unwrap_or(0);
    (letters as f64 * LETTER + 12.0).max(40.0)
}

fn draw(out: &mut String, n: &Node, (x, y): (f64, f64)) {
    let w = width(n);
    let (left, top) = (x - w / 2.0, y - BOX / 2.0);
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "<g><title>{}</title><rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{w:.1}\" height=\"{BOX}\" rx=\"4\" fill=\"{}\" \
         stroke=\"#999\"/>",
        xml(&n.note),
        n.class.color()
    );
    let first = y - LINE * (n.lines.len() as f64 - 1.0) / 2.0 + 3.5;
    for (i, line) in n.lines.iter().enumerate() {
        let (at, color) = (first + LINE * i as f64, if i == 0 { "#000" } else { "#666" });
        let _ = write!(
            out,
            "<text x=\"{x:.1}\" y=\"{at:.1}\" text-anchor=\"middle\" fill=\"{color}\">{}</text>",
            xml(line)
        );
    }
    out.push_str("</g>\n");
}

/// A smooth line through the points: vertical where it leaves, passes and arrives.
fn arrow(out: &mut String, points: &[(f64, f64)]) {
    let mut path = format!("M{:.1},{:.1}", points[0].0, points[0].1);
    for pair in points.windows(2) {
        let ((ax, ay), (bx, by)) = (pair[0], pair[1]);
        let middle = (ay + by) / 2.0;
        let _ = write!(path, " C{ax:.1},{middle:.1} {bx:.1},{middle:.1} {bx:.1},{by:.1}");
    }
    let _ = writeln!(out, "<path d=\"{path}\" fill=\"none\" stroke=\"#777\" marker-end=\"url(#a)\"/>");
}
