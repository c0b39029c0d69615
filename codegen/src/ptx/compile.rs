//! From a scheduled kernel to the text of an entry, and from entries to a module.
use super::inst::{Entry, Op, Shared, Src};
use super::print;
use super::simt::{LANES, Share, Simt};
use crate::eval::{Fail, Gen, Gives};
use crate::schedule::Schedule;
use crate::stream::stream;
use lolm_ir::artifact::Block;
use lolm_ir::kernel::{KAxes, KAxis, Kernel};
use std::fmt;

/// A GPU that code is made for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Sm {
    Sm80,
    Sm90a,
}

impl Sm {
    pub const ALL: [Sm; 2] = [Sm::Sm80, Sm::Sm90a];

    pub fn name(self) -> &'static str {
        match self {
            Sm::Sm80 => "sm_80",
            Sm::Sm90a => "sm_90a",
        }
    }
    /// The lowest version of PTX that has what the code uses.
    fn version(self) -> &'static str {
        match self {
            Sm::Sm80 => "7.0",
            Sm::Sm90a => "8.0",
        }
    }
}

impl fmt::Display for Sm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One kernel's entry, and how it is launched.
#[derive(Clone, PartialEq, Debug)]
pub struct Code {
    pub text: String,
    pub block: Block,
    /// The units of the kernel, as a product.
    pub unit_dims: Vec<u32>,
}

/// Units that the whole machine should have before a block gets more warps: its processors.
const PROCESSORS: i64 = 132;
const MOST_WARPS: u64 = 8;
/// Shared memory of a block that needs no leave, and at most.
const STATIC_SHARED: u32 = 48 << 10;
const MOST_SHARED: u32 = 99 << 10;
/// Bytes of parameters that an entry may have, eight for each.
const MOST_PARAMS: usize = 4096 / 8;

/// What stands before the entries of a module.
pub fn preamble<'a>(sm: Sm, mut codes: impl Iterator<Item = &'a Code>) -> String {
    print::preamble(sm.version(), sm.name(), codes.any(|c| c.block.shared > 0))
}

/// Compiles a verified kernel under a schedule. The entry gets this name.
pub fn compile(k: &Kernel, s: &Schedule, name: &str) -> Result<Code, Fail> {
    if k.operands.len() > MOST_PARAMS {
        return Err(Fail::Limit(format!("{} operands, more than {MOST_PARAMS}", k.operands.len())));
    }
    let mut share = share(k, s)?;
    let mut simt = generate(k, s, share)?;
    let bytes = simt.shared_bytes;
    let fitting = fitting(bytes, share)?;
    if fitting < share.warps {
        share.warps = fitting;
        simt = generate(k, s, share)?;
    }
    let all = if share.team { bytes } else { bytes * share.warps as u32 };
    let dynamic = all > STATIC_SHARED;
    let (b, _) = simt.finish(dynamic);
    let threads = share.warps as u32 * LANES as u32;
    let entry = Entry {
        name: name.into(),
        params: k.operands.len() as u32,
        threads,
        blocks: 1,
        shared: if dynamic { Shared::Dynamic } else { Shared::Static(all) },
        registers: b.registers,
        body: [b.head, b.body].concat(),
    };
    let units = if share.team { 1 } else { (share.warps * share.of_warp) as u32 };
    let block = Block { threads, units, shared: if dynamic { all } else { 0 } };
    Ok(Code { text: print::entry(&entry, k), block, unit_dims: s.unit_dims(k) })
}

/// Warps of a block whose shared memory fits: fewer where each has its own, and it is much.
fn fitting(bytes: u32, share: Share) -> Result<i64, Fail> {
    if share.team && bytes <= MOST_SHARED {
        return Ok(share.warps);
    }
    let fitting = |most: u32| match (most / bytes.max(1)) as i64 {
        0 => None,
        n => Some(n.min(share.warps)),
    };
    match [STATIC_SHARED, MOST_SHARED].into_iter().find_map(fitting).filter(|_| !share.team) {
        Some(n) => Ok(1 << n.ilog2()),
        None => Err(Fail::Limit(format!("{bytes} bytes of shared memory, more than {MOST_SHARED}"))),
    }
}

fn generate(k: &Kernel, s: &Schedule, share: Share) -> Result<Simt, Fail> {
    let mut simt = Simt::new(k, share);
    stream(k, s, &mut simt)?;
    match simt.bug() {
        Some(what) => Err(Fail::Bug(what.clone())),
        None => Ok(simt),
    }
}

/// A unit for each warp; where the lanes run along the last unit axis, as many as there are lanes, and if it can be so
/// that each warp's units lie in one row.
fn share(k: &Kernel, s: &Schedule) -> Result<Share, Fail> {
    let dims = s.unit_dims(k);
    let units: i64 = dims.iter().map(|n| *n as i64).product();
    if units > i32::MAX as i64 - 4096 {
        return Err(Fail::Limit(format!("{units} units")));
    }
    if let Some(t) = s.team {
        return Ok(Share { units, warps: t.members as i64, of_warp: 1, whole: false, team: true });
    }
    let row = dims.last().map_or(1, |n| *n as i64);
    let (of_warp, whole) = match s.runs() {
        false => (1, false),
        true => {
            let parts = ceil(row, LANES as i64);
            if row % parts == 0 { (row / parts, true) } else { (LANES as i64, false) }
        }
    };
    let needed = ceil(ceil(units, of_warp), PROCESSORS).max(1);
    let warps = (needed as u64).next_power_of_two().min(MOST_WARPS);
    let warps = warps as i64;
    Ok(Share { units, warps, of_warp, whole, team: false })
}

/// What a generator of tiles says of the body that it made.
pub struct Body {
    pub threads: i64,
    /// Bytes of shared memory of a block.
    pub shared: i64,
    pub unit_dims: Vec<u32>,
    /// How the kernel's axes map to the machine, for people.
    pub schedule: String,
}

/// Where the shared memory of a block starts that has so many bytes of it.
pub fn shared_start(bytes: i64) -> Src {
    if bytes > STATIC_SHARED as i64 { Src::DynamicShared } else { Src::Shared }
}

/// An entry whose threads have coordinates of their own, a block for each unit.
pub fn tile_entry(k: &Kernel, name: &str, body: impl FnOnce(Gen<Simt>) -> Gives<Body>) -> Result<(String, Code), Fail> {
    tile_entry_with(k, name, Wishes { in_flight: &[], blocks: 1 }, body)
}

/// What a generator asks for besides.
pub struct Wishes<'a> {
    /// Several coordinates along these axes are in flight at once.
    pub in_flight: &'a [KAxis],
    /// A processor should have so many blocks at once.
    pub blocks: u32,
}

/// The same with these wishes.
pub fn tile_entry_with(
    k: &Kernel,
    name: &str,
    wishes: Wishes,
    body: impl FnOnce(Gen<Simt>) -> Gives<Body>,
) -> Result<(String, Code), Fail> {
    if k.operands.len() > MOST_PARAMS {
        return Err(Fail::Limit(format!("{} operands, more than {MOST_PARAMS}", k.operands.len())));
    }
    let schedule = Schedule { unroll: wishes.in_flight.to_vec(), ..Schedule::default() };
    let mut simt = Simt::threads(k);
    let mut g = Gen::new(k, &schedule, &mut simt);
    g.open_scope(KAxes::EMPTY);
    let made = body(g)?;
    if let Some(what) = simt.bug() {
        return Err(Fail::Bug(what.clone()));
    }
    simt.b.op(Op::Ret);
    let (b, _) = simt.finish(false);
    let (threads, bytes) = (made.threads as u32, made.shared as u32);
    let dynamic = bytes > STATIC_SHARED;
    let entry = Entry {
        name: name.into(),
        params: k.operands.len() as u32,
        threads,
        blocks: wishes.blocks,
        shared: if dynamic { Shared::Dynamic } else { Shared::Static(bytes) },
        registers: b.registers,
        body: [b.head, b.body].concat(),
    };
    let block = Block { threads, units: 1, shared: if dynamic { bytes } else { 0 } };
    Ok((made.schedule, Code { text: print::entry(&entry, k), block, unit_dims: made.unit_dims }))
}

fn ceil(n: i64, by: i64) -> i64 {
    (n + by - 1) / by
}
