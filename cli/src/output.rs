//! What is said: results on stdout, everything else on stderr, errors and bugs as one sentence.
use serde::Serialize;
use std::fmt::Display;
use std::io::{IsTerminal, Write};

/// Writes text to stdout with a line break behind it. A reader that has gone away (`lolm … | head`) ends the command.
pub fn say(text: impl Display) {
    write(&format!("{text}\n"));
}

/// Writes text to stdout as it is, at once.
pub fn write(text: &str) {
    write_bytes(text.as_bytes());
}

pub fn write_bytes(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    if out.write_all(bytes).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Writes a line to stderr: what goes on, as opposed to what results.
pub fn note(text: impl Display) {
    // There is nobody to tell if stderr is closed.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Prints a result, for people or as JSON.
pub fn show<T: Serialize>(json: bool, result: &T, people: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
    match json {
        true => say(serde_json::to_string_pretty(result)?),
        false => say(people(result).trim_end()),
    }
    Ok(())
}

/// An error and its causes, each said once: many errors repeat their cause in their own words.
fn sentence(e: &anyhow::Error) -> String {
    e.chain().map(|cause| cause.to_string()).fold(String::new(), |said, cause| match said.as_str() {
        "" => cause,
        _ if said.contains(&cause) => said,
        _ => format!("{said}: {cause}"),
    })
}

/// Prints an error as `error: what: why`.
pub fn complain(e: &anyhow::Error) {
    let label = if colored() { "\x1b[1;31merror\x1b[0m" } else { "error" };
    note(format_args!("{label}: {}", sentence(e)));
}

fn colored() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()) && std::io::stderr().is_terminal()
}

/// Turns a panic, which is always a bug, into a sentence and exit code 1.
pub fn explain_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        let what = payload.downcast_ref::<&str>().map(|s| s.to_string());
        let what = what.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "unknown".into());
        let place = panic.location().map_or(String::new(), |l| format!(" at {}:{}", l.file(), l.line()));
        note(format_args!("error: bug in lolm{place}: {}; please report it", what.replace('\n', " ")));
        std::process::exit(1);
    }));
}

/// `1,568,085,569`
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// `1.50 GB`, in powers of ten.
pub fn bytes(n: u64) -> String {
    scaled(n as f64, "B")
}

/// Three digits and a unit with a prefix in powers of ten.
pub fn scaled(x: f64, unit: &str) -> String {
    let prefixes = ["", "k", "M", "G", "T", "P", "E"];
    let (mut x, mut i) = (x, 0);
    while x >= 999.5 && i + 1 < prefixes.len() {
        (x, i) = (x / 1000.0, i + 1);
    }
    let digits = if x >= 99.95 || i == 0 {
        0
    } else if x >= 9.995 {
        1
    } else {
        2
    };
    format!("{x:.digits$} {}{unit}", prefixes[i])
}

/// `12.3 ms`
pub fn seconds(s: f64) -> String {
    if s >= 100.0 {
        format!("{s:.0} s")
    } else if s >= 1.0 {
        format!("{s:.2} s")
    } else if s >= 1e-3 {
        format!("{:.1} ms", s * 1e3)
    } else {
        format!("{:.1} µs", s * 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!([0, 999, 1000, 1568085569].map(grouped), ["0", "999", "1,000", "1,568,085,569"]);
        assert_eq!([0, 999, 1500, 123_456_789].map(bytes), ["0 B", "999 B", "1.50 kB", "123 MB"]);
        assert_eq!(scaled(2.5e11, "FLOP"), "250 GFLOP");
        assert_eq!([0.5, 2.0, 0.00002, 140.0].map(seconds), ["500.0 ms", "2.00 s", "20.0 µs", "140 s"]);
    }
}
