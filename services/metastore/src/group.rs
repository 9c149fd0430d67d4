//! When the blocks of a group should be merged into one.
//!
//! Owns: the definition of a group, when it is ready, the window into which its blocks belong.
//! Does not own: the groups that exist (`agenda`), which one is merged next (`plan`).

use std::collections::BTreeMap;

use model::{DAY, HOUR, Shard, TenantId, Window};
use storage::Key;

use crate::config::Config;
use crate::live::{LiveObject, ObjectKind};

/// This many blocks of about one size, in one window, are merged even while new ones come.
const GATHER: usize = 4;

/// Blocks that belong into one block, or into a few: of one tenant, in one window, of one shard.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Group {
    pub(crate) tenant: TenantId,
    /// An hour that is open, or a day.
    pub(crate) window: Window,
    pub(crate) shard: Shard,
}

pub(crate) type Blocks<'a> = Vec<(&'a Key, &'a LiveObject)>;

/// Blocks that should become one.
pub(crate) struct Merge<'a> {
    pub(crate) blocks: Blocks<'a>,
    /// Since when, or from when on, in Unix milliseconds.
    pub(crate) ready_millis: i64,
}

/// Whether to merge the blocks of a group now.
pub(crate) enum Readiness<'a> {
    Ready(Merge<'a>),
    /// If no block comes or goes, nothing changes before this time, in Unix milliseconds; never, if `None`.
    Waiting {
        until_millis: Option<i64>,
    },
}

/// Whether the blocks of a group, sorted by key, should become one now. `window` is the one they belong into.
pub(crate) fn judge<'a>(
    blocks: &[(&'a Key, &'a LiveObject)],
    window: Window,
    config: &Config,
    unix_millis: i64,
) -> Readiness<'a> {
    if let Some(merge) = blocks_of_one_size(blocks) {
        return Readiness::Ready(merge);
    }
    // A day gets a block every hour until it closes: rewriting its largest block for each is never worth it.
    let not_before_millis = if window.length < DAY { i64::MIN } else { close_millis(window, config) };
    let late = [closed_hour(blocks, window.length, config), all_patches(blocks, config, not_before_millis)];
    let mut until_millis = move_millis(window, config);
    for merge in late.into_iter().flatten() {
        if merge.ready_millis <= unix_millis {
            return Readiness::Ready(merge);
        }
        until_millis = Some(until_millis.map_or(merge.ready_millis, |until| until.min(merge.ready_millis)));
    }
    Readiness::Waiting { until_millis }
}

/// When blocks of `window` move to another one, in Unix milliseconds: those of an hour to its day.
pub(crate) fn move_millis(window: Window, config: &Config) -> Option<i64> {
    (window.length < DAY).then(|| close_millis(window, config))
}

/// When `window` counts as closed, so that only stragglers still come.
fn close_millis(window: Window, config: &Config) -> i64 {
    window.end().saturating_add(config.close_after.get().as_secs() as i64).saturating_mul(1_000)
}

/// The window that a block of `window` belongs into: its hour while that is open, its day afterwards.
pub(crate) fn target(window: Window, config: &Config, unix_millis: i64) -> Window {
    let hour = Window::around(window.start, HOUR);
    if window.length <= HOUR && unix_millis < close_millis(hour, config) {
        return hour;
    }
    Window::around(window.start, DAY)
}

/// Whether a block may grow. Two blocks above half of a merge would not fit into one.
pub(crate) fn is_small(live: &LiveObject, config: &Config) -> bool {
    live.bytes <= config.job_bytes_max / 2
}

/// The shard of a block's services.
pub(crate) fn shard_of_block(block: &Key) -> Shard {
    block.parse_block_place().map(|place| place.shard).unwrap_or_default()
}

/// [`GATHER`] or more blocks of about one size, so that each byte is rewritten once per size.
fn blocks_of_one_size<'a>(blocks: &[(&'a Key, &'a LiveObject)]) -> Option<Merge<'a>> {
    let mut by_size: BTreeMap<u32, Blocks<'a>> = BTreeMap::new();
    for block in blocks {
        by_size.entry(block.1.bytes.checked_ilog2().unwrap_or(0) / GATHER.ilog2()).or_default().push(*block);
    }
    let blocks = by_size.into_values().find(|blocks| blocks.len() >= GATHER)?;
    let mut created: Vec<i64> = blocks.iter().map(|(_, live)| live.created_millis).collect();
    created.sort_unstable();
    Some(Merge { ready_millis: created[GATHER - 1], blocks })
}

/// Several blocks of one hour in a group with a window of `length`: they become one block of their day.
fn closed_hour<'a>(blocks: &[(&'a Key, &'a LiveObject)], length: i64, config: &Config) -> Option<Merge<'a>> {
    let mut hours: BTreeMap<i64, Blocks<'a>> = BTreeMap::new();
    for block in blocks {
        if let ObjectKind::Block { window, .. } = block.1.kind
            && window.length < length
        {
            hours.entry(window.start.div_euclid(HOUR)).or_default().push(*block);
        }
    }
    let several = hours.into_values().filter(|blocks| blocks.len() > 1);
    several.map(|blocks| settled(blocks, config)).min_by_key(|merge| merge.ready_millis)
}

/// All blocks of a window. They wait longer if the largest would be rewritten for few others.
fn all_patches<'a>(
    blocks: &[(&'a Key, &'a LiveObject)],
    config: &Config,
    not_before_millis: i64,
) -> Option<Merge<'a>> {
    if blocks.len() < 2 {
        return None;
    }
    let mut blocks = blocks.to_vec();
    // Small ones first: a large block is taken along only if it fits.
    blocks.sort_by(|a, b| (a.1.bytes, a.0).cmp(&(b.1.bytes, b.0)));
    let (largest, patches) = blocks.split_last()?;
    let patches: u64 = patches.iter().map(|(_, live)| live.bytes).sum();
    let is_worth_it = patches.saturating_mul(10) > largest.1.bytes;
    let patience = if is_worth_it { 0 } else { newest_millis(&blocks).saturating_add(HOUR * 1_000) };
    let merge = settled(blocks, config);
    Some(Merge { ready_millis: merge.ready_millis.max(patience).max(not_before_millis), ..merge })
}

/// Blocks that are ready once no other came for `settle_after`.
fn settled<'a>(blocks: Blocks<'a>, config: &Config) -> Merge<'a> {
    let ready_millis = newest_millis(&blocks).saturating_add(config.settle_after.get().as_millis() as i64);
    Merge { blocks, ready_millis }
}

/// When the newest block was created.
fn newest_millis(blocks: &[(&Key, &LiveObject)]) -> i64 {
    blocks.iter().map(|(_, live)| live.created_millis).max().unwrap_or(i64::MIN)
}
