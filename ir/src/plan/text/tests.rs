//! Round trips of plans with every variant, and what a faulty text is answered.
use super::{parse, parse_module, print, print_module};
use crate::artifact::{ParamRecord, StateRecord, TableRecord};
use crate::dtype::DType;
use crate::graph::{Init, RowKind, Table};
use crate::kernel::{KOp, Kernel, Mode, View};
use crate::plan::{
    Access, Buffer, BufferId, Extent, Gemm, Gives, Group, KernelStage, Kind, Launch, Matrices, Matrix, Module, Place,
    Plan, Port, Routed, Rows, Span, Stage, Step,
};
use proptest::prelude::*;

const SAMPLE: &str = "\
plan @forward
arena 4096
scratch 1024
input @x: f32[2, 64]
input @pos: i32[]
output @loss.total: f32[]

buffer @x: f32[128] input
buffer @p: i32[1] input @pos
buffer @w: f32[64] param
buffer @kv: bf16[64] state
buffer @cos: f32[8] table
buffer @loss.total: f32[1] output
buffer @\"v 7\": f32[64] arena 0
buffer @\"v 7\"~2: f32[64] scratch 256
buffer @\"v 7\"~3: bool[64] arena 64

launch @dot: contract [2, 4] flops 262144 bytes 20480 {
  gemm m=16 of 64 by g1, n=32, k=8: @\"v 7\"[2*g0 + 512*g1 + 32*m + n] += 0.5 * @x[7 + 0*g1 + -3*iter + m + 16*k] * @w[k + 8*n]
  gemm m=1, n=32 seen from @p[g0 + 0*g1], k=32: @\"v 7\"~2[n] = @x * @w
  call 3 (@\"v 7\"~3, @x[2048*g0 + 0*g1 + 5*iter + -32*begin]) tiles 16 of 64
  call 0 () rows 0 to 16 of 64
}

repeat 24 {
  launch @copy: map [] flops 0 bytes 8192 {
    call 4 (@x, @kv)
  }
  launch @nothing: optimizer [1] flops 0 bytes 0 {
  }
}
";

#[test]
fn the_sample_is_a_fixed_point() {
    assert_eq!(print(&parse(SAMPLE).unwrap()), SAMPLE);
}

#[test]
fn an_empty_plan_reads_back() {
    let p = Plan::default();
    assert_eq!(parse(&print(&p)), Ok(p));
}

#[test]
fn a_module_reads_back() {
    let mut k = Kernel { name: "copy".into(), ..Kernel::default() };
    let i = k.add_axis("i", 4);
    let (x, y) = (k.add_operand("x", DType::F32, 4, Mode::In), k.add_operand("y", DType::F32, 4, Mode::Out));
    let view = View { terms: vec![(i, 1)], ..View::default() };
    let v = k.push(KOp::Load(x, view.clone()), &[], DType::F32);
    k.push(KOp::Store(y, view), &[v], DType::F32);
    let params =
        [Init::Zeros, Init::Constant(1.0), Init::Normal(0.02), Init::LogRange, Init::DtBias { lo: 1e-3, hi: 0.1 }];
    let params = params.into_iter().enumerate();
    let stored = [DType::F32, DType::Bf16];
    let state = |name: &str, init: Option<&str>| StateRecord {
        name: name.into(),
        dtype: DType::I32,
        shape: vec![2, 3],
        rows: if init.is_some() { RowKind::Kept } else { RowKind::None },
        init: init.map(String::from),
    };
    let sample = parse(SAMPLE).unwrap();
    let m = Module {
        kernels: vec![k.clone(), Kernel { name: "again".into(), ..k }],
        plans: vec![sample.clone(), Plan { program: "other".into(), ..sample }],
        params: params
            .map(|(i, init)| ParamRecord { name: format!("p{i}"), dtype: stored[i % 2], shape: vec![i; i], init })
            .collect(),
        states: vec![state("s", None), state("t", Some("p 0"))],
        tables: vec![
            TableRecord { name: "cos".into(), shape: vec![3, 4], table: Table::RopeCos { theta: 1e4, scaling: None } },
            TableRecord { name: "sin".into(), shape: vec![3, 4], table: Table::RopeSin { theta: 0.1, scaling: None } },
        ],
    };
    let text = print_module(&m);
    assert_eq!(parse_module(&text).as_ref(), Ok(&m), "{text}");
    assert!(text.contains("call 0 () rows 0 to 16 of 64 ; copy"), "the kernel's name stands beside the call: {text}");
}

#[test]
fn errors_say_where_what_and_what_instead() {
    let said = |body: &str| parse(&format!("plan @f\nbuffer @x: f32[4] arena 0\n{body}")).unwrap_err().to_string();
    let launch = |stage: &str| said(&format!("launch @l: map [2] flops 0 bytes 0 {{\n  {stage}\n}}"));
    assert_eq!(said("lanch @l"), "3:1: found `lanch`, expected a statement; did you mean `launch`?");
    assert_eq!(said("buffer @x: f32[4] arena 0"), "3:8: found buffer 1 of this name, expected `~2`");
    assert_eq!(
        said("buffer @y: f32[4] arenas 0"),
        "3:19: found `arenas`, expected where the buffer lies; did you mean `arena`?"
    );
    assert_eq!(
        said("launch @l: scann []"),
        "3:12: found `scann`, expected the kind of the launch; did you mean `scan`?"
    );
    assert_eq!(
        launch("call 0 (@xx)"),
        "4:11: found `@xx`, expected a buffer that is declared above; did you mean `x`?"
    );
    assert_eq!(launch("call 0 (@x[3*m])"), "4:16: found `m`, expected an index of the grid, as in `g0`, or another");
    assert_eq!(
        launch("call 0 (@x[3*g99])"),
        "4:16: found `g99`, expected an index of the grid, as in `g0`, or another"
    );
    assert_eq!(launch("gemm m=1, n=2: @x = @x * @x"), "4:16: found `:`, expected `,`");
    assert_eq!(launch("call 0 (@x"), "4:13: found the end of the line, expected `,`");
    assert_eq!(parse("func @f").unwrap_err().to_string(), "1:1: found `func`, expected `plan`");
    assert_eq!(
        parse_module("module\nkernel @k {\n  axis i\n}\n").unwrap_err().to_string(),
        "3:1: found ``, expected a number"
    );
}

// ---- random plans

fn access(buffers: u32) -> impl Strategy<Value = Access> {
    let unit = proptest::collection::vec(-3i64..1000, 0..4);
    (0..buffers, any::<i64>(), unit, any::<i64>(), any::<i64>()).prop_map(|(b, base, unit, iter, rebase)| Access {
        buffer: BufferId(b),
        base,
        unit,
        iter,
        rebase,
    })
}

fn matrix(buffers: u32) -> impl Strategy<Value = Matrix> {
    (access(buffers), any::<i64>(), 0i64..2).prop_map(|(a, row, col)| Matrix {
        buffer: a.buffer,
        base: a.base,
        unit: a.unit,
        iter: a.iter,
        row,
        col,
    })
}

fn extent(buffers: u32) -> impl Strategy<Value = Extent> {
    prop_oneof![
        any::<u32>().prop_map(Extent::Fixed),
        any::<(u8, u32, u32)>().prop_map(|(dim, tile, len)| Extent::Tile { dim, tile, len }),
        (any::<u32>(), access(buffers)).prop_map(|(len, position)| Extent::Seen { len, position }),
    ]
}

fn group(buffers: u32) -> impl Strategy<Value = Stage> {
    let id = move || (0..buffers).prop_map(BufferId);
    (any::<(u32, u32)>(), id(), any::<i64>(), id(), id()).prop_map(|((rows, experts), index, base, order, starts)| {
        Stage::Group(Box::new(Group { rows, experts, index, base, order, starts }))
    })
}

fn routed(buffers: u32) -> impl Strategy<Value = Stage> {
    let id = move || (0..buffers).prop_map(BufferId);
    let rows = move || {
        let dims = proptest::collection::vec(any::<(u32, i64)>(), 0..3);
        (matrix(buffers), dims).prop_map(|(m, dims)| Rows {
            buffer: m.buffer,
            base: m.base,
            unit: m.unit,
            dims,
            col: m.col,
        })
    };
    let matrices = (matrix(buffers), any::<i64>()).prop_map(|(m, expert)| Matrices {
        buffer: m.buffer,
        base: m.base,
        unit: m.unit,
        expert,
        row: m.row,
        col: m.col,
    });
    let counts = (any::<bool>(), any::<u32>(), any::<u32>(), any::<u32>());
    let extents = (extent(buffers), extent(buffers), extent(buffers));
    let parts = (id(), id(), rows(), matrices, rows(), id(), id());
    (counts, extents, parts).prop_map(
        |((of_rows, rows, experts, block), (taken, depth, width), (order, starts, x, w, y, a, b))| {
            let (gives, tiles) = (if of_rows { Gives::Rows } else { Gives::Experts }, [a, b]);
            let r = Routed { gives, rows, experts, order, starts, taken, depth, width, x, w, y, block, tiles };
            Stage::Routed(Box::new(r))
        },
    )
}

fn stage(buffers: u32) -> impl Strategy<Value = Stage> {
    let span = prop_oneof![
        Just(Span::Same),
        any::<(u32, u32)>().prop_map(|(len, tile)| Span::Tiles { len, tile }),
        any::<(u32, u32, u32)>().prop_map(|(len, lo, hi)| Span::Rows { len, lo, hi }),
    ];
    let call = (any::<u32>(), proptest::collection::vec(access(buffers), 0..4), span)
        .prop_map(|(kernel, operands, span)| Stage::Kernel(KernelStage { kernel, operands, span }));
    let lengths = (extent(buffers), extent(buffers), extent(buffers));
    let matrices = (matrix(buffers), matrix(buffers), matrix(buffers));
    let alpha = any::<f32>().prop_filter("a NaN is not equal to itself", |x| !x.is_nan());
    let gemm = (lengths, matrices, alpha, any::<bool>()).prop_map(|((m, n, k), (a, b, c), alpha, accumulate)| {
        Stage::Gemm(Box::new(Gemm { m, n, k, a, b, c, alpha, accumulate }))
    });
    prop_oneof![call, gemm, group(buffers), routed(buffers)]
}

fn launch(buffers: u32) -> impl Strategy<Value = Launch> {
    let grid = proptest::collection::vec(any::<u32>(), 0..4);
    let stages = proptest::collection::vec(stage(buffers), 0..4);
    ("[ -~\n]{0,9}", 0..Kind::ALL.len(), grid, stages, any::<(u64, u64)>()).prop_map(
        |(name, kind, grid, stages, (flops, bytes))| Launch { name, kind: Kind::ALL[kind], grid, stages, flops, bytes },
    )
}

fn place() -> impl Strategy<Value = Place> {
    let named = ("[ab]{1,2}", 0..5).prop_map(|(n, kind)| match kind {
        0 => Place::Param(n),
        1 => Place::State(n),
        2 => Place::Table(n),
        3 => Place::Input(n),
        _ => Place::Output(n),
    });
    prop_oneof![any::<u64>().prop_map(Place::Arena), any::<u64>().prop_map(Place::Scratch), named]
}

fn plan() -> impl Strategy<Value = Plan> {
    let dtype = || (0..DType::ALL.len()).prop_map(|i| DType::ALL[i]);
    let buffer = ("[ab~ ]{0,2}", dtype(), any::<u64>(), place()).prop_map(|(name, dtype, len, place)| Buffer {
        name,
        dtype,
        len,
        place,
    });
    let port = ("[ -~]{0,9}", dtype(), proptest::collection::vec(any::<usize>(), 0..3))
        .prop_map(|(name, dtype, shape)| Port { name, dtype, shape });
    let ports = || proptest::collection::vec(port.clone(), 0..3);
    let step = prop_oneof![
        launch(5).prop_map(Step::Launch),
        (any::<u32>(), proptest::collection::vec(launch(5), 0..3))
            .prop_map(|(times, body)| Step::Repeat { times, body }),
    ];
    let steps = proptest::collection::vec(step, 0..4);
    ("[ -~]{0,9}", ports(), ports(), proptest::collection::vec(buffer, 5), steps, any::<(u64, u64)>()).prop_map(
        |(program, inputs, outputs, buffers, steps, (arena, scratch))| Plan {
            program,
            inputs,
            outputs,
            buffers,
            steps,
            arena,
            scratch,
        },
    )
}

proptest! {
    #[test]
    fn random_plans_read_back(p in plan()) {
        let text = print(&p);
        prop_assert_eq!(parse(&text), Ok(p), "{}", text);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "[ -~\n]{0,60}", at in 0usize..1200) {
        let at = at.min(SAMPLE.len());
        parse(&text).ok();
        parse(&format!("{}{text}{}", &SAMPLE[..at], &SAMPLE[at..])).ok();
        parse_module(&format!("module\nkernel @k {{\n{text}\n}}\n{}", &SAMPLE[..at])).ok();
    }
}
