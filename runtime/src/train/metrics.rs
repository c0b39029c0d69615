//! `metrics.jsonl`: one line a step, appended. After a resume the lines of steps that will be taken again are dropped.
use super::Report;
use serde_json::{Map, Value, json};
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// An open metrics file.
pub struct Metrics {
    file: BufWriter<File>,
}

impl Metrics {
    /// Opens or makes the file, keeping the whole lines of the first `steps` steps.
    pub fn open(path: &Path, steps: u64) -> io::Result<Metrics> {
        let before = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(e),
        };
        let kept: Vec<&str> = before.split_inclusive('\n').filter(|l| l.ends_with('\n') && step(l) <= steps).collect();
        if kept.len() < before.lines().count() {
            std::fs::write(path, kept.concat())?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Metrics { file: BufWriter::new(file) })
    }

    /// Adds a line: the report's values and what the caller measured.
    pub fn add(&mut self, r: &Report, measured: &[(&str, f64)]) -> io::Result<()> {
        let mut line = Map::new();
        line.insert("step".into(), json!(r.step));
        let values = r.values.iter().map(|(n, x)| (n.as_str(), *x as f64));
        for (name, x) in [("lr", r.lr), ("tau", r.tau)].into_iter().chain(values).chain(measured.iter().copied()) {
            // JSON has no infinities; a string says which.
            line.insert(name.into(), if x.is_finite() { json!(x) } else { json!(x.to_string()) });
        }
        writeln!(self.file, "{}", Value::Object(line))?;
        self.file.flush()
    }
}

/// The step of a line; a line that is not one counts as later than all.
fn step(line: &str) -> u64 {
    serde_json::from_str::<Value>(line).ok().and_then(|v| v["step"].as_u64()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_after_the_resumed_step_and_broken_ones_are_dropped() {
        let path = std::env::temp_dir().join(format!("lolm-metrics-{}.jsonl", std::process::id()));
        let mut m = Metrics::open(&path, 0).unwrap();
        let report =
            |step| Report { step, lr: 0.5, values: vec![("loss.total".into(), f32::NAN)], ..Report::default() };
        for step in 1..=4 {
            m.add(&report(step), &[("tokens_per_second", 7.0)]).unwrap();
        }
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"step\":5,\"lr").unwrap();
        drop(m);
        Metrics::open(&path, 2).unwrap().add(&report(3), &[]).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(text.lines().map(|l| step(&format!("{l}\n"))).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(
            text.starts_with(r#"{"loss.total":"NaN","lr":0.5,"step":1,"tau":0.0,"tokens_per_second":7.0}"#),
            "{text}"
        );
    }
}
