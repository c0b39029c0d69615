//! What a scheduler knows of a machine: one row for each.

/// Figures of a machine.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Machine {
    /// Lanes of a vector.
    pub lanes: u32,
    /// Lanes are threads of their own, which can be masked and are wasted where nothing is left for them.
    pub threads: bool,
    /// Work below which a unit is not worth its own, and above which there should be more of them, in nanoseconds of one
    /// CPU core.
    pub least_ns: f64,
    pub most_ns: f64,
    /// Units that use the whole machine.
    pub enough_units: f64,
    /// The shortest axis that gets the lanes, and the shortest that is folded along them.
    pub shortest_lanes: u32,
    pub shortest_fold: u32,
    /// The smallest part of the lane axis that is a unit.
    pub lane_tile: u32,
    /// Elements of an axis that is folded along the lanes, or along a loop, that a member of a team has at least; and the
    /// most members.
    pub member_lanes: u32,
    pub member_loop: u32,
    pub members: u32,
    /// Elements of 4 bytes in one cache line.
    pub cache_line: i64,
    /// The longest axis that is unrolled, and how many registers a value may take. On the CPU longer ones are faster as
    /// loops, even for the states of a scan: arrays in the first cache cost less than code that leaves it.
    pub short: u32,
    pub short_product: u32,
    /// The longest axis of a scan's states that is.
    pub short_state: u32,
}

/// A core with vectors of 128 bits.
pub const CPU: Machine = Machine {
    lanes: 4,
    threads: false,
    least_ns: 4_000.0,
    most_ns: 64_000.0,
    enough_units: 64.0,
    shortest_lanes: 4,
    shortest_fold: 4,
    lane_tile: 64,
    member_lanes: 0,
    member_loop: 0,
    members: 1,
    cache_line: 16,
    short: 4,
    short_product: 8,
    short_state: 4,
};

/// Warps on 132 processors with eight or more each.
pub const GPU: Machine = Machine {
    lanes: 32,
    threads: true,
    least_ns: 60.0,
    most_ns: 2_000.0,
    enough_units: 2112.0,
    shortest_lanes: 1,
    shortest_fold: 32,
    lane_tile: 32,
    member_lanes: 4096,
    member_loop: 128,
    members: 16,
    cache_line: 16,
    short: 4,
    short_product: 32,
    short_state: 32,
};
