//! Chooses what to merge next.
//!
//! Owns: when segments and blocks are ripe, which blocks must be rewritten, and into which windows they go.
//! Does not own: jobs (`publish`), merging (`compactor`).
//!
//! A tenant has one block per window and job; small tenants do not share objects yet.

use std::collections::{BTreeMap, BTreeSet};

use catalog::rows::{JobState, Work};
use model::TenantId;
use storage::Key;

use crate::config::Config;
use crate::orders::is_touched;
use crate::state::{Live, State, What};

const HOUR: i64 = 3_600;
const DAY: i64 = 86_400;
/// So many blocks of about one size, in one window, are merged even while new ones come.
const GATHER: usize = 4;
/// Most inputs of one job, so that its row and its publish record stay small.
pub(crate) const INPUTS_MAX: usize = 1_000;
/// Level of blocks merged from segments.
const LEVEL_FIRST: u8 = 1;
/// Levels of blocks: from segments, of an open hour, of a day.
pub(crate) const LEVELS: usize = 3;

/// The most urgent work, if any is ripe at `unix_millis`.
pub(crate) fn next(state: &State, config: &Config, unix_millis: i64) -> Option<Work> {
    segments(state, config, unix_millis)
        .or_else(|| rewrite(state))
        .or_else(|| blocks(state, config, unix_millis))
}

/// A block that holds what must go from the bucket: it becomes one of the same window, or none.
///
/// Segments are merged soon in any case.
fn rewrite(state: &State) -> Option<Work> {
    let is_half_dead = |live: &Live| live.live_rows < live.rows.saturating_sub(live.live_rows);
    let is_touched = |key: &Key, live: &Live| {
        state.orders.above(live.floor).any(|in_force| is_touched(state, key, live, &in_force.order))
    };
    let blocks = state.live.iter().filter(|(_, live)| is_free(live));
    blocks.into_iter().find_map(|(key, live)| match &live.what {
        What::Block { level, window, .. } if is_half_dead(live) || is_touched(key, live) => {
            Some(Work { level: *level, windows: vec![*window], inputs: vec![key.clone()] })
        }
        _ => None,
    })
}

fn is_free(live: &Live) -> bool {
    live.claimed.is_none() && live.is_committed && live.id.is_some()
}

/// Segments, once the oldest is old enough or enough have come.
fn segments(state: &State, config: &Config, unix_millis: i64) -> Option<Work> {
    let free = state.live.iter().filter(|(_, live)| is_free(live));
    let mut segments: Vec<(&Key, &Live)> =
        free.filter(|(_, live)| matches!(live.what, What::Segment { .. })).collect();
    segments.sort_by(|a, b| (a.1.created_millis, a.0).cmp(&(b.1.created_millis, b.0)));
    let oldest = segments.first()?.1.created_millis;
    let bytes: u64 = segments.iter().map(|(_, live)| live.bytes).sum();
    let is_old = unix_millis - oldest >= config.merge_after.0.as_millis() as i64;
    if !is_old && bytes < config.merge_bytes && segments.len() < INPUTS_MAX {
        return None;
    }
    let inputs = take_within(&segments, config.merge_bytes);
    let mut windows = BTreeSet::new();
    for key in &inputs {
        let object = state.live.get(key).and_then(|l| l.id).and_then(|id| state.index.get(id));
        for dataset in object.iter().flat_map(|object| &object.datasets) {
            add_windows(dataset.time_min, dataset.time_max, config, unix_millis, &mut windows);
        }
    }
    Some(Work { level: LEVEL_FIRST, windows: windows.into_iter().collect(), inputs })
}

/// The open hours that rows between two times, in nanoseconds, belong to. What is older goes to its day.
///
/// A service has nearly the same stacktraces in every five minutes as in every day, and each block has its
/// own symbols and name trees: blocks of short times cost several times the bytes, and a question over
/// many of them decodes and joins the same trees again and again. Times need no blocks of their own to
/// be told apart: datasets name their range, and profiles have theirs in the index.
fn add_windows(
    time_min: i64,
    time_max: i64,
    config: &Config,
    unix_millis: i64,
    windows: &mut BTreeSet<(i64, i64)>,
) {
    let now = unix_millis.div_euclid(1_000);
    let slack = config.close_after.0.as_secs() as i64;
    let first_open = (now - slack).div_euclid(HOUR) * HOUR;
    // Rows from further ahead are a client's mistake; they get no windows of their own.
    let from = time_min.div_euclid(1_000_000_000).max(first_open);
    let to = time_max.div_euclid(1_000_000_000).min(now + HOUR);
    let mut at = from.div_euclid(HOUR) * HOUR;
    while at <= to {
        windows.insert((at, HOUR));
        at += HOUR;
    }
}

/// Blocks by tenant and by the window they belong into.
type Groups<'a> = BTreeMap<(&'a TenantId, i64, i64), Vec<(&'a Key, &'a Live)>>;

/// Blocks of one tenant that belong into one window: an open hour, or a day.
fn blocks(state: &State, config: &Config, unix_millis: i64) -> Option<Work> {
    let ripe = ripe_blocks(state, config, unix_millis);
    let mut work = ripe.into_iter().map(|(window, ripe)| {
        let inputs = take_within(&ripe.blocks, config.job_bytes_max);
        Work { level: level_of(window), windows: vec![window], inputs }
    });
    work.find(|work| work.inputs.len() > 1)
}

/// How long work has been waiting for compactors, or been worked on, in milliseconds; by the level of its
/// outputs, beginning with [`LEVEL_FIRST`].
pub(crate) fn lags(state: &State, config: &Config, unix_millis: i64) -> [i64; LEVELS] {
    let mut since = [unix_millis; LEVELS];
    since[0] = state.oldest_segment_millis(unix_millis);
    let mut wait_since = |level: u8, millis: i64| {
        if let Some(since) = since.get_mut(usize::from(level - LEVEL_FIRST)) {
            *since = millis.min(*since);
        }
    };
    for (window, ripe) in ripe_blocks(state, config, unix_millis) {
        if ripe.blocks.len() > 1 {
            wait_since(level_of(window), ripe.since_millis);
        }
    }
    for job in state.jobs.values() {
        if let JobState::Working { work, .. } = &job.row.state
            && work.level > LEVEL_FIRST
        {
            wait_since(work.level, job.row.created_millis);
        }
    }
    since.map(|since| unix_millis - since)
}

/// Of blocks merged into `window`.
fn level_of(window: (i64, i64)) -> u8 {
    if window.1 == DAY { LEVEL_FIRST + 2 } else { LEVEL_FIRST + 1 }
}

/// Blocks that should become one, and since when.
struct Ripe<'a> {
    blocks: Blocks<'a>,
    since_millis: i64,
}

/// What is ripe, by the window it belongs into.
fn ripe_blocks<'a>(state: &'a State, config: &Config, unix_millis: i64) -> Vec<((i64, i64), Ripe<'a>)> {
    let mut groups = Groups::new();
    for (key, live) in &state.live {
        let What::Block { tenant, window, .. } = &live.what else {
            continue;
        };
        // What is larger than half of a merge is as large as blocks get: two of them would not fit into one.
        if !is_free(live) || live.bytes > config.job_bytes_max / 2 {
            continue;
        }
        let (start, length) = target(*window, config, unix_millis);
        groups.entry((tenant, start, length)).or_default().push((key, live));
    }
    let ripe = groups.into_iter().filter_map(|((_, start, length), blocks)| {
        // A day gets a block every hour until it closes: rewriting it for each is never worth it.
        let may_settle = length < DAY || start + length <= closed_before(config, unix_millis);
        let ripe = gathered(&blocks)
            .or_else(|| closed_hour(&blocks, length, config, unix_millis))
            .or_else(|| patched(&blocks, config, unix_millis).filter(|_| may_settle));
        Some(((start, length), ripe?))
    });
    ripe.collect()
}

/// Windows that end here or earlier, in Unix seconds, get no more than stragglers.
fn closed_before(config: &Config, unix_millis: i64) -> i64 {
    unix_millis.div_euclid(1_000) - config.close_after.0.as_secs() as i64
}

/// The hour around `window` while that is open, its day afterwards.
fn target(window: (i64, i64), config: &Config, unix_millis: i64) -> (i64, i64) {
    let hour = window.0.div_euclid(HOUR) * HOUR;
    if window.1 <= HOUR && hour + HOUR > closed_before(config, unix_millis) {
        return (hour, HOUR);
    }
    (window.0.div_euclid(DAY) * DAY, DAY)
}

type Blocks<'a> = Vec<(&'a Key, &'a Live)>;

/// Enough blocks of about one size, so that each byte is rewritten once per size.
fn gathered<'a>(blocks: &[(&'a Key, &'a Live)]) -> Option<Ripe<'a>> {
    let mut by_size: BTreeMap<u32, Blocks<'a>> = BTreeMap::new();
    for block in blocks {
        by_size.entry(block.1.bytes.checked_ilog2().unwrap_or(0) / GATHER.ilog2()).or_default().push(*block);
    }
    let blocks = by_size.into_values().find(|blocks| blocks.len() >= GATHER)?;
    let mut created: Vec<i64> = blocks.iter().map(|(_, live)| live.created_millis).collect();
    created.sort_unstable();
    Some(Ripe { since_millis: created[GATHER - 1], blocks })
}

/// What is left of one hour when it closes: its blocks become one of its day.
fn closed_hour<'a>(
    blocks: &[(&'a Key, &'a Live)],
    length: i64,
    config: &Config,
    unix_millis: i64,
) -> Option<Ripe<'a>> {
    let mut hours: BTreeMap<i64, Blocks<'a>> = BTreeMap::new();
    for block in blocks {
        if let What::Block { window: (start, of), .. } = block.1.what
            && of < length
        {
            hours.entry(start.div_euclid(HOUR)).or_default().push(*block);
        }
    }
    let is_ripe =
        |blocks: &Blocks<'a>| blocks.len() > 1 && quiet_millis(blocks, unix_millis) >= settle(config);
    hours.into_values().find(is_ripe).map(|blocks| settled(blocks, config, unix_millis))
}

/// All blocks of a window, if rewriting the largest for the others is worth it.
fn patched<'a>(blocks: &[(&'a Key, &'a Live)], config: &Config, unix_millis: i64) -> Option<Ripe<'a>> {
    let mut blocks = blocks.to_vec();
    // Small ones first: a large block is taken along only if it fits.
    blocks.sort_by(|a, b| (a.1.bytes, a.0).cmp(&(b.1.bytes, b.0)));
    let (largest, patches) = blocks.split_last()?;
    let patches: u64 = patches.iter().map(|(_, live)| live.bytes).sum();
    let quiet = quiet_millis(&blocks, unix_millis);
    let is_worth_it = patches.saturating_mul(10) > largest.1.bytes || quiet >= HOUR * 1_000;
    (quiet >= settle(config) && is_worth_it).then(|| settled(blocks, config, unix_millis))
}

/// Ripe since no block came for long enough.
fn settled<'a>(blocks: Blocks<'a>, config: &Config, unix_millis: i64) -> Ripe<'a> {
    let since_millis = unix_millis - quiet_millis(&blocks, unix_millis) + settle(config);
    Ripe { blocks, since_millis }
}

fn settle(config: &Config) -> i64 {
    config.settle_after.0.as_millis() as i64
}

/// For how long no block came.
fn quiet_millis(blocks: &[(&Key, &Live)], unix_millis: i64) -> i64 {
    let newest = blocks.iter().map(|(_, live)| live.created_millis).max();
    unix_millis - newest.unwrap_or(unix_millis)
}

fn take_within(objects: &[(&Key, &Live)], bytes_max: u64) -> Vec<Key> {
    let mut bytes = 0;
    let mut taken = Vec::new();
    for (key, live) in objects {
        bytes += live.bytes;
        if (bytes > bytes_max && !taken.is_empty()) || taken.len() == INPUTS_MAX {
            break;
        }
        taken.push((*key).clone());
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2023-11-15 12:30:00 UTC.
    const NOW: i64 = 1_700_051_400;

    fn windows(from: i64, to: i64) -> Vec<(i64, i64)> {
        let mut windows = BTreeSet::new();
        let nanos = 1_000_000_000;
        let config = Config::default();
        add_windows(from * nanos, to * nanos, &config, NOW * 1_000, &mut windows);
        windows.into_iter().collect()
    }

    #[test]
    fn fresh_rows_go_to_their_hour() {
        let noon = NOW - 1_800;
        assert_eq!(windows(NOW - 20, NOW - 10), [(noon, HOUR)]);
        assert_eq!(windows(noon - 20, NOW), [(noon, HOUR)]);
        assert_eq!(windows(NOW, NOW + 5 * DAY), [(noon, HOUR), (noon + HOUR, HOUR)]);
    }

    #[test]
    fn rows_of_a_closed_hour_and_of_the_far_future_get_no_window() {
        assert_eq!(windows(NOW - 5_400, NOW - 5_300), []);
        assert_eq!(windows(NOW - 3 * DAY, NOW - 2 * DAY), []);
        assert_eq!(windows(NOW + 5 * DAY, NOW + 6 * DAY), []);
    }

    #[test]
    fn an_hour_takes_late_data_for_a_while() {
        let config = Config::default();
        let eleven = NOW - 5_400;
        let day = (eleven.div_euclid(DAY) * DAY, DAY);
        let target_at =
            |minutes: i64| target((eleven, HOUR), &config, (eleven + HOUR + minutes * 60) * 1_000);
        assert_eq!(target_at(5), (eleven, HOUR));
        assert_eq!(target_at(11), day);
        assert_eq!(target(day, &config, NOW * 1_000), day);
    }

    #[test]
    fn blocks_that_do_not_fit_into_one_merge_keep_nobody_waiting() {
        let config = Config::default();
        let mut state = State::new(&config);
        let day = NOW.div_euclid(DAY) * DAY - DAY;
        for number in 0..8 {
            let bytes = if number < 5 { config.job_bytes_max - 1 } else { 1_000 };
            let live = Live {
                what: What::Block {
                    id: catalog::rows::BlockId { job: model::JobId(u128::from(number)), attempt: 1, part: 0 },
                    tenant: TenantId::parse("a").expect("valid"),
                    level: 3,
                    window: (day, DAY),
                },
                bytes,
                created_millis: 0,
                id: Some(number),
                claimed: None,
                is_committed: true,
                floor: 0,
                rows: 0,
                live_rows: 0,
            };
            state.live.insert(Key::from_text(format!("block/a/{number}")), live);
        }
        let work = blocks(&state, &config, NOW * 1_000).expect("the small ones");
        let mut inputs: Vec<&str> = work.inputs.iter().map(|key| key.as_str()).collect();
        inputs.sort_unstable();
        assert_eq!(inputs, ["block/a/5", "block/a/6", "block/a/7"]);
    }
}
