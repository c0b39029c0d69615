//! Models on the emulator: ports, parameters and states across runs, loops, what is refused, and what a failure does.
use super::emulator::Emulator;
use crate::testing::{artifact, buffer, linear, param, port, state};
use crate::{Artifact, Model, Tensor};
use kernels::*;
use lolm_ir::DType;
use lolm_ir::artifact::Manifest;
use lolm_ir::plan::*;
use std::sync::Arc;

mod kernels;
mod runs;

/// `y = a · x` over 100 elements; a is a parameter.
fn scaling() -> Manifest {
    let operands = (0..3).map(|b| Access::whole(BufferId(b))).collect();
    let mut m = gpu(vec![Plan {
        program: "scale".into(),
        inputs: vec![port("x", DType::F32, &[100])],
        outputs: vec![port("y", DType::F32, &[100])],
        buffers: vec![
            buffer(Place::Param("a".into()), DType::F32, 1),
            buffer(Place::Input("x".into()), DType::F32, 100),
            buffer(Place::Output("y".into()), DType::F32, 100),
        ],
        steps: vec![Step::Launch(whole("scale", 0, operands))],
        ..Plan::default()
    }]);
    m.params = vec![param("a", &[1])];
    m.kernels = vec![record("scale", 100, 3, 64, 64)];
    m
}

/// Three rounds of `z = a · x` and of `s += row sums of z`, over the three pages of x: [3, 4, 32].
fn looping() -> Manifest {
    let at = |b, iter| Access { iter, ..Access::whole(BufferId(b)) };
    let body = vec![
        whole("scale", 0, vec![at(0, 0), at(1, 128), at(2, 0)]),
        whole("sums", 1, vec![at(2, 0), at(3, 0), at(4, 4)]),
    ];
    let mut m = gpu(vec![Plan {
        program: "loop".into(),
        inputs: vec![port("x", DType::F32, &[3, 4, 32])],
        outputs: vec![port("y", DType::F32, &[3, 4])],
        buffers: vec![
            buffer(Place::Param("a".into()), DType::F32, 1),
            buffer(Place::Input("x".into()), DType::F32, 384),
            buffer(Place::Arena(64), DType::F32, 128),
            buffer(Place::State("s".into()), DType::F32, 4),
            buffer(Place::Output("y".into()), DType::F32, 12),
        ],
        steps: vec![Step::Repeat { times: 3, body }],
        arena: 64 + 512,
        scratch: 0,
    }]);
    m.params = vec![param("a", &[1])];
    m.states = vec![state("s", &[4], None), state("copy", &[3, 1], Some("a"))];
    m.kernels = vec![record("scale", 128, 3, 64, 64), record("row sums", 4, 3, 32, 1)];
    m
}

fn loop_model() -> Model {
    load(&looping(), &(scale(0, 128, 0) + &row_sums(1))).unwrap()
}

fn numbers(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i % 17) as f32 - 8.0).collect()
}

#[test]
fn ports_and_parameters_go_there_and_back() {
    let mut m = load(&scaling(), &scale(0, 100, 0)).unwrap();
    assert_eq!((m.device().as_deref(), m.threads()), (Some("the emulator"), 1));
    let p = m.program("scale").unwrap();
    let (x, y) = (m.input(p, "x", DType::F32).unwrap(), m.output(p, "y", DType::F32).unwrap());
    assert_eq!(m.output_slice::<f32>(y), [0.0; 100], "zeros before the first run");
    for a in [2.0, -0.5] {
        m.write_param(0, 0, [a].into_iter());
        m.input_mut(x).copy_from_slice(&numbers(100));
        m.run(p);
        let want: Vec<f32> = numbers(100).iter().map(|v| a * v).collect();
        // Parts in any order, and then all of it.
        assert_eq!(m.output_part::<f32>(y, 40..50), &want[40..50]);
        assert_eq!(m.output_part::<f32>(y, 90..100), &want[90..]);
        assert_eq!(m.output_part::<f32>(y, 10..10), [0.0f32; 0]);
        assert_eq!(m.output_slice::<f32>(y), want);
        assert_eq!(m.params().view::<f32>(0), [a]);
    }
    // An input that nobody writes keeps what it holds.
    m.write_param(0, 0, [4.0].into_iter());
    m.run(p);
    assert_eq!(m.output_part::<f32>(y, 0..2), [-32.0, -28.0]);
    m.param_mut(0)[0] = 3.0;
    let outputs = m.call("scale", &[("x", Tensor::f32(&[100], numbers(100)))]).unwrap();
    assert_eq!(outputs["y"].as_f32().unwrap()[0], -24.0);
}

#[test]
fn states_live_on_the_device_from_run_to_run_and_loops_move_their_operands() {
    let mut m = loop_model();
    m.param_mut(0)[0] = 2.0;
    let x = Tensor::f32(&[3, 4, 32], numbers(384));
    let page = |p: usize, row: usize| numbers(384)[p * 128 + row * 32..][..32].iter().sum::<f32>() * 2.0;
    let mut sums = [0.0f32; 4];
    for _ in 0..3 {
        let y = m.call("loop", &[("x", x.clone())]).unwrap()["y"].clone();
        for p in 0..3 {
            sums.iter_mut().enumerate().for_each(|(row, s)| *s += page(p, row));
            assert_eq!(&y.as_f32().unwrap()[4 * p..4 * p + 4], sums);
        }
        assert_eq!(m.states().view::<f32>(0), sums);
    }
    // What is written here reaches the device, and what is not written stays.
    m.state_bytes_mut(0)[..4].copy_from_slice(&1000f32.to_le_bytes());
    m.call("loop", &[("x", x)]).unwrap();
    let round: Vec<f32> = (0..4).map(|row| (0..3).map(|p| page(p, row)).sum()).collect();
    let want = [1000.0 + round[0], sums[1] + round[1], sums[2] + round[2], sums[3] + round[3]];
    assert_eq!(m.states().view::<f32>(0), want);
}

#[test]
fn states_start_as_zeros_or_as_a_parameter() {
    let mut m = loop_model();
    m.param_mut(0)[0] = 1.5;
    m.state_bytes_mut(0).fill(1);
    m.reset_states_if(|n| n == "copy");
    assert_eq!(m.states().view::<f32>(1), [1.5; 3]);
    assert_ne!(m.states().view::<f32>(0), [0.0; 4]);
    m.reset_states();
    assert_eq!((m.states().view::<f32>(0), m.states().view::<f32>(1)), (&[0.0; 4][..], &[1.5; 3][..]));
    m.check().unwrap();
}

#[test]
fn every_launch_of_the_plan_is_measured() {
    let mut m = loop_model();
    let p = m.program("loop").unwrap();
    assert!(m.measure(p, true).is_empty());
    m.run(p);
    m.run(p);
    let times = m.measure(p, false);
    assert!(times.len() == 2 && times.iter().all(|t| *t > 0), "{times:?}");
    m.run(p);
    assert!(m.measure(p, false).is_empty());
    let profile = crate::bench::Profile::of(&mut m, p, 2);
    assert_eq!(profile.launches.iter().map(|l| l.name.as_str()).collect::<Vec<_>>(), ["scale", "sums"]);
}

#[test]
fn a_copy_is_of_its_moment() {
    let mut m = loop_model();
    m.param_mut(0)[0] = 1.0;
    let x = Tensor::f32(&[3, 4, 32], numbers(384));
    m.call("loop", &[("x", x.clone())]).unwrap();
    let then = m.states().view::<f32>(0).to_vec();
    let copied = m.copied(|name| name == "s").unwrap().unwrap();
    m.param_mut(0)[0] = 7.0;
    m.call("loop", &[("x", x)]).unwrap();
    assert_ne!(m.states().view::<f32>(0), then);
    let [params, states] = std::thread::spawn(|| copied.read()).join().unwrap().unwrap();
    assert_eq!((params.view::<f32>(0), states.slots().len()), (&[1.0][..], 1));
    assert_eq!(states.view::<f32>(0), then);
}

#[test]
fn a_fault_is_kept_and_nothing_runs_after_it() {
    let mut m = load(&scaling(), &scale(0, 100, 1)).unwrap();
    let p = m.program("scale").unwrap();
    let y = m.output(p, "y", DType::F32).unwrap();
    m.run(p);
    let e = m.check().unwrap_err().to_string();
    assert!(e.starts_with("kernel `scale_0` failed: OutOfBounds"), "{e}");
    assert!(m.output_slice::<f32>(y).iter().all(|x| x.is_nan()));
    m.run(p);
    m.reset_states();
    assert_eq!(m.check().unwrap_err().to_string(), e);
    assert_eq!(m.call("scale", &[("x", Tensor::f32(&[100], numbers(100)))]).unwrap_err().to_string(), e);
}

#[test]
fn an_output_that_was_not_written_is_found() {
    let mut m = load(&scaling(), &scale(0, 99, 0)).unwrap();
    let e = m.call("scale", &[("x", Tensor::f32(&[100], numbers(100)))]).unwrap_err().to_string();
    assert!(e.starts_with("download failed: UninitialisedMemory"), "{e}");
}

#[test]
fn artifacts_say_where_they_run() {
    let e = Model::load_on(artifact(&linear(4, 4, 4)), Arc::new(Emulator::default())).err().unwrap().to_string();
    assert_eq!(
        e,
        "the artifact is for x86_64 and cannot run on the emulator: run it with `--device cpu`, or compile it with \
         `--target cuda`"
    );
    let a = Artifact::from_bytes(bytes(&scaling(), &format!("{HEAD}{}", scale(0, 100, 0)))).unwrap();
    let e = Model::load(a, 1).err().unwrap().to_string();
    assert_eq!(
        e,
        "the artifact is for cuda:sm_80 and cannot run on the CPU: run it with `--device cuda`, or compile it with \
         `--target cpu`"
    );
}

/// The error of a model that differs from the one that scales.
fn refused(change: impl FnOnce(&mut Manifest), kernels: &str) -> String {
    let mut m = scaling();
    change(&mut m);
    load(&m, kernels).err().expect("it is refused")
}

#[test]
fn plans_that_a_gpu_cannot_run_are_refused() {
    let text = scale(0, 100, 0);
    let e = refused(
        |m| {
            let Step::Launch(l) = &mut m.programs[0].steps[0] else { panic!() };
            l.grid = vec![100];
        },
        &text,
    );
    assert_eq!(
        e,
        "the artifact's plan is not one for the emulator: bad plan: program `scale`, launch `scale`: a GPU runs launches \
         of one kernel over its own units; this has a kernel over the grid [100]"
    );
    let e = refused(
        |m| {
            m.programs[0].buffers[1].place = Place::Scratch(0);
            m.programs[0].scratch = 400;
        },
        &text,
    );
    assert!(e.ends_with("buffer `Input(\"x\")` has no memory on a GPU: it lies in Scratch(0)"), "{e}");
    let e = refused(|m| m.kernels[0].block = None, &text);
    assert!(e.contains("kernel `scale`: None as its blocks, which does not go with the target cuda:sm_80"), "{e}");
    for (threads, units, shared) in [(0, 1, 0), (33, 1, 0), (2048, 1, 0), (32, 0, 0), (32, 1, 1 << 20)] {
        let block = lolm_ir::artifact::Block { threads, units, shared };
        let e = refused(|m| m.kernels[0].block = Some(block), &text);
        assert!(e.starts_with("bad plan: kernel `scale`"), "{e}");
    }
    let e = refused(|m| m.kernels[0].name = "other".into(), &text);
    assert_eq!(e, "the module has no kernel `other_0`");
    let e = refused(|_| (), &kernel(0, "scale", 2, ""));
    assert_eq!(e, "the module has no kernel `scale_0` with an address for each operand");
    let e = refused(|_| (), "nonsense");
    assert!(e.starts_with("the driver refuses the kernels: the emulator does not read them"), "{e}");
    let e = refused(|m| m.programs[0].arena = 90_000_000_000, &text);
    assert!(e.starts_with("not enough memory on the emulator: 90.0 GB were asked for"), "{e}");
    assert!(e.contains("90.0 GB of values in between); lower the batch"), "{e}");
}
