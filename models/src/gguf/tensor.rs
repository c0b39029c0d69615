//! Tensors: their types, where their bytes lie, and what these bytes mean.
//!
//! A quantised row is cut into blocks; a block holds integers of a few bits and the scales that make numbers of them:
//!
//! | type | elements | bytes | an element is |
//! |---|---|---|---|
//! | Q8_0 | 32 | f16 d, 32 i8 q | d · q |
//! | Q4_0 | 32 | f16 d, 16 · two u4 q | d · (q - 8) |
//! | Q4_1 | 32 | f16 d, f16 m, 16 · two u4 q | d · q + m |
//! | Q4_K | 256 | f16 d, f16 m, 8 pairs of u6 (s, o), 128 · two u4 q | (d · s) · q - m · o |
//! | Q6_K | 256 | 128 · two low u4, 64 · four high u2, 16 i8 s, f16 d | (d · s) · (q - 32) |
use super::GgufError;
use half::{bf16, f16};

/// Elements of a block of the K types.
const K: usize = 256;

/// The types that are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TensorType {
    F32,
    F16,
    Bf16,
    Q8_0,
    Q4_0,
    Q4_1,
    Q4K,
    Q6K,
}

/// The types that are known by name only, by the number that the file gives them.
const REFUSED: [(u32, &str); 31] = [
    (6, "Q5_0"),
    (7, "Q5_1"),
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (13, "Q5_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (31, "Q4_0_4_4"),
    (32, "Q4_0_4_8"),
    (33, "Q4_0_8_8"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (36, "IQ4_NL_4_4"),
    (39, "MXFP4"),
    (40, "NVFP4"),
    (41, "Q1_0"),
    (42, "Q2_0"),
];

impl TensorType {
    pub const ALL: [TensorType; 8] = {
        use TensorType::*;
        [F32, F16, Bf16, Q8_0, Q4_0, Q4_1, Q4K, Q6K]
    };

    /// The number that the file gives the type.
    pub fn number(self) -> u32 {
        match self {
            TensorType::F32 => 0,
            TensorType::F16 => 1,
            TensorType::Q4_0 => 2,
            TensorType::Q4_1 => 3,
            TensorType::Q8_0 => 8,
            TensorType::Q4K => 12,
            TensorType::Q6K => 14,
            TensorType::Bf16 => 30,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            TensorType::F32 => "F32",
            TensorType::F16 => "F16",
            TensorType::Bf16 => "BF16",
            TensorType::Q8_0 => "Q8_0",
            TensorType::Q4_0 => "Q4_0",
            TensorType::Q4_1 => "Q4_1",
            TensorType::Q4K => "Q4_K",
            TensorType::Q6K => "Q6_K",
        }
    }

    /// Elements and bytes of a block.
    pub fn block(self) -> (usize, usize) {
        match self {
            TensorType::F32 => (1, 4),
            TensorType::F16 | TensorType::Bf16 => (1, 2),
            TensorType::Q8_0 => (32, 34),
            TensorType::Q4_0 => (32, 18),
            TensorType::Q4_1 => (32, 20),
            TensorType::Q4K => (K, 144),
            TensorType::Q6K => (K, 210),
        }
    }

    /// The type of this number, of the tensor `name` at byte `at`.
    pub fn of(number: u32, name: &str, at: usize) -> Result<TensorType, GgufError> {
        if let Some(t) = TensorType::ALL.into_iter().find(|t| t.number() == number) {
            return Ok(t);
        }
        let known = || TensorType::ALL.map(TensorType::name).to_vec();
        match REFUSED.iter().find(|r| r.0 == number) {
            Some((_, kind)) => Err(GgufError::TensorType { name: name.into(), kind, known: known() }),
            None => Err(GgufError::Wrong {
                what: format!("the type of tensor `{name}`"),
                at,
                found: number.to_string(),
                expected: format!("that of {}", known().join(", ")),
            }),
        }
    }
}

/// A tensor whose place in the file was checked.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct TensorInfo<'a> {
    pub name: &'a str,
    pub kind: TensorType,
    /// As the file has them: the row length comes first. Unused ones are 1.
    pub dims: [u64; 4],
    pub(super) n_dims: u8,
    /// Its bytes in the file.
    pub data: &'a [u8],
}

impl TensorInfo<'_> {
    /// The shape with the row length last, as checkpoints elsewhere have it.
    pub fn shape(&self) -> Vec<usize> {
        self.dims[..self.n_dims as usize].iter().rev().map(|d| *d as usize).collect()
    }
    pub fn row_len(&self) -> usize {
        self.dims[0] as usize
    }
    pub fn rows(&self) -> usize {
        self.dims[1..].iter().product::<u64>() as usize
    }
    pub fn elements(&self) -> usize {
        self.row_len() * self.rows()
    }

    /// All elements, in the order of [`TensorInfo::shape`].
    pub fn dequantise(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.elements()];
        decode(self.kind, self.data, &mut out);
        out
    }

    /// The elements of one row; `to` has the length of a row.
    pub fn dequantise_row(&self, row: usize, to: &mut [f32]) {
        let bytes = self.data.len() / self.rows();
        decode(self.kind, &self.data[row * bytes..(row + 1) * bytes], to);
    }
}

/// Decodes whole blocks.
fn decode(kind: TensorType, bytes: &[u8], to: &mut [f32]) {
    let (n, size) = kind.block();
    let decode: fn(&[u8], &mut [f32]) = match kind {
        TensorType::F32 => |b, to| to[0] = f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
        TensorType::F16 => |b, to| to[0] = scale(b),
        TensorType::Bf16 => |b, to| to[0] = bf16::from_le_bytes([b[0], b[1]]).to_f32(),
        TensorType::Q8_0 => q8_0,
        TensorType::Q4_0 => q4_0,
        TensorType::Q4_1 => q4_1,
        TensorType::Q4K => q4_k,
        TensorType::Q6K => q6_k,
    };
    bytes.chunks_exact(size).zip(to.chunks_exact_mut(n)).for_each(|(b, to)| decode(b, to));
}

/// The f16 that stands first.
fn scale(b: &[u8]) -> f32 {
    f16::from_le_bytes([b[0], b[1]]).to_f32()
}

fn q8_0(b: &[u8], to: &mut [f32]) {
    let d = scale(b);
    to.iter_mut().zip(&b[2..]).for_each(|(to, q)| *to = d * (*q as i8) as f32);
}

/// The low halves of the bytes are the first elements, the high halves the others.
fn halves(bytes: &[u8], to: &mut [f32], value: impl Fn(u8) -> f32) {
    let (low, high) = to.split_at_mut(bytes.len());
    low.iter_mut().zip(bytes).for_each(|(to, q)| *to = value(q & 15));
    high.iter_mut().zip(bytes).for_each(|(to, q)| *to = value(q >> 4));
}

fn q4_0(b: &[u8], to: &mut [f32]) {
    let d = scale(b);
    halves(&b[2..], to, |q| d * (q as i32 - 8) as f32);
}

fn q4_1(b: &[u8], to: &mut [f32]) {
    let (d, m) = (scale(b), scale(&b[2..]));
    halves(&b[4..], to, |q| d * q as f32 + m);
}

/// Scale and offset of the `j`-th group of 32: the first four pairs have six bits of a byte each, the other four have
/// their low four bits in a byte of their own and their high two in the spare bits of the first.
fn pair(s: &[u8], j: usize) -> (f32, f32) {
    let (scale, offset) = match j {
        0..4 => (s[j] & 63, s[j + 4] & 63),
        _ => ((s[j + 4] & 15) | ((s[j - 4] >> 6) << 4), (s[j + 4] >> 4) | ((s[j] >> 6) << 4)),
    };
    (scale as f32, offset as f32)
}

fn q4_k(b: &[u8], to: &mut [f32]) {
    let (d, m) = (scale(b), scale(&b[2..]));
    let (scales, quants) = b[4..].split_at(12);
    // 32 bytes hold two groups: one in their low halves, one in their high ones.
    for (j, (bytes, to)) in quants.chunks_exact(32).zip(to.chunks_exact_mut(64)).enumerate() {
        for (half, to) in to.chunks_exact_mut(32).enumerate() {
            let (s, o) = pair(scales, 2 * j + half);
            let (s, o) = (d * s, m * o);
            to.iter_mut().zip(bytes).for_each(|(to, q)| *to = s * ((q >> (4 * half)) & 15) as f32 - o);
        }
    }
}

fn q6_k(b: &[u8], to: &mut [f32]) {
    let (low, rest) = b.split_at(128);
    let (high, rest) = rest.split_at(64);
    let (scales, d) = rest.split_at(16);
    let d = scale(d);
    // Of each 128 elements, 64 bytes hold the low four bits and 32 bytes the high two.
    for (i, to) in to.iter_mut().enumerate() {
        let (half, quarter, l) = (i / 128, i % 128 / 32, i % 32);
        let low = low[64 * half + 32 * (quarter % 2) + l] >> (4 * (quarter / 2)) & 15;
        let high = high[32 * half + l] >> (2 * quarter) & 3;
        let q = (low | high << 4) as i32 - 32;
        *to = d * (scales[i / 16] as i8) as f32 * q as f32;
    }
}
