//! The interpreter against values worked out by hand.
use crate::case::{Case, dims, feed};
use lolm_ir::graph::{Builder, Table};
use lolm_ir::interp::{Feeds, InterpError, round_bf16, run, table, values};
use lolm_ir::op::{Attention, Binary, Dropout, Mask, Unary};
use lolm_ir::{AxisSet, DType, Graph, Op, philox};

fn close(a: &[f64], b: &[f64]) {
    assert_eq!(a.len(), b.len());
    for (x, y) in a.iter().zip(b) {
        assert!(x == y || (x - y).abs() < 1e-12 || (x.is_nan() && y.is_nan()), "{a:?}\n{b:?}");
    }
}

#[test]
fn stored_order_is_independent_of_axis_order() {
    let mut c = Case::new();
    let (m, n) = (c.b.axis("m", 2), c.b.axis("n", 3));
    let x = c.f32("x", &[n, m], &[1., 2., 3., 4., 5., 6.]); // [n, m]
    assert_eq!(c.value(x, 0, &[m, n]), [1., 3., 5., 2., 4., 6.]);
}

#[test]
fn elementwise_broadcasts_over_missing_axes() {
    let mut c = Case::new();
    let (m, n) = (c.b.axis("m", 2), c.b.axis("n", 2));
    let (x, y) = (c.f32("x", &[m], &[1., 2.]), c.f32("y", &[n], &[10., 20.]));
    let z = c.b.sub(x, y);
    assert_eq!(c.value(z, 0, &[n, m]), [-9., -8., -19., -18.]);
}

#[test]
fn unary_functions_at_their_edges() {
    let inf = f64::INFINITY;
    let row = |u: Unary, xs: &[f64]| {
        let mut c = Case::new();
        let n = c.b.axis("n", xs.len());
        let x = c.f32("x", &[n], xs);
        let y = c.b.unary(u, x);
        c.value(y, 0, &[n])
    };
    close(&row(Unary::Softplus, &[-inf, -100., 0., 100., inf]), &[0., 0., 2f64.ln(), 100., inf]);
    close(&row(Unary::Sigmoid, &[-inf, -800., 0., 800., inf]), &[0., 0., 0.5, 1., 1.]);
    close(&row(Unary::GeluTanh, &[-100., 0., 1., 100.]), &[0., 0., 0.841_191_996_606_485_7, 100.]);
    close(&row(Unary::Gelu, &[-100., 0., 1., 100.]), &[0., 0., 0.841_344_746_068_543, 100.]);
    close(&row(Unary::Silu, &[-100., 0., 1., 100.]), &[0., 0., 0.731_058_578_630_005, 100.]);
    close(&row(Unary::Erf, &[-inf, 0.5, 3.]), &[-1., 0.520_499_877_813_046_5, 0.999_977_909_503_001_4]);
    close(&row(Unary::Rsqrt, &[0., 4., inf]), &[inf, 0.5, 0.]);
    assert!(row(Unary::Softplus, &[f64::NAN])[0].is_nan());
    assert!(row(Unary::Softplus, &[-700.])[0] > 0.0);
}

#[test]
fn maximum_and_minimum_keep_nan() {
    let mut c = Case::new();
    let n = c.b.axis("n", 4);
    let x = c.f32("x", &[n], &[f64::NAN, 1., f64::INFINITY, -1.]);
    let y = c.f32("y", &[n], &[1., f64::NAN, 2., -2.]);
    let (max, min) = (c.b.max(x, y), c.b.min(x, y));
    let z = c.b.add(max, min);
    close(&c.value(z, 0, &[n]), &[f64::NAN, f64::NAN, f64::INFINITY, -3.]);
}

#[test]
fn integers_wrap_and_divide_towards_minus_infinity() {
    let binary = |op: Binary, x: f64, y: f64| {
        let mut c = Case::new();
        let (x, y) = (c.input("x", DType::I32, &[], &[x]), c.input("y", DType::I32, &[], &[y]));
        let z = c.b.binary(op, x, y);
        c.value(z, 0, &[])[0]
    };
    assert_eq!(binary(Binary::Add, i32::MAX as f64, 1.), i32::MIN as f64);
    assert_eq!(binary(Binary::Mul, 65537., 65537.), 131073.);
    assert_eq!(binary(Binary::Mul, i32::MAX as f64, i32::MAX as f64), 1.);
    assert_eq!(binary(Binary::Rem, -7., 3.), 2.);
    assert_eq!(binary(Binary::Rem, 7., -3.), -2.);
    assert_eq!(binary(Binary::Div, -7., 3.), -3.);
}

#[test]
fn an_integer_division_by_zero_is_an_error() {
    let mut b = Builder::new("f");
    let (x, y) = (b.int(1), b.int(0));
    b.binary(Binary::Rem, x, y);
    assert_eq!(values(&b.finish().unwrap(), &Feeds::new()), Err(InterpError::DivisionByZero { node: 2 }));
}

#[test]
fn casts_round_truncate_and_saturate() {
    let cast = |x: f64, to: DType| {
        let mut c = Case::new();
        let x = c.f32("x", &[], &[x]);
        let y = c.b.op(Op::Cast(to), &[x]);
        c.value(y, 0, &[])[0]
    };
    assert_eq!(cast(-2.7, DType::I32), -2.);
    assert_eq!(cast(1e20, DType::I32), i32::MAX as f64);
    assert_eq!(cast(f64::NAN, DType::I32), 0.);
    assert_eq!(cast(0.1, DType::Bool), 1.);
    assert_eq!(cast(1.0 + 0.5f64.powi(8), DType::Bf16), 1.0);
}

#[test]
fn bf16_rounds_to_nearest_even() {
    let ulp = 0.5f64.powi(7);
    assert_eq!(round_bf16(1.0 + ulp / 2.0), 1.0);
    assert_eq!(round_bf16(1.0 + 1.5 * ulp), 1.0 + 2.0 * ulp);
    assert_eq!(round_bf16(1.0 + ulp / 2.0 + 1e-15), 1.0 + ulp);
    assert_eq!(round_bf16(3.4e38), f64::INFINITY);
    assert_eq!(round_bf16(-1e-45), 0.0);
    assert_eq!(round_bf16(0.5f64.powi(133)), 0.5f64.powi(133));
    for bits in 0..=u16::MAX {
        let x = half::bf16::from_bits(bits);
        assert!(x.is_nan() || round_bf16(x.to_f64()) == x.to_f64());
    }
}

#[test]
fn reductions_and_contractions() {
    let mut c = Case::new();
    let (m, n, k) = (c.b.axis("m", 2), c.b.axis("n", 2), c.b.axis("k", 3));
    let x = c.f32("x", &[m, k], &[1., 2., 3., 4., 5., 6.]);
    let y = c.f32("y", &[k, n], &[1., 0., 0., 1., 1., 1.]);
    let dot = c.b.dot(&[k], x, y);
    let mean = c.b.mean(&[m, k], x);
    let max = c.b.reduce_max(&[k], x);
    let sum = c.b.add(dot, mean);
    let z = c.b.add(sum, max);
    assert_eq!(c.value(z, 0, &[m, n]), [4. + 6.5, 5. + 6.5, 10. + 9.5, 11. + 9.5]);
}

#[test]
fn argmax_is_the_first_maximum() {
    let mut c = Case::new();
    let (m, k) = (c.b.axis("m", 2), c.b.axis("k", 3));
    let x = c.f32("x", &[m, k], &[1., 3., 3., 2., 2., 2.]);
    let y = c.b.op(Op::ArgMax(k), &[x]);
    assert_eq!(c.value(y, 0, &[m]), [1., 0.]);
}

#[test]
fn recurrences_run_both_ways() {
    for (reverse, expected) in [(false, [9., 20., 43.]), (true, [49., 24., 11.])] {
        let mut c = Case::new();
        let t = c.b.axis("t", 3);
        let (a, b) = (c.f32("a", &[], &[2.]), c.f32("b", &[t], &[1., 2., 3.]));
        let init = c.f32("i", &[], &[4.]);
        let y = c.b.op(Op::Recurrence { axis: t, reverse }, &[a, b, init]);
        assert_eq!(c.value(y, 0, &[t]), expected);
    }
}

#[test]
fn windows_move_elements() {
    let mut c = Case::new();
    let (m, k, two) = (c.b.axis("m", 2), c.b.axis("k", 3), c.b.axis("two", 2));
    let x = c.f32("x", &[m, k], &[1., 2., 3., 4., 5., 6.]);
    let slice = c.b.slice(x, k, 1, two); // [m, two] = 2 3 / 5 6
    let pad = c.b.op(Op::Pad { axis: two, start: 0, to: k }, &[slice]); // [m, k] = 2 3 0 / 5 6 0
    let back = c.b.shift(pad, k, 1); // 0 2 3 / 0 5 6
    let ahead = c.b.shift(pad, k, -1); // 3 0 0 / 6 0 0
    let y = c.b.add(back, ahead);
    let last = c.b.at(x, k, 2); // 3 / 6
    let y = c.b.mul(y, last);
    assert_eq!(c.value(y, 0, &[m, k]), [9., 6., 9., 36., 30., 36.]);
}

#[test]
fn concat_and_stack_broadcast_what_an_operand_lacks() {
    let mut c = Case::new();
    let (m, p, q) = (c.b.axis("m", 2), c.b.axis("p", 1), c.b.axis("q", 2));
    let (all, s) = (c.b.axis("all", 3), c.b.axis("s", 2));
    let (x, y) = (c.f32("x", &[p, m], &[1., 2.]), c.f32("y", &[q], &[7., 8.]));
    let both = c.b.op(Op::Concat { axis: all, parts: vec![p, q] }, &[x, y]); // [m, all] = 1 7 8 / 2 7 8
    let sum = c.b.sum(&[m], both); // [all] = 3 14 16
    let stack = c.b.op(Op::Stack { axis: s }, &[both, sum]);
    assert_eq!(c.value(stack, 0, &[s, m, all]), [1., 7., 8., 2., 7., 8., 3., 14., 16., 3., 14., 16.]);
}

#[test]
fn a_part_axis_may_also_be_an_axis_of_another_operand() {
    let mut c = Case::new();
    let (p, q, all) = (c.b.axis("p", 2), c.b.axis("q", 1), c.b.axis("all", 3));
    let (x, y) = (c.f32("x", &[p], &[1., 2.]), c.f32("y", &[p, q], &[7., 8.]));
    let z = c.b.op(Op::Concat { axis: all, parts: vec![p, q] }, &[x, y]);
    assert_eq!(c.value(z, 0, &[p, all]), [1., 2., 7., 1., 2., 8.]);
}

#[test]
fn an_index_outside_reads_zero_and_writes_nothing() {
    let mut c = Case::new();
    let (v, t, d) = (c.b.axis("v", 3), c.b.axis("t", 4), c.b.axis("d", 2));
    let i = c.input("i", DType::I32, &[t], &[2., -1., 3., 0.]);
    let x = c.f32("x", &[v, d], &[1., 2., 3., 4., 5., 6.]);
    let rows = c.b.gather(x, v, i); // [t, d] = 5 6 / 0 0 / 0 0 / 1 2
    let sums = c.b.op(Op::ScatterAdd { axis: v, over: AxisSet::of(&[t]) }, &[i, rows, x]); // 2 4 / 3 4 / 10 12
    let ten = c.b.num(10.);
    let set = c.b.op(Op::Update { axis: v }, &[sums, i, ten]);
    assert_eq!(c.value(set, 0, &[v, d]), [10., 10., 3., 4., 10., 10.]);
}

#[test]
fn norms_and_softmax() {
    let mut c = Case::new();
    let d = c.b.axis("d", 2);
    let (x, w) = (c.f32("x", &[d], &[1., 3.]), c.f32("w", &[d], &[2., 5.]));
    let eps = 0f32.to_bits();
    let ln = c.b.op(Op::LayerNorm { axis: d, eps }, &[x, w, w]); // -1 1 -> 0 10
    let rms = c.b.op(Op::RmsNorm { axis: d, eps }, &[x]); // x / √5
    let soft = c.b.op(Op::Softmax { axis: d }, &[x]);
    let lse = c.b.op(Op::LogSumExp { axis: d }, &[x]);
    let y = [rms, soft, lse].into_iter().fold(ln, |y, x| c.b.add(y, x));
    let (e, r) = (2f64.exp(), 5f64.sqrt());
    let lse = 3. + (1. + 1. / e).ln();
    close(&c.value(y, 0, &[d]), &[1. / r + 1. / (1. + e) + lse, 10. + 3. / r + e / (1. + e) + lse]);
}

#[test]
fn softmax_does_not_overflow_and_an_empty_sum_is_minus_infinity() {
    let mut c = Case::new();
    let (m, d) = (c.b.axis("m", 2), c.b.axis("d", 2));
    let x = c.f32("x", &[m, d], &[1000., 1000., f64::NEG_INFINITY, f64::NEG_INFINITY]);
    let y = c.b.op(Op::LogSumExp { axis: d }, &[x]);
    close(&c.value(y, 0, &[m]), &[1000. + 2f64.ln(), f64::NEG_INFINITY]);
}

/// Scores of one query against four keys are 0, so that the output is a mean of visible values.
fn visible_mean(mask: Mask, qpos: f64, dropout: Option<Dropout>) -> (Vec<f64>, Vec<f64>) {
    let both = [0, 1].map(|i| {
        let mut c = Case::new();
        let (s, e, j) = (c.b.axis("s", 4), c.b.axis("e", 1), c.b.axis("j", 1));
        let (q, k) = (c.f32("q", &[e], &[0.]), c.f32("k", &[s, e], &[1., 2., 3., 4.]));
        let v = c.f32("v", &[s, j], &[1., 10., 100., 1000.]);
        let a = Attention { keys: s, over: e.into(), scale: 1f32.to_bits(), mask, dropout };
        let mut args = vec![q, k, v];
        if a.has_qpos() {
            args.push(c.input("qpos", DType::I32, &[], &[qpos]));
        }
        if dropout.is_some() {
            args.extend([c.b.int(3), c.b.int(4)]);
        }
        let y = c.b.op(Op::Attention(a), &args);
        c.value(y, i, if i == 0 { std::slice::from_ref(&j) } else { &[] })
    });
    let [o, lse] = both;
    (o, lse)
}

#[test]
fn attention_sees_what_its_mask_shows() {
    close(&visible_mean(Mask::Full, 0., None).0, &[1111. / 4.]);
    close(&visible_mean(Mask::Causal, 1., None).0, &[11. / 2.]);
    close(&visible_mean(Mask::Causal, 1., None).1, &[2f64.ln()]);
    close(&visible_mean(Mask::Window(2), 2., None).0, &[110. / 2.]);
}

/// Four slots: position 5 lies in slot 1, its two predecessors in slots 0 and 3.
#[test]
fn attention_sees_the_youngest_slots_of_a_ring() {
    close(&visible_mean(Mask::Ring(3), 5., None).0, &[(10. + 1. + 1000.) / 3.]);
    close(&visible_mean(Mask::Ring(3), 3., None).0, &[(1000. + 100. + 10.) / 3.]);
    close(&visible_mean(Mask::Ring(9), 7., None).0, &[1111. / 4.]);
    // Slots that were not filled yet are not seen.
    close(&visible_mean(Mask::Ring(3), 1., None).0, &[(10. + 1.) / 2.]);
    close(&visible_mean(Mask::Ring(1), 0., None).0, &[1.]);
    assert_eq!(visible_mean(Mask::Ring(2), -1., None), (vec![0.], vec![f64::NEG_INFINITY]));
}

#[test]
fn a_row_that_sees_no_key_gives_zero_and_minus_infinity() {
    assert_eq!(visible_mean(Mask::Causal, -1., None), (vec![0.], vec![f64::NEG_INFINITY]));
}

#[test]
fn dropout_scales_the_weights_that_it_keeps() {
    let rate = 0.5f32;
    let (o, lse) = visible_mean(Mask::Full, 0., Some(Dropout { rate: rate.to_bits(), site: 9 }));
    let kept = |s: u64| if philox::uniform(3, 9, 4, s) >= rate { 2. } else { 0. };
    close(&o, &[(0..4).map(|s| kept(s) * 10f64.powi(s as i32) / 4.).sum()]);
    close(&lse, &[4f64.ln()]);
}

#[test]
fn random_numbers_are_indexed_in_the_order_of_the_attribute() {
    let mut c = Case::new();
    let (m, n) = (c.b.axis("m", 2), c.b.axis("n", 3));
    let (seed, step) = (c.b.int(-5), c.b.int(6));
    let y = c.b.op(Op::Random { axes: vec![n, m], site: 7 }, &[seed, step]);
    let expected: Vec<f64> = (0..6).map(|i| philox::uniform(-5i32 as u32, 7, 6, i) as f64).collect();
    assert_eq!(c.value(y, 0, &[n, m]), expected);
}

#[test]
fn a_selective_scan_by_hand() {
    let mut c = Case::new();
    let (t, e, n) = (c.b.axis("t", 2), c.b.axis("e", 1), c.b.axis("n", 2));
    let (dt, a) = (c.f32("dt", &[t, e], &[1., 2.]), c.f32("a", &[e, n], &[0., -1.]));
    let (b, cc) = (c.f32("b", &[t, n], &[1., 2., 3., 4.]), c.f32("c", &[t, n], &[1., 1., 1., -1.]));
    let (u, init) = (c.f32("u", &[t, e], &[5., 6.]), c.f32("init", &[e, n], &[1., 1.]));
    let y = c.b.op(Op::SelectiveScan { time: t, state: n }, &[dt, a, b, cc, u, init]);
    let s0 = [1. + 5., (-1f64).exp() + 10.];
    let s1 = [s0[0] + 36., (-2f64).exp() * s0[1] + 48.];
    close(&c.value(y, 0, &[t, e]), &[s0[0] + s0[1], s1[0] - s1[1]]);
}

#[test]
fn a_causal_convolution_by_hand() {
    let mut c = Case::new();
    let (t, tap, ch) = (c.b.axis("t", 3), c.b.axis("tap", 2), c.b.axis("c", 2));
    let x = c.f32("x", &[t, ch], &[1., 2., 3., 4., 5., 6.]);
    let (w, bias) = (c.f32("w", &[ch, tap], &[10., 1., 0., 1.]), c.f32("b", &[ch], &[0., 0.5]));
    let y = c.b.op(Op::CausalConv { time: t, tap }, &[x, w, bias]);
    close(&c.value(y, 0, &[t, ch]), &[1., 2.5, 13., 4.5, 35., 6.5]);
}

#[test]
fn cross_entropy_ignores_negative_targets() {
    let mut c = Case::new();
    let (t, d, v) = (c.b.axis("t", 2), c.b.axis("d", 1), c.b.axis("v", 2));
    let (o, e) = (c.f32("o", &[t, d], &[1., 1.]), c.f32("e", &[v, d], &[0., 3f64.ln()]));
    let target = c.input("target", DType::I32, &[t], &[1., -1.]);
    let y = c.b.op(Op::CrossEntropy { vocab: v, over: d.into(), cap: None }, &[o, e, target]);
    close(&c.value(y, 0, &[t]), &[(4f64 / 3.).ln(), 0.]);
}

#[test]
fn rotation_tables_follow_their_formula() {
    let cos = table(&Table::RopeCos { theta: 10000., scaling: None }, 3, 2);
    let sin = table(&Table::RopeSin { theta: 10000., scaling: None }, 3, 2);
    close(&cos, &[1., 1., 1f64.cos(), 0.01f64.cos(), 2f64.cos(), 0.02f64.cos()]);
    close(&sin, &[0., 0., 1f64.sin(), 0.01f64.sin(), 2f64.sin(), 0.02f64.sin()]);
}

#[test]
fn writes_appear_in_the_order_of_the_leaf_and_reads_see_the_old_value() {
    let mut b = Builder::new("step");
    let (m, n) = (b.axis("m", 2), b.axis("n", 2));
    let x = b.state("x", DType::F32, &dims(&[n, m]));
    let i = b.iota(m);
    let i = b.cast(i, DType::F32);
    let y = b.add(x, i);
    b.write(x, y);
    b.output("old", x, &dims(&[n, m]));
    let r = run(&b.finish().unwrap(), &Feeds::from([feed("x", &[1., 2., 3., 4.])])).unwrap();
    assert_eq!(r.writes["x"], [1., 3., 3., 5.]);
    assert_eq!(r.outputs["old"], [1., 2., 3., 4.]);
}

fn one_input(dtype: DType) -> Graph {
    let mut b = Builder::new("f");
    let n = b.axis("n", 2);
    b.input("tokens", dtype, &dims(&[n]));
    b.finish().unwrap()
}

#[test]
fn bad_feeds_are_named() {
    let say = |g: &Graph, f: Feeds| values(g, &f).unwrap_err().to_string();
    let g = one_input(DType::I32);
    assert_eq!(say(&g, Feeds::new()), "leaf `tokens` needs 2 elements and was not given");
    let short = say(&g, Feeds::from([feed("tokens", &[1.])]));
    assert_eq!(short, "leaf `tokens` has shape [2], 2 elements, and was given 1");
    let half = say(&g, Feeds::from([feed("tokens", &[1., 0.5])]));
    assert_eq!(half, "leaf `tokens` is i32, and its element 1 was given as 0.5");
}

#[test]
fn results_of_dtype_bf16_are_rounded_once() {
    let mut c = Case::new();
    let n = c.b.axis("n", 3);
    let x = c.input("x", DType::Bf16, &[n], &[1.0, 0.5f64.powi(8), 0.5f64.powi(8)]);
    let y = c.b.sum(&[n], x);
    assert_eq!(c.value(y, 0, &[]), [1.0 + 0.5f64.powi(7)]);
}

#[test]
fn the_greatest_come_first_and_equals_in_order() {
    let inf = f64::INFINITY;
    let row = |xs: &[f64], of: usize| {
        let mut c = Case::new();
        let (e, k) = (c.b.axis("e", xs.len()), c.b.axis("k", of));
        let x = c.f32("x", &[e], xs);
        let top = c.b.op(Op::TopK { axis: e, k }, &[x]);
        let (values, index) = (c.b.part(top, 0), c.b.part(top, 1));
        let index = c.b.cast(index, DType::F32);
        let p = c.b.axis("p", 2);
        let both = c.b.op(Op::Stack { axis: p }, &[values, index]);
        c.value(both, 0, &[p, k])
    };
    close(&row(&[1., 4., 2., 3.], 3), &[4., 3., 2., 1., 3., 2.]);
    close(&row(&[2., 2., 2.], 2), &[2., 2., 0., 1.]);
    close(&row(&[-0., 0.], 2), &[-0., 0., 0., 1.]);
    close(&row(&[-inf, -inf, 0.], 3), &[0., -inf, -inf, 2., 0., 1.]);
    // What is not a number counts as the greatest; every place is taken by one element still.
    close(&row(&[1., f64::NAN, inf, f64::NAN], 4), &[f64::NAN, inf, f64::NAN, 1., 1., 2., 3., 0.]);
}

#[test]
fn draws_are_from_what_the_settings_leave() {
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    // temperature, top_k, top_p, min_p, uniform
    let draw = |xs: &[f64], [temperature, top_k, top_p, min_p, uniform]: [f64; 5]| {
        let mut c = Case::new();
        let (b, v) = (c.b.axis("b", 1), c.b.axis("v", xs.len()));
        let x = c.f32("x", &[b, v], xs);
        let k = c.input("k", DType::I32, &[b], &[top_k]);
        let [t, p, m] = [("t", temperature), ("p", top_p), ("m", min_p)].map(|(n, s)| c.f32(n, &[], &[s]));
        let u = c.f32("u", &[b], &[uniform]);
        let y = c.b.op(Op::Sample { axis: v }, &[x, t, k, p, m, u]);
        c.value(y, 0, &[b])[0]
    };
    // Weights 1, 4, 2, 1 of 8.
    let xs = [0., 4f64.ln(), 2f64.ln(), 0.];
    let all = |settings: [f64; 4]| {
        let one = |u: usize| draw(&xs, [settings[0], settings[1], settings[2], settings[3], u as f64 / 8.0 + 0.01]);
        (0..8).map(one).collect::<Vec<_>>()
    };
    assert_eq!(all([1., 0., 1., 0.]), [0., 1., 1., 1., 1., 2., 2., 3.]);
    assert_eq!(all([1., 9., 2., -1.]), [0., 1., 1., 1., 1., 2., 2., 3.]);
    assert_eq!(all([0., 0., 1., 0.]), [1.; 8]);
    assert_eq!(all([1., 1., 1., 0.]), [1.; 8]);
    assert_eq!(all([1., 2., 1., 0.]), [1., 1., 1., 1., 1., 1., 2., 2.]);
    assert_eq!(all([1., 3., 1., 0.]), [0., 0., 1., 1., 1., 1., 2., 2.]);
    assert_eq!(all([1., 0., 0.4, 0.]), [1.; 8]);
    assert_eq!(all([1., 0., 0.6, 0.]), [1., 1., 1., 1., 1., 1., 2., 2.]);
    assert_eq!(all([1., 0., 0.8, 0.]), [0., 0., 1., 1., 1., 1., 2., 2.]);
    assert_eq!(all([1., 0., 1., 0.4]), [1., 1., 1., 1., 1., 1., 2., 2.]);
    assert_eq!(all([0.5, 0., 1., 0.]), [0., 1., 1., 1., 1., 1., 1., 2.]);
    let edge = |xs: &[f64]| draw(xs, [1., 0., 1., 0., 0.9]);
    assert_eq!((edge(&[nan, nan]), edge(&[nan, -inf]), edge(&[-inf, nan]), edge(&[2.])), (0., 1., 0., 0.));
    assert_eq!((edge(&[1., inf, 5., inf, nan]), edge(&[-inf, 1., -inf]), edge(&[-inf, -inf])), (3., 1., 1.));
}

#[test]
fn rows_go_through_the_matrix_of_their_expert() {
    let mut c = Case::new();
    let [t, e, d, f] = [("t", 3), ("e", 2), ("d", 2), ("f", 1)].map(|(n, l)| c.b.axis(n, l));
    let x = c.f32("x", &[t, d], &[1., 2., 3., 4., 5., 6.]);
    let w = c.f32("w", &[e, f, d], &[1., 10., 100., 1000.]);
    let index = c.input("i", DType::I32, &[t], &[1., 0., 2.]);
    let y = c.b.op(Op::RoutedDot { expert: e, over: d }, &[x, w, index]);
    assert_eq!(c.value(y, 0, &[t, f]), [2100., 43., 0.]);
}
