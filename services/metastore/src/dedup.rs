//! Decides which of several equal push items counts.
//!
//! Owns: the keys of the window, in memory. Does not own: their rows and the window's end (`state`).
//!
//! A key is kept for as long as its minute is within the window. Keys are forgotten by raising the first minute of the
//! window: entries of earlier minutes are skipped at once, and their memory is freed when their shard next grows.

use std::collections::BTreeMap;

use model::ItemKey;

/// Minutes since the Unix epoch.
pub(crate) type Minute = i64;

const SHARDS: usize = 256;
/// An entry is 116 bits of the key and the low 12 bits of its minute, which repeat after 68 hours.
const MINUTE_BITS: u32 = 12;
const MINUTE_MASK: u128 = (1 << MINUTE_BITS) - 1;
/// Shards are at most this full, so that probes are short.
const LOAD_PERCENT_MAX: usize = 80;
/// Growth of a shard: small, because every key pays for the slack.
const GROWTH_PERCENT: usize = 15;
const SLOTS_MIN: usize = 8;

/// All keys that were counted within the window.
pub(crate) struct Dedup {
    shards: Vec<Shard>,
    /// Live keys by minute.
    minutes: BTreeMap<Minute, usize>,
    /// Keys of earlier minutes are forgotten.
    first_minute: Minute,
    len: usize,
    keys_max: usize,
}

/// An open-addressed table with linear probing; 0 is an empty slot.
#[derive(Default)]
struct Shard {
    slots: Vec<u128>,
    used: usize,
}

impl Dedup {
    /// Holds at most `keys_max` keys; above it the oldest minute is forgotten early.
    pub(crate) fn new(keys_max: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Shard::default()).collect();
        Self { shards, minutes: BTreeMap::new(), first_minute: Minute::MIN, len: 0, keys_max }
    }

    /// Counts `key`. Returns whether it was not counted before within the window.
    pub(crate) fn insert(&mut self, key: ItemKey, minute: Minute) -> bool {
        let first_minute = self.first_minute;
        let shard = &mut self.shards[(key.0 >> 120) as usize];
        let is_first = shard.insert(key, minute, first_minute);
        if is_first && minute >= first_minute {
            *self.minutes.entry(minute).or_default() += 1;
            self.len += 1;
            if self.len > self.keys_max
                && let Some(oldest) = self.minutes.keys().next().copied()
            {
                self.forget_before(oldest + 1);
            }
        }
        is_first
    }

    /// Forgets the keys of all minutes before `first_minute`.
    pub(crate) fn forget_before(&mut self, first_minute: Minute) {
        if first_minute <= self.first_minute {
            return;
        }
        self.first_minute = first_minute;
        let kept = self.minutes.split_off(&first_minute);
        self.len -= self.minutes.values().sum::<usize>();
        self.minutes = kept;
    }

    /// The oldest minute whose keys are remembered.
    pub(crate) fn first_minute(&self) -> Minute {
        self.first_minute
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Memory of the table, in bytes.
    pub(crate) fn byte_len(&self) -> usize {
        self.shards.iter().map(|shard| shard.slots.capacity() * 16).sum()
    }
}

impl Shard {
    fn insert(&mut self, key: ItemKey, minute: Minute, first_minute: Minute) -> bool {
        if (self.used + 1) * 100 > self.slots.len() * LOAD_PERCENT_MAX {
            self.rebuild(first_minute, minute);
        }
        let entry = entry_of(key, minute);
        let mut index = home(entry, self.slots.len());
        loop {
            let slot = self.slots[index];
            if slot == 0 {
                self.slots[index] = entry;
                self.used += 1;
                return true;
            }
            if (slot ^ entry) & !MINUTE_MASK == 0 {
                if is_live(slot, first_minute, minute) {
                    return false;
                }
                self.slots[index] = entry;
                return true;
            }
            index = self.next(index);
        }
    }

    fn next(&self, index: usize) -> usize {
        if index + 1 == self.slots.len() { 0 } else { index + 1 }
    }

    /// Drops expired entries, and makes room for one more.
    fn rebuild(&mut self, first_minute: Minute, now: Minute) {
        let old = std::mem::take(&mut self.slots);
        let live = || old.iter().filter(|e| **e != 0 && is_live(**e, first_minute, now));
        self.used = live().count();
        let wanted = (self.used + 1) * (100 + GROWTH_PERCENT) / LOAD_PERCENT_MAX + 1;
        self.slots = vec![0; wanted.max(SLOTS_MIN)];
        for entry in live() {
            let mut index = home(*entry, self.slots.len());
            while self.slots[index] != 0 {
                index = self.next(index);
            }
            self.slots[index] = *entry;
        }
    }
}

/// Never 0: the lowest bit of the key part is always set, which costs one bit of it.
fn entry_of(key: ItemKey, minute: Minute) -> u128 {
    (key.0 & !MINUTE_MASK) | (1 << MINUTE_BITS) | (minute as u128 & MINUTE_MASK)
}

/// Index at which the probe for an entry begins, from the bits below those that chose the shard.
fn home(entry: u128, slots: usize) -> usize {
    let bits = (entry >> 56) as u64;
    ((u128::from(bits) * slots as u128) >> 64) as usize
}

/// Whether the minute of an entry is at or after `first_minute`, given that it is not far from `now`.
fn is_live(entry: u128, first_minute: Minute, now: Minute) -> bool {
    let span = 1 << MINUTE_BITS;
    let behind = (now - (entry & MINUTE_MASK) as Minute).rem_euclid(span);
    // Minutes up to a quarter of the span after `now` count as later: a writer's clock may be ahead.
    let minute = if behind >= span * 3 / 4 { now - behind + span } else { now - behind };
    minute >= first_minute
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(i: u128) -> ItemKey {
        ItemKey(i.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835) ^ (i << 77))
    }

    #[test]
    fn only_the_first_of_equal_keys_counts() {
        let mut dedup = Dedup::new(1000);
        assert!(dedup.insert(key(1), 10));
        assert!(!dedup.insert(key(1), 11));
        assert!(dedup.insert(key(2), 11));
        assert_eq!(dedup.len(), 2);
    }

    #[test]
    fn keys_count_again_after_the_window() {
        let mut dedup = Dedup::new(1000);
        assert!(dedup.insert(key(1), 10));
        assert!(dedup.insert(key(2), 11));
        dedup.forget_before(11);
        assert!(dedup.insert(key(1), 80));
        assert!(!dedup.insert(key(2), 80));
        assert_eq!(dedup.len(), 2);
    }

    #[test]
    fn above_the_limit_the_oldest_minute_is_forgotten_early() {
        let mut dedup = Dedup::new(100);
        for i in 0..150 {
            assert!(dedup.insert(key(i), i as i64 / 10));
        }
        assert!(dedup.len() <= 100);
        assert_eq!(dedup.first_minute(), 5);
        assert!(!dedup.insert(key(149), 15), "the newest stay");
    }

    #[test]
    fn it_agrees_with_a_plain_map_while_the_window_moves() {
        let mut dedup = Dedup::new(usize::MAX);
        let mut plain: std::collections::HashMap<u128, Minute> = std::collections::HashMap::new();
        let mut state = 1u64;
        for step in 0..60_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let minute = step / 100 + i64::from((state >> 60) as u8 % 3);
            let i = u128::from((state >> 33) % 20_000);
            let first = step / 100 - 75;
            dedup.forget_before(first);
            let known = plain.get(&i).is_some_and(|m| *m >= first);
            assert_eq!(dedup.insert(key(i), minute), !known, "step {step}");
            if !known {
                plain.insert(i, minute);
            }
        }
        let live = plain.values().filter(|m| **m >= 599 - 75).count();
        assert_eq!(dedup.len(), live);
    }

    #[test]
    fn a_key_costs_about_twenty_bytes() {
        let mut dedup = Dedup::new(usize::MAX);
        for i in 0..400_000 {
            dedup.insert(key(i), 5);
        }
        let each = dedup.byte_len() as f64 / 400_000.0;
        assert!((16.0..24.0).contains(&each), "{each} bytes per key");
    }
}
