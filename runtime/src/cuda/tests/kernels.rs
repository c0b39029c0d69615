//! Kernels of the tests, written by hand.
use crate::artifact::hash;
use crate::testing::manifest;
use crate::{Artifact, Model, cuda::emulator::Emulator};
use lolm_ir::artifact::{Block, KernelRecord, MANIFEST, Manifest, container, entry};
use lolm_ir::kernel::Mode;
use lolm_ir::plan::*;
use std::sync::Arc;

/// The head of a module.
pub const HEAD: &str = ".version 7.0\n.target sm_80\n.address_size 64\n";

/// An entry of this number and name with so many operands, in the registers %a0 and on; `body` ends with the label DONE.
pub fn kernel(index: usize, name: &str, operands: usize, body: &str) -> String {
    let params: Vec<String> = (0..operands).map(|i| format!(".param .u64 p{i}")).collect();
    let loads: String = (0..operands).map(|i| format!("ld.param.u64 %a{i}, [p{i}];\n")).collect();
    format!(
        ".visible .entry {}({})\n{{\n.reg .pred %p<4>;\n.reg .b32 %r<12>;\n.reg .f32 %f<12>;\n.reg .b64 %a<8>;\n\
         .reg .b64 %d<8>;\n{loads}{body}\nDONE:\nret;\n}}\n",
        entry(index, name),
        params.join(", "),
    )
}

/// `y[i] = a[0] · x[i]` for i < n, 64 to a block. `past` more elements are read and written, which is wrong.
pub fn scale(index: usize, n: u32, past: u32) -> String {
    let n = n + past;
    kernel(
        index,
        "scale",
        3,
        &format!(
            "mov.u32 %r0, %ctaid.x;\nmov.u32 %r1, %tid.x;\nmad.lo.u32 %r2, %r0, 64, %r1;\n\
             setp.ge.u32 %p0, %r2, {n};\n@%p0 bra DONE;\nmul.wide.u32 %d0, %r2, 4;\nadd.u64 %d1, %a1, %d0;\n\
             add.u64 %d2, %a2, %d0;\nld.global.f32 %f0, [%a0];\nld.global.f32 %f1, [%d1];\n\
             mul.rn.f32 %f2, %f0, %f1;\nst.global.f32 [%d2], %f2;"
        ),
    )
}

/// `s += Σ x[row, 0..32]` for each row, a warp to a row; `s` is a state and `y` a copy of it.
pub fn row_sums(index: usize) -> String {
    let fold: String = [16, 8, 4, 2, 1]
        .map(|d| format!("shfl.sync.bfly.b32 %f1, %f0, {d}, 31, -1;\nadd.rn.f32 %f0, %f0, %f1;\n"))
        .concat();
    kernel(
        index,
        "row sums",
        3,
        &format!(
            "mov.u32 %r0, %ctaid.x;\nmov.u32 %r1, %tid.x;\nmad.lo.u32 %r2, %r0, 32, %r1;\nmul.wide.u32 %d0, %r2, 4;\n\
             add.u64 %d0, %a0, %d0;\nld.global.f32 %f0, [%d0];\n{fold}setp.ne.u32 %p0, %r1, 0;\n@%p0 bra DONE;\n\
             mul.wide.u32 %d1, %r0, 4;\nadd.u64 %d2, %a1, %d1;\nld.global.f32 %f2, [%d2];\nadd.rn.f32 %f2, %f2, %f0;\n\
             st.global.f32 [%d2], %f2;\nadd.u64 %d3, %a2, %d1;\nst.global.f32 [%d3], %f2;"
        ),
    )
}

/// What `testing::TOY` does, by one block of eight lanes.
pub fn toy_step(index: usize) -> String {
    kernel(
        index,
        "toy",
        7,
        "mov.u32 %r0, %tid.x;\nsetp.ge.u32 %p0, %r0, 8;\n@%p0 bra DONE;\nmul.wide.u32 %d0, %r0, 4;\n\
         add.u64 %d1, %a0, %d0;\nadd.u64 %d2, %a2, %d0;\nadd.u64 %d3, %a3, %d0;\nld.global.u32 %r1, [%a0];\n\
         ld.global.s32 %r2, [%d1];\nld.global.f32 %f0, [%a1];\nld.global.f32 %f1, [%d2];\nld.global.f32 %f2, [%d3];\n\
         cvt.rn.f32.s32 %f3, %r2;\nmul.rn.f32 %f3, %f3, %f0;\nmul.rn.f32 %f4, %f1, 0f3F000000;\n\
         add.rn.f32 %f4, %f4, %f3;\nadd.rn.f32 %f5, %f4, %f2;\nsetp.eq.u32 %p1, %r1, 7;\n\
         selp.f32 %f4, %f1, %f4, %p1;\nselp.f32 %f5, %f2, %f5, %p1;\nselp.f32 %f6, 0f3F800000, 0f00000000, %p1;\n\
         st.global.f32 [%d2], %f4;\nst.global.f32 [%d3], %f5;\nsetp.ne.u32 %p2, %r0, 0;\n@%p2 bra DONE;\n\
         st.global.f32 [%a4], %f4;\nst.global.f32 [%a5], %f5;\nst.global.f32 [%a6], %f6;",
    )
}

/// What `testing::STEPS` does for so many tokens, by one lane.
pub fn steps_kernel(index: usize, tokens: usize) -> String {
    let each = |t: usize| {
        format!(
            "ld.global.u32 %r2, [%a0+{}];\nmad.lo.u32 %r1, %r1, 3, %r2;\nadd.u32 %r1, %r1, %r0;\n\
             add.u32 %r0, %r0, 1;\nand.b32 %r3, %r1, 7;\nand.b32 %r4, %r1, 3;\ncvt.rn.f32.u32 %f0, %r3;\n\
             st.global.f32 [%a4+{}], %f0;\nst.global.f32 [%a4+{}], %f0;\nst.global.u32 [%a5+{}], %r4;\n",
            4 * t,
            8 * t,
            8 * t + 4,
            4 * t
        )
    };
    let tokens: String = (0..tokens).map(each).collect();
    let zeros: String = (0..8).map(|i| format!("st.global.f32 [%a3+{}], 0f00000000;\n", 4 * i)).collect();
    kernel(
        index,
        "step",
        6,
        &format!(
            "mov.u32 %r9, %tid.x;\nsetp.ne.u32 %p0, %r9, 0;\n@%p0 bra DONE;\nld.global.u32 %r0, [%a1];\n\
             ld.global.u32 %r1, [%a2];\n{tokens}st.global.u32 [%a2], %r1;\n{zeros}and.b32 %r3, %r1, 7;\n\
             mul.wide.u32 %d0, %r3, 4;\nadd.u64 %d0, %a3, %d0;\nst.global.f32 [%d0], 0f3F800000;"
        ),
    )
}

/// A record of a kernel of these units.
pub fn record(name: &str, units: u32, operands: usize, threads: u32, per_block: u32) -> KernelRecord {
    KernelRecord {
        name: name.into(),
        offset: 0,
        len: 1,
        units: units as u64,
        unit_dims: vec![units],
        operands: vec![Mode::InOut; operands],
        block: Some(Block { threads, units: per_block, shared: 0 }),
    }
}

/// A launch of a whole kernel.
pub fn whole(name: &str, kernel: u32, operands: Vec<Access>) -> Launch {
    let stage = Stage::Kernel(KernelStage { kernel, operands, span: Span::Same });
    Launch { name: name.into(), kind: Kind::Map, grid: vec![], stages: vec![stage], flops: 0, bytes: 0 }
}

/// A manifest for a GPU.
pub fn gpu(programs: Vec<Plan>) -> Manifest {
    Manifest { target: "cuda:sm_80".into(), features: vec![], ..manifest(programs) }
}

pub fn bytes(m: &Manifest, ptx: &str) -> Vec<u8> {
    let manifest = postcard::to_stdvec(m).unwrap();
    container::encode(&[(MANIFEST, &manifest), ("ptx.sm_80", ptx.as_bytes())], hash).unwrap()
}

/// A model on the emulator.
pub fn load(m: &Manifest, kernels: &str) -> Result<Model, String> {
    let artifact = Artifact::from_bytes(bytes(m, &format!("{HEAD}{kernels}"))).map_err(|e| e.to_string())?;
    Model::load_on(artifact, Arc::new(Emulator::default())).map_err(|e| e.to_string())
}

/// An artifact of machine code as one for a GPU, with these kernels in the place of its own: one block each.
pub fn ported(a: Artifact, kernels: &str) -> Artifact {
    let mut m = a.manifest.clone();
    (m.target, m.features) = ("cuda:sm_80".into(), vec![]);
    for k in &mut m.kernels {
        (k.offset, k.len) = (0, 1);
        k.block = Some(Block { threads: 32, units: k.units as u32, shared: 0 });
    }
    for p in &mut m.programs {
        for step in &mut p.steps {
            let Step::Launch(l) = step else { panic!("a loop") };
            l.grid.clear();
            let [Stage::Kernel(k)] = l.stages.as_mut_slice() else { panic!("not one kernel") };
            k.span = Span::Same;
        }
    }
    Artifact::from_bytes(bytes(&m, &format!("{HEAD}{kernels}"))).unwrap()
}
