//! Runs a few instructions over rows of 32 lanes: for tests of single instructions.
use super::Arg::U64;
use super::{HEADER, run_with};
use lolm_ptx_emu::{Fault, Memory, Options};

pub type Row = [u32; 32];
pub type Wide = [u64; 32];

/// What goes in and comes out: 32-bit rows as %a and %d, 64-bit rows as %A and %D.
#[derive(Default)]
pub struct Rows {
    pub narrow: Vec<Row>,
    pub wide: Vec<Wide>,
}

/// Runs these lines on one warp. Registers: %a, %b, %d, %x: 32 bits; %A, %D: 64 bits; %h: 16 bits; %p, %q: predicates.
pub fn try_rows(body: &str, inputs: &Rows, outs: (usize, usize), o: &Options) -> Result<Rows, Fault> {
    let mut text = HEADER.replace("7.0", "8.0").replace("sm_80", "sm_90")
        + "\n.const .align 8 .b32 table[4] = {10, 20, -30, 0x28};\n.visible .entry rows(.param .u64 in, .param .u64 out)\n{\n"
        + ".reg .pred %p<8>, %q;\n.reg .b16 %h<16>;\n.reg .b32 %a<8>, %b<8>, %d<16>, %x<16>, %lane;\n"
        + ".reg .b64 %A<8>, %D<8>, %in, %out;\n.shared .align 16 .b8 tile[2048];\n.local .align 16 .b8 own[64];\n"
        + "ld.param.u64 %in, [in];\nld.param.u64 %out, [out];\nmov.u32 %lane, %laneid;\n"
        + "mad.wide.u32 %in, %lane, 8, %in;\nmad.wide.u32 %out, %lane, 8, %out;\n";
    for i in 0..inputs.narrow.len() {
        text += &format!("ld.global.b32 %a{i}, [%in+{}];\n", 256 * i);
    }
    for i in 0..inputs.wide.len() {
        text += &format!("ld.global.b64 %A{i}, [%in+{}];\n", 256 * (inputs.narrow.len() + i));
    }
    text += body;
    text += "\n";
    for i in 0..outs.0 {
        text += &format!("st.global.b32 [%out+{}], %d{i};\n", 256 * i);
    }
    for i in 0..outs.1 {
        text += &format!("st.global.b64 [%out+{}], %D{i};\n", 256 * (outs.0 + i));
    }
    text += "ret;\n}\n";
    let mut m = Memory::new();
    let narrow = inputs.narrow.iter().flatten().map(|&x| x as u64);
    let all: Vec<u8> = narrow.chain(inputs.wide.iter().flatten().copied()).flat_map(u64::to_le_bytes).collect();
    let (a, b) = (m.alloc_zeroed(all.len().max(8)), m.alloc_zeroed(256 * (outs.0 + outs.1).max(1)));
    m.write(a, &all).unwrap();
    run_with(&mut m, &text, [1, 1, 1], [32, 1, 1], &[U64(a), U64(b)], 0, o)?;
    let mut bytes = vec![0; 256 * (outs.0 + outs.1)];
    m.read(b, &mut bytes).unwrap();
    let wide = |i: usize| -> Wide {
        std::array::from_fn(|l| u64::from_le_bytes(bytes[256 * i + 8 * l..256 * i + 8 * l + 8].try_into().unwrap()))
    };
    Ok(Rows {
        narrow: (0..outs.0).map(|i| wide(i).map(|x| x as u32)).collect(),
        wide: (outs.0..outs.0 + outs.1).map(wide).collect(),
    })
}

/// One 32-bit row out of some in.
#[track_caller]
pub fn narrow(body: &str, inputs: &[Row]) -> Row {
    let rows = Rows { narrow: inputs.to_vec(), wide: vec![] };
    try_rows(body, &rows, (1, 0), &Options::default()).unwrap_or_else(|e| panic!("{body}\n{e}")).narrow[0]
}

/// One 64-bit row out of some in.
#[track_caller]
pub fn wide(body: &str, inputs: &[Wide]) -> Wide {
    let rows = Rows { narrow: vec![], wide: inputs.to_vec() };
    try_rows(body, &rows, (0, 1), &Options::default()).unwrap_or_else(|e| panic!("{body}\n{e}")).wide[0]
}

/// Integers that find mistakes, in an order that a number turns.
pub fn ints(turn: usize) -> Row {
    const V: [u32; 16] =
        [0, 1, 2, 3, 31, 32, 33, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];
    std::array::from_fn(|l| {
        let x = V[(l * (2 * turn + 1) + 5 * turn) % 16];
        if l < 16 { x } else { x.wrapping_mul(0x9e37_79b9).rotate_left(l as u32) }
    })
}

pub fn wides(turn: usize) -> Wide {
    let (a, b) = (ints(turn), ints(turn + 1));
    std::array::from_fn(|l| (a[l] as u64) << 32 | b[(l + turn) % 32] as u64)
}

/// Floats that find mistakes.
pub fn floats(turn: usize) -> Row {
    const V: [f32; 24] = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        1.5,
        2.5,
        -2.5,
        100.0,
        -100.0,
        0.1,
        -0.3,
        3.0e38,
        -3.0e38,
        1.0e-38,
        -1.0e-38,
        1.0e-40,
        -1.0e-45,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        16777216.0,
        0.333_333_34,
        65504.0,
    ];
    std::array::from_fn(|l| match l {
        0..24 => V[(l * (2 * turn + 1) + 7 * turn) % 24].to_bits(),
        // Numbers of any kind near one.
        _ => 0x3f00_0000 + (l as u32 * 0x0123_4567 + turn as u32 * 0x00ab_cdef) % 0x0100_0000,
    })
}

/// Equal as bits, or both NaN.
#[track_caller]
pub fn same_floats(got: &Row, want: impl Fn(usize) -> f32, what: &str) {
    for (l, &g) in got.iter().enumerate() {
        let (g, w) = (f32::from_bits(g), want(l));
        assert!(g.to_bits() == w.to_bits() || g.is_nan() && w.is_nan(), "{what}, lane {l}: {g:e} for {w:e}");
    }
}
