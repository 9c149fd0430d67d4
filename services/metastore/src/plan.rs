//! Chooses what to merge next.
//!
//! Owns: when segments and blocks are ripe, and into which windows they go.
//! Does not own: jobs (`publish`), merging (`compactor`).
//!
//! A tenant has one block per window and job; small tenants do not share objects yet.

use std::collections::{BTreeMap, BTreeSet};

use catalog::rows::Work;
use model::TenantId;
use storage::Key;

use crate::config::Config;
use crate::state::{Live, State, What};

const FIVE_MINUTES: i64 = 300;
const HOUR: i64 = 3_600;
const DAY: i64 = 86_400;
/// More blocks than this in one window are merged even while new ones come.
const BLOCKS_MAX: usize = 8;
/// Most inputs of one job, so that its row and its publish record stay small.
pub(crate) const INPUTS_MAX: usize = 1_000;
/// Level of blocks merged from segments.
const LEVEL_FIRST: u8 = 1;

/// The most urgent work, if any is ripe at `unix_millis`.
pub(crate) fn next(state: &State, config: &Config, unix_millis: i64) -> Option<Work> {
    segments(state, config, unix_millis).or_else(|| blocks(state, config, unix_millis))
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
    let inputs = take_within(&segments, config.job_bytes_max);
    let mut windows = BTreeSet::new();
    for key in &inputs {
        let object = state.live.get(key).and_then(|l| l.id).and_then(|id| state.index.get(id));
        for dataset in object.iter().flat_map(|object| &object.datasets) {
            add_windows(dataset.time_min, dataset.time_max, config, unix_millis, &mut windows);
        }
    }
    Some(Work { level: LEVEL_FIRST, windows: windows.into_iter().collect(), inputs })
}

/// The windows shorter than a day that rows between two times, in nanoseconds, belong to: five
/// minutes each in an hour that is open, the hour in a day that is open. The rest goes to its day.
fn add_windows(
    time_min: i64,
    time_max: i64,
    config: &Config,
    unix_millis: i64,
    windows: &mut BTreeSet<(i64, i64)>,
) {
    let now = unix_millis.div_euclid(1_000);
    let slack = config.close_after.0.as_secs() as i64;
    let first_open_day = (now - slack).div_euclid(DAY) * DAY;
    let first_open_hour = (now - slack).div_euclid(HOUR) * HOUR;
    // Rows from further ahead are a client's mistake; they get no windows of their own.
    let from = time_min.div_euclid(1_000_000_000).max(first_open_day);
    let to = time_max.div_euclid(1_000_000_000).min(now + HOUR);
    let mut at = from.div_euclid(HOUR) * HOUR;
    while at <= to {
        if at < first_open_hour {
            windows.insert((at, HOUR));
        } else {
            for start in (at..at + HOUR).step_by(FIVE_MINUTES as usize) {
                if start <= to && start + FIVE_MINUTES > from {
                    windows.insert((start, FIVE_MINUTES));
                }
            }
        }
        at += HOUR;
    }
}

/// Blocks by tenant and by the window they belong into.
type Groups<'a> = BTreeMap<(&'a TenantId, i64, i64), Vec<(&'a Key, &'a Live)>>;

/// Blocks of one tenant that belong into one window: a closed day, a closed hour, or their own.
fn blocks(state: &State, config: &Config, unix_millis: i64) -> Option<Work> {
    let mut groups = Groups::new();
    for (key, live) in &state.live {
        let What::Block { tenant, window, .. } = &live.what else {
            continue;
        };
        if !is_free(live) {
            continue;
        }
        let (start, length) = target(*window, config, unix_millis);
        groups.entry((tenant, start, length)).or_default().push((key, live));
    }
    for ((_, start, length), mut blocks) in groups {
        // Small ones first: a large block is taken along only if it fits.
        blocks.sort_by(|a, b| (a.1.bytes, a.0).cmp(&(b.1.bytes, b.0)));
        if !is_ripe(&blocks, length, config, unix_millis) {
            continue;
        }
        let inputs = take_within(&blocks, config.job_bytes_max);
        if inputs.len() < 2 {
            continue;
        }
        let level = match length {
            DAY => LEVEL_FIRST + 2,
            HOUR => LEVEL_FIRST + 1,
            _ => LEVEL_FIRST,
        };
        return Some(Work { level, windows: vec![(start, length)], inputs });
    }
    None
}

/// The longest closed window around `window`, or itself.
fn target(window: (i64, i64), config: &Config, unix_millis: i64) -> (i64, i64) {
    let now = unix_millis.div_euclid(1_000) - config.close_after.0.as_secs() as i64;
    for length in [DAY, HOUR] {
        let start = window.0.div_euclid(length) * length;
        if start + length <= now && length >= window.1 {
            return (start, length);
        }
    }
    window
}

fn is_ripe(blocks: &[(&Key, &Live)], length: i64, config: &Config, unix_millis: i64) -> bool {
    let (Some((_, largest)), true) = (blocks.last(), blocks.len() > 1) else {
        return false;
    };
    let newest = blocks.iter().map(|(_, live)| live.created_millis).max().unwrap_or(unix_millis);
    let quiet_millis = unix_millis - newest;
    let is_settled = quiet_millis >= config.settle_after.0.as_millis() as i64;
    let is_partly_short =
        blocks.iter().any(|(_, live)| matches!(live.what, What::Block { window, .. } if window.1 < length));
    if blocks.len() > BLOCKS_MAX || (is_partly_short && is_settled) {
        return true;
    }
    // What is left is patches of one window: rewriting a large block for a small one must be worth it.
    let patches: u64 = blocks[..blocks.len() - 1].iter().map(|(_, live)| live.bytes).sum();
    let is_worth_it = length == FIVE_MINUTES || patches.saturating_mul(10) > largest.bytes;
    is_settled && (is_worth_it || quiet_millis >= HOUR * 1_000)
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
    fn fresh_rows_go_to_five_minutes() {
        assert_eq!(windows(NOW - 20, NOW - 10), [(NOW - 300, 300)]);
        assert_eq!(windows(NOW - 20, NOW), [(NOW - 300, 300), (NOW, 300)]);
    }

    #[test]
    fn rows_of_a_closed_hour_go_to_it() {
        let eleven = NOW - 5_400;
        assert_eq!(windows(eleven, eleven + 10), [(eleven, HOUR)]);
    }

    #[test]
    fn rows_of_a_closed_day_and_of_the_far_future_get_no_window() {
        assert_eq!(windows(NOW - 3 * DAY, NOW - 2 * DAY), []);
        assert_eq!(windows(NOW + 5 * DAY, NOW + 6 * DAY), []);
    }

    #[test]
    fn a_month_of_back_fill_makes_few_windows() {
        assert!(windows(NOW - 30 * DAY, NOW + 30 * DAY).len() <= 12 + 24);
    }

    #[test]
    fn an_hour_takes_late_data_for_a_while() {
        let config = Config::default();
        let eleven = NOW - 5_400;
        let target_at = |minutes: i64| target((eleven, 300), &config, (eleven + HOUR + minutes * 60) * 1_000);
        assert_eq!(target_at(5), (eleven, 300));
        assert_eq!(target_at(11), (eleven, HOUR));
        assert_eq!(target_at(24 * 60), (eleven.div_euclid(DAY) * DAY, DAY));
    }
}
