//! Hand-made artifacts for tests: a few instructions of machine code and plans built by hand.
use crate::artifact::hash;
use crate::{Artifact, Model};
use lolm_ir::DType;
use lolm_ir::artifact::{CODE, KernelRecord, MANIFEST, Manifest, ParamRecord, StateRecord, container};
use lolm_ir::graph::{Init, RowKind};
use lolm_ir::kernel::Mode;
use lolm_ir::plan::*;

/// `for i in begin..end { operand1[i] = operand0[i] + operand0[i] }`, f32.
pub const DOUBLE: [u8; 32] = [
    0x48, 0x8b, 0x07, 0x48, 0x8b, 0x4f, 0x08, 0x48, 0x39, 0xd6, 0x7d, 0x13, 0xf3, 0x0f, 0x10, 0x04, 0xb0, 0xf3, 0x0f,
    0x58, 0xc0, 0xf3, 0x0f, 0x11, 0x04, 0xb1, 0x48, 0xff, 0xc6, 0xeb, 0xe8, 0xc3,
];

pub fn manifest(programs: Vec<Plan>) -> Manifest {
    Manifest {
        spec: String::new(),
        name: "test".into(),
        target: "x86_64".into(),
        features: vec!["sse2".into()],
        programs,
        kernels: vec![],
        params: vec![],
        states: vec![],
        tables: vec![],
    }
}

/// The kernel [`DOUBLE`], at the start of the code, over these units.
pub fn double(unit_dims: Vec<u32>) -> KernelRecord {
    let units = unit_dims.iter().map(|d| *d as u64).product();
    KernelRecord {
        name: "double".into(),
        offset: 0,
        len: 32,
        units,
        unit_dims,
        operands: vec![Mode::InOut; 2],
        block: None,
    }
}

pub fn param(name: &str, shape: &[usize]) -> ParamRecord {
    ParamRecord { name: name.into(), dtype: DType::F32, shape: shape.to_vec(), init: Init::Normal(0.5) }
}

pub fn state(name: &str, shape: &[usize], init: Option<&str>) -> StateRecord {
    let (shape, init) = (shape.to_vec(), init.map(String::from));
    StateRecord { name: name.into(), dtype: DType::F32, shape, rows: RowKind::None, init }
}

pub fn port(name: &str, dtype: DType, shape: &[usize]) -> Port {
    Port { name: name.into(), dtype, shape: shape.to_vec() }
}

pub fn buffer(place: Place, dtype: DType, len: usize) -> Buffer {
    Buffer { name: format!("{place:?}"), dtype, len: len as u64, place }
}

pub fn launch(name: &str, grid: Vec<u32>, stages: Vec<Stage>) -> Step {
    Step::Launch(Launch { name: name.into(), kind: Kind::Contract, grid, stages, flops: 0, bytes: 0 })
}

pub fn matrix(buffer: u32, unit: Vec<i64>, row: i64, col: i64) -> Matrix {
    Matrix { buffer: BufferId(buffer), base: 0, unit, iter: 0, row, col }
}

pub fn bytes(m: &Manifest, code: &[u8]) -> Vec<u8> {
    let manifest = postcard::to_stdvec(m).unwrap();
    container::encode(&[(MANIFEST, &manifest), (CODE, code)], hash).unwrap()
}

pub fn artifact(m: &Manifest) -> Artifact {
    Artifact::from_bytes(bytes(m, &DOUBLE)).unwrap()
}

pub fn model(m: &Manifest, threads: usize) -> Model {
    Model::load(artifact(m), threads).unwrap()
}

/// `y = 2 · x · wᵀ` with x: f32[m, k], w: f32[n, k], in tiles of rows, through scratch memory: a product and an epilogue.
pub fn linear(m: u32, n: u32, k: u32) -> Manifest {
    let (rows, tile) = (m as i64, 4i64);
    let tiles = m.div_ceil(tile as u32);
    let (nn, kk) = (n as i64, k as i64);
    let extent = Extent::Tile { dim: 0, tile: tile as u32, len: m };
    let gemm = Gemm {
        m: extent,
        n: Extent::Fixed(n),
        k: Extent::Fixed(k),
        a: matrix(0, vec![tile * kk], kk, 1),
        b: matrix(1, vec![], 1, kk),
        c: matrix(2, vec![], nn, 1),
        alpha: 1.0,
        accumulate: false,
    };
    // The kernel's units are the elements of y; the scratch tile holds those of this unit's rows only.
    let from = Access { rebase: 1, ..Access::whole(BufferId(2)) };
    let epilogue = KernelStage {
        kernel: 0,
        operands: vec![from, Access::whole(BufferId(3))],
        span: Span::Tiles { len: m * n, tile: tile as u32 * n },
    };
    let plan = Plan {
        program: "linear".into(),
        inputs: vec![port("x", DType::F32, &[m as usize, k as usize])],
        outputs: vec![port("y", DType::F32, &[m as usize, n as usize])],
        buffers: vec![
            buffer(Place::Input("x".into()), DType::F32, (m * k) as usize),
            buffer(Place::Param("w".into()), DType::F32, (n * k) as usize),
            buffer(Place::Scratch(64), DType::F32, tile as usize * n as usize),
            buffer(Place::Output("y".into()), DType::F32, rows as usize * n as usize),
        ],
        steps: vec![launch("xw", vec![tiles], vec![Stage::Gemm(Box::new(gemm)), Stage::Kernel(epilogue)])],
        arena: 0,
        scratch: 64 + tile as u64 * n as u64 * 4,
    };
    let mut all = manifest(vec![plan]);
    all.params = vec![param("w", &[n as usize, k as usize])];
    all.kernels = vec![double(vec![m * n])];
    all
}

/// A step of a toy model: `w = w/2 + lr · tokens`, `m += w`, for all units, then `loss = w[0]`, `norm = m[0]`; if the first
/// token is 7, only `skipped = 1`. Operands: tokens (i32), lr, w, m, loss, norm, skipped.
pub const TOY: [u8; 122] = [
    0x48, 0x8b, 0x07, 0x48, 0x8b, 0x4f, 0x30, 0x83, 0x38, 0x07, 0x75, 0x07, 0xc7, 0x01, 0x00, 0x00, 0x80, 0x3f, 0xc3,
    0xc7, 0x01, 0x00, 0x00, 0x00, 0x00, 0x48, 0x8b, 0x4f, 0x08, 0xf3, 0x0f, 0x10, 0x19, 0xb9, 0x00, 0x00, 0x00, 0x3f,
    0x66, 0x0f, 0x6e, 0xd1, 0x4c, 0x8b, 0x47, 0x10, 0x4c, 0x8b, 0x4f, 0x18, 0x48, 0x39, 0xd6, 0x7d, 0x2e, 0xf3, 0x0f,
    0x2a, 0x04, 0xb0, 0xf3, 0x0f, 0x59, 0xc3, 0xf3, 0x41, 0x0f, 0x10, 0x0c, 0xb0, 0xf3, 0x0f, 0x59, 0xca, 0xf3, 0x0f,
    0x58, 0xc8, 0xf3, 0x41, 0x0f, 0x11, 0x0c, 0xb0, 0xf3, 0x41, 0x0f, 0x58, 0x0c, 0xb1, 0xf3, 0x41, 0x0f, 0x11, 0x0c,
    0xb1, 0x48, 0xff, 0xc6, 0xeb, 0xcd, 0x4c, 0x8b, 0x57, 0x20, 0x41, 0x8b, 0x08, 0x41, 0x89, 0x0a, 0x4c, 0x8b, 0x57,
    0x28, 0x41, 0x8b, 0x09, 0x41, 0x89, 0x0a, 0xc3,
];

/// An artifact whose program `train_2x4` is the step above.
pub fn toy() -> Artifact {
    let f32s = |place: Place, n| buffer(place, DType::F32, n);
    let (input, output) = (|n: &str| Place::Input(n.into()), |n: &str| Place::Output(n.into()));
    let scalar = |name: &str| port(name, DType::F32, &[]);
    let operands = (0..7).map(|b| Access::whole(BufferId(b))).collect();
    let stage = KernelStage { kernel: 0, operands, span: Span::Rows { len: 8, lo: 0, hi: 8 } };
    let plan = Plan {
        program: "train_2x4".into(),
        inputs: vec![
            port("tokens", DType::I32, &[2, 4]),
            port("targets", DType::I32, &[2, 4]),
            scalar("lr"),
            scalar("tau"),
            port("seed", DType::I32, &[]),
            port("step", DType::I32, &[]),
        ],
        outputs: vec![scalar("loss.total"), scalar("grad_norm"), scalar("skipped")],
        buffers: vec![
            buffer(input("tokens"), DType::I32, 8),
            f32s(input("lr"), 1),
            f32s(Place::Param("w".into()), 8),
            f32s(Place::State("adam.m.w".into()), 8),
            f32s(output("loss.total"), 1),
            f32s(output("grad_norm"), 1),
            f32s(output("skipped"), 1),
        ],
        steps: vec![launch("toy", vec![1], vec![Stage::Kernel(stage)])],
        arena: 0,
        scratch: 0,
    };
    let mut m = manifest(vec![plan]);
    m.params = vec![param("w", &[8])];
    m.states = vec![state("adam.m.w", &[8], None), state("kv", &[4], None)];
    m.kernels = vec![KernelRecord {
        name: "toy".into(),
        offset: 0,
        len: 122,
        units: 8,
        unit_dims: vec![1, 8],
        operands: vec![Mode::InOut; 7],
        block: None,
    }];
    Artifact::from_bytes(bytes(&m, &TOY)).unwrap()
}

/// Steps of a toy model: for each token `s = 3·s + token + position`, gate = s % 8 twice, regime = s % 4; the logits of 8
/// tokens are 0 but for s % 8. Operands: tokens, pos, s, logits, gate, regime.
pub const STEPS: [u8; 109] = [
    0x48, 0x8b, 0x07, 0x48, 0x8b, 0x4f, 0x08, 0x8b, 0x09, 0x4c, 0x8b, 0x47, 0x10, 0x45, 0x8b, 0x08, 0x4c, 0x8b, 0x57,
    0x20, 0x4c, 0x8b, 0x5f, 0x28, 0x48, 0x39, 0xd6, 0x7d, 0x32, 0x47, 0x8d, 0x0c, 0x49, 0x44, 0x03, 0x0c, 0xb0, 0x41,
    0x01, 0xc9, 0xff, 0xc1, 0x52, 0x44, 0x89, 0xca, 0x83, 0xe2, 0x07, 0xf3, 0x0f, 0x2a, 0xc2, 0xf3, 0x41, 0x0f, 0x11,
    0x04, 0xf2, 0xf3, 0x41, 0x0f, 0x11, 0x44, 0xf2, 0x04, 0x83, 0xe2, 0x03, 0x41, 0x89, 0x14, 0xb3, 0x5a, 0x48, 0xff,
    0xc6, 0xeb, 0xc9, 0x45, 0x89, 0x08, 0x48, 0x8b, 0x47, 0x18, 0x0f, 0x57, 0xc0, 0x0f, 0x11, 0x00, 0x0f, 0x11, 0x40,
    0x10, 0x41, 0x83, 0xe1, 0x07, 0x42, 0xc7, 0x04, 0x88, 0x00, 0x00, 0x80, 0x3f, 0xc3,
];

/// An artifact whose programs `prefill_4`, `prefill_2` and `decode` take such steps.
pub fn steps() -> Artifact {
    let program = |name: &str, kernel: u32, t: usize| {
        let (input, output) = (|n: &str| Place::Input(n.into()), |n: &str| Place::Output(n.into()));
        let operands = (0..6).map(|b| Access::whole(BufferId(b))).collect();
        let stage = KernelStage { kernel, operands, span: Span::Rows { len: t as u32, lo: 0, hi: t as u32 } };
        Plan {
            program: name.into(),
            inputs: vec![
                port("tokens", DType::I32, &[1, t]),
                port("pos", DType::I32, &[1]),
                port("gate.force", DType::F32, &[]),
            ],
            outputs: vec![
                port("logits", DType::F32, &[1, 8]),
                port("gate", DType::F32, &[1, t, 2]),
                port("regime", DType::I32, &[1, t]),
            ],
            buffers: vec![
                buffer(input("tokens"), DType::I32, t),
                buffer(input("pos"), DType::I32, 1),
                buffer(Place::State("s".into()), DType::I32, 1),
                buffer(output("logits"), DType::F32, 8),
                buffer(output("gate"), DType::F32, 2 * t),
                buffer(output("regime"), DType::I32, t),
            ],
            steps: vec![launch("step", vec![1], vec![Stage::Kernel(stage)])],
            arena: 0,
            scratch: 0,
        }
    };
    let mut m = manifest(vec![program("prefill_2", 0, 2), program("decode", 1, 1), program("prefill_4", 2, 4)]);
    m.states =
        vec![StateRecord { name: "s".into(), dtype: DType::I32, shape: vec![1], rows: RowKind::Whole, init: None }];
    let kernel = |t: u32| KernelRecord {
        name: "step".into(),
        offset: 0,
        len: 109,
        units: t as u64,
        unit_dims: vec![1, t],
        operands: vec![Mode::InOut; 6],
        block: None,
    };
    m.kernels = [2, 1, 4].map(kernel).to_vec();
    Artifact::from_bytes(bytes(&m, &STEPS)).unwrap()
}

/// `loss = token where target >= 0, else 0`, for all units; then gate = the first token and usage\[first token % 4\] = 8.
/// Operands: tokens, targets, loss, gate.mean, regime.usage.
pub const LOSSES: [u8; 79] = [
    0x48, 0x8b, 0x07, 0x48, 0x8b, 0x4f, 0x08, 0x4c, 0x8b, 0x47, 0x10, 0x48, 0x39, 0xd6, 0x7d, 0x19, 0x0f, 0x57, 0xc0,
    0x83, 0x3c, 0xb1, 0x00, 0x7c, 0x05, 0xf3, 0x0f, 0x2a, 0x04, 0xb0, 0xf3, 0x41, 0x0f, 0x11, 0x04, 0xb0, 0x48, 0xff,
    0xc6, 0xeb, 0xe2, 0x4c, 0x8b, 0x47, 0x18, 0xf3, 0x0f, 0x2a, 0x00, 0xf3, 0x41, 0x0f, 0x11, 0x00, 0x4c, 0x8b, 0x47,
    0x20, 0x0f, 0x57, 0xc0, 0x41, 0x0f, 0x11, 0x00, 0x8b, 0x00, 0x83, 0xe0, 0x03, 0x41, 0xc7, 0x04, 0x80, 0x00, 0x00,
    0x00, 0x41, 0xc3,
];

/// An artifact whose program `eval_2x4` is the above.
pub fn losses() -> Artifact {
    let (input, output) = (|n: &str| Place::Input(n.into()), |n: &str| Place::Output(n.into()));
    let operands = (0..5).map(|b| Access::whole(BufferId(b))).collect();
    let stage = KernelStage { kernel: 0, operands, span: Span::Rows { len: 8, lo: 0, hi: 8 } };
    let mut m = manifest(vec![Plan {
        program: "eval_2x4".into(),
        inputs: vec![port("tokens", DType::I32, &[2, 4]), port("targets", DType::I32, &[2, 4])],
        outputs: vec![
            port("loss", DType::F32, &[2, 4]),
            port("gate.mean", DType::F32, &[1]),
            port("regime.usage", DType::F32, &[4]),
        ],
        buffers: vec![
            buffer(input("tokens"), DType::I32, 8),
            buffer(input("targets"), DType::I32, 8),
            buffer(output("loss"), DType::F32, 8),
            buffer(output("gate.mean"), DType::F32, 1),
            buffer(output("regime.usage"), DType::F32, 4),
        ],
        steps: vec![launch("losses", vec![1], vec![Stage::Kernel(stage)])],
        arena: 0,
        scratch: 0,
    }]);
    let (offset, len) = (0, 79);
    m.kernels = vec![KernelRecord {
        name: "losses".into(),
        offset,
        len,
        units: 8,
        unit_dims: vec![1, 8],
        operands: vec![Mode::InOut; 5],
        block: None,
    }];
    Artifact::from_bytes(bytes(&m, &LOSSES)).unwrap()
}
