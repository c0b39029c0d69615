//! What a machine needs of a device that runs PTX: memory, kernels, and programs of launches. A GPU behind the driver is
//! one, an emulator another.
use std::fmt;
use std::path::PathBuf;

/// An address of device memory.
pub type Address = u64;

/// A kernel of a loaded module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kernel(pub u32);

/// A program that a device has taken in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prepared(pub u32);

/// An entry of a module, and what its launches may ask for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    pub name: String,
    pub operands: usize,
    pub threads: u32,
    /// Bytes of dynamic shared memory.
    pub shared: u32,
}

/// A launch: blocks of threads in a row, and an address for each operand of the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Launch<'a> {
    pub kernel: Kernel,
    pub grid: u32,
    pub block: u32,
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    pub operands: &'a [Address],
    /// Launches of the sequence, by number, that it waits for; all others may run at the same time.
    pub after: &'a [u32],
}

/// Launches in an order that is right, in flat arrays.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sequence {
    launches: Vec<(Kernel, [u32; 3], [usize; 2])>,
    operands: Vec<Address>,
    after: Vec<u32>,
}

impl Sequence {
    pub fn push(&mut self, l: Launch) {
        self.operands.extend_from_slice(l.operands);
        self.after.extend_from_slice(l.after);
        self.launches.push((l.kernel, [l.grid, l.block, l.shared], [self.operands.len(), self.after.len()]));
    }
    pub fn len(&self) -> usize {
        self.launches.len()
    }
    pub fn is_empty(&self) -> bool {
        self.launches.is_empty()
    }
    pub fn get(&self, i: usize) -> Launch<'_> {
        let [operand, wait] = if i == 0 { [0, 0] } else { self.launches[i - 1].2 };
        let (kernel, [grid, block, shared], [operands, waits]) = self.launches[i];
        let (operands, after) = (&self.operands[operand..operands], &self.after[wait..waits]);
        Launch { kernel, grid, block, shared, operands, after }
    }
    pub fn iter(&self) -> impl Iterator<Item = Launch<'_>> {
        (0..self.len()).map(|i| self.get(i))
    }
}

/// Memory of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryInfo {
    pub free: u64,
    pub total: u64,
}

/// A device. What it is told happens in order; what is read waits for what was told before. All of it may be called from
/// any thread.
pub trait Device: Send + Sync {
    /// What people call it, such as `NVIDIA H200 (cuda:0, sm_90)`.
    fn name(&self) -> String;
    /// Refuses code for an architecture that it cannot run, such as `sm_80`.
    fn accepts(&self, architecture: &str) -> Result<(), DeviceError>;
    fn memory(&self) -> Result<MemoryInfo, DeviceError>;
    /// Parts that run blocks side by side.
    fn multiprocessors(&self) -> u32;

    /// Memory for tensors of these bytes, each aligned to 64 at least, whose contents are not defined. It is one
    /// allocation, to be freed as one.
    fn alloc(&self, sizes: &[usize]) -> Result<Vec<Address>, DeviceError>;
    /// Frees what one call of [`Device::alloc`] gave.
    fn free(&self, addresses: &[Address]) -> Result<(), DeviceError>;
    /// Copies bytes to the device; they may change when it returns.
    fn upload(&self, to: Address, bytes: &[u8]) -> Result<(), DeviceError>;
    /// Copies bytes from the device, and waits for them.
    fn download(&self, from: Address, to: &mut [u8]) -> Result<(), DeviceError>;
    fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<(), DeviceError>;
    fn fill(&self, at: Address, bytes: usize, value: u8) -> Result<(), DeviceError>;
    /// Says that these contents mean nothing any more; a device that can tell refuses to read them before they are
    /// written.
    fn forget(&self, at: Address, bytes: usize) -> Result<(), DeviceError>;

    /// Loads a module of PTX and gives its entries in this order.
    fn load(&self, ptx: &str, entries: &[Entry]) -> Result<Vec<Kernel>, DeviceError>;
    fn launch(&self, launch: &Launch) -> Result<(), DeviceError>;
    /// Takes a program in, so that running it costs little.
    fn prepare(&self, program: &Sequence) -> Result<Prepared, DeviceError>;
    fn run(&self, program: Prepared) -> Result<(), DeviceError>;
    /// Runs a program and gives the nanoseconds of each launch, `times` of them.
    fn time(&self, program: Prepared, times: &mut [u64]) -> Result<(), DeviceError>;
    /// Waits until all that it was told is done.
    fn synchronize(&self) -> Result<(), DeviceError>;

    /// Takes a copy of these parts of memory as they are after all that it was told so far. What it is told later goes on
    /// while the copy is read.
    fn snapshot(&self, parts: &[(Address, usize)]) -> Result<Box<dyn Snapshot>, DeviceError>;
}

/// A copy of device memory at one moment.
pub trait Snapshot: Send {
    /// Reads part `i`, all of it.
    fn read(&mut self, i: usize, to: &mut [u8]) -> Result<(), DeviceError>;
}

impl fmt::Debug for dyn Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// Why a device cannot be had, or cannot do what it was told.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DeviceError {
    #[error(
        "there is no NVIDIA driver here: {what}; install one of version 525 or later, or run on the CPU with `--device cpu`"
    )]
    NoDriver { what: String },
    #[error(
        "the NVIDIA driver is too old: it has no function `{symbol}`; install version 525 or later, which has CUDA 12.0"
    )]
    OldDriver { symbol: &'static str },
    #[error("this lolm was built without {what}")]
    NotBuilt { what: &'static str },
    #[error("there is no device cuda:{asked}; found: {}", if found.is_empty() { "none".into() } else { found.join(", ") })]
    NoDevice { asked: usize, found: Vec<String> },
    #[error("{device} cannot run code for {asked}: {why}")]
    Architecture { device: String, asked: String, why: String },
    #[error(
        "not enough memory on {device}: {} were asked for, and {} of {} are free{what}; lower the batch \
         (`--training.batch`), the sequence (`--training.seq`) or the context (`--max_seq_len`), or choose another device",
        Bytes(*asked), Bytes(*free), Bytes(*total)
    )]
    Memory { device: String, asked: u64, free: u64, total: u64, what: String },
    #[error("the driver refuses the kernels: {what}{}", Log(log))]
    Module { what: String, log: String },
    #[error("the module has no kernel `{entry}`{why}")]
    Entry { entry: String, why: String },
    #[error("{call} failed: {what}")]
    Call { call: &'static str, what: String },
    #[error("kernel `{kernel}` failed: {what}")]
    Fault { kernel: String, what: String },
    #[error(
        "cannot keep compiled kernels at {path}: {what}; set XDG_CACHE_HOME to a folder that can be written",
        path = path.display()
    )]
    Cache { path: PathBuf, what: String },
}

struct Log<'a>(&'a str);

impl fmt::Display for Log<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.trim() {
            "" => Ok(()),
            log => write!(f, "; its compiler says:\n{log}"),
        }
    }
}

/// Bytes as people read them.
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut x, mut i) = (self.0 as f64, 0);
        while x >= 999.5 && i < 4 {
            (x, i) = (x / 1000.0, i + 1);
        }
        let digits = if i == 0 || x >= 99.95 { 0 } else { 1 };
        write!(f, "{x:.digits$} {}B", ["", "k", "M", "G", "T"][i])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_gives_back_what_was_put_in() {
        let mut s = Sequence::default();
        let a = Launch { kernel: Kernel(1), grid: 2, block: 32, shared: 0, operands: &[1, 2, 3], after: &[] };
        let b = Launch { kernel: Kernel(0), grid: 1, block: 64, shared: 128, operands: &[], after: &[0] };
        [a, b, a].into_iter().for_each(|l| s.push(l));
        assert_eq!(s.iter().collect::<Vec<_>>(), [a, b, a]);
    }

    #[test]
    fn missing_memory_is_said_in_one_sentence() {
        let e = DeviceError::Memory {
            device: "cuda:0".into(),
            asked: 85_600_000_000,
            free: 79_900_000_000,
            total: 85_000_000_000,
            what: " (parameters 1.2 GB)".into(),
        };
        assert_eq!(
            e.to_string(),
            "not enough memory on cuda:0: 85.6 GB were asked for, and 79.9 GB of 85.0 GB are free (parameters 1.2 GB); \
             lower the batch (`--training.batch`), the sequence (`--training.seq`) or the context (`--max_seq_len`), or \
             choose another device"
        );
    }
}
