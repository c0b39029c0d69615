//! Figures of a server in Prometheus' text form: under vLLM's names, which gateways and dashboards know, and some of ours.
use super::app::App;
use lolm_runtime::serve::{Histogram, Stats};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// What the server counts; what concerns sequences, the engine counts.
#[derive(Clone, Default)]
pub struct Metrics(Arc<Counters>);

#[derive(Default)]
struct Counters {
    connections: AtomicUsize,
    connections_refused: AtomicU64,
    /// Sequences that were ended by a text, which the engine takes for cancelled.
    stop_texts: AtomicU64,
    /// Answers by route and status.
    answers: Mutex<BTreeMap<(&'static str, u16), u64>>,
}

/// Counts a connection as long as it lives.
pub struct Connected(Metrics);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.0.connections.fetch_sub(1, Relaxed);
    }
}

impl Metrics {
    pub fn connected(&self) -> Connected {
        self.0.connections.fetch_add(1, Relaxed);
        Connected(self.clone())
    }

    pub fn connections(&self) -> usize {
        self.0.connections.load(Relaxed)
    }

    pub fn refused_connection(&self) {
        self.0.connections_refused.fetch_add(1, Relaxed);
    }

    pub fn ended_by_text(&self) {
        self.0.stop_texts.fetch_add(1, Relaxed);
    }

    pub fn answered(&self, route: &'static str, status: u16) {
        let mut answers = self.0.answers.lock().unwrap_or_else(PoisonError::into_inner);
        *answers.entry((route, status)).or_default() += 1;
    }

    /// All figures as text.
    pub fn text(&self, app: &App) -> String {
        let mut p = Page { out: String::new(), labels: String::new() };
        self.server(&mut p, app);
        let Ok(loaded) = app.loaded() else { return p.out };
        p.labels = format!("model_name=\"{}\"", escaped(&loaded.names[0]));
        let s = loaded.engine.stats();
        counts(&mut p, &s, self.0.stop_texts.load(Relaxed));
        times(&mut p, &s);
        ours(&mut p, &s);
        p.out
    }

    fn server(&self, p: &mut Page, app: &App) {
        let c = &self.0;
        let ready = app.loaded().is_ok() && !app.draining();
        p.gauge("lolm:ready", "1 if requests are answered.", f64::from(u8::from(ready)));
        p.gauge("lolm:http_connections", "Open connections.", c.connections.load(Relaxed) as f64);
        let refused = c.connections_refused.load(Relaxed);
        p.counter("lolm:http_connections_refused_total", "Connections beyond the greatest number.", refused);
        let answers = c.answers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let label = |((route, status), n)| (format!("route=\"{route}\",status=\"{status}\""), n);
        p.counters(
            "lolm:http_requests_total",
            "Answers by route and status.",
            answers.into_iter().map(label).collect(),
        );
        if let Some(bytes) = resident() {
            p.gauge("process_resident_memory_bytes", "Memory in use.", bytes as f64);
        }
    }
}

fn counts(p: &mut Page, s: &Stats, stop_texts: u64) {
    p.gauge("vllm:num_requests_running", "Sequences that have a slot.", s.running as f64);
    p.gauge("vllm:num_requests_waiting", "Sequences in the queue.", s.waiting as f64);
    p.gauge("vllm:kv_cache_usage_perc", "Tokens that slots hold, of all that they can; 1 is all.", s.usage());
    p.counter("vllm:prompt_tokens_total", "Tokens of prompts that were read.", s.prompt_tokens);
    p.counter("vllm:generation_tokens_total", "Tokens that were generated.", s.generated_tokens);
    p.counter("vllm:prefix_cache_queries_total", "Tokens of prompts that were looked up.", s.cache.queried_tokens);
    p.counter("vllm:prefix_cache_hits_total", "Tokens of prompts that needed no reading.", s.cache.hit_tokens);
    let f = &s.finished;
    let gone = (f.cancelled + f.deadline).saturating_sub(stop_texts);
    let ends = [("stop", f.stop + stop_texts), ("length", f.length), ("abort", gone), ("error", f.failed)];
    let ends = ends.into_iter().map(|(end, n)| (format!("finished_reason=\"{end}\""), n)).collect();
    p.counters("vllm:request_success_total", "Sequences that ended, by reason.", ends);
}

fn times(p: &mut Page, s: &Stats) {
    p.histogram("vllm:time_to_first_token_seconds", "From a request to its first token.", &s.first_token);
    p.histogram("vllm:inter_token_latency_seconds", "From token to token.", &s.between_tokens);
    p.histogram("vllm:request_queue_time_seconds", "From a request to its slot.", &s.queue);
    p.histogram("vllm:request_prefill_time_seconds", "Reading a prompt.", &s.prefill);
    p.histogram("vllm:request_decode_time_seconds", "Answering.", &s.decode);
    p.histogram("vllm:e2e_request_latency_seconds", "From a request to its end.", &s.whole);
    p.histogram("vllm:request_prompt_tokens", "Tokens of a prompt.", &s.prompt_lengths);
    p.histogram("vllm:request_generation_tokens", "Tokens of an answer.", &s.answer_lengths);
    p.histogram("vllm:iteration_tokens_total", "Tokens that went in with a step.", &s.step_tokens);
}

fn ours(p: &mut Page, s: &Stats) {
    p.gauge("lolm:slots", "Sequences that can be answered at the same time.", s.slots as f64);
    p.gauge("lolm:state_bytes", "Bytes of the states of all slots.", s.state_bytes as f64);
    p.gauge("lolm:state_cache_bytes", "Bytes of kept states.", s.cache.bytes as f64);
    p.gauge("lolm:state_cache_limit_bytes", "Bytes that kept states may take.", s.cache.budget_bytes as f64);
    p.gauge("lolm:state_cache_entries", "Prefixes whose states are kept.", s.cache.entries as f64);
    p.counter("lolm:state_cache_queries_total", "Prompts that were looked up.", s.cache.queries);
    p.counter("lolm:state_cache_hits_total", "Prompts of which a beginning was known.", s.cache.hits);
    p.counter("lolm:state_cache_evicted_total", "Prefixes that made room for others.", s.cache.evicted);
    p.counter("lolm:requests_refused_total", "Sequences for which the queue had no room.", s.full);
    p.counter("lolm:deadlines_total", "Sequences that took too long.", s.finished.deadline);
    p.counter("lolm:decode_steps_total", "Steps over all answering sequences.", s.decode_steps);
    p.counter("lolm:read_steps_total", "Steps over one prompt.", s.read_steps);
}

/// A page of figures that grows.
struct Page {
    out: String,
    /// What all figures of the model are labelled with.
    labels: String,
}

impl Page {
    fn head(&mut self, name: &str, help: &str, kind: &str) {
        self.out += &format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn row(&mut self, name: &str, label: &str, value: impl std::fmt::Display) {
        let both = [self.labels.as_str(), label].into_iter().filter(|l| !l.is_empty()).collect::<Vec<_>>().join(",");
        let braces = if both.is_empty() { String::new() } else { format!("{{{both}}}") };
        // A text takes whatever is written to it.
        let _ = writeln!(self.out, "{name}{braces} {value}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, help, "gauge");
        self.row(name, "", value);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.counters(name, help, vec![(String::new(), value)]);
    }

    fn counters(&mut self, name: &str, help: &str, rows: Vec<(String, u64)>) {
        self.head(name, help, "counter");
        rows.iter().for_each(|(label, value)| self.row(name, label, value));
    }

    fn histogram(&mut self, name: &str, help: &str, h: &Histogram) {
        self.head(name, help, "histogram");
        let (mut below, bucket) = (0, format!("{name}_bucket"));
        for (i, n) in h.counts.iter().enumerate() {
            below += n;
            let edge = h.bounds.get(i).map_or("+Inf".to_string(), |b| b.to_string());
            self.row(&bucket, &format!("le=\"{edge}\""), below);
        }
        self.row(&format!("{name}_sum"), "", h.sum);
        self.row(&format!("{name}_count"), "", below);
    }
}

fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Bytes of memory that the process has in use, where the system says so.
pub fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_written_as_prometheus_reads_them() {
        let mut p = Page { out: String::new(), labels: "model_name=\"a\"".into() };
        p.histogram("x", "What.", &Histogram { bounds: &[0.5, 2.0], counts: vec![1, 2, 1], sum: 8.25 });
        p.counters("n", "Some.", vec![("end=\"stop\"".into(), 3)]);
        let lines: Vec<&str> = p.out.lines().collect();
        assert_eq!(lines[1..3], ["# TYPE x histogram", "x_bucket{model_name=\"a\",le=\"0.5\"} 1"]);
        assert_eq!(
            lines[4..7],
            ["x_bucket{model_name=\"a\",le=\"+Inf\"} 4", "x_sum{model_name=\"a\"} 8.25", "x_count{model_name=\"a\"} 4"]
        );
        assert_eq!(lines[9], "n{model_name=\"a\",end=\"stop\"} 3");
        assert_eq!(escaped("a\"\\\n"), "a\\\"\\\\\\n");
    }
}
