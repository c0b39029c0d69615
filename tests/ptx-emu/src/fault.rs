//! What can go wrong on the device, said with the line of the kernel and what to look for.
use std::fmt;

/// Where in a launch something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub kernel: String,
    /// The line in the PTX text, counted from one, and what it says.
    pub line: u32,
    pub text: String,
    pub block: [u32; 3],
    pub warp: u32,
    /// The lane that is at fault, where it is one.
    pub lane: Option<u32>,
}

/// One kind of fault; tests match on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    OutOfBounds,
    Misaligned,
    /// Bytes that nobody has written.
    UninitialisedMemory,
    /// A register that was not set on the way here.
    UninitialisedRegister,
    /// Bytes that a copy still under way will write.
    InFlight,
    /// Two accesses that nothing orders, at least one of them a write.
    Race,
    /// A barrier that some lanes of the warp do not reach.
    DivergentBarrier,
    /// A lane that does not take part in an exchange.
    AbsentLane,
    /// Nobody can go on.
    Deadlock,
    DivisionByZero,
    Trap,
    /// More steps than the options allow.
    TooLong,
    /// The launch itself is wrong.
    Launch,
    /// A block of memory that is not allocated, on the side of the host.
    Allocation,
}

/// A fault: the launch stops here, and memory is left as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub kind: FaultKind,
    pub what: String,
    pub advice: String,
    pub place: Option<Box<Place>>,
    /// The other access of a race: its line and what it says.
    pub other: Option<(u32, String)>,
}

impl Fault {
    pub fn new(kind: FaultKind, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Fault { kind, what: what.into(), advice: advice.into(), place: None, other: None }
    }

    /// The line of the text where it happened, if it happened in a kernel.
    pub fn line(&self) -> Option<u32> {
        self.place.as_ref().map(|p| p.line)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.what)?;
        if let Some(p) = &self.place {
            let [x, y, z] = p.block;
            write!(f, "\n  at line {} of {}: {}", p.line, p.kernel, p.text)?;
            write!(f, "\n  in block ({x}, {y}, {z}), warp {}", p.warp)?;
            if let Some(lane) = p.lane {
                write!(f, ", lane {lane}")?;
            }
        }
        if let Some((line, text)) = &self.other {
            write!(f, "\n  against line {line}: {text}")?;
        }
        write!(f, "\n  {}", self.advice)
    }
}

impl std::error::Error for Fault {}

/// What a lane did, before the place is known: small, so that results stay cheap.
#[derive(Debug)]
pub struct Slip {
    pub kind: FaultKind,
    pub lane: Option<u32>,
    pub what: String,
    pub advice: &'static str,
    /// The program counter of the other access of a race.
    pub other: Option<u32>,
}

impl Slip {
    pub fn new(kind: FaultKind, lane: Option<u32>, what: String, advice: &'static str) -> Box<Slip> {
        Box::new(Slip { kind, lane, what, advice, other: None })
    }
}

pub type Done<T = ()> = Result<T, Box<Slip>>;
