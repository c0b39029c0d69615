//! What a damaged, foreign or inconsistent artifact is told.
use super::*;
use crate::testing::{DOUBLE, bytes, linear};
use lolm_ir::artifact::FORMAT;
use lolm_ir::plan::{BufferId, Extent, Place, Span, Stage, Step};

fn refusal(change: impl Fn(&mut Manifest)) -> String {
    let mut m = linear(10, 8, 12);
    change(&mut m);
    Artifact::from_bytes(bytes(&m, &DOUBLE)).unwrap_err().to_string()
}

fn stage(m: &mut Manifest, i: usize) -> &mut Stage {
    let Step::Launch(l) = &mut m.programs[0].steps[0] else { panic!() };
    &mut l.stages[i]
}

fn gemm(m: &mut Manifest) -> &mut lolm_ir::plan::Gemm {
    let Stage::Gemm(g) = stage(m, 0) else { panic!() };
    g
}

fn kernel(m: &mut Manifest) -> &mut lolm_ir::plan::KernelStage {
    let Stage::Kernel(k) = stage(m, 1) else { panic!() };
    k
}

#[test]
fn a_whole_artifact_opens_and_says_what_it_is() {
    let b = bytes(&linear(10, 8, 12), &DOUBLE);
    let a = Artifact::from_bytes(b.clone()).unwrap();
    assert_eq!(a.section(CODE), Some(&DOUBLE[..]));
    assert_eq!(a.section("weights"), None);
    assert!(a.program("linear").is_some() && a.program("x").is_none());
    assert_eq!(a.id(), Artifact::from_bytes(b).unwrap().id());
    assert_ne!(a.id(), Artifact::from_bytes(bytes(&linear(10, 8, 13), &DOUBLE)).unwrap().id());
}

#[test]
fn every_flipped_bit_is_noticed() {
    let b = bytes(&linear(3, 2, 2), &DOUBLE);
    for bit in 0..b.len() * 8 {
        let mut damaged = b.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let e = Artifact::from_bytes(damaged).unwrap_err();
        assert!(matches!(e, ArtifactError::Container(_)), "bit {bit}: {e}");
    }
}

#[test]
fn truncation_version_and_foreign_files_have_their_own_words() {
    let b = bytes(&linear(3, 2, 2), &DOUBLE);
    let error = |b: &[u8]| Artifact::from_bytes(b.to_vec()).unwrap_err().to_string();
    for len in [0, 7, 47, 100, 4095, b.len() - 1] {
        assert!(error(&b[..len]).contains("bytes, expected"), "{len}: {}", error(&b[..len]));
    }
    let mut other = b.clone();
    other[8] = 9;
    assert!(error(&other).contains(&format!("the artifact has format 9, expected {FORMAT}")));
    other[0] = b'X';
    assert!(error(&other).contains("not an artifact's mark"));
    let e = Artifact::open(Path::new("/nonexistent/model.lolm")).unwrap_err().to_string();
    assert!(e.starts_with("cannot read /nonexistent/model.lolm"), "{e}");
}

#[test]
fn what_is_missing_is_named() {
    let e = refusal(|m| m.features = vec!["sse2".into(), "avx9".into(), "tea".into()]);
    assert_eq!(e, "this CPU lacks avx9, tea, which the artifact's code uses");
    let manifest = postcard::to_stdvec(&linear(3, 2, 2)).unwrap();
    let b = container::encode(&[(MANIFEST, &manifest)], hash).unwrap();
    assert_eq!(Artifact::from_bytes(b).unwrap_err().to_string(), "the artifact has no section `code.x86-64-v3`");
    let refused = |manifest: &[u8]| {
        let b = container::encode(&[(MANIFEST, manifest), (CODE, b"")], hash).unwrap();
        Artifact::from_bytes(b).unwrap_err().to_string()
    };
    for len in 0..manifest.len() {
        let e = refused(&manifest[..len]);
        assert!(e.starts_with("the manifest cannot be read: "), "{len}: {e}");
    }
    assert_eq!(refused(&[&manifest[..], &[0]].concat()), "the manifest cannot be read: 1 bytes stand behind it");
    // A count beyond all memory is no reason to ask for it.
    assert!(refused(&[0xff; 9]).starts_with("the manifest cannot be read: "));
}

#[test]
fn a_plan_cannot_reach_outside_its_buffers() {
    type Change = fn(&mut Manifest);
    let cases: &[(&str, Change)] = &[
        ("elements 0..=130 of buffer", |m| gemm(m).a.col = 2),
        ("elements -12..=107 of buffer", |m| gemm(m).a.base = -12),
        ("matrix B: elements 0..=107", |m| gemm(m).n = Extent::Fixed(9)),
        ("matrix C: elements 0..=40", |m| gemm(m).c.row = 11),
        ("there is no buffer 9", |m| gemm(m).c.buffer = BufferId(9)),
        ("C is a table or an input", |m| gemm(m).c = gemm(m).a.clone()),
        ("matrix C: buffer", |m| {
            let scratch = &mut m.programs[0].buffers[2];
            (scratch.dtype, scratch.len) = (lolm_ir::DType::Bf16, 40);
        }),
        ("f32[96], but `w` is bf16[8, 12]", |m| m.params[0].dtype = lolm_ir::DType::Bf16),
        ("it is i32, expected f32 or bf16", |m| m.params[0].dtype = lolm_ir::DType::I32),
        ("it is f32 and starts as `w`, bf16; expected f32", |m| {
            m.states = vec![crate::testing::state("s", &[8, 12], Some("w"))];
            m.params[0].dtype = lolm_ir::DType::Bf16;
        }),
        ("2 unit strides for a grid of 1", |m| gemm(m).a.unit = vec![1, 2]),
        ("Tile { dim: 1", |m| gemm(m).m = Extent::Tile { dim: 1, tile: 4, len: 10 }),
        ("Tile { dim: 0, tile: 0", |m| gemm(m).m = Extent::Tile { dim: 0, tile: 0, len: 10 }),
        ("there is no kernel 3", |m| kernel(m).kernel = 3),
        ("1 operands for kernel `double`, which has 2", |m| drop(kernel(m).operands.pop())),
        ("operand 1 of kernel `double`: elements 0..=162", |m| kernel(m).operands[1].unit = vec![81]),
        ("does not fit the 80 units", |m| kernel(m).span = Span::Tiles { len: 80, tile: 16 }),
        ("does not fit the 80 units", |m| kernel(m).span = Span::Same),
        ("its code, 33 bytes at 0, is not within 32", |m| m.kernels[0].len = 33),
        ("which is not the product", |m| m.kernels[0].units = 81),
        ("does not fit 191 bytes", |m| m.programs[0].scratch = 191),
        ("is not aligned", |m| m.programs[0].buffers[2].place = Place::Scratch(32)),
        ("`v` does not exist", |m| m.programs[0].buffers[1].place = Place::Param("v".into())),
        ("f32[97], but `w` is f32[8, 12]", |m| m.programs[0].buffers[1].len = 97),
        ("the name `w` stands twice", |m| m.params.push(m.params[0].clone())),
        ("is too large", |m| m.params[0].shape = vec![usize::MAX, 2]),
    ];
    for (expected, change) in cases {
        let e = refusal(change);

        assert!(e.contains(expected) && e.starts_with("bad plan: "), "{expected}: {e}");
    }
}

#[test]
fn positions_that_extents_read_are_checked() {
    use lolm_ir::plan::Access;
    let seen = |buffer, base| Extent::Seen { len: 12, position: Access { base, ..Access::whole(BufferId(buffer)) } };
    let e = refusal(|m| gemm(m).k = seen(0, 0));
    assert!(e.contains("f32; expected i32"), "{e}");
    let with_position = |base: i64| {
        let mut m = linear(10, 8, 12);
        m.programs[0].inputs.push(crate::testing::port("pos", lolm_ir::DType::I32, &[1]));
        m.programs[0].buffers.push(crate::testing::buffer(Place::Input("pos".into()), lolm_ir::DType::I32, 1));
        gemm(&mut m).k = seen(4, base);
        Artifact::from_bytes(bytes(&m, &DOUBLE)).map(|_| ()).map_err(|e| e.to_string())
    };
    assert_eq!(with_position(0), Ok(()));
    assert!(with_position(1).unwrap_err().contains("elements 1..=1"));
}
