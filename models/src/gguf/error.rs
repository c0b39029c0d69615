//! What can be wrong with a GGUF file: what, at which byte, and what was expected.

/// Why a GGUF file cannot be read. `at` counts bytes from the start of the file.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum GgufError {
    #[error("this is not a GGUF file: it begins with {found:?}, expected \"GGUF\"")]
    Magic { found: String },
    #[error("GGUF version {found} cannot be read; expected 2 or 3")]
    Version { found: u32 },
    #[error("this GGUF file is big-endian (its version reads {found:#x}); expected a little-endian one")]
    BigEndian { found: u32 },
    #[error("the file ends at byte {len}, within {what}, which begins at byte {at} and has {need} bytes")]
    Cut { what: String, at: usize, need: u64, len: usize },
    #[error("{what} at byte {at} says {found}, expected {expected}")]
    Wrong { what: String, at: usize, found: String, expected: String },
    #[error("the {what} `{name}` stands twice in the file")]
    Twice { what: &'static str, name: String },
    #[error("the file has no key `{key}`, expected {expected}")]
    NoKey { key: String, expected: &'static str },
    #[error("key `{key}` is {found}, expected {expected}")]
    Key { key: String, found: String, expected: String },
    #[error("the file has no tensor `{name}`")]
    NoTensor { name: String },
    #[error("tensor `{name}` is of type {kind}, which is not read; these are: {}", known.join(", "))]
    TensorType { name: String, kind: &'static str, known: Vec<&'static str> },
    #[error(
        "tensor `{name}` begins at {found} in the data, expected {expected}: tensors follow each other, each aligned"
    )]
    Offset { name: String, found: u64, expected: u64 },
    #[error("{extra} bytes follow the last tensor, expected at most {padding} of padding")]
    Trailing { extra: u64, padding: u64 },
    #[error("key `{key}` = {value} is not known, and may change what the model computes")]
    UnknownKey { key: String, value: String },
    #[error("tensor `{name}` has the shape {found:?}, expected {expected:?}")]
    Shape { name: String, found: Vec<usize>, expected: Vec<usize> },
    #[error("tensor `{name}` has no place in a model of the llama architecture")]
    Extra { name: String },
    #[error("the {len} factors of `rope_freqs.weight`, the last of them {last}, are not those of a Llama 3 scaling")]
    RopeFactors { len: usize, last: f32 },
}
