//! Drawings of graphs and plans: what is drawn, as DOT and as SVG.
mod dot;
mod layers;
mod of;
mod svg;

pub use dot::dot;
pub use of::{of_graph, of_plan};
pub use svg::svg;

/// What a box stands for; its colour.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Class {
    Leaf,
    Elementwise,
    Reduction,
    Index,
    Fused,
    Output,
}

impl Class {
    /// Fill colour, as `#rrggbb`.
    pub fn color(self) -> &'static str {
        match self {
            Class::Leaf => "#e8e8e8",
            Class::Elementwise => "#dcefff",
            Class::Reduction => "#ffe3c2",
            Class::Index => "#f4f4d0",
            Class::Fused => "#d6f0d0",
            Class::Output => "#f6d5e5",
        }
    }
}

/// A box.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// Lines of text.
    pub lines: Vec<String>,
    /// Shown when the pointer rests on it.
    pub note: String,
    pub class: Class,
}

/// Boxes and arrows, from what is read to what reads it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Drawing {
    pub title: String,
    pub nodes: Vec<Node>,
    pub edges: Vec<(usize, usize)>,
}

/// The characters that have a meaning in XML, spelt out.
pub fn xml(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
