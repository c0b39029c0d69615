//! Tables for people: a header, rows, numbers to the right, no borders but a line under the header.
use comfy_table::{CellAlignment, ContentArrangement};

pub struct Table {
    inner: comfy_table::Table,
}

impl Table {
    /// A table with these columns; a name that starts with `>` is aligned to the right.
    pub fn new(columns: &[&str]) -> Self {
        let mut inner = comfy_table::Table::new();
        inner.load_style(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        inner.set_header(columns.iter().map(|c| c.trim_start_matches('>')));
        for (i, c) in columns.iter().enumerate() {
            if let Some(column) = inner.column_mut(i) {
                column.set_padding((0, 2));
                if c.starts_with('>') {
                    column.set_cell_alignment(CellAlignment::Right);
                }
            }
        }
        Table { inner }
    }

    pub fn row(&mut self, cells: &[String]) {
        self.inner.add_row(cells);
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.lines().try_for_each(|line| writeln!(f, "{}", line.trim_end()))
    }
}
