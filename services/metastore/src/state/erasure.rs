//! The objects that deletions concern: live ones that must be rewritten, and dead ones that must be swept.
//!
//! Does not own: deletions by themselves (`deletions`), when they are finished (`deletion_lifecycle`).

use catalog::rows::DeletionState;
use query::Deletion;
use storage::Key;

use super::State;
use crate::deletions::touches;
use crate::live::{LiveObject, ObjectKind};

impl State {
    /// Live objects that may hold rows that the deletion erases.
    pub(crate) fn touched_by<'a>(
        &'a self,
        deletion: &'a Deletion,
    ) -> impl Iterator<Item = (&'a Key, &'a LiveObject)> {
        self.live.iter().filter(|(key, live)| self.is_touched(key, live, deletion))
    }

    fn is_touched(&self, key: &Key, live: &LiveObject, deletion: &Deletion) -> bool {
        if live.floor >= deletion.number {
            return false;
        }
        let window_times = match &live.kind {
            ObjectKind::Block { tenant, .. } if *tenant != deletion.tenant => return false,
            ObjectKind::Block { window, .. } => Some(window.times()),
            ObjectKind::Segment { .. } => None,
        };
        let datasets = self.datasets_of(key, live);
        if datasets.iter().any(|dataset| touches(deletion, dataset)) {
            return true;
        }
        // Other datasets of the object were dropped when their retention ended, or were never known.
        let is_unknown = self.quarantined.contains_key(key) && datasets.is_empty();
        let holds_more = live.live_rows < live.rows || is_unknown;
        holds_more && window_times.is_none_or(|times| deletion.range.overlaps(times))
    }

    /// Whether a block holds rows that must leave the bucket: it is rewritten into one of the same window, or into
    /// none.
    ///
    /// Segments need no rewrite: they are merged soon in any case.
    pub(crate) fn must_rewrite(&self, key: &Key, live: &LiveObject) -> bool {
        let is_half_dead = live.live_rows < live.rows.saturating_sub(live.live_rows);
        let mut deletions = self.deletions.above(live.floor);
        !live.is_segment()
            && (is_half_dead || deletions.any(|in_force| self.is_touched(key, live, &in_force.deletion)))
    }

    /// Updates, for each deletion that no live object needs, the dead objects that may still hold its rows. Returns
    /// false if all deletions are finished.
    pub(crate) fn update_unswept(&mut self) -> bool {
        let needed: Vec<u64> = (self.deletions.above(0))
            .filter(|in_force| self.touched_by(&in_force.deletion).next().is_some())
            .map(|in_force| in_force.deletion.number)
            .collect();
        let Self { deletions, dead, .. } = self;
        for in_force in deletions.in_force_mut() {
            if needed.contains(&in_force.deletion.number) {
                in_force.unswept = None;
                continue;
            }
            // Blocks of other tenants, deletions and records hold no row of it.
            let tenant = &in_force.deletion.tenant;
            let may_hold = |key: &&Key| {
                key.parse_log_slot().is_some()
                    || key.parse_block_tenant().is_some_and(|owner| owner == *tenant)
            };
            let unswept =
                in_force.unswept.get_or_insert_with(|| dead.keys().filter(may_hold).cloned().collect());
            unswept.retain(|key| dead.contains_key(key));
        }
        deletions.len() > 0 || deletions.done().any(|done| done.replaced.is_some())
    }

    /// Whether the object of a deletion is stale: a replaced owner wrote it, or the deletion is finished.
    pub(crate) fn is_superfluous_deletion(&self, key: &Key) -> bool {
        let Some((tenant, number, is_done)) = key.parse_deletion() else {
            return false;
        };
        let is_known = self.deletions.row(number).is_some_and(|row| {
            // A deletion that is done in the bucket and not in the catalog will be finished again.
            row.tenant == tenant && (is_done || matches!(row.state, DeletionState::InForce { .. }))
        });
        !is_known && !self.dead.contains_key(key)
    }
}
