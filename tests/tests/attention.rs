//! Attention as models write it, in small operations, as machine code: groups of query heads, odd lengths, windows of any
//! size, forward and backward; and the same bits token by token as in chunks.
use lolm_ir::arbitrary::feeds;
use lolm_ir::graph::Init;
use lolm_ir::interp::{self, Feeds};
use lolm_ir::op::Binary;
use lolm_ir::{AxisId, Builder, DType, Graph, LeafId, Op, ValueId};
use lolm_passes::differentiate::differentiate;
use lolm_passes::optimizer::expose_gradients;
use lolm_passes::pipeline::{Goal, Source, compile};
use lolm_runtime::{Artifact, Data, Model, Tensor};
use lolm_tests::golden::distance;
use lolm_tests::machine;

/// Numbers of heads: of keys (axis h, if there are several) and of queries for each.
#[derive(Clone, Copy, Debug)]
struct Heads {
    keys: usize,
    group: usize,
}

/// Axes of an attention of this many tokens and keys.
struct Axes {
    b: AxisId,
    t: AxisId,
    s: AxisId,
    /// `[h, r]`, without those of length 1.
    query: Vec<AxisId>,
    /// `[h]`, if there are several.
    key: Vec<AxisId>,
    d: AxisId,
    j: AxisId,
}

fn axes(b: &mut Builder, (batch, tokens, keys): (usize, usize, usize), heads: Heads, head_dim: usize) -> Axes {
    let (ab, t, s) = (b.axis("b", batch), b.axis("t", tokens), b.axis("s", keys));
    let key = if heads.keys > 1 { vec![b.axis("h", heads.keys)] } else { vec![] };
    let group = if heads.group > 1 { vec![b.axis("r", heads.group)] } else { vec![] };
    let (d, j) = (b.axis("d", head_dim), b.axis("j", head_dim));
    Axes { b: ab, t, s, query: [key.clone(), group].concat(), key, d, j }
}

/// `softmax(mask(q·k / 2)) · v`. `[b, t, heads, j]`
fn attention(b: &mut Builder, ax: &Axes, [q, k, v]: [ValueId; 3], seen: Option<ValueId>) -> ValueId {
    let scores = b.dot(&[ax.d], q, k);
    let scores = b.scale(scores, 0.5);
    let hidden = b.num(f32::NEG_INFINITY);
    let masked = seen.map_or(scores, |seen| b.select(seen, scores, hidden));
    let max = b.reduce_max(&[ax.s], masked);
    let shifted = b.sub(masked, max);
    let e = b.exp(shifted);
    let sum = b.sum(&[ax.s], e);
    let weights = b.div(e, sum);
    b.dot(&[ax.s], weights, v)
}

/// Which keys of a whole sequence a query sees.
#[derive(Clone, Copy, Debug)]
enum Sees {
    All,
    Past,
    Window(usize),
}

impl Sees {
    fn mask(self, b: &mut Builder, ax: &Axes) -> Option<ValueId> {
        let positions = b.iota(ax.t);
        match self {
            Sees::All => None,
            Sees::Past => Some(seen(b, ax, positions, None)),
            Sees::Window(w) => Some(seen(b, ax, positions, Some(w))),
        }
    }
}

/// Key s stands at position s.
fn seen(b: &mut Builder, ax: &Axes, positions: ValueId, window: Option<usize>) -> ValueId {
    let key = b.iota(ax.s);
    let past = b.le(key, positions);
    let Some(w) = window else { return past };
    let (since, w) = (b.sub(positions, key), b.int(w as i32));
    let near = b.lt(since, w);
    b.binary(Binary::And, near, past)
}

/// Slot s holds the last position that is s modulo the number of slots.
fn seen_in_ring(b: &mut Builder, ax: &Axes, positions: ValueId, window: usize) -> ValueId {
    let slot = b.iota(ax.s);
    let (slots, w) = (b.int(b.graph().len(ax.s) as i32), b.int(window as i32));
    let since = b.sub(positions, slot);
    let age = b.binary(Binary::Rem, since, slots);
    let (near, past) = (b.lt(age, w), b.le(age, positions));
    b.binary(Binary::And, near, past)
}

/// A loss of the attention over a whole sequence of parameters.
fn trained(tokens: usize, sees: Sees, heads: Heads) -> Graph {
    let mut b = Builder::new("train");
    let ax = axes(&mut b, (2, tokens, tokens), heads, 4);
    let (query, key) = ([ax.query.clone(), vec![ax.d]].concat(), [ax.key.clone(), vec![ax.d]].concat());
    let q = b.param("q", Init::Normal(1.0), &[vec![ax.b], vec![ax.t], query]);
    let k = b.param("k", Init::Normal(1.0), &[vec![ax.b], vec![ax.t], key]);
    let v = b.param("v", Init::Normal(1.0), &[vec![ax.b], vec![ax.t], [ax.key.clone(), vec![ax.j]].concat()]);
    let (k, v) = (b.rename(k, ax.t, ax.s), b.rename(v, ax.t, ax.s));
    let seen = sees.mask(&mut b, &ax);
    let y = attention(&mut b, &ax, [q, k, v], seen);
    let all: Vec<AxisId> = b.graph().axes_of(y).iter().collect();
    let along = b.input("along", DType::F32, &all.iter().map(|a| vec![*a]).collect::<Vec<_>>());
    let loss = b.dot(&all, y, along);
    b.output("loss.total", loss, &[]);
    b.finish().unwrap()
}

/// The same with gradients, in small operations.
fn with_gradients(g: &Graph) -> Graph {
    let (loss, params) = (g.find_output("loss.total").unwrap().value, [0, 1, 2].map(LeafId));
    expose_gradients(differentiate(g, loss, &params).unwrap(), &params).unwrap()
}

/// Each tensor of machine code is what the interpreter makes of the small operations, to the digits of f32.
fn check(tokens: usize, sees: Sees, heads: Heads) {
    let g = trained(tokens, sees, heads);
    let m = compile(&[Source { graph: g.clone(), goal: Goal::Gradients }], &|_, _| ()).unwrap();
    let plan = lolm_ir::plan::text::print(&m.plans[0]);
    let fused = plan.contains("launch @attention_") && plan.contains("launch @attention_grad_");
    assert!(fused, "{tokens} tokens, {sees:?}, {heads:?}: not found\n{plan}");
    let feeds = feeds(&g, tokens as u32);
    let expected = interp::run(&with_gradients(&g), &feeds).unwrap().outputs;
    let (outputs, _) = machine::run(&m, &feeds, 3).unwrap();
    for (name, want) in &expected {
        let error = distance(&outputs[name], want);
        assert!(error < 1e-5, "{tokens} tokens, {sees:?}, {heads:?}: {name} is off by {error:.1e}\n{plan}");
    }
}

#[test]
fn short_sequences() {
    for tokens in [1, 7, 33] {
        let windows = [1, 5, tokens, tokens + 9].map(Sees::Window);
        for sees in [&[Sees::All, Sees::Past], windows.as_slice()].concat() {
            check(tokens, sees, Heads { keys: 3, group: 2 });
        }
    }
}

#[test]
fn sequences_of_several_tiles() {
    use Sees::{All, Past, Window};
    for (tokens, sees) in [(129, Window(129)), (129, Window(20)), (129, All)] {
        check(tokens, sees, Heads { keys: 2, group: 3 });
    }
    for sees in [Past, Window(1), Window(100)] {
        check(257, sees, Heads { keys: 2, group: 3 });
    }
}

#[test]
fn one_key_head_for_all_queries() {
    use Sees::{All, Past, Window};
    for (tokens, sees) in [(1, Past), (7, Window(3)), (33, Past), (33, All), (129, Window(40))] {
        check(tokens, sees, Heads { keys: 1, group: 5 });
    }
}

#[test]
fn every_query_head_has_its_own_keys() {
    for (tokens, sees) in [(1, Sees::Window(1)), (33, Sees::Past), (140, Sees::Window(64))] {
        check(tokens, sees, Heads { keys: 3, group: 1 });
    }
}

/// A program that goes on: `tokens` new keys and values at `pos`, kept in a ring or in a cache of the whole context.
fn step(name: &str, tokens: usize, slots: usize, ring: Option<usize>, heads: Heads) -> Graph {
    let mut b = Builder::new(name);
    let ax = axes(&mut b, (1, tokens, slots), heads, 16);
    let (query, key) = ([ax.query.clone(), vec![ax.d]].concat(), [ax.key.clone(), vec![ax.d]].concat());
    let value = [ax.key.clone(), vec![ax.j]].concat();
    let q = b.input("q", DType::F32, &[vec![ax.b], vec![ax.t], query]);
    let k = b.input("k", DType::F32, &[vec![ax.b], vec![ax.t], key.clone()]);
    let v = b.input("v", DType::F32, &[vec![ax.b], vec![ax.t], value.clone()]);
    let (pos, here) = (b.input("pos", DType::I32, &[vec![ax.b]]), b.iota(ax.t));
    let positions = b.add(pos, here);
    let slot = match ring {
        Some(_) => {
            let n = b.int(slots as i32);
            b.binary(Binary::Rem, positions, n)
        }
        None => positions,
    };
    let kept = [("keys", k, key), ("values", v, value)].map(|(name, x, features)| {
        let state = b.state(name, DType::F32, &[vec![ax.b], vec![ax.s], features]);
        let all = b.op(Op::Update { axis: ax.s }, &[state, slot, x]);
        b.write(state, all);
        all
    });
    let seen = match ring {
        Some(window) => seen_in_ring(&mut b, &ax, positions, window),
        None => seen(&mut b, &ax, positions, None),
    };
    let y = attention(&mut b, &ax, [q, kept[0], kept[1]], Some(seen));
    b.output("y", y, &[vec![ax.b], vec![ax.t], ax.query.clone(), vec![ax.j]]);
    b.finish().unwrap()
}

/// The results of a sequence that is cut in chunks of `tokens`.
fn in_chunks(model: &mut Model, program: &str, tokens: usize, data: &Feeds, total: usize) -> Vec<f32> {
    for i in 0..model.states().slots().len() {
        model.state_bytes_mut(i).fill(0);
    }
    let mut out = vec![];
    for start in (0..total).step_by(tokens) {
        let part = |name: &str| -> Tensor {
            let each = data[name].len() / total;
            let x = &data[name][start * each..(start + tokens) * each];
            Tensor { shape: vec![1, tokens, each], data: Data::F32(x.iter().map(|x| *x as f32).collect()) }
        };
        let pos = Tensor { shape: vec![1], data: Data::I32(vec![start as i32]) };
        let inputs = [("q", part("q")), ("k", part("k")), ("v", part("v")), ("pos", pos)];
        let outputs = model.call(program, &inputs).unwrap();
        let Data::F32(y) = &outputs.iter().find(|o| o.0 == "y").unwrap().1.data else { panic!("y is no f32") };
        out.extend(y);
    }
    out
}

/// A chunk gives the bits that its tokens give one by one: in a cache of the whole context, and in a ring that has been
/// filled several times over.
#[test]
fn chunks_give_the_bits_of_single_tokens() {
    let (total, chunks) = (480, [1, 16, 60, 160]);
    for (slots, ring) in [(500, None), (70 + 160 - 1, Some(70))] {
        for heads in [Heads { keys: 2, group: 3 }, Heads { keys: 1, group: 2 }] {
            let program = |tokens: &usize| step(&format!("step{tokens}"), *tokens, slots, ring, heads);
            let source = |tokens: &usize| Source { graph: program(tokens), goal: Goal::Forward };
            let m = compile(&chunks.iter().map(source).collect::<Vec<_>>(), &|_, _| ()).unwrap();
            let info = lolm_codegen::Info { name: "test".into(), spec: String::new() };
            let artifact = Artifact::from_bytes(lolm_codegen::compile(&m, &info).unwrap().bytes).unwrap();
            let mut model = Model::load(artifact, 2).unwrap();
            let data = feeds(&step("all", total, total, None, heads), 3);
            let single = in_chunks(&mut model, "step1", 1, &data, total);
            assert!(single.iter().all(|x| x.is_finite() && *x != 0.0));
            for tokens in &chunks[1..] {
                let chunked = in_chunks(&mut model, &format!("step{tokens}"), *tokens, &data, total);
                let differ = single.iter().zip(&chunked).filter(|(x, y)| x.to_bits() != y.to_bits()).count();
                assert_eq!(differ, 0, "of {} in chunks of {tokens}, {ring:?}, {heads:?}", single.len());
            }
            let whole = whole_sequence(total, ring, heads, &data);
            let single: Vec<f64> = single.iter().map(|x| *x as f64).collect();
            assert!(distance(&single, &whole) < 1e-5, "{ring:?}, {heads:?}: not the whole sequence");
        }
    }
}

/// What the interpreter gives for all tokens at once.
fn whole_sequence(total: usize, window: Option<usize>, heads: Heads, data: &Feeds) -> Vec<f64> {
    let mut b = Builder::new("whole");
    let ax = axes(&mut b, (1, total, total), heads, 16);
    let (query, key) = ([ax.query.clone(), vec![ax.d]].concat(), [ax.key.clone(), vec![ax.d]].concat());
    let q = b.input("q", DType::F32, &[vec![ax.b], vec![ax.t], query]);
    let k = b.input("k", DType::F32, &[vec![ax.b], vec![ax.s], key]);
    let v = b.input("v", DType::F32, &[vec![ax.b], vec![ax.s], [ax.key.clone(), vec![ax.j]].concat()]);
    let seen = window.map_or(Sees::Past, Sees::Window).mask(&mut b, &ax);
    let y = attention(&mut b, &ax, [q, k, v], seen);
    b.output("y", y, &[vec![ax.b], vec![ax.t], ax.query.clone(), vec![ax.j]]);
    interp::run(&b.finish().unwrap(), data).unwrap().outputs["y"].clone()
}
