//! Which states are stored as bf16: those that every reader rounds, in every program; nothing that is computed changes.
use lolm_ir::DType;
use lolm_ir::graph::Graph;
use lolm_ir::interp::{self, Feeds};
use lolm_ir::text::parse;
use lolm_passes::canonicalize::canonicalize;
use lolm_passes::narrow_states::{narrow_states, rounded_states};
use lolm_passes::pipeline::{Goal, Options, Precision, Source, Target, compile_with};

/// A step with a state that is rounded wherever it is read, and others that are not.
const STEP: &str = "\
func @step
axis s=4 t=2 d=3
input @at: i32[t]
input @x: f32[t, d]
param @start: f32[d] init zeros
state @kept: f32[s, d]
state @raw: f32[s, d]
state @shown: f32[s, d]
state @begun: f32[d] init @start

%all = update {axis=s} @kept, @at, @x
%half = cast {to=bf16} %all
%wide = cast {to=f32} %half
%old = cast {to=bf16} @kept
%was = cast {to=f32} %old
%y = mul %wide, %was
%raw = update {axis=s} @raw, @at, @x
%rh = cast {to=bf16} %raw
%rw = cast {to=f32} %rh
%z = mul %rw, @raw
%bh = cast {to=bf16} @begun
%bw = cast {to=f32} %bh
%yz = add %y, %z
%ybz = add %yz, %bw
%sh = cast {to=bf16} @shown
%sw = cast {to=f32} %sh
%out = add %ybz, %sw
output @out[s, d] = %out
output @shown[s, d] = @shown
write @kept = %all
write @raw = %raw
write @shown = %out
";

fn graph(text: &str) -> Graph {
    parse(text).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn states_that_every_reader_rounds_are_stored_rounded() {
    let g = graph(STEP);
    let names = rounded_states([&g].into_iter());
    assert_eq!(names.iter().collect::<Vec<_>>(), ["kept"]);
    let out = canonicalize(&narrow_states(&g, &names).unwrap()).unwrap();
    lolm_ir::verify::verify(&out).unwrap();
    assert!(out.leaves.iter().all(|l| (l.dtype == DType::Bf16) == (l.name == "kept")));
    let number = |i: usize| ((i * 37 % 101) as f64 - 50.0) / 7.0;
    let rounded = |i: usize| half_of(number(i));
    let feeds: Feeds = [
        ("at", vec![2.0, 0.0]),
        ("x", (0..6).map(number).collect()),
        ("start", vec![0.1; 3]),
        ("kept", (6..18).map(rounded).collect()),
        ("raw", (18..30).map(number).collect()),
        ("shown", (30..42).map(number).collect()),
        ("begun", (42..45).map(number).collect()),
    ]
    .map(|(name, x): (&str, Vec<f64>)| (name.to_string(), x))
    .into_iter()
    .collect();
    let (before, after) = (interp::run(&g, &feeds).unwrap(), interp::run(&out, &feeds).unwrap());
    assert_eq!(before.outputs, after.outputs);
    let kept: Vec<f64> = before.writes["kept"].iter().map(|x| half_of(*x)).collect();
    assert_eq!(after.writes["kept"], kept);
    assert_eq!(before.writes["raw"], after.writes["raw"]);
}

/// The nearest bf16.
fn half_of(x: f64) -> f64 {
    let bits = (x as f32).to_bits();
    f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000) as f64
}

#[test]
fn every_program_has_a_say() {
    let g = graph(STEP);
    let other = graph("func @other\naxis s=4 d=3\nstate @kept: f32[s, d]\n%y = neg @kept\noutput @y[s, d] = %y\n");
    assert!(rounded_states([&g, &other].into_iter()).is_empty());
    let unread = graph("func @unread\naxis d=3\nstate @n: f32[d]\n%x = add @n, 1.0\nwrite @n = %x\n");
    assert!(rounded_states([&unread].into_iter()).is_empty());
}

/// A state over which a product sums: in bf16 it is half the bytes, and what the programs share agrees about it.
#[test]
fn keys_of_a_product_in_bf16_are_kept_in_bf16() {
    const KEYS: &str = "\
axis s=64 t=4 d=64
input @at: i32[t]
input @x: f32[t, d]
state @keys: f32[s, d]

%all = update {axis=s} @keys, @at, @x
%score = dot {axes=[d]} %all, @x
output @score[t, s] = %score
write @keys = %all
";
    let sources = ["a", "b"].map(|name| Source { graph: graph(&format!("func @{name}\n{KEYS}")), goal: Goal::Forward });
    let with = |precision| {
        let options = Options { target: Target::Gpu, precision, ..Options::default() };
        compile_with(&sources, options, &|_, _| ()).unwrap()
    };
    assert_eq!(with(Precision::F32).states[0].dtype, DType::F32);
    let m = with(Precision::Bf16);
    assert_eq!(m.states[0].dtype, DType::Bf16);
    // One launch rounds what comes in; none casts what is kept.
    let rounds = |name: &str| name.starts_with("cast_64");
    let names = m.plans[0].steps.iter().filter_map(|s| match s {
        lolm_ir::plan::Step::Launch(l) => Some(l.name.as_str()),
        lolm_ir::plan::Step::Repeat { .. } => None,
    });
    assert!(!names.clone().any(rounds), "{:?}", names.collect::<Vec<_>>());
}
