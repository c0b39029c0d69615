//! Sequences that are decoded side by side, in any number of lanes and next to any others, have the bits that each has
//! alone; so have rows that were copied, saved and restored, also in the middle of a ring. What lies in rows that hold no
//! sequence reaches nobody.
use lolm_ir::DType;
use lolm_ir::artifact::lanes_program;
use lolm_models::{Program, kept_keys, prefill_sizes, window};
use lolm_passes::pipeline::{Goal, Options, Source, Target};
use lolm_runtime::generate::{Generator, Settings, set_scalar};
use lolm_runtime::{Input, Meter, Model, Output, ProgramId, RowSnapshot};
use lolm_tests::compiled::{Bytes, source};
use lolm_tests::golden::{CASES, Case};

type Bits = Vec<u32>;

fn sources(case: &Case, lanes: &[usize]) -> Vec<Source> {
    let spec = &case.spec;
    let step = |name: &str, slots, tokens| source(spec, name, Program::Step { slots, tokens }, Goal::Forward);
    let mut all = vec![step("decode", 1, 1)];
    all.extend(lanes.iter().map(|n| step(&lanes_program(*n), *n, 1)));
    let sizes = prefill_sizes(spec).into_iter().filter(|t| (2..=16).contains(t));
    all.extend(sizes.map(|t| step(&format!("prefill_{t}"), 1, t)));
    all
}

/// Four memory chunks of six tokens; with a window, once around the ring and a little more.
fn context(case: &Case) -> usize {
    window(&case.spec).map_or(24, |w| kept_keys(Some(w), usize::MAX) + 9)
}

fn settings(case: &Case) -> Settings {
    Settings { max_seq_len: case.spec.max_seq_len, gate_force: -1.0, tau: case.tau() as f32 }
}

/// The tokens of sequence `who`, whose prompt is the first few.
fn tokens(case: &Case, who: usize) -> Vec<u32> {
    let token = |i: usize| (i * i * 31 + 7 * i * (who + 1) + 13 * who) as u32 % case.spec.vocab_size as u32;
    (0..case.spec.max_seq_len).map(token).collect()
}

fn prompt(case: &Case, who: usize) -> usize {
    match window(&case.spec) {
        // Some begin before the ring is full, some behind it.
        Some(_) if who % 2 == 1 => case.spec.max_seq_len - 8 + who / 2,
        _ => [3, 9, 1, 14, 6, 2, 11, 5][who % 8],
    }
}

fn bits(x: &[f32]) -> Bits {
    x.iter().map(|x| x.to_bits()).collect()
}

/// The logits after each token from the last of the prompt on.
fn alone(case: &Case, model: &mut Model, who: usize) -> Vec<Bits> {
    let (line, at) = (tokens(case, who), prompt(case, who));
    let mut g = Generator::new(model, settings(case)).unwrap();
    g.extend(&line[..at]).unwrap();
    let mut out = vec![bits(g.logits())];
    for token in &line[at..] {
        g.extend(&[*token]).unwrap();
        out.push(bits(g.logits()));
    }
    out
}

/// A program of several lanes with its ports.
struct Lanes {
    count: usize,
    program: ProgramId,
    ids: Input,
    pos: Input,
    logits: Output,
}

/// A sequence in a row: which, and how many of its tokens are in.
#[derive(Clone, Copy)]
struct Sequence {
    who: usize,
    position: usize,
}

struct Server<'a> {
    case: &'a Case,
    model: Model,
    lanes: Vec<Lanes>,
    /// Of row 0 and so on.
    running: Vec<Sequence>,
    expected: Vec<Vec<Bits>>,
}

impl<'a> Server<'a> {
    fn new(case: &'a Case, bytes: &Bytes, lanes: &[usize]) -> Self {
        let rows = *lanes.last().unwrap();
        let mut single = bytes.load(case, 0);
        let expected = (0..rows).map(|who| alone(case, &mut single, who)).collect();
        let mut model = bytes.load(case, rows);
        assert_eq!(model.rows(), rows);
        let find = |model: &mut Model, count: usize| {
            let p = model.program(&lanes_program(count)).unwrap();
            set_scalar(model, p, "tau", case.tau() as f32).unwrap();
            set_scalar(model, p, "gate.force", -1.0).unwrap();
            let input = |name| model.input(p, name, DType::I32).unwrap();
            let (ids, pos) = (input("tokens"), if model.has_input(p, "pos") { input("pos") } else { input("tokens") });
            Lanes { count, program: p, ids, pos, logits: model.output(p, "logits", DType::F32).unwrap() }
        };
        let lanes = lanes.iter().map(|n| find(&mut model, *n)).collect();
        Server { case, model, lanes, running: vec![], expected }
    }

    fn run(&mut self, lanes: usize, ids: impl Iterator<Item = u32>, pos: impl Iterator<Item = usize>) -> Output {
        let l = self.lanes.iter().find(|l| l.count >= lanes).unwrap();
        self.model.input_mut::<i32>(l.pos).fill(0);
        self.model.input_mut::<i32>(l.pos).iter_mut().zip(pos).for_each(|(to, p)| *to = p as i32);
        self.model.input_mut::<i32>(l.ids).fill(0);
        self.model.input_mut::<i32>(l.ids).iter_mut().zip(ids).for_each(|(to, t)| *to = t as i32);
        self.model.run(l.program);
        l.logits
    }

    /// NaN in all rows, at these positions.
    fn poison(&mut self, positions: impl Iterator<Item = usize>) {
        let slots = self.model.params().slots().len();
        let saved: Vec<Vec<f32>> = (0..slots).map(|i| self.model.params().view(i).to_vec()).collect();
        (0..slots).for_each(|i| self.model.param_mut(i).fill(f32::NAN));
        let rows = self.model.rows();
        for p in positions {
            let logits = self.run(rows, std::iter::empty(), std::iter::repeat_n(p, rows));
            assert!(self.model.output_slice::<f32>(logits).iter().all(|x| x.is_nan()), "{}", self.case.name);
        }
        (0..slots).for_each(|i| self.model.param_mut(i).copy_from_slice(&saved[i]));
    }

    /// Reads a prompt and makes it the next row.
    fn admit(&mut self, who: usize) {
        let (line, position) = (tokens(self.case, who), prompt(self.case, who));
        let mut g = Generator::new(&mut self.model, settings(self.case)).unwrap();
        g.extend(&line[..position]).unwrap();
        assert!(bits(g.logits()) == self.expected[who][0], "{}: prompt {who}", self.case.name);
        let rows = self.model.rows();
        self.model.copy_row(rows, self.running.len(), position).unwrap();
        self.running.push(Sequence { who, position });
    }

    /// Ends the sequence of a row; the last one moves there.
    fn retire(&mut self, row: usize) {
        let last = self.running.len() - 1;
        self.model.copy_row(last, row, self.running[last].position).unwrap();
        self.running.swap_remove(row);
    }

    fn save(&mut self, row: usize) -> (Sequence, RowSnapshot) {
        let s = self.running[row];
        let snapshot = self.model.save_row(row, s.position).unwrap();
        assert_eq!(snapshot.bytes(), self.model.snapshot_bytes(s.position));
        assert!(snapshot.bytes() <= self.model.row_bytes());
        (s, snapshot)
    }

    fn restore(&mut self, (s, snapshot): &(Sequence, RowSnapshot)) {
        self.model.restore_row(self.running.len(), snapshot).unwrap();
        self.running.push(*s);
    }

    /// One token for each sequence; those whose text is at its end retire.
    fn step(&mut self) {
        let running = self.running.clone();
        let ids = running.iter().map(|s| tokens(self.case, s.who)[s.position]).collect::<Vec<_>>();
        let logits = self.run(running.len(), ids.into_iter(), running.iter().map(|s| s.position));
        let all: &[f32] = self.model.output_slice(logits);
        for (row, s) in self.running.iter_mut().enumerate() {
            s.position += 1;
            let at = s.position - prompt(self.case, s.who);
            let vocab = self.case.spec.vocab_size;
            let same = bits(&all[row * vocab..][..vocab]) == self.expected[s.who][at];
            let (name, n) = (self.case.name, running.len());
            assert!(same, "{name}: sequence {} at {} in row {row} of {n}", s.who, s.position);
        }
        for row in (0..self.running.len()).rev() {
            if self.running[row].position == self.case.spec.max_seq_len {
                self.retire(row);
            }
        }
    }

    fn steps(&mut self, n: usize) {
        (0..n).for_each(|_| self.step());
    }
}

fn case(name: &'static str) -> Case {
    let mut case = Case::load(name);
    case.spec.max_seq_len = context(&case);
    case
}

#[test]
fn lanes_give_the_bits_that_each_sequence_has_alone() {
    for case in CASES.map(case) {
        let lanes = [1, 2, 4, 8];
        let bytes = Bytes::new(&case, &sources(&case, &lanes), Options::default());
        let mut s = Server::new(&case, &bytes, &lanes);
        s.poison(0..case.spec.max_seq_len);
        s.admit(0);
        s.step();
        s.admit(1);
        s.step();
        s.admit(2); // three in four lanes
        s.step();
        let early = [s.save(1), s.save(2)];
        s.admit(3);
        s.admit(4); // five in eight lanes
        s.step();
        (5..8).for_each(|who| s.admit(who));
        s.steps(2);
        s.retire(0);
        s.step();
        s.retire(2);
        early.iter().for_each(|e| s.restore(e));
        while !s.running.is_empty() {
            s.step();
        }
    }
}

#[test]
fn lanes_on_a_gpu_give_the_bits_that_each_sequence_has_alone() {
    for case in ["lolm_full", "samba_short_window", "jamba", "griffin"].map(case) {
        let lanes = [2, 4];
        let options = Options { target: Target::Gpu, ..Options::default() };
        let bytes = Bytes::new(&case, &sources(&case, &lanes), options);
        let mut s = Server::new(&case, &bytes, &lanes);
        s.poison((0..case.spec.max_seq_len).step_by(3));
        s.admit(0);
        s.step();
        s.admit(1);
        let early = s.save(1);
        s.step();
        s.admit(2);
        s.step();
        s.retire(0);
        s.restore(&early);
        s.steps(2);
    }
}

#[test]
fn a_model_has_the_rows_that_it_was_loaded_with() {
    let case = case("lolm_full");
    let lanes = [1, 2, 4];
    let bytes = Bytes::new(&case, &sources(&case, &lanes), Options::default());
    let mut model = bytes.load(&case, 2);
    assert!(model.has_program("decode_2") && !model.has_program("decode_4"));
    let few = "program `decode_4` decodes 4 sequences side by side, but the model was loaded with 2 rows: load it with 4 or \
               more";
    assert_eq!(model.program("decode_4").unwrap_err().to_string(), few);
    let none = "there is no row 3: the model was loaded with 2, and row 2 is where prompts are read";
    assert_eq!(model.copy_row(3, 0, 1).unwrap_err().to_string(), none);
    assert_eq!(model.reset_row(3).unwrap_err().to_string(), none);
    let saved = model.save_row(2, 5).unwrap();
    let other = Case { spec: lolm_models::Spec { max_seq_len: 4, ..case.spec.clone() }, ..Case::load("lolm_full") };
    let mut short = Bytes::new(&other, &sources(&other, &[1]), Options::default()).load(&other, 1);
    let said = short.restore_row(0, &saved).unwrap_err().to_string();
    assert!(said.starts_with("the snapshot is not of this model: it holds "), "{said}");
}

#[test]
fn a_row_that_is_reset_is_an_empty_sequence() {
    let case = case("lolm_full");
    let bytes = Bytes::new(&case, &sources(&case, &[1, 2]), Options::default());
    let mut model = bytes.load(&case, 2);
    let empty = model.save_row(2, 0).unwrap();
    let mut g = Generator::new(&mut model, settings(&case)).unwrap();
    g.extend(&tokens(&case, 0)[..9]).unwrap();
    model.copy_row(2, 1, 9).unwrap();
    for row in [1, 2] {
        assert_ne!(model.save_row(row, 0).unwrap(), empty);
        model.reset_row(row).unwrap();
        assert_eq!(model.save_row(row, 0).unwrap(), empty);
    }
}

#[test]
fn snapshots_share_what_is_kept_of_a_beginning() {
    let case = case("lolm_full");
    let bytes = Bytes::new(&case, &sources(&case, &[1, 2]), Options::default());
    let mut model = bytes.load(&case, 2);
    let read = |model: &mut Model, n: usize| {
        Generator::new(model, settings(&case)).unwrap().extend(&tokens(&case, 0)[..n]).unwrap();
    };
    read(&mut model, 14);
    let alone = model.save_row(2, 14).unwrap();
    read(&mut model, 9);
    let meter = Meter::default();
    let beginning = model.save_row_behind(2, 9, None, &meter).unwrap();
    model.restore_row(2, &alone).unwrap();
    let shared = model.save_row_behind(2, 14, Some(&beginning), &meter).unwrap();
    assert_eq!((shared.bytes(), meter.bytes()), (alone.bytes(), model.kept_bytes(&(0..14))));
    assert!(meter.bytes() > 0 && shared != alone);
    drop(beginning);
    model.restore_row(0, &shared).unwrap();
    assert_eq!(model.save_row(0, 14).unwrap(), alone);
}
