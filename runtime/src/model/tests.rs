//! Plans made by hand, run on several numbers of threads and instruction sets.
use super::*;
use crate::testing::*;
use lolm_ir::graph::Table;
use lolm_ir::plan::*;

fn noise(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 + 13) % 1009) as f32 / 504.5 - 1.0).collect()
}

fn bits(t: &Tensor) -> Vec<u32> {
    t.as_f32().unwrap().iter().map(|x| x.to_bits()).collect()
}

#[test]
fn a_product_with_an_epilogue_gives_the_same_bits_on_any_threads_and_instructions() {
    let (m, n, k) = (11, 70, 300);
    let x = noise(m * k);
    let run = |threads, isa| {
        let mut model = Model::load_with(artifact(&linear(m as u32, n as u32, k as u32)), threads, isa).unwrap();
        model.param_mut(0).copy_from_slice(&noise(n * k));
        let out = model.call("linear", &[("x", Tensor::f32(&[m, k], x.clone()))]).unwrap();
        out["y"].clone()
    };
    let first = run(1, Isa::Portable);
    let w = noise(n * k);
    for (i, y) in first.as_f32().unwrap().iter().enumerate() {
        let (r, c) = (i / n, i % n);
        let want: f64 = (0..k).map(|t| 2.0 * x[r * k + t] as f64 * w[c * k + t] as f64).sum();
        assert!((*y as f64 - want).abs() < 1e-4, "element {i}: {y} is not {want}");
    }
    for threads in [1, 2, 3] {
        for isa in Isa::available() {
            assert_eq!(bits(&run(threads, isa)), bits(&first), "{threads} threads, {isa:?}");
        }
    }
}

#[test]
fn weights_in_bf16_are_rounded_and_give_the_bits_of_the_same_numbers_in_f32() {
    let (m, n, k) = (11, 70, 300);
    let mut half = linear(m, n, k);
    half.params[0].dtype = DType::Bf16;
    half.programs[0].buffers[1].dtype = DType::Bf16;
    let x = Tensor::f32(&[m as usize, k as usize], noise((m * k) as usize));
    let run = |manifest: &Manifest, w: &[f32], threads, isa| {
        let mut model = Model::load_with(artifact(manifest), threads, isa).unwrap();
        model.write_param(0, 0, w[..999].iter().copied());
        model.write_param(0, 999, w[999..].iter().copied());
        bits(&model.call("linear", &[("x", x.clone())]).unwrap()["y"])
    };
    let w = noise((n * k) as usize);
    let rounded: Vec<f32> = w.iter().map(|x| half::bf16::from_f32(*x).to_f32()).collect();
    let want = run(&linear(m, n, k), &rounded, 1, Isa::Portable);
    assert_ne!(want, run(&linear(m, n, k), &w, 1, Isa::Portable));
    for threads in [1, 2] {
        for isa in Isa::available() {
            assert_eq!(run(&half, &w, threads, isa), want, "{threads} threads, {isa:?}");
            assert_eq!(run(&half, &rounded, threads, isa), want, "{threads} threads, {isa:?}");
        }
    }
}

/// One kernel over its own units, then a loop in which each round doubles the next row.
fn rows() -> Manifest {
    let f32s = |place, n| buffer(place, DType::F32, n);
    let kernel = |operands, span| Stage::Kernel(KernelStage { kernel: 0, operands, span });
    let at = |buffer: u32, base: i64, iter: i64| Access { base, iter, ..Access::whole(BufferId(buffer)) };
    let body = |name: &str, base| Launch {
        name: name.into(),
        kind: Kind::Map,
        grid: vec![],
        stages: vec![kernel(vec![at(1, base, 5), at(1, base + 5, 5)], Span::Same)],
        flops: 0,
        bytes: 0,
    };
    let mut m = manifest(vec![Plan {
        program: "rows".into(),
        inputs: vec![port("x", DType::F32, &[5])],
        outputs: vec![port("y", DType::F32, &[5, 5])],
        buffers: vec![f32s(Place::Input("x".into()), 5), f32s(Place::Output("y".into()), 25)],
        steps: vec![
            launch("first", vec![], vec![kernel(vec![at(0, 0, 0), at(1, 0, 0)], Span::Same)]),
            Step::Repeat { times: 4, body: vec![body("next", 0)] },
        ],
        arena: 0,
        scratch: 0,
    }]);
    m.kernels = vec![double(vec![5])];
    m
}

#[test]
fn loops_move_their_pointers() {
    for threads in [1, 2, 3] {
        let mut model = model(&rows(), threads);
        let y = model.call("rows", &[("x", Tensor::f32(&[5], vec![1.0, -2.0, 3.0, 0.5, 0.0]))]).unwrap();
        let y = y["y"].as_f32().unwrap().to_vec();
        assert_eq!(y[..5], [2.0, -4.0, 6.0, 1.0, 0.0]);
        assert_eq!(y[20..], [32.0, -64.0, 96.0, 16.0, 0.0]);
    }
}

#[test]
fn rows_of_a_span_are_computed_and_no_others() {
    let mut m = manifest(vec![Plan {
        program: "p".into(),
        inputs: vec![port("x", DType::F32, &[3, 4])],
        outputs: vec![port("y", DType::F32, &[3, 4])],
        buffers: vec![
            buffer(Place::Input("x".into()), DType::F32, 12),
            buffer(Place::Output("y".into()), DType::F32, 12),
        ],
        steps: vec![launch(
            "some",
            vec![3],
            vec![Stage::Kernel(KernelStage {
                kernel: 0,
                operands: vec![Access::whole(BufferId(0)), Access::whole(BufferId(1))],
                span: Span::Rows { len: 4, lo: 1, hi: 3 },
            })],
        )],
        arena: 0,
        scratch: 0,
    }]);
    m.kernels = vec![double(vec![3, 4])];
    let y = model(&m, 2).call("p", &[("x", Tensor::f32(&[3, 4], vec![1.0; 12]))]).unwrap();
    assert_eq!(y["y"].as_f32().unwrap(), [0.0, 2.0, 2.0, 0.0, 0.0, 2.0, 2.0, 0.0, 0.0, 2.0, 2.0, 0.0]);
}

#[test]
fn an_extent_follows_a_position_in_memory() {
    let mut m = linear(2, 3, 8);
    let p = &mut m.programs[0];
    p.inputs.push(port("pos", DType::I32, &[1]));
    p.buffers.push(buffer(Place::Input("pos".into()), DType::I32, 1));
    let Step::Launch(l) = &mut p.steps[0] else { panic!() };
    let Stage::Gemm(g) = &mut l.stages[0] else { panic!() };
    g.k = Extent::Seen { len: 8, position: Access::whole(BufferId(4)) };
    let mut model = model(&m, 1);
    model.param_mut(0).fill(1.0);
    let x = Tensor::f32(&[2, 8], vec![1.0; 16]);
    for (pos, seen) in [(0, 1.0), (4, 5.0), (7, 8.0), (100, 8.0), (-1, 0.0), (i32::MIN, 0.0), (i32::MAX, 8.0)] {
        let y = model.call("linear", &[("x", x.clone()), ("pos", Tensor::i32(&[1], vec![pos]))]).unwrap();
        assert_eq!(y["y"].as_f32().unwrap(), [2.0 * seen; 6], "position {pos}");
    }
}

#[test]
fn states_start_as_zeros_or_parameters_and_tables_are_computed() {
    let mut m = manifest(vec![]);
    m.params = vec![param("memory.init", &[2, 3])];
    m.states = vec![state("memory", &[2, 2, 3], Some("memory.init")), state("count", &[2], None)];
    m.tables = vec![lolm_ir::artifact::TableRecord {
        name: "cos".into(),
        shape: vec![4, 2],
        table: Table::RopeCos { theta: 100.0, scaling: None },
    }];
    let mut model = model(&m, 1);
    model.param_mut(0).copy_from_slice(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    model.state_bytes_mut(1).fill(1);
    model.reset_states_if(|n| n == "memory");
    assert_eq!(model.states().view::<f32>(0), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert_ne!(model.states().view::<f32>(1), [0.0; 2]);
    model.reset_states();
    assert_eq!(model.states().view::<f32>(1), [0.0; 2]);
}

#[test]
fn calls_that_do_not_fit_are_refused_by_name() {
    let mut m = model(&linear(2, 3, 4), 1);
    let x = || Tensor::f32(&[2, 4], vec![0.0; 8]);
    let mut error = |program: &str, inputs: &[(&str, Tensor)]| m.call(program, inputs).unwrap_err().to_string();
    assert_eq!(error("train", &[]), "the artifact has no program `train`; it has linear");
    assert_eq!(error("linear", &[]), "program `linear` needs the input `x`");
    assert_eq!(error("linear", &[("z", x())]), "program `linear` has no input `z`; it has x");
    assert_eq!(
        error("linear", &[("x", Tensor::i32(&[2, 4], vec![0; 8]))]),
        "input `x` of program `linear` is f32, not i32"
    );
    assert_eq!(
        error("linear", &[("x", Tensor::f32(&[4, 2], vec![0.0; 8]))]),
        "input `x` of program `linear` is f32[2, 4], not f32[4, 2] of 8 elements"
    );
}

#[test]
fn measured_launches_take_time_and_give_the_same_result() {
    let mut model = model(&rows(), 2);
    let p = model.program("rows").unwrap();
    let x = Tensor::f32(&[5], vec![1.0; 5]);
    let plain = model.call("rows", &[("x", x.clone())]).unwrap();
    assert!(model.measure(p, true).is_empty());
    assert_eq!(model.call("rows", &[("x", x)]).unwrap(), plain);
    let ns = model.measure(p, false);
    assert!(ns.len() == 2 && ns.iter().all(|n| *n > 0), "{ns:?}");
}

/// Launches of one unit, of many and of none follow each other, in and out of loops; each doubles what the one before
/// wrote, so a thread that does not wait for another gives a wrong number.
#[test]
fn threads_wait_for_each_other_exactly_where_they_must() {
    let n = 96i64;
    let at = |base: i64, iter: i64| Access { base, iter, ..Access::whole(BufferId(0)) };
    let body = |kernel: u32, row: i64, iter: i64| Launch {
        name: format!("row {row}"),
        kind: Kind::Map,
        grid: vec![],
        stages: vec![Stage::Kernel(KernelStage {
            kernel,
            operands: vec![at(row * n, iter), at((row + 1) * n, iter)],
            span: Span::Same,
        })],
        flops: 0,
        bytes: 0,
    };
    // Kernel 0 doubles a whole row, 1 its first element, 2 nothing.
    let steps = vec![
        Step::Launch(body(0, 0, 0)),
        Step::Launch(body(1, 1, 0)),
        Step::Launch(body(1, 2, 0)),
        Step::Launch(body(2, 3, 0)),
        Step::Repeat { times: 0, body: vec![body(1, 3, 0)] },
        Step::Repeat { times: 5, body: vec![body(1, 3, n)] },
        Step::Repeat { times: 4, body: vec![body(0, 8, 2 * n), body(1, 9, 2 * n)] },
        Step::Launch(body(0, 16, 0)),
    ];
    let mut m = manifest(vec![Plan {
        program: "chain".into(),
        inputs: vec![],
        outputs: vec![port("y", DType::F32, &[18, n as usize])],
        buffers: vec![buffer(Place::State("rows".into()), DType::F32, 18 * n as usize)],
        steps,
        arena: 0,
        scratch: 0,
    }]);
    m.states = vec![state("rows", &[18, n as usize], None)];
    m.kernels = [n as u32, 1, 0].map(|units| double(vec![units])).to_vec();
    for threads in [1, 2, 3] {
        let mut model = model(&m, threads);
        let p = model.program("chain").unwrap();
        for _ in 0..200 {
            model.reset_states();
            model.state_bytes_mut(0)[..4].copy_from_slice(&1f32.to_le_bytes());
            model.run(p);
            let rows = model.states().view::<f32>(0);
            let firsts: Vec<f32> = rows.chunks_exact(n as usize).map(|r| r[0].log2()).collect();
            assert_eq!(firsts, (0..18).map(|i| i as f32).collect::<Vec<_>>(), "{threads} threads");
        }
    }
}
