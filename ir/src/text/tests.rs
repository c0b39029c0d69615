//! Round trips of random graphs, of odd names and of odd numbers, and the errors.
use super::{TextError, mnemonics, parse, print};
use crate::arbitrary::{self, Options};
use crate::axis::AxisSet;
use crate::dtype::{DType, Scalar};
use crate::graph::{Builder, Graph, Init, LeafKind, RowKind, Table};
use crate::op::Op;
use proptest::prelude::*;

fn round_trip(g: &Graph) {
    let text = print(g);
    assert_eq!(parse(&text).as_ref(), Ok(g), "{text}");
}

proptest! {
    #[test]
    fn random_graphs_read_back(choices in proptest::collection::vec(any::<u32>(), 0..300)) {
        round_trip(&arbitrary::graph(&choices, Options::ALL).unwrap());
    }

    #[test]
    fn every_float_reads_back(bits in any::<u32>()) {
        let mut b = Builder::new("f");
        b.op(Op::Const(Scalar::F32(bits)), &[]);
        round_trip(&b.finish().unwrap());
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "[ -~\n]{0,60}", at in 0usize..400) {
        let sample = SAMPLE.char_indices().map(|(i, _)| i).nth(at).unwrap_or(SAMPLE.len());
        parse(&text).ok();
        parse(&format!("{}{text}{}", &SAMPLE[..sample], &SAMPLE[sample..])).ok();
    }
}

const SAMPLE: &str = "\
func @sample
axis b=2 t=3 d=4
param @w.weight: f32[d, 1] init normal 0.02
state @kv: f32[b, t*d] init @kv0
table @cos: f32[t, d] rope_cos 10000.0

%0: f32[d] = leaf @w.weight
scope \"a\"
%1: f32[b,t,d] = leaf @kv
scope \"b\"
%2: f32[b,t] = dot {axes=[d]} %0, %1
%3: f32[] = const -0.5
scope 1 \"a\"
%4: f32[b,t] = mul %2, %3
%5: f32[b,t,d] = mul %0, %1
output @y[t*b] = %4
write @kv = %5
";

#[test]
fn the_sample_is_a_fixed_point() {
    assert_eq!(print(&parse(SAMPLE).unwrap()), SAMPLE);
}

#[test]
fn odd_names_are_quoted() {
    let mut b = Builder::new("a \"name\"\nof \\ two lines");
    let axes = ["f32", "inf", "nan.x", "2", "", "tru e", "true"].map(|n| b.axis(n, 2));
    let dims: Vec<_> = axes.iter().map(|a| vec![*a]).collect();
    let x = b.param("", Init::LogRange, &dims);
    b.scope("x; \"y\"");
    let y = b.op(Op::Softmax { axis: axes[0] }, &[x]);
    b.state("50%", DType::Bf16, &[]);
    b.output("z/z", y, &dims);
    round_trip(&b.finish().unwrap());
}

#[test]
fn every_kind_of_leaf_reads_back() {
    let mut b = Builder::new("f");
    let (t, i) = (b.axis("t", 2), b.axis("i", 3));
    let inits = [Init::Zeros, Init::Constant(0.5), Init::Normal(0.02), Init::DtBias { lo: 1e-3, hi: 0.1 }];
    for (n, init) in inits.into_iter().enumerate() {
        b.param(&format!("p{n}"), init, &[vec![t, i], vec![]]);
    }
    b.leaf("s", LeafKind::State { init: Some("p 0".into()), rows: RowKind::None }, DType::F32, &[]);
    for rows in RowKind::ALL {
        let init = (rows == RowKind::Whole).then(|| "p 0".to_string());
        b.leaf(rows.name(), LeafKind::State { init, rows }, DType::F32, &[vec![t], vec![i]]);
    }
    b.table("cos", Table::RopeCos { theta: 1e4, scaling: None }, &[vec![t], vec![i]]);
    b.table("sin", Table::RopeSin { theta: 0.1, scaling: None }, &[vec![t], vec![i]]);
    b.input("mask", DType::Bool, &[vec![t]]);
    round_trip(&b.finish().unwrap());
}

#[test]
fn scopes_that_hold_nothing_or_repeat_read_back() {
    let mut b = Builder::new("f");
    b.scope("a");
    b.int(1);
    let back = b.current_scope();
    b.scope("empty");
    b.scope("a");
    b.int(2);
    b.set_scope(back);
    b.int(3);
    b.scope("last");
    round_trip(&b.finish().unwrap());
}

#[test]
fn many_axes_are_wrapped() {
    let mut b = Builder::new("f");
    for i in 0..AxisSet::CAPACITY {
        b.axis(&format!("a_long_name_{i}"), i + 1);
    }
    let g = b.finish().unwrap();
    assert!(print(&g).lines().all(|l| l.len() <= 110));
    round_trip(&g);
}

#[test]
fn hand_written_text_may_name_values_and_leave_types_out() {
    let text =
        "func @f ; a comment\n\n axis n=3 ; another\ninput @x: f32[n]\n%x = leaf @x\n%y: f32[] = sum {axes=n} %x\n";
    let g = parse(text).unwrap();
    assert!(print(&g).contains("%1: f32[] = sum {axes=[n]} %0"));
}

#[test]
fn leaves_and_constants_may_stand_as_operands() {
    let short = "func @f\naxis n=3\ninput @x: f32[n]\nstate @s: f32[n]\n%a = mul @x, 0.5\n%b = add %a, @x\n\
                 %c = min 0.5, %b\noutput @y[n] = %c\nwrite @s = @x\n";
    let long = "func @f\naxis n=3\ninput @x: f32[n]\nstate @s: f32[n]\n%x = leaf @x\n%h = const 0.5\n%a = mul %x, %h\n\
                %b = add %a, %x\n%c = min %h, %b\noutput @y[n] = %c\nwrite @s = %x\n";
    assert_eq!(parse(short), parse(long));
}

#[test]
fn every_operation_is_known_by_name() {
    for m in mnemonics() {
        let error = Op::from_parts(m, &[]).err();
        assert!(!matches!(error, Some(crate::op::AttrError::UnknownMnemonic(_))), "{m}");
    }
}

/// The error of a body behind a header of one axis and one leaf.
fn error(body: &str) -> TextError {
    parse(&format!("func @f\naxis b=2 t=3\ninput @tokens: i32[b, t]\n%x = leaf @tokens\n{body}")).unwrap_err()
}

fn said(body: &str) -> String {
    error(body).to_string()
}

#[test]
fn errors_say_where_what_and_what_instead() {
    assert_eq!(said("%0 = argmx {axis=t} %x"), "5:6: found `argmx`, expected an operation; did you mean `argmax`?");
    assert_eq!(said("%0 = leaf @token"), "5:11: found `@token`, expected a declared leaf; did you mean `tokens`?");
    assert_eq!(said("%0 = iota {axis=tt}"), "5:17: found `tt`, expected an axis; did you mean `t`?");
    assert_eq!(said("%0 = neg %y"), "5:10: found `%y`, expected a value that is defined above; did you mean `x`?");
    assert_eq!(said("%x = neg %x"), "5:1: found `%x`, which is defined above, expected a new value");
    assert_eq!(said("inptu @y: f32[]"), "5:1: found `inptu`, expected a statement; did you mean `input`?");
    assert_eq!(said("input @y: f33[]"), "5:11: found `f33`, expected a dtype; did you mean `f32`?");
    assert_eq!(said("input @tokens: f32[]"), "5:7: found `@tokens`, which is declared above, expected a new leaf");
    assert_eq!(said("axis b=3"), "5:6: found axis `b` is declared twice, expected a new axis");
    assert_eq!(said("%0 = neg %x %x"), "5:13: found `%x`, expected the end of the line");
    assert_eq!(said("%0 = neg %x,"), "5:13: found the end of the text, expected a value, as in `%name`");
    assert_eq!(said("%0 = const 1e99"), "5:12: found `1e99`, expected a number that an f32 can hold");
    assert_eq!(
        said("output @y[t] = %x"),
        "5:10: found other dimensions than the value has, expected each of the axes [b,t] once"
    );
}

#[test]
fn attributes_and_types_are_checked() {
    assert_eq!(said("%0 = at {axis=t} %x"), "5:6: found `at` without `index`, expected `index=…`");
    assert_eq!(
        said("%0 = at {axis=t, index=-1} %x"),
        "5:18: found another value of `index`, expected an index, 0 or more"
    );
    assert_eq!(said("%0 = neg {axis=t} %x"), "5:11: found `axis`, expected an attribute that `neg` has");
    assert_eq!(said("%0 = at {axis=t, axis=t} %x"), "5:18: found `axis`, expected every attribute once");
    assert_eq!(said("%0: i32[b] = neg %x"), "5:5: found i32[b], expected the inferred i32[b,t]");
    assert_eq!(said("%0: i32[b,b] = neg %x"), "5:8: found an axis twice, expected a set of axes");
    let ill =
        "5:6: found an operation without a type (exp of i32[b,t]: not defined for i32), expected operands that fit";
    assert_eq!(said("%0 = exp %x"), ill);
    assert_eq!(
        said("%0 = cast {to=f32} %x\nwrite @tokens = %0"),
        "6:17: found f32[b,t], expected i32[b,t], as the leaf has"
    );
}

#[test]
fn scopes_and_strings_are_checked() {
    assert_eq!(said("scope 4 \"a\""), "5:7: found scope 4, expected a scope that is declared above");
    assert_eq!(said("scope \"a\"\nscope 1 \"b\""), "6:7: found scope 1 as `b`, expected `a`");
    assert_eq!(said("scope \"a"), "5:9: found the end of the line, expected a closing `\"`");
    assert_eq!(said("scope \"\\q\""), "5:9: found an unknown escape, expected `\\\"`, `\\\\` or `\\n`");
    assert_eq!(said("#"), "5:1: found `#`, expected a statement");
    assert_eq!(parse("axis b=1").unwrap_err().to_string(), "1:1: found `axis`, expected `func`");
}
