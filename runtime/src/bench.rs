//! Measurements: how fast this machine reads memory, and where the time of a program goes.
use crate::cpu::memory::Region;
use crate::cpu::pool::{Member, Pool};
use crate::model::{Model, ProgramId};
use lolm_ir::plan::{Kind, Launch, Step};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::io;
use std::time::Instant;

/// Bytes a second that this many threads read together, from memory and not from a cache. `bytes` should be several
/// times the last cache; the best of five passes counts.
pub fn read_bandwidth(threads: usize, bytes: usize) -> io::Result<f64> {
    let mut region = Region::new(bytes.next_multiple_of(64))?;
    let words = region.len() / 8;
    region.slice_mut::<f32>(0, 2 * words).fill(1.0);
    let data: &[i32] = region.slice(0, 2 * words);
    let mut pool = Pool::new(threads)?;
    let pass = |pool: &mut Pool| {
        let start = Instant::now();
        pool.run(&|me: &Member| {
            let (begin, end) = me.share(data.len() as u64 / 64);
            let mut sums = [0i32; 64];
            for line in data[begin as usize * 64..end as usize * 64].chunks_exact(64) {
                sums.iter_mut().zip(line).for_each(|(sum, x)| *sum = sum.wrapping_add(*x));
            }
            black_box(sums);
        });
        bytes as f64 / start.elapsed().as_secs_f64()
    };
    pass(&mut pool);
    Ok((0..5).map(|_| pass(&mut pool)).fold(0.0, f64::max))
}

/// Time and work of a launch, or of all launches of a kind, for one run of the program.
#[derive(Clone, PartialEq, Debug)]
pub struct Row {
    pub name: String,
    pub kind: Kind,
    pub seconds: f64,
    pub flops: f64,
    pub bytes: f64,
}

impl Row {
    pub fn gflops(&self) -> f64 {
        self.flops / self.seconds / 1e9
    }
    pub fn gbytes(&self) -> f64 {
        self.bytes / self.seconds / 1e9
    }
}

/// Where the time of a program goes.
#[derive(Clone, PartialEq, Debug)]
pub struct Profile {
    /// In the order of the plan; loops are counted with all their rounds.
    pub launches: Vec<Row>,
}

impl Profile {
    /// Runs a program this often, on what its inputs hold, and measures every launch.
    pub fn of(model: &mut Model, program: ProgramId, runs: usize) -> Profile {
        let runs = runs.max(1);
        model.measure(program, true);
        (0..runs).for_each(|_| model.run(program));
        let nanoseconds = model.measure(program, false);
        let plan = model.plan(program);
        let launches = plan.steps.iter().flat_map(|s| match s {
            Step::Launch(l) => vec![(l, 1)],
            Step::Repeat { times, body } => body.iter().map(|l| (l, *times)).collect(),
        });
        let row = |((l, times), ns): ((&Launch, u32), u64)| Row {
            name: l.name.clone(),
            kind: l.kind,
            seconds: ns as f64 / 1e9 / runs as f64,
            flops: l.flops as f64 * times as f64,
            bytes: l.bytes as f64 * times as f64,
        };
        Profile { launches: launches.zip(nanoseconds).map(row).collect() }
    }

    pub fn seconds(&self) -> f64 {
        self.launches.iter().map(|r| r.seconds).sum()
    }

    /// Summed by kind, the longest first. The name says how many launches there are.
    pub fn by_kind(&self) -> Vec<Row> {
        self.summed(|r| (r.kind, ""), |n, _| format!("{n} launches"))
    }

    /// Summed by kind and name, the longest first: equal layers are one. The name says how many launches there are.
    pub fn by_name(&self) -> Vec<Row> {
        self.summed(|r| (r.kind, &r.name), |n, name| if n == 1 { name.into() } else { format!("{n} x {name}") })
    }

    fn summed<'a>(
        &'a self,
        key: impl Fn(&'a Row) -> (Kind, &'a str),
        name: impl Fn(usize, &str) -> String,
    ) -> Vec<Row> {
        let mut sums: BTreeMap<(Kind, &str), (usize, Row)> = BTreeMap::new();
        for r in &self.launches {
            let zero = Row { name: String::new(), kind: r.kind, seconds: 0.0, flops: 0.0, bytes: 0.0 };
            let (n, sum) = sums.entry(key(r)).or_insert((0, zero));
            *n += 1;
            sum.seconds += r.seconds;
            sum.flops += r.flops;
            sum.bytes += r.bytes;
        }
        let named = |((_, key), (n, r)): ((Kind, &str), (usize, Row))| Row { name: name(n, key), ..r };
        let mut rows: Vec<Row> = sums.into_iter().map(named).collect();
        rows.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{linear, model};

    #[test]
    fn memory_is_read_at_some_speed() {
        let bytes_a_second = read_bandwidth(2, 1 << 22).unwrap();
        assert!((1e8..1e13).contains(&bytes_a_second), "{bytes_a_second}");
    }

    #[test]
    fn a_profile_has_the_launches_of_the_plan_and_their_work() {
        let mut m = linear(16, 16, 16);
        let Step::Launch(l) = &mut m.programs[0].steps[0] else { panic!() };
        (l.flops, l.bytes) = (8192, 3072);
        let again = m.programs[0].steps[0].clone();
        m.programs[0].steps.push(again);
        let mut model = model(&m, 2);
        let p = model.program("linear").unwrap();
        let profile = Profile::of(&mut model, p, 3);
        assert_eq!(profile.launches.len(), 2);
        let kinds = profile.by_kind();
        assert_eq!((kinds.len(), kinds[0].name.as_str(), kinds[0].flops), (1, "2 launches", 16384.0));
        let names = profile.by_name();
        assert_eq!((names.len(), names[0].name.as_str(), names[0].flops), (1, "2 x xw", 16384.0));
        assert!(kinds[0].seconds > 0.0 && kinds[0].gflops() > 0.0 && kinds[0].gbytes() > 0.0);
    }
}
