//! A drawing in the language of Graphviz.
use super::Drawing;
use std::fmt::Write;

/// The drawing as a DOT file.
pub fn dot(d: &Drawing) -> String {
    let mut out = format!("digraph {} {{\n", quoted(&d.title));
    out += "  node [shape=box, style=\"filled,rounded\", fontname=\"sans-serif\", fontsize=10];\n";
    for (i, n) in d.nodes.iter().enumerate() {
        let (label, tip) = (quoted(&n.lines.join("\n")), quoted(&n.note));
        // Writing to a String cannot fail.
        let _ = writeln!(out, "  n{i} [label={label}, tooltip={tip}, fillcolor=\"{}\"];", n.class.color());
    }
    for (from, to) in &d.edges {
        let _ = writeln!(out, "  n{from} -> n{to};");
    }
    out + "}\n"
}

fn quoted(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("\"{escaped}\"")
}
