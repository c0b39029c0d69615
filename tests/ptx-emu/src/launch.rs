//! A launch: blocks in a few places at once, their warps in an order that the seed gives.
use crate::counts::{Counts, LineCounts};
use crate::exec::{Barriers, Cx, Machine, Shared, Stop, open_barriers, run};
use crate::fault::{Fault, FaultKind, Place, Slip};
use crate::kernel::{Kernel, SHARED_BASE, Special, Wide};
use crate::memory::Memory;
use crate::order::{BlockOrder, Locations};
use crate::random::Random;
use crate::shadow::SEGMENTS;
use crate::warp::{Wait, Warp};

/// One launch of a kernel.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    pub kernel: &'a Kernel,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    /// Bytes of shared memory beyond what the text declares.
    pub dynamic_shared: u32,
    /// The parameters, laid out as `Kernel::params` says.
    pub params: &'a [u8],
}

/// How a launch is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The order of blocks and warps, and of lanes in atomics.
    pub seed: u64,
    /// Whether accesses that nothing orders are a fault.
    pub races: bool,
    /// Whether results of approximate instructions are moved inside their documented error.
    pub perturb: bool,
    /// How many warp instructions a launch may take.
    pub max_steps: u64,
    /// How many blocks are on their way at once; a block that waits for another needs it to be one of them.
    pub resident: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options { seed: 0, races: true, perturb: false, max_steps: 1 << 34, resident: 2 }
    }
}

/// The most shared memory that a block may have on any chip (sm_90: 227 KiB).
const MOST_SHARED: usize = 227 * 1024;

/// Where a block runs.
struct Seat {
    block: [u32; 3],
    shared: Shared,
    barriers: Barriers,
    order: BlockOrder,
    warps: Vec<Warp>,
    busy: bool,
}

/// Runs a kernel to its end, or to its first fault.
pub fn launch(memory: &mut Memory, launch: &Launch<'_>, options: &Options) -> Result<Counts, Fault> {
    let kernel = launch.kernel;
    check(launch)?;
    let variables = kernel.common.globals.iter().enumerate();
    let globals: Vec<u64> = variables.map(|(i, v)| memory.variable(kernel.common.identity, i as u32, v)).collect();
    memory.renew_segments();
    let locations = Locations::new(memory.segments);
    let mut machine = Machine {
        kernel,
        memory,
        params: launch.params,
        options,
        counts: vec![LineCounts::default(); kernel.code.len()],
        random: Random::new(options.seed),
        steps: 0,
        locations,
    };
    let blocks = launch.grid.iter().map(|&g| g as u64).product::<u64>();
    let warps = (launch.block.iter().product::<u32>() as usize).div_ceil(32);
    let places = (options.resident.max(1) as u64).min(blocks) as usize;
    let mut places: Vec<Seat> = (0..places)
        .map(|_| Seat {
            block: [0; 3],
            shared: Shared::default(),
            barriers: Barriers::default(),
            order: BlockOrder::default(),
            warps: (0..warps).map(|_| template(launch, &globals)).collect(),
            busy: false,
        })
        .collect();
    let mut order = Order::new(blocks, &mut machine.random);
    let (mut idle, mut started) = (0, 0);
    loop {
        for p in places.iter_mut().filter(|p| !p.busy) {
            let Some(b) = order.next() else { break };
            started += 1;
            start(p, launch, b);
            p.order.restart(started, &machine.locations);
        }
        let busy = places.iter().filter(|p| p.busy).count();
        if busy == 0 {
            return Ok(Counts::of(&kernel.code, &machine.counts));
        }
        let nth = machine.random.below(busy);
        let Some(p) = places.iter_mut().filter(|p| p.busy).nth(nth) else { continue };
        match turn(&mut machine, p)? {
            true => idle = 0,
            false => idle += 1,
        }
        // A block in which nobody can go on never can again: nothing but its own warps opens its barriers.
        if idle > 0 && !p.warps.iter().any(Warp::runnable) {
            return Err(deadlock(kernel, p));
        }
        machine.memory.segments = machine.locations.next();
        if machine.memory.segments > SEGMENTS - (1 << 20) {
            let what = "the race detector has no more segments for this launch".to_string();
            let advice = "make the launch smaller, or switch Options::races off";
            return Err(place(&machine, p, 0, *Slip::new(FaultKind::TooLong, None, what, advice)));
        }
        if machine.steps > options.max_steps {
            let what = format!("{} warp instructions, and the launch is not at its end", machine.steps);
            let advice = "look for a loop that waits for what never comes, or raise Options::max_steps";
            return Err(place(&machine, p, 0, *Slip::new(FaultKind::TooLong, None, what, advice)));
        }
    }
}

/// Lets some warp of a block run for a while. False if none can.
fn turn(machine: &mut Machine<'_>, p: &mut Seat) -> Result<bool, Fault> {
    let ready: u32 = p.warps.iter().filter(|w| w.runnable()).fold(0, |m, w| m | 1 << w.index);
    if ready == 0 {
        return Ok(false);
    }
    let nth = machine.random.below(ready.count_ones() as usize);
    let index = crate::lanes::lanes(ready).nth(nth).unwrap_or(0);
    // Mostly long turns, which are quick, and now and then a few steps, which find more orders.
    let budget = match machine.random.below(4) {
        0 => 1 + machine.random.below(16),
        1 => 64,
        _ => 4096,
    };
    let mut cx = Cx { machine, shared: &mut p.shared, barriers: &mut p.barriers, order: &mut p.order };
    match run(&mut cx, &mut p.warps[index], budget as u32) {
        Ok(Stop::Budget) => {}
        Ok(Stop::Barrier) => {
            while open_barriers(&mut p.barriers, &mut p.warps, &mut p.order, &machine.locations) {}
            p.busy = !p.warps.iter().all(Warp::done);
        }
        Err(slip) => return Err(place(machine, p, index, *slip)),
    }
    Ok(true)
}

/// Puts a block into a place.
fn start(p: &mut Seat, launch: &Launch<'_>, linear: u64) {
    let [x, y, z] = launch.grid.map(u64::from);
    p.block = [(linear % x) as u32, (linear / x % y) as u32, (linear / x / y % z) as u32];
    p.busy = true;
    p.shared.restart(launch.kernel.dynamic_start() + launch.dynamic_shared as usize);
    p.barriers.restart();
    let threads = launch.block.iter().product::<u32>();
    for (i, w) in p.warps.iter_mut().enumerate() {
        let here = (threads - 32 * i as u32).min(32);
        w.restart(i as u32, !0 >> (32 - here));
        specials(w, launch, p.block);
    }
}

/// A warp with its constants; they survive from block to block.
fn template(launch: &Launch<'_>, globals: &[u64]) -> Warp {
    let k = launch.kernel;
    let mut w = Warp::new(k);
    for &(slot, v) in &k.narrow_constants {
        w.narrow[slot as usize] = [v; 32];
    }
    for &(slot, v) in &k.wide_constants {
        let v = match v {
            Wide::Bits(b) => b,
            Wide::Global { variable, offset } => globals[variable as usize].wrapping_add(offset),
            Wide::Dynamic { offset } => (dynamic_address(k) as u64).wrapping_add(offset),
        };
        w.wide[slot as usize] = [v; 32];
    }
    w
}

fn dynamic_address(k: &Kernel) -> u32 {
    SHARED_BASE + k.dynamic_start() as u32
}

/// Marks the constants as set, and fills the special registers.
fn specials(w: &mut Warp, launch: &Launch<'_>, block: [u32; 3]) {
    let k = launch.kernel;
    k.narrow_constants.iter().for_each(|c| w.set[0][c.0 as usize] = !0);
    k.wide_constants.iter().for_each(|c| w.set[1][c.0 as usize] = !0);
    let [bx, by, _] = launch.block;
    let threads = launch.block.iter().product::<u32>();
    let first = 32 * w.index;
    let index = w.index;
    for &(slot, special) in &k.specials {
        let of = |l: u32| match special {
            Special::Tid(0) => (first + l) % bx,
            Special::Tid(1) => (first + l) / bx % by,
            Special::Tid(_) => (first + l) / bx / by,
            Special::Ntid(a) => launch.block[a as usize],
            Special::Ctaid(a) => block[a as usize],
            Special::Nctaid(a) => launch.grid[a as usize],
            Special::LaneId => l,
            Special::WarpId => index,
            Special::NwarpId => threads.div_ceil(32),
            Special::SmId => 0,
            Special::NsmId => 1,
            Special::MaskEq => 1 << l,
            Special::MaskLt => (1 << l) - 1,
            Special::MaskLe => !0 >> (31 - l),
            Special::MaskGt => !(!0 >> (31 - l)),
            Special::MaskGe => !((1 << l) - 1),
            Special::DynamicShared => launch.dynamic_shared,
            Special::TotalShared => k.dynamic_start() as u32 + launch.dynamic_shared,
            Special::DynamicAddress(offset) => dynamic_address(k).wrapping_add(offset),
        };
        w.preset(slot, std::array::from_fn(|l| of(l as u32)));
    }
}

/// The blocks in an order that the seed gives: a walk with a stride that meets each once.
struct Order {
    blocks: u64,
    at: u64,
    stride: u64,
    left: u64,
}

impl Order {
    fn new(blocks: u64, random: &mut Random) -> Order {
        let gcd = |mut a: u64, mut b: u64| {
            while b != 0 {
                (a, b) = (b, a % b);
            }
            a
        };
        let mut stride = 1 + random.next() % blocks;
        while gcd(stride, blocks) != 1 {
            stride += 1;
        }
        Order { blocks, at: random.next() % blocks, stride: stride % blocks, left: blocks }
    }

    fn next(&mut self) -> Option<u64> {
        self.left = self.left.checked_sub(1)?;
        let b = self.at;
        self.at = (self.at + self.stride) % self.blocks;
        Some(b)
    }
}

fn check(l: &Launch<'_>) -> Result<(), Fault> {
    let k = l.kernel;
    let fault = |what: String, advice: &str| Err(Fault::new(FaultKind::Launch, format!("{}: {what}", k.name), advice));
    let threads = l.block.iter().fold(1u64, |a, &b| a * b as u64);
    if threads == 0 || threads > 1024 {
        return fault(format!("{threads} threads in a block"), "a block has 1 to 1024");
    }
    if l.grid.contains(&0) || l.grid[1] > 65535 || l.grid[2] > 65535 || l.grid[0] > i32::MAX as u32 {
        return fault(format!("a grid of {:?}", l.grid), "no extent is 0; y and z have at most 65535, x 2^31 - 1");
    }
    if k.max_threads.is_some_and(|m| threads > m as u64) {
        let most = k.max_threads.unwrap_or(0);
        return fault(format!("{threads} threads, and its text allows {most}"), "launch fewer, or raise .maxntid");
    }
    if k.required.is_some_and(|r| r != l.block) {
        return fault(
            format!("a block of {:?}, and its text requires {:?}", l.block, k.required),
            "launch what it requires",
        );
    }
    if l.params.len() != k.param_bytes {
        let what = format!("{} bytes of parameters are given, and it takes {}", l.params.len(), k.param_bytes);
        return fault(what, "lay them out as Kernel::params says");
    }
    let shared = k.dynamic_start() + l.dynamic_shared as usize;
    if shared > MOST_SHARED {
        return fault(format!("{shared} bytes of shared memory"), "a block has at most 227 KiB");
    }
    if l.dynamic_shared > 0 && !k.has_dynamic_shared() {
        return fault("dynamic shared memory is given, and its text declares none".into(), "give none");
    }
    Ok(())
}

/// Adds the place to what went wrong.
fn place(machine: &Machine<'_>, p: &Seat, warp: usize, slip: Slip) -> Fault {
    let k = machine.kernel;
    let line_of = |pc: u32| k.code.get(pc as usize).map_or(0, |i| i.line);
    let line = line_of(p.warps[warp].pc);
    let other = slip.other.map(|pc| (line_of(pc), k.text_of(line_of(pc))));
    Fault {
        kind: slip.kind,
        what: with_names(k, &slip.what),
        advice: slip.advice.to_string(),
        place: Some(Box::new(Place {
            kernel: k.name.clone(),
            line,
            text: k.text_of(line),
            block: p.block,
            warp: warp as u32,
            lane: slip.lane,
        })),
        other,
    }
}

/// Puts the names of registers where `#file:slot#` stands.
fn with_names(k: &Kernel, what: &str) -> String {
    let mut parts = what.split('#');
    let mut out = parts.next().unwrap_or("").to_string();
    while let Some(key) = parts.next() {
        let slot = key.split_once(':').and_then(|(f, s)| Some((f.parse::<usize>().ok()?, s.parse::<usize>().ok()?)));
        match slot.and_then(|(f, s)| k.names.get(f)?.get(s)) {
            Some(name) => out.push_str(name),
            None => out.push_str(key),
        }
        out.push_str(parts.next().unwrap_or(""));
    }
    out
}

/// Nobody can go on: says where everybody stands.
fn deadlock(k: &Kernel, p: &Seat) -> Fault {
    let mut stands = vec![];
    for w in &p.warps {
        for g in &w.groups {
            let line = k.code.get(g.pc as usize).map_or(0, |i| i.line);
            let why = match g.wait {
                Some(Wait::Barrier(id)) => format!("at barrier {id}"),
                Some(Wait::Lanes(mask)) => format!("for the lanes of {mask:#010x}"),
                None => "for nothing".to_string(),
            };
            stands.push(format!(
                "warp {} lanes {:#010x} wait {why}, line {line}: {}",
                w.index,
                g.mask,
                k.text_of(line)
            ));
        }
    }
    let first = p.warps.iter().flat_map(|w| w.groups.iter().map(move |g| (w.index, *g))).next();
    let (warp, line) = first.map_or((0, 0), |(w, g)| (w, k.code.get(g.pc as usize).map_or(0, |i| i.line)));
    let what = format!("nobody can go on:\n    {}", stands.join("\n    "));
    let advice = "all lanes that an exchange or a barrier names have to come to it";
    let mut fault = Fault::new(FaultKind::Deadlock, what, advice);
    fault.place =
        Some(Box::new(Place { kernel: k.name.clone(), line, text: k.text_of(line), block: p.block, warp, lane: None }));
    fault
}
