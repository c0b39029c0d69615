//! Pools of rows on a device, beside the states of the row outside of them. The host has no copy of them.
use super::device::{Address, Device, DeviceError};
use super::mirror::Mirror;
use crate::rows::{Layout, RowSnapshot};
use std::ops::Range;

/// The pools of a model: of each state with rows, as many as it was loaded with.
pub struct Pools {
    pub layout: Layout,
    addresses: Vec<Address>,
}

impl Pools {
    pub fn new(layout: Layout, addresses: impl Iterator<Item = Address>) -> Pools {
        let addresses = addresses.take(layout.parts.len()).collect();
        Pools { layout, addresses }
    }

    /// Zeros everywhere.
    pub fn start(&self, device: &dyn Device) -> Result<(), DeviceError> {
        let mut pools = self.addresses.iter().zip(&self.layout.parts);
        pools.try_for_each(|(at, p)| device.fill(*at, p.bytes * self.layout.rows, 0))
    }

    /// The address of row 0 of a state, by its slot.
    pub fn address(&self, state: usize) -> Option<Address> {
        self.layout.pool(state).map(|i| self.addresses[i])
    }

    /// Where part `i` of a row lies. The device has all of it, and what the host has of it is old once it is `written`.
    fn at(&self, states: &mut Mirror, i: usize, row: usize, written: bool) -> Result<Address, DeviceError> {
        let p = &self.layout.parts[i];
        if row < self.layout.rows {
            return Ok(self.addresses[i] + (row * p.bytes) as u64);
        }
        states.flush_slot(p.state)?;
        if written {
            states.outdate(p.state);
        }
        Ok(states.address(p.state))
    }

    /// Zeros where a row holds nothing: keys are read by tiles, in which what is not seen counts as zero times what is there,
    /// and that must be a number.
    fn clear(&self, device: &dyn Device, i: usize, at: Address, positions: usize) -> Result<(), DeviceError> {
        let p = &self.layout.parts[i];
        match p.bytes - p.used(positions) {
            0 => Ok(()),
            rest => device.fill(at + (p.bytes - rest) as u64, rest, 0),
        }
    }

    /// Copies what a row holds after so many positions.
    pub fn copy(
        &self,
        states: &mut Mirror,
        device: &dyn Device,
        (from, to): (usize, usize),
        positions: usize,
    ) -> Result<(), DeviceError> {
        if from == to {
            return Ok(());
        }
        for (i, p) in self.layout.parts.iter().enumerate() {
            let (from, to) = (self.at(states, i, from, false)?, self.at(states, i, to, true)?);
            if p.used(positions) > 0 {
                device.copy(from, to, p.used(positions))?;
            }
            self.clear(device, i, to, positions)?;
        }
        Ok(())
    }

    pub fn save(
        &self,
        states: &mut Mirror,
        device: &dyn Device,
        row: usize,
        positions: &Range<usize>,
    ) -> Result<(Vec<u8>, Vec<u8>), DeviceError> {
        let (mut own, mut kept) = (vec![0; self.layout.own(positions.end)], vec![0; self.layout.kept(positions)]);
        let (mut rest_own, mut rest_kept) = (own.as_mut_slice(), kept.as_mut_slice());
        for (i, p) in self.layout.parts.iter().enumerate() {
            let place = p.kept(positions);
            let (of_own, later_own) = rest_own.split_at_mut(p.own(positions.end));
            let (of_kept, later_kept) = rest_kept.split_at_mut(place.len());
            for (now, at) in [(of_own, 0), (of_kept, place.start)] {
                if !now.is_empty() {
                    device.download(self.at(states, i, row, false)? + at as u64, now)?;
                }
            }
            (rest_own, rest_kept) = (later_own, later_kept);
        }
        Ok((own, kept))
    }

    /// Puts a snapshot that was checked into a row.
    pub fn restore(
        &self,
        states: &mut Mirror,
        device: &dyn Device,
        row: usize,
        s: &RowSnapshot,
    ) -> Result<(), DeviceError> {
        let mut rest = s.own();
        for (i, p) in self.layout.parts.iter().enumerate() {
            let (now, later) = rest.split_at(p.own(s.positions()));
            let at = self.at(states, i, row, true)?;
            if !now.is_empty() {
                device.upload(at, now)?;
            }
            self.clear(device, i, at, s.positions())?;
            rest = later;
        }
        for kept in s.kept() {
            let mut rest = kept.data.as_slice();
            for (i, p) in self.layout.parts.iter().enumerate() {
                let place = p.kept(&kept.positions);
                let (now, later) = rest.split_at(place.len());
                if !now.is_empty() {
                    device.upload(self.at(states, i, row, true)? + place.start as u64, now)?;
                }
                rest = later;
            }
        }
        Ok(())
    }

    /// Puts a row where a sequence starts.
    pub fn reset(
        &self,
        states: &mut Mirror,
        params: &mut Mirror,
        device: &dyn Device,
        row: usize,
    ) -> Result<(), DeviceError> {
        for (i, p) in self.layout.parts.iter().enumerate() {
            let at = self.at(states, i, row, true)?;
            match p.init {
                None => device.fill(at, p.bytes, 0)?,
                Some(param) => {
                    params.flush_slot(param)?;
                    let (from, part) = (params.address(param), params.layout().slot_bytes(param).max(1));
                    for offset in (0..p.bytes).step_by(part) {
                        device.copy(from, at + offset as u64, part)?;
                    }
                }
            }
        }
        Ok(())
    }
}
