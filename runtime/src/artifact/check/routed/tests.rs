//! Plans of routed products by hand: what they compute, what they are refused for, and that no content of memory leads
//! out of a buffer.
use crate::testing::{DOUBLE, bytes, manifest, param};
use crate::{Artifact, Data, Model, Tensor};
use lolm_ir::plan::text::parse;

const PLAN: &str = "plan @routed
arena 128
scratch 256
input @x: f32[3, 4]
input @i: i32[6]
output @y: f32[3, 2, 5]

buffer @x: f32[12] input
buffer @i: i32[6] input
buffer @w: f32[60] param
buffer @y: f32[30] output
buffer @order: i32[6] arena 0
buffer @starts: i32[4] arena 64
buffer @xt: f32[16] scratch 0
buffer @yt: f32[20] scratch 64

launch @group: gather [1] flops 0 bytes 0 {
  group 6 rows by 3 experts: @order, @starts = @i
}
launch @rows: contract [2] flops 0 bytes 0 {
  routed rows 6 by 3 of @order, @starts, taken=4 of 6 by g0, depth=4, width=5: @y[0*g0 + width] by [6*5] = @x[0*g0 + depth] by [3*4, 2*0] * @w[0*g0 + 20*expert + 5*depth + width] in 4 of @xt, @yt
}
";

fn artifact(text: &str) -> Result<Artifact, String> {
    let mut m = manifest(vec![parse(text).unwrap_or_else(|e| panic!("{e}\n{text}"))]);
    m.params = vec![param("w", &[3, 4, 5])];
    Artifact::from_bytes(bytes(&m, &DOUBLE)).map_err(|e| e.to_string())
}

fn tensor(shape: &[usize], data: Data) -> Tensor {
    Tensor { shape: shape.to_vec(), data }
}

/// y of a plan, whose inputs beside x are integers.
fn run(text: &str, threads: usize, integers: &[(&str, Vec<i32>)]) -> Vec<f32> {
    let mut model = Model::load(artifact(text).unwrap(), threads).unwrap();
    model.param_mut(0).iter_mut().enumerate().for_each(|(i, w)| *w = i as f32);
    let x = (0..12).map(|i| i as f32 - 5.0).collect();
    let mut ports = vec![("x", tensor(&[3, 4], Data::F32(x)))];
    ports.extend(integers.iter().map(|(name, x)| (*name, tensor(&[x.len()], Data::I32(x.clone())))));
    match &model.call("routed", &ports).unwrap()["y"].data {
        Data::F32(y) => y.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn rows_go_through_their_experts_and_those_outside_are_zero() {
    let index = vec![2, 0, -1, 2, 3, 2];
    for threads in [1, 2, 3] {
        let y = run(PLAN, threads, &[("i", index.clone())]);
        for (row, e) in index.iter().enumerate() {
            for j in 0..5 {
                let term = |k: usize| {
                    (row as f32 / 2.0).floor().mul_add(4.0, k as f32 - 5.0) * (20 * e + 5 * k as i32 + j) as f32
                };
                let want: f32 = if (0..3).contains(e) { (0..4).map(term).sum() } else { 0.0 };
                assert_eq!(y[row * 5 + j as usize], want, "row {row}, column {j}");
            }
        }
    }
}

/// Where a damaged plan reads order and starts from elsewhere, whatever stands there leads to one of the rows.
#[test]
fn rows_and_starts_may_hold_anything() {
    let group = PLAN.find("launch @group").unwrap()..PLAN.find("launch @rows").unwrap();
    let mut text = PLAN.to_string();
    text.replace_range(group, "");
    text = text
        .replace("input @i: i32[6]", "input @order: i32[6]\ninput @starts: i32[4]")
        .replace("buffer @i: i32[6] input\n", "");
    text = text.replace("i32[6] arena 0", "i32[6] input").replace("i32[4] arena 64", "i32[4] input");
    let extremes = [i32::MIN, i32::MAX, -1, 6, 0, 3];
    for from in 0..6 {
        let pick = |n: usize, by: usize| (0..n).map(|i| extremes[(from + by * i) % 6]).collect::<Vec<i32>>();
        for by in 1..6 {
            run(&text, 2, &[("order", pick(6, by)), ("starts", pick(4, by + from))]);
        }
    }
}

#[test]
fn what_leaves_a_buffer_is_refused() {
    let cases = [
        ("@order, @starts = @i", "@order, @starts = @i[1]", "elements 1..=6 of buffer"),
        ("group 6 rows by 3", "group 6 rows by 4", "has 4 elements, expected 5"),
        ("group 6 rows", "group 0 rows", "0 rows of 3 experts"),
        ("gather [1]", "gather [2]", "2 units would group the same rows"),
        ("= @i", "= @x", "is f32, expected i32"),
        ("@order, @starts = @i", "@i, @starts = @i", "is a table or an input"),
        ("taken=4 of 6 by g0", "taken=4 of 7 by g0", "of 6 rows are taken"),
        ("taken=4 of 6 by g0", "taken=4 of 6 by g1", "over the grid"),
        ("by [6*5]", "by [3*5]", "are 3 rows, expected 6"),
        ("by [6*5]", "by [6*6]", "rows y: elements 0..=34"),
        ("by [3*4, 2*0]", "by [3*4, 2*-1]", "rows x: elements -1..=11"),
        ("20*expert", "21*expert", "matrices: elements 0..=61"),
        ("depth=4", "depth=5", "rows x: elements 0..=12"),
        ("in 4 of", "in 5 of", "has 16 elements at Scratch(0), expected 20"),
        ("in 4 of @xt", "in 4 of @w", "expected 16 of scratch"),
        ("in 4 of", "in 0 of", "expected 0 of scratch"),
        ("width=5", "width=5 seen from @i", "in a routed product"),
        ("routed rows 6 by 3", "routed rows 6 by 9", "has 4 elements, expected 10"),
    ];
    assert!(artifact(PLAN).is_ok());
    for (from, to, expected) in cases {
        assert!(PLAN.contains(from), "{from}");
        match artifact(&PLAN.replace(from, to)) {
            Ok(_) => panic!("{to} was let through"),
            Err(e) => assert!(e.contains(expected), "{to}: {e}"),
        }
    }
}
