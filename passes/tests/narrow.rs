//! Which parameters are stored as bf16: those that products and look-ups alone read, in every program.
use lolm_ir::DType;
use lolm_ir::graph::{Graph, LeafKind};
use lolm_ir::text::parse;
use lolm_passes::narrow::{narrow, narrowable};
use lolm_passes::pipeline::{CompileError, Goal, Options, Precision, Source, Target, Weights, compile_with};

const BF16: Options = Options { weights: Weights::Bf16, target: Target::Cpu, precision: Precision::F32 };

/// A step with everything that a parameter may be to it.
const STEP: &str = "\
func @step
axis v=7 t=3 d=4 e=4 f=2
input @tokens: i32[t]
param @embedding: f32[v, d] init normal 0.02
param @w: f32[e, d] init normal 0.02
param @halves: f32[f*e, d] init normal 0.02
param @norm: f32[d] init constant 1.0
param @decay: f32[d] init log_range
param @start: f32[d] init zeros
param @shown: f32[d, e] init zeros
param @unused: f32[d] init zeros
state @s: f32[d] init @start

%x = gather {axis=v} @embedding, @tokens
%n = mul %x, @norm
%decay = exp @decay
%a = mul %n, %decay
%y = dot {axes=[d]} %a, @w
%half = at {axis=f, index=1} @halves
%h = dot {axes=[d]} %a, %half
%yh = mul %y, %h
%z = dot {axes=[e]} %yh, @shown
%s = add @s, @start
%ns = add %n, %s
%l = dot {axes=[d]} %ns, @embedding
output @z[t, d] = %z
output @logits[t, v] = %l
output @shown[d, e] = @shown
write @s = %s
";

fn step() -> Graph {
    parse(STEP).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn products_and_look_ups_take_bf16_and_all_else_keeps_f32() {
    let g = step();
    let names = narrowable([&g].into_iter());
    assert_eq!(names.iter().collect::<Vec<_>>(), ["embedding", "halves", "unused", "w"]);
    let out = narrow(&g, &names).unwrap();
    for l in out.leaves.iter().filter(|l| matches!(l.kind, LeafKind::Param(_))) {
        assert_eq!(l.dtype == DType::Bf16, names.contains(&l.name), "{}", l.name);
    }
    lolm_ir::verify::verify(&out).unwrap();
    assert!(narrowable([&out].into_iter()).is_disjoint(&names), "what is narrow already stays as it is");
}

#[test]
fn every_program_has_a_say_and_training_is_refused() {
    let g = step();
    let other =
        parse("func @other\naxis e=4 d=4\nparam @w: f32[e, d] init normal 0.02\n%y = neg @w\noutput @y[e, d] = %y\n");
    let other = other.unwrap_or_else(|e| panic!("{e}"));
    assert!(!narrowable([&g, &other].into_iter()).contains("w"));
    let source = |goal| Source { graph: g.clone(), goal };
    let m = compile_with(&[source(Goal::Forward)], BF16, &|_, _| ()).unwrap();
    let dtype = |name: &str| m.params.iter().find(|p| p.name == name).map(|p| p.dtype);
    assert_eq!((dtype("embedding"), dtype("norm")), (Some(DType::Bf16), Some(DType::F32)));
    let e = compile_with(&[source(Goal::Gradients)], BF16, &|_, _| ()).unwrap_err();
    assert_eq!(e, CompileError::TrainsBf16 { program: "step".into() });
}
