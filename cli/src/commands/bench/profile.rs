//! Where the time of a program goes, as reports show it.
use crate::inspect::plan::word;
use crate::output::seconds;
use crate::table::Table;
use lolm_runtime::bench::{Profile, Row};
use serde::Serialize;

/// Part of a measured run. Threads meet after every launch there, so it is slower than one that is not looked at.
#[derive(Serialize)]
pub struct Share {
    kind: String,
    name: String,
    seconds: f64,
    share: f64,
    gflops_per_second: f64,
    gbytes_per_second: f64,
}

impl Share {
    fn of(r: &Row, total: f64) -> Share {
        Share {
            kind: word(&r.kind),
            name: r.name.clone(),
            seconds: r.seconds,
            share: r.seconds / total,
            gflops_per_second: r.gflops(),
            gbytes_per_second: r.gbytes(),
        }
    }
}

/// All kinds of launches, and so many launches of one name, the longest first.
pub fn shares(p: &Profile, top: usize) -> (Vec<Share>, Vec<Share>) {
    let total = p.seconds();
    let of = |rows: Vec<Row>| rows.iter().map(|r| Share::of(r, total)).collect::<Vec<_>>();
    (of(p.by_kind()), of(p.by_name()).into_iter().take(top).collect())
}

/// A table of shares, with an empty line below.
pub fn table(list: &[Share]) -> String {
    let mut t = Table::new(&["kind", "", ">time", ">share", ">GFLOP/s", ">GB/s"]);
    for s in list {
        t.row(&[
            s.kind.clone(),
            s.name.clone(),
            seconds(s.seconds),
            format!("{:.1} %", 100.0 * s.share),
            format!("{:.1}", s.gflops_per_second),
            format!("{:.1}", s.gbytes_per_second),
        ]);
    }
    format!("{t}\n")
}
