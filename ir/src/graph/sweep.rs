//! Sweep: a graph without the operations that no output or write needs.
use super::{Graph, ValueId};
use std::borrow::Cow;

impl Graph {
    /// Which values an output or a write needs.
    pub fn live(&self) -> Vec<bool> {
        let mut live = vec![false; self.nodes.len()];
        for v in self.outputs.iter().map(|o| o.value).chain(self.writes.iter().map(|w| w.value)) {
            live[v.0 as usize] = true;
        }
        for (i, n) in self.nodes.iter().enumerate().rev() {
            if live[i] {
                n.args.iter().for_each(|a| live[a.0 as usize] = true);
            }
        }
        live
    }

    /// As [`Graph::swept`], for a graph that is kept: itself where nothing is dead.
    pub fn sweep(&self) -> Cow<'_, Graph> {
        match self.live().iter().all(|l| *l) {
            true => Cow::Borrowed(self),
            false => Cow::Owned(self.clone().swept()),
        }
    }

    /// The graph without dead operations; the others keep their order, leaves and scopes their ids.
    pub fn swept(mut self) -> Graph {
        let live = self.live();
        let mut kept = 0..;
        // Values that nothing reaches keep the place of value 0, which nobody reads.
        let place = |l: &bool| if *l { kept.next().map_or(ValueId(0), ValueId) } else { ValueId(0) };
        let new: Vec<ValueId> = live.iter().map(place).collect();
        let mut live = live.into_iter();
        self.nodes.retain_mut(|n| {
            n.args.iter_mut().for_each(|a| *a = new[a.0 as usize]);
            live.next().unwrap_or(true)
        });
        self.outputs.iter_mut().for_each(|o| o.value = new[o.value.0 as usize]);
        self.writes.iter_mut().for_each(|w| w.value = new[w.value.0 as usize]);
        self
    }
}
