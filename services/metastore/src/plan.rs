//! Chooses the next merge.
//!
//! Owns: when segments are ready, into which windows their rows go, how many shards a merge has, the order of urgency.
//! Does not own: when a group of blocks is ready (`group`), jobs (`jobs`), merging (`compactor`).
//!
//! A small tenant has one block per window and job. Each block has its own symbols for each service, so with many
//! services blocks would be full before they cover much time: blocks that grow are divided by service, into shards, and
//! these into smaller shards. Small tenants do not share objects yet.

use std::collections::BTreeSet;

use catalog::rows::{JobProgress, Work};
use hashbrown::HashSet;
use model::{DAY, HOUR, Times, Window};
use storage::Key;

use crate::config::Config;
use crate::group::shard_of_block;
use crate::live::{LiveObject, ObjectKind};
use crate::state::State;

/// Most inputs of one job, so that its row and its publish record stay small.
pub(crate) const INPUTS_MAX: usize = 1_000;
/// A merge of more than `job_bytes_max / SHARD_FROM` is divided into shards.
const SHARD_FROM: u64 = 4;
/// A shard has about `job_bytes_max / SHARD_TO`.
const SHARD_TO: u64 = 32;
/// One merge adds at most this many bits to the shards of its inputs, so that it does not write very many objects.
const SHARD_BITS_MORE: u8 = 4;
const SHARD_BITS_MAX: u8 = 16;
/// Level of blocks merged from segments.
const LEVEL_FIRST: u8 = 1;
/// Levels of blocks: from segments, of an open hour, of a day.
pub(crate) const LEVELS: usize = 3;

/// The most urgent work, if any is ready at `unix_millis`.
pub(crate) fn next(state: &mut State, config: &Config, unix_millis: i64) -> Option<Work> {
    state.update_agenda(config, unix_millis);
    let state = &*state;
    segments(state, config, unix_millis)
        .or_else(|| state.agenda().rewrites.first().map(|key| rewrite(state, key)))
        .or_else(|| blocks(state, config, unix_millis))
}

fn rewrite(state: &State, key: &Key) -> Work {
    let (level, windows) = match state.live().get(key).map(|live| &live.kind) {
        Some(ObjectKind::Block { level, window, .. }) => (*level, vec![*window]),
        _ => (LEVEL_FIRST, Vec::new()),
    };
    Work { level, windows, inputs: vec![key.clone()] }
}

/// Segments, if the oldest is old enough or there are enough of them.
fn segments(state: &State, config: &Config, unix_millis: i64) -> Option<Work> {
    let agenda = state.agenda();
    let free = &agenda.segments;
    let is_old = unix_millis - free.first()?.0 >= config.merge_after.get().as_millis() as i64;
    if !is_old && agenda.segment_bytes < config.merge_bytes && free.len() < INPUTS_MAX {
        return None;
    }
    let oldest = free.iter().filter_map(|(_, key)| Some((key, state.live().get(key)?)));
    let inputs = take_within(oldest, config.merge_bytes);
    let mut windows = BTreeSet::new();
    for key in &inputs {
        for dataset in state.object(key).iter().flat_map(|object| &object.datasets) {
            add_windows(dataset.times, config, unix_millis, &mut windows);
        }
    }
    Some(Work { level: LEVEL_FIRST, windows: windows.into_iter().collect(), inputs })
}

/// Adds the open hours of rows between two times, in nanoseconds. Older rows go to their day.
///
/// Windows are not shorter than an hour: a service has nearly the same stacktraces in five minutes as in a day, and
/// each block has its own symbols and name trees. Blocks of short times cost several times the bytes, and a query
/// over many of them decodes and joins the same trees many times. Short queries do not need short blocks: datasets
/// name their times, and the index names those of each profile.
fn add_windows(times: Times, config: &Config, unix_millis: i64, windows: &mut BTreeSet<Window>) {
    let now = unix_millis.div_euclid(1_000);
    let slack = config.close_after.get().as_secs() as i64;
    let first_open = Window::around(now - slack, HOUR).start;
    // Rows from further ahead are a client's mistake; they get no windows of their own.
    let from = times.first.div_euclid(1_000_000_000).max(first_open);
    let to = times.last.div_euclid(1_000_000_000).min(now + HOUR);
    let mut hour = Window::around(from, HOUR);
    while hour.start <= to {
        windows.insert(hour);
        hour.start += HOUR;
    }
}

/// The number of bits of the service's hash by which the outputs of a job are divided.
///
/// Inputs of one job are of one shard, so its outputs are of the same shard or of parts of it.
pub(crate) fn shard_bits(state: &State, config: &Config, work: &Work) -> u8 {
    let bits = work.inputs.iter().map(|key| shard_of_block(key).bits).max().unwrap_or(0);
    let bytes: u64 = work.inputs.iter().filter_map(|key| state.live().get(key)).map(|live| live.bytes).sum();
    if work.level <= LEVEL_FIRST || work.inputs.len() < 2 || bytes <= config.job_bytes_max / SHARD_FROM {
        return bits;
    }
    let objects = work.inputs.iter().filter_map(|key| state.object(key));
    let services: HashSet<&str> =
        objects.flat_map(|object| object.datasets.iter().map(|dataset| &*dataset.service)).collect();
    let shards = (bytes / (config.job_bytes_max / SHARD_TO).max(1)).min(services.len() as u64);
    let more = shards.checked_ilog2().unwrap_or(0) as u8;
    (bits + more.min(SHARD_BITS_MORE)).min(SHARD_BITS_MAX.max(bits))
}

/// Blocks of the group that has waited longest, so that no tenant can hold up another.
fn blocks(state: &State, config: &Config, unix_millis: i64) -> Option<Work> {
    let (group, merge) = state.agenda().ready(state.live(), config, unix_millis).next()?;
    let inputs = take_within(merge.blocks.into_iter(), config.job_bytes_max);
    Some(Work { level: level_of(group.window), windows: vec![group.window], inputs })
}

/// How long the oldest work has been waiting or in progress, in milliseconds, for each level of its outputs, beginning
/// with [`LEVEL_FIRST`].
pub(crate) fn lags(state: &mut State, config: &Config, unix_millis: i64) -> [i64; LEVELS] {
    state.update_agenda(config, unix_millis);
    let mut since = [unix_millis; LEVELS];
    since[0] = state.oldest_segment_millis(unix_millis);
    let mut wait_since = |level: u8, millis: i64| {
        if let Some(since) = since.get_mut(usize::from(level - LEVEL_FIRST)) {
            *since = millis.min(*since);
        }
    };
    for (window, since_millis) in state.agenda().ready_since() {
        wait_since(level_of(window), since_millis);
    }
    for job in state.jobs().values() {
        if let JobProgress::Working { work, .. } = &job.row.state
            && work.level > LEVEL_FIRST
        {
            wait_since(work.level, job.row.created_millis);
        }
    }
    since.map(|since| unix_millis - since)
}

/// Level of blocks merged into `window`.
fn level_of(window: Window) -> u8 {
    if window.length == DAY { LEVEL_FIRST + 2 } else { LEVEL_FIRST + 1 }
}

fn take_within<'a>(objects: impl Iterator<Item = (&'a Key, &'a LiveObject)>, bytes_max: u64) -> Vec<Key> {
    let mut bytes = 0;
    let mut taken = Vec::new();
    for (key, live) in objects {
        bytes += live.bytes;
        if (bytes > bytes_max && !taken.is_empty()) || taken.len() == INPUTS_MAX {
            break;
        }
        taken.push(key.clone());
    }
    taken
}

#[cfg(test)]
mod tests {
    use catalog::rows::DatasetSummary;
    use model::TenantId;

    use super::*;
    use crate::group::target;

    /// 2023-11-15 12:30:00 UTC.
    const NOW: i64 = 1_700_051_400;

    /// Starts of the windows of rows between two times, in Unix seconds.
    fn hours(from: i64, to: i64) -> Vec<i64> {
        let mut windows = BTreeSet::new();
        let times = Times { first: from * 1_000_000_000, last: to * 1_000_000_000 };
        add_windows(times, &Config::default(), NOW * 1_000, &mut windows);
        assert!(windows.iter().all(|window| window.length == HOUR));
        windows.into_iter().map(|window| window.start).collect()
    }

    #[test]
    fn fresh_rows_go_to_their_hour() {
        let noon = NOW - 1_800;
        assert_eq!(hours(NOW - 20, NOW - 10), [noon]);
        assert_eq!(hours(noon - 20, NOW), [noon]);
        assert_eq!(hours(NOW, NOW + 5 * DAY), [noon, noon + HOUR]);
    }

    #[test]
    fn rows_of_a_closed_hour_and_of_the_far_future_get_no_window() {
        assert!(hours(NOW - 5_400, NOW - 5_300).is_empty());
        assert!(hours(NOW - 3 * DAY, NOW - 2 * DAY).is_empty());
        assert!(hours(NOW + 5 * DAY, NOW + 6 * DAY).is_empty());
    }

    #[test]
    fn an_hour_stays_open_for_late_data() {
        let config = Config::default();
        let eleven = Window::around(NOW - 5_400, HOUR);
        let day = Window::around(eleven.start, DAY);
        let target_at = |minutes: i64| target(eleven, &config, (eleven.end() + minutes * 60) * 1_000);
        assert_eq!(target_at(5), eleven);
        assert_eq!(target_at(11), day);
        assert_eq!(target(day, &config, NOW * 1_000), day);
    }

    /// A closed day of tenant `a` with blocks of these keys and bytes, each with `services` services.
    fn day_of(blocks: &[(String, u64)], services: usize) -> State {
        let mut state = State::new(&Config::default());
        let day = NOW.div_euclid(DAY) * DAY - DAY;
        let tenant = TenantId::parse("a").expect("valid");
        for (number, (key, bytes)) in (0..).zip(blocks) {
            let key = Key::from_text(format!("block/a/{key}"));
            let dataset = |service: usize| DatasetSummary {
                position: service as u32,
                tenant: tenant.clone(),
                service: service.to_string().as_str().into(),
                times: Times { first: day * 1_000_000_000, last: day * 1_000_000_000 },
                rows: 1,
                profile_types: Vec::new().into(),
            };
            let block = catalog::rows::Block {
                id: model::BlockId { job: model::JobId(number), attempt: 1, part: 0 },
                key,
                tenant: tenant.clone(),
                level: 3,
                window: Window { start: day, length: DAY },
                bytes: *bytes,
                created_millis: 0,
                floor: 0,
                rows: services as u64,
                quarantine: None,
            };
            state.add_block(&block, (0..services).map(dataset).collect());
        }
        state
    }

    fn inputs(mut state: State) -> (Vec<String>, u8) {
        let config = Config::default();
        let work = next(&mut state, &config, NOW * 1_000).expect("work is ready");
        let mut inputs: Vec<String> = work.inputs.iter().map(|key| key.as_str()[8..].to_owned()).collect();
        inputs.sort_unstable();
        (inputs, shard_bits(&state, &config, &work))
    }

    #[test]
    fn blocks_that_do_not_fit_into_one_merge_do_not_delay_others() {
        let large = Config::default().job_bytes_max - 1;
        let blocks = (0..8).map(|number| (number.to_string(), if number < 5 { large } else { 1_000 }));
        let (inputs, bits) = inputs(day_of(&blocks.collect::<Vec<_>>(), 1));
        assert_eq!((inputs, bits), (["5", "6", "7"].map(str::to_owned).to_vec(), 0));
    }

    #[test]
    fn only_blocks_of_one_shard_are_merged() {
        let names = ["3-0-1/0", "3-0-1-s4.3/1", "3-0-1-s4.4/2", "3-0-1-s4.3/3"];
        let (inputs, bits) = inputs(day_of(&names.map(|name| (name.to_owned(), 1_000)), 9));
        assert_eq!((inputs, bits), (["3-0-1-s4.3/1", "3-0-1-s4.3/3"].map(str::to_owned).to_vec(), 4));
    }

    #[test]
    fn a_large_merge_of_many_services_is_divided_into_shards() {
        let check = |name: &str, bytes: u64, services: usize, expected: u8| {
            let blocks = [0, 1].map(|number| (format!("{name}/{number}"), bytes / 2));
            assert_eq!(
                inputs(day_of(&blocks, services)).1,
                expected,
                "{name}, {bytes} bytes, {services} services"
            );
        };
        check("3-0-1", 32 << 20, 1_000, 0);
        check("3-0-1", 33 << 20, 1_000, 3);
        check("3-0-1", 100 << 20, 1_000, 4);
        check("3-0-1", 100 << 20, 5, 2);
        check("3-0-1", 100 << 20, 1, 0);
        check("3-0-1-s4.1", 10 << 20, 1_000, 4);
        check("3-0-1-s4.1", 100 << 20, 1_000, 8);
        check("3-0-1-s14.1", 100 << 20, 1_000, 16);
    }
}
