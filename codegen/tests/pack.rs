//! The artifact of a module: sections, records, and the same bytes every time.
#[allow(dead_code)]
mod common;
use common::{Mapped, decode, encode, kernel};
use lolm_codegen::{Compiled, Info, compile};
use lolm_ir::DType;
use lolm_ir::artifact::{CODE, MANIFEST, Manifest, container};
use lolm_ir::plan::{Module, Plan};

fn hash(data: &[u8]) -> [u8; 32] {
    *blake3::hash(data).as_bytes()
}

/// x · (n + 1), over `len` elements.
fn scale(n: usize, len: usize) -> String {
    let text = "kernel @scale_N {
  axis i LEN
  in $x f32 LEN
  out $y f32 LEN
  %0 f32[i] = load $x[i]
  %1 f32[] = const FACTOR.0
  %2 f32[i] = mul %0 %1
  %3 f32[i] = store $y[i] %2
}";
    text.replace("FACTOR", &(n + 1).to_string()).replace("_N", &format!("_{n}")).replace("LEN", &len.to_string())
}

fn module() -> Module {
    let kernels = (0..9).map(|n| kernel(&scale(n, 40 + 1000 * n))).collect();
    Module { kernels, plans: vec![Plan { program: "train".into(), ..Plan::default() }], ..Module::default() }
}

fn pack(m: &Module) -> Compiled {
    compile(m, &Info { name: "tiny".into(), spec: "kind = \"lolm\"".into() }).unwrap()
}

#[test]
fn equal_modules_give_equal_bytes() {
    let a = pack(&module());
    assert_eq!(a, pack(&module()));
    let mut other = module();
    other.kernels.swap(0, 1);
    assert_ne!(a.bytes, pack(&other).bytes);
}

#[test]
fn every_kernel_runs_from_where_its_record_says() {
    let compiled = pack(&module());
    let sections = container::decode(&compiled.bytes, hash).unwrap();
    let section = |name: &str| sections.iter().find(|s| s.name == name).unwrap().data;
    let manifest: Manifest = postcard::from_bytes(section(MANIFEST)).unwrap();
    assert_eq!((manifest.name.as_str(), manifest.spec.as_str()), ("tiny", "kind = \"lolm\""));
    assert_eq!((manifest.target.as_str(), manifest.programs.len()), ("x86-64-v3", 1));
    assert!(manifest.features.contains(&"fma".to_string()));
    assert_eq!(manifest.kernels.len(), 9);
    for (n, (record, k)) in manifest.kernels.iter().zip(&module().kernels).enumerate() {
        let modes: Vec<_> = k.operands.iter().map(|o| o.mode).collect();
        assert_eq!((&record.name, &record.operands), (&k.name, &modes));
        assert_eq!(record.offset % 64, 0);
        assert_eq!(record.units, record.unit_dims.iter().map(|d| *d as u64).product::<u64>());
        let code = &section(CODE)[record.offset as usize..][..record.len as usize];
        let x: Vec<f64> = (0..k.operands[0].len).map(|i| i as f64).collect();
        let mut operands = vec![encode(DType::F32, &x), encode(DType::F32, &vec![0.0; x.len()])];
        Mapped::new(code).call(&mut operands, 0, record.units as i64);
        let expected: Vec<f64> = x.iter().map(|x| x * (n + 1) as f64).collect();
        assert_eq!(decode(DType::F32, &operands[1]), expected);
    }
}

#[test]
fn the_first_broken_kernel_is_named() {
    let mut m = module();
    for n in [3, 4] {
        m.kernels[n].values.pop();
    }
    let e = compile(&m, &Info::default()).unwrap_err();
    assert!(e.to_string().contains("@scale_3"), "{e}");
}

#[test]
fn a_compiled_kernel_explains_itself() {
    let code = lolm_codegen::compile_kernel(&kernel(&scale(1, 100_000))).unwrap();
    assert!(code.schedule_text.contains("lane i"), "{}", code.schedule_text);
    assert!(code.clif.contains("fmul"), "{}", code.clif);
    assert!(code.asm.contains("mulps"), "{}", code.asm);
}
