//! Tensors as callers give and get them: a shape and its elements, row-major.
use lolm_ir::DType;
use lolm_ir::plan::Port;

/// A tensor outside of a model's memory.
#[derive(Clone, PartialEq, Debug)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub data: Data,
}

/// Elements. Booleans are bytes 0 and 1, bf16 are the upper 16 bits of an f32.
#[derive(Clone, PartialEq, Debug)]
pub enum Data {
    F32(Vec<f32>),
    I32(Vec<i32>),
    Bf16(Vec<u16>),
    Bool(Vec<u8>),
}

impl Tensor {
    pub fn f32(shape: &[usize], data: Vec<f32>) -> Tensor {
        Tensor { shape: shape.to_vec(), data: Data::F32(data) }
    }
    pub fn i32(shape: &[usize], data: Vec<i32>) -> Tensor {
        Tensor { shape: shape.to_vec(), data: Data::I32(data) }
    }
    pub fn dtype(&self) -> DType {
        match self.data {
            Data::F32(_) => DType::F32,
            Data::I32(_) => DType::I32,
            Data::Bf16(_) => DType::Bf16,
            Data::Bool(_) => DType::Bool,
        }
    }
    pub fn len(&self) -> usize {
        match &self.data {
            Data::F32(x) => x.len(),
            Data::I32(x) => x.len(),
            Data::Bf16(x) => x.len(),
            Data::Bool(x) => x.len(),
        }
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The elements, if they are f32.
    pub fn as_f32(&self) -> Option<&[f32]> {
        match &self.data {
            Data::F32(x) => Some(x),
            Data::I32(_) | Data::Bf16(_) | Data::Bool(_) => None,
        }
    }
    /// The elements, if they are i32.
    pub fn as_i32(&self) -> Option<&[i32]> {
        match &self.data {
            Data::I32(x) => Some(x),
            Data::F32(_) | Data::Bf16(_) | Data::Bool(_) => None,
        }
    }
    /// True if it is what the port takes, elements included.
    pub fn fits(&self, port: &Port) -> bool {
        self.dtype() == port.dtype && self.shape == port.shape && self.len() == port.shape.iter().product::<usize>()
    }
}
