//! What raising finds in each model and program: a table, and unchanged answers on small shapes.
use lolm_ir::op::Mask;
use lolm_ir::{Graph, Op};
use lolm_models::spec::library;
use lolm_models::{Noise, Program, Spec, build};
use lolm_passes::raise::{RaiseReport, raise};

mod raise_util;
use raise_util::{raised_within, summary, tiny};

fn spec(name: &str) -> Spec {
    library(name).unwrap().unwrap()
}

fn train(spec: &Spec) -> Program {
    Program::Train { batch: 1, seq: spec.max_seq_len, noise: Noise::Random }
}
const FORWARD: Program = Program::Forward { batch: 1, seq: 64, forced_gate: false };
const EVAL: Program = Program::Eval { batch: 1, seq: 64 };
const DECODE: Program = Program::Step { slots: 4, tokens: 1 };
const PREFILL: Program = Program::Step { slots: 1, tokens: 16 };

fn report(spec: &Spec, program: &Program) -> RaiseReport {
    raise(&build(spec, program).unwrap()).unwrap().1
}

type Row = (&'static str, fn(&Spec) -> Program, &'static str);

/// Fused operations, and after a bar what nobody claimed: the logs of the Gumbel noise (2) and of entropies, which no fused
/// operation holds, and the running sum of a memory chunk. Weights of memory reads stay softmax where a loss or an
/// output wants them, and are attention where only the read counts.
#[rustfmt::skip]
const TABLE: &[Row] = &[
    ("lolm-demo", train, "3 attention, 1 cross_entropy, 6 gelu, 10 layer_norm, 1 logsumexp, 1 mix, 6 rope, 1 selective_scan, 20 sigmoid, 1 silu, 13 softmax, 1 softplus | 4 log"),
    ("lolm-demo", |_| FORWARD, "3 attention, 4 gelu, 10 layer_norm, 1 mix, 6 rope, 1 selective_scan, 19 sigmoid, 1 silu, 13 softmax, 1 softplus"),
    ("lolm-demo", |_| EVAL, "3 attention, 1 cross_entropy, 4 gelu, 10 layer_norm, 1 mix, 6 rope, 1 selective_scan, 19 sigmoid, 1 silu, 13 softmax, 1 softplus | 1 log"),
    ("lolm-demo", |_| DECODE, "3 attention, 4 gelu, 10 layer_norm, 1 mix, 6 rope, 1 selective_scan, 7 sigmoid, 1 silu, 4 softmax, 1 softplus"),
    ("lolm-demo", |_| PREFILL, "3 attention, 4 gelu, 10 layer_norm, 1 mix, 6 rope, 1 selective_scan, 7 sigmoid, 1 silu, 4 softmax, 1 softplus | 1 linear_recurrence"),
    ("lolm-20m", train, "6 attention, 1 cross_entropy, 9 gelu, 15 layer_norm, 1 logsumexp, 1 mix, 12 rope, 2 selective_scan, 2 sigmoid, 2 silu, 4 softmax, 2 softplus | 4 log"),
    ("lolm-20m", |_| EVAL, "6 attention, 1 cross_entropy, 7 gelu, 15 layer_norm, 1 mix, 12 rope, 2 selective_scan, 1 sigmoid, 2 silu, 4 softmax, 2 softplus | 1 log"),
    ("lolm-20m", |_| DECODE, "6 attention, 7 gelu, 15 layer_norm, 1 mix, 12 rope, 2 selective_scan, 1 sigmoid, 2 silu, 4 softmax, 2 softplus"),
    ("lolm-149m", train, "12 attention, 1 cross_entropy, 15 gelu, 27 layer_norm, 1 logsumexp, 1 mix, 24 rope, 2 selective_scan, 2 sigmoid, 2 silu, 4 softmax, 2 softplus | 4 log"),
    ("lolm-304m", train, "16 attention, 4 causal_conv, 1 cross_entropy, 19 gelu, 35 layer_norm, 1 logsumexp, 1 mix, 32 rope, 4 selective_scan, 20 sigmoid, 8 silu, 13 softmax, 4 softplus | 4 log"),
    ("lolm-304m", |_| DECODE, "16 attention, 17 gelu, 35 layer_norm, 1 mix, 32 rope, 4 selective_scan, 7 sigmoid, 8 silu, 4 softmax, 4 softplus"),
    ("lolm-304m", |_| PREFILL, "16 attention, 17 gelu, 35 layer_norm, 1 mix, 32 rope, 4 selective_scan, 7 sigmoid, 8 silu, 4 softmax, 4 softplus | 1 linear_recurrence"),
    ("lolm-304m-native", train, "16 attention, 1 cross_entropy, 19 gelu, 39 layer_norm, 1 logsumexp, 1 mix, 32 rope, 4 selective_scan, 20 sigmoid, 4 silu, 13 softmax, 4 softplus | 4 log"),
    ("lolm-1.6b", train, "24 attention, 6 causal_conv, 1 cross_entropy, 27 gelu, 51 layer_norm, 1 logsumexp, 1 mix, 48 rope, 6 selective_scan, 20 sigmoid, 12 silu, 13 softmax, 6 softplus | 4 log"),
    ("ablation-decoder", train, "6 attention, 1 cross_entropy, 6 gelu, 13 layer_norm, 12 rope"),
    ("ablation-decoder", |_| DECODE, "6 attention, 6 gelu, 13 layer_norm, 12 rope"),
    ("transformer-demo", train, "5 attention, 1 cross_entropy, 11 rms_norm, 10 rope, 5 silu"),
    ("transformer-demo", |_| DECODE, "5 attention, 11 rms_norm, 10 rope, 5 silu"),
    ("mamba-demo", train, "8 causal_conv, 1 cross_entropy, 9 rms_norm, 8 selective_scan, 16 silu, 8 softplus"),
    ("jamba-demo", train, "1 attention, 3 causal_conv, 1 cross_entropy, 18 rms_norm, 6 routed_dot, 3 selective_scan, 10 silu, 2 softmax, 3 softplus"),
    ("samba-demo", train, "2 attention, 2 causal_conv, 1 cross_entropy, 9 rms_norm, 4 rope, 2 selective_scan, 8 silu, 2 softplus"),
    ("samba-demo", |_| DECODE, "2 attention, 9 rms_norm, 4 rope, 2 selective_scan, 8 silu, 2 softplus"),
    ("griffin-demo", train, "2 attention, 4 causal_conv, 1 cross_entropy, 4 gated_recurrence, 10 gelu_tanh, 13 rms_norm, 8 sigmoid, 4 softplus"),
    ("griffin-demo", |_| DECODE, "2 attention, 4 gated_recurrence, 10 gelu_tanh, 13 rms_norm, 8 sigmoid, 4 softplus"),
    ("recurrentgemma-2b", train, "8 attention, 18 causal_conv, 1 cross_entropy, 18 gated_recurrence, 44 gelu_tanh, 53 rms_norm, 36 sigmoid, 18 softplus"),
    ("smollm2-135m", train, "30 attention, 1 cross_entropy, 61 rms_norm, 60 rope, 30 silu"),
    ("ablation-memory", train, "6 attention, 1 cross_entropy, 6 gelu, 13 layer_norm, 12 rope, 3 softmax | 1 log"),
];

#[test]
fn every_model_is_raised() {
    for (name, program, expected) in TABLE {
        let spec = spec(name);
        let program = program(&spec);
        let r = report(&spec, &program);
        assert_eq!(summary(&r), *expected, "{name} {}:\n{r}", program.name());
        assert_eq!(r.limited, 0, "{name} {}: a region stopped at a limit\n{r}", program.name());
    }
}

/// Every exp, erf and recurrence of the layers is claimed, whatever the dropout.
#[test]
fn dropout_goes_into_attention() {
    let mut spec = spec("lolm-20m");
    spec.lolm_mut().unwrap().dropout = 0.1;
    let r = report(&spec, &train(&spec));
    assert_eq!(r.fused("attention"), 6, "{r}");
    let (g, _) = raise(&build(&spec, &train(&spec)).unwrap()).unwrap();
    let dropped = |n: &lolm_ir::Node| matches!(&n.op, Op::Attention(a) if a.dropout.is_some());
    assert_eq!(g.nodes.iter().filter(|n| dropped(n)).count(), 6);
}

/// A layer's attention is one operation in every family and program, and where its keys are kept in a ring, it knows.
#[test]
fn attention_is_found_in_every_family() {
    let ring = |g: &Graph| {
        g.nodes.iter().filter(|n| matches!(&n.op, Op::Attention(a) if matches!(a.mask, Mask::Ring(_)))).count()
    };
    for (name, windowed) in
        [("transformer-demo", false), ("jamba-demo", false), ("griffin-demo", true), ("samba-demo", true)]
    {
        let spec = spec(name);
        for p in [train(&spec), EVAL, DECODE, PREFILL] {
            let before = build(&spec, &p).unwrap();
            let (g, r) = raise(&before).unwrap();
            let layers = before.leaves.iter().filter(|l| l.name.ends_with("q_proj.weight")).count();
            assert!(layers > 0, "{name}");
            assert_eq!(r.fused("attention"), layers, "{name} {}:\n{r}", p.name());
            let kept = matches!(p, Program::Step { .. });
            assert_eq!(ring(&g), if windowed && kept { layers } else { 0 }, "{name} {}", p.name());
        }
    }
}

/// The work grows with the number of distinct blocks, not with the depth.
#[test]
fn equal_layers_are_one_piece_of_work() {
    let of = |n_layers| {
        let mut spec = spec("lolm-20m");
        spec.lolm_mut().unwrap().n_layers = n_layers;
        report(&spec, &train(&spec))
    };
    let (few, many) = (of(3), of(48));
    assert_eq!(many.regions, few.regions + 45);
    assert_eq!((many.distinct, many.nodes), (few.distinct, few.nodes));
    assert_eq!(many.fused("attention"), 48);
}

#[test]
fn answers_stay_within_the_rounding_of_constants() {
    for name in ["lolm-20m", "lolm-304m", "lolm-304m-native"] {
        for dropout in [0.0, 0.25] {
            let spec = tiny(name, dropout);
            let programs = [
                Program::Train { batch: 2, seq: 8, noise: Noise::Random },
                Program::Eval { batch: 2, seq: 8 },
                Program::Step { slots: 2, tokens: 1 },
                Program::Step { slots: 2, tokens: 4 },
            ];
            for p in programs {
                // Gelu's 1/√2 and dropout's factor are f32 numbers in the model and exact in the fused operation.
                raised_within(&build(&spec, &p).unwrap(), 1e-6);
            }
        }
    }
}

/// The same graph in gives the same graph out.
#[test]
fn raising_is_deterministic() {
    let spec = spec("lolm-304m");
    let g = build(&spec, &train(&spec)).unwrap();
    assert_eq!(raise(&g).unwrap().0, raise(&g).unwrap().0);
}

/// What is raised stays as it is.
#[test]
fn raising_twice_is_raising_once() {
    for name in ["lolm-20m", "lolm-304m"] {
        let spec = spec(name);
        for p in [train(&spec), DECODE] {
            let (once, r) = raise(&build(&spec, &p).unwrap()).unwrap();
            let (twice, again) = raise(&once).unwrap();
            assert_eq!(summary(&r), summary(&again));
            assert_eq!(once.nodes.len(), twice.nodes.len());
        }
    }
}
