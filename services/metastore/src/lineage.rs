//! Which objects hold the data of a bucket, from its publish records alone.
//!
//! Owns: which records are in force, which objects they replaced, which outputs are live.
//! Does not own: reading records (`rebuild`, `verify`), the catalog.
//!
//! In a whole bucket every record is in force. Two kinds of bucket are not whole:
//! - A copy made while merges went on may hold a record without its outputs. Inputs that were live when the copy began
//!   are in it: the record is undone, and its inputs count.
//! - A bucket whose catalog was lost while its logs still held merged segments may hold two records with the same
//!   inputs. The earlier one is in force, the later one is undone.

use std::collections::BTreeSet;

use hashbrown::{HashMap, HashSet};
use model::JobId;
use storage::Key;

use crate::listing::Listing;
use crate::record::{Output, Record};
use crate::retention::SEAL_KEPT_MILLIS;

/// The records of a bucket, and the live objects that follow from them.
pub(crate) struct Lineage {
    records: Vec<Record>,
    /// Whether each record is not in force: undone, or doubled.
    is_undone: Vec<bool>,
    /// Whether another record of the same job is used instead.
    doubled: Vec<bool>,
    /// Inputs of records in force.
    replaced: HashSet<Key>,
    live_blocks: Vec<Output>,
    restored: Vec<Key>,
}

/// Two records that exclude each other, of which neither can be undone.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "publish records of jobs {first} and {second} both replaced {input}, and the bucket no longer holds the inputs of either"
)]
pub(crate) struct Conflict {
    first: JobId,
    second: JobId,
    input: Key,
}

impl Lineage {
    /// # Errors
    /// `Conflict` if data would be lost or counted twice, whichever record were undone.
    pub(crate) fn trace(
        records: Vec<Record>,
        listing: &Listing,
        unix_millis: i64,
    ) -> Result<Self, Box<Conflict>> {
        let (is_undone, doubled, replaced, live_blocks, restored) = {
            let trace = Trace::new(&records, listing, unix_millis)?;
            let (live_blocks, restored) = (trace.live_blocks(), trace.restored());
            let replaced = trace.replaced.into_iter().cloned().collect();
            (trace.is_undone, trace.doubled, replaced, live_blocks, restored)
        };
        Ok(Self { records, is_undone, doubled, replaced, live_blocks, restored })
    }

    /// Whether a record in force has the object as an input.
    pub(crate) fn is_replaced(&self, key: &Key) -> bool {
        self.replaced.contains(key)
    }

    /// All records, in force or not.
    pub(crate) fn records(&self) -> &[Record] {
        &self.records
    }

    pub(crate) fn in_force(&self) -> impl Iterator<Item = &Record> {
        self.records
            .iter()
            .zip(&self.is_undone)
            .filter(|(_, is_undone)| !**is_undone)
            .map(|(record, _)| record)
    }

    /// Undone records without the doubled ones, with their positions.
    pub(crate) fn undone_records(&self) -> impl Iterator<Item = (usize, &Record)> {
        let records = self.records.iter().enumerate();
        records.filter(|(index, _)| self.is_undone[*index] && !self.doubled[*index])
    }

    /// Blocks of the bucket that hold data of their own.
    pub(crate) fn live_blocks(&self) -> &[Output] {
        &self.live_blocks
    }

    /// Inputs in the bucket that count again, because the record that replaced them is undone.
    pub(crate) fn restored(&self) -> &[Key] {
        &self.restored
    }
}

/// The computation of a [`Lineage`].
struct Trace<'a> {
    records: &'a [Record],
    is_undone: Vec<bool>,
    doubled: Vec<bool>,
    replaced: HashSet<&'a Key>,
    listing: &'a Listing,
}

impl<'a> Trace<'a> {
    fn new(records: &'a [Record], listing: &'a Listing, unix_millis: i64) -> Result<Self, Box<Conflict>> {
        // A record that was lost, created again and restored exists twice: the one with more inputs counts.
        let mut by_job: HashMap<JobId, usize> = HashMap::new();
        let mut doubled = vec![false; records.len()];
        for (index, record) in records.iter().enumerate() {
            let known = *by_job.entry(record.job).or_insert(index);
            let (kept, other) = if record.inputs.len() > records[known].inputs.len() {
                (index, known)
            } else {
                (known, index)
            };
            by_job.insert(record.job, kept);
            doubled[other] = kept != other;
        }
        let producer = |input: &Key| input.parse_block().and_then(|block| by_job.get(&block.job).copied());
        let order = producers_first(records, &producer);
        // `restorable`: all inputs of a record exist or can be restored. `copied`: every absent one was made after the
        // listing from which this bucket was copied.
        let (mut restorable, mut copied) = (vec![false; records.len()], vec![false; records.len()]);
        for index in &order {
            let record = &records[*index];
            let age_millis = unix_millis - record.published_millis;
            let is_restorable =
                |input: &Key| listing.contains(input) || producer(input).is_some_and(|made| restorable[made]);
            let is_copied = |input: &Key| {
                listing.contains(input)
                    || is_above_copy(listing, input, age_millis)
                    || producer(input).is_some_and(|made| copied[made])
            };
            let inputs = || record.inputs.iter().map(|(input, _)| input);
            (restorable[*index], copied[*index]) = (inputs().all(is_restorable), inputs().all(is_copied));
        }
        let mut trace =
            Self { records, is_undone: doubled.clone(), doubled, replaced: HashSet::new(), listing };
        let undoable = |index: usize| restorable[index] || (copied[index] && records[index].records_deaths);
        let is_restorable =
            |input: &Key| listing.contains(input) || producer(input).is_some_and(|index| restorable[index]);
        loop {
            trace.undo_incomplete(&order, &undoable);
            let is_undone = trace.is_undone.clone();
            trace.undo_repeated(&order, is_restorable)?;
            // Inputs of a repeated record may be the missing outputs of another one.
            if trace.is_undone == is_undone {
                return Ok(trace);
            }
        }
    }

    /// Undoes records with an output that neither exists nor was merged further, and all records that merged their
    /// other outputs.
    ///
    /// No data are lost: all of their inputs can be restored; or the absent ones were made while the bucket was copied;
    /// or none of their outputs is left. Only records of version 2 tell an output that was not copied from one that has
    /// expired.
    fn undo_incomplete(&mut self, order: &[usize], undoable: &dyn Fn(usize) -> bool) {
        let mut consumers: HashMap<&Key, Vec<usize>> = HashMap::new();
        for (index, record) in self.records.iter().enumerate() {
            for (input, _) in &record.inputs {
                consumers.entry(input).or_default().push(index);
            }
        }
        let consumers_of = |index: usize| {
            let outputs = self.records[index].outputs.iter();
            outputs.flat_map(|output| consumers.get(&output.key).into_iter().flatten().copied())
        };
        loop {
            let is_undone = &self.is_undone;
            let is_merged = |output: &Output| {
                consumers.get(&output.key).is_some_and(|all| all.iter().any(|index| !is_undone[*index]))
            };
            let is_incomplete = |index: usize| {
                let mut outputs = self.records[index].outputs.iter();
                !is_undone[index]
                    && !outputs.all(|output| self.listing.contains(&output.key) || is_merged(output))
            };
            let mut chains = order.iter().rev().filter(|index| is_incomplete(**index)).filter_map(|index| {
                let mut chain = BTreeSet::from([*index]);
                let mut ahead = vec![*index];
                while let Some(index) = ahead.pop() {
                    let more = consumers_of(index).filter(|index| !is_undone[*index]).collect::<Vec<_>>();
                    ahead.extend(more.into_iter().filter(|index| chain.insert(*index)));
                }
                let is_void = |index: &usize| {
                    let record = &self.records[*index];
                    let mut outputs = record.outputs.iter();
                    record.records_deaths && !outputs.any(|output| self.listing.contains(&output.key))
                };
                let loses_nothing = chain.iter().all(|index| undoable(*index)) || chain.iter().all(is_void);
                loses_nothing.then_some(chain)
            });
            let Some(chain) = chains.next() else {
                return;
            };
            drop(chains);
            chain.into_iter().for_each(|index| self.is_undone[index] = true);
        }
    }

    /// Undoes records whose inputs an earlier record replaced.
    fn undo_repeated(
        &mut self,
        order: &[usize],
        is_restorable: impl Fn(&Key) -> bool,
    ) -> Result<(), Box<Conflict>> {
        let mut replaced_by: HashMap<&Key, usize> = HashMap::new();
        // Outputs of repeated records: they hold the same data as those of the first record.
        let mut repeated: HashMap<&Key, usize> = HashMap::new();
        for index in order.iter().copied() {
            if self.is_undone[index] {
                continue;
            }
            let record = &self.records[index];
            let first = |input: &Key| replaced_by.get(input).or_else(|| repeated.get(input)).copied();
            let taken = record.inputs.iter().find_map(|(input, _)| Some((input, first(input)?)));
            let Some((input, first_index)) = taken else {
                replaced_by.extend(record.inputs.iter().map(|(input, _)| (input, index)));
                continue;
            };
            let mut left = record.inputs.iter().filter(|(input, _)| first(input).is_none());
            if !left.all(|(input, _)| is_restorable(input)) {
                let first = self.records[first_index].job;
                return Err(Box::new(Conflict { first, second: record.job, input: input.clone() }));
            }
            self.is_undone[index] = true;
            repeated.extend(record.outputs.iter().map(|output| (&output.key, first_index)));
        }
        self.replaced = replaced_by.into_keys().collect();
        Ok(())
    }
}

impl Trace<'_> {
    fn is_live(&self, key: &Key) -> bool {
        !self.replaced.contains(key) && self.listing.contains(key)
    }

    fn live_blocks(&self) -> Vec<Output> {
        let in_force = self.records.iter().zip(&self.is_undone).filter(|(_, is_undone)| !**is_undone);
        let outputs = in_force.flat_map(|(record, _)| &record.outputs);
        outputs.filter(|output| self.is_live(&output.key)).cloned().collect()
    }

    fn restored(&self) -> Vec<Key> {
        let all = || self.records.iter().enumerate();
        let undone_records = || all().filter(|(index, _)| self.is_undone[*index] && !self.doubled[*index]);
        let outputs = undone_records().flat_map(|(_, record)| &record.outputs);
        let void: HashSet<&Key> = outputs.map(|output| &output.key).collect();
        let inputs = undone_records().flat_map(|(_, record)| record.inputs.iter().map(|(key, _)| key));
        inputs.filter(|key| self.is_live(key) && !void.contains(*key)).cloned().collect()
    }
}

/// Whether an absent segment was made after its log was listed for a copy. Segments are swept from the start of a
/// log, and a finished log keeps its seal for longer than its segments.
fn is_above_copy(listing: &Listing, input: &Key, age_millis: i64) -> bool {
    input.parse_log_slot().is_some_and(|(writer, seq)| match listing.last_slot(writer) {
        Some(last) => seq > last,
        None => age_millis < SEAL_KEPT_MILLIS,
    })
}

/// Positions of all records, each after those that made its inputs, otherwise by time. Records that name each other's
/// outputs, which no sound bucket has, come last.
fn producers_first(records: &[Record], producer: &dyn Fn(&Key) -> Option<usize>) -> Vec<usize> {
    let producers = |index: usize| -> BTreeSet<usize> {
        records[index]
            .inputs
            .iter()
            .filter_map(|(input, _)| producer(input))
            .filter(|made| *made != index)
            .collect()
    };
    let mut waiting: Vec<usize> = (0..records.len()).map(|index| producers(index).len()).collect();
    let mut consumers: Vec<Vec<usize>> = vec![Vec::new(); records.len()];
    for index in 0..records.len() {
        producers(index).into_iter().for_each(|made| consumers[made].push(index));
    }
    let time = |index: usize| (records[index].published_millis, records[index].job, index);
    let mut ready: BTreeSet<_> = (0..records.len()).filter(|index| waiting[*index] == 0).map(time).collect();
    let mut order = Vec::with_capacity(records.len());
    while let Some((.., index)) = ready.pop_first() {
        order.push(index);
        for consumer in &consumers[index] {
            waiting[*consumer] -= 1;
            if waiting[*consumer] == 0 {
                ready.insert(time(*consumer));
            }
        }
    }
    let circular = (0..records.len()).filter(|index| waiting[*index] > 0);
    order.extend(circular);
    order
}

#[cfg(test)]
mod tests {
    use model::{BlockId, DAY, Shard, TenantId, Window, WriterId};
    use storage::Place;

    use super::*;

    fn segment(seq: u64) -> Key {
        Key::log_slot(WriterId(1), seq)
    }

    fn block(job: u128, part: u32) -> Key {
        let place = Place { level: 1, window: Window { start: 0, length: 300 }, shard: Shard::ALL };
        Key::block(&TenantId::anonymous(), place, BlockId { job: JobId(job), attempt: 1, part })
    }

    /// A month later: finished logs have lost their seals.
    const NOW_MILLIS: i64 = 30 * DAY * 1_000;

    /// A record of `job`, published at second `job`, that made blocks `0..parts`.
    fn record(job: u128, inputs: &[Key], parts: u32) -> Record {
        let output = |part| Output {
            key: block(job, part),
            bytes: 1,
            window: Window { start: 0, length: 300 },
            floor: 0,
        };
        Record {
            job: JobId(job),
            attempt: 1,
            published_millis: job as i64 * 1_000,
            inputs: inputs.iter().map(|key| (key.clone(), Vec::new())).collect(),
            outputs: (0..parts).map(output).collect(),
            records_deaths: true,
        }
    }

    /// Live blocks, then restored inputs.
    fn traced(records: &[Record], present: &[Key]) -> Result<(Vec<Key>, Vec<Key>), Conflict> {
        let listing = Listing::of_keys(present);
        let lineage = Lineage::trace(records.to_vec(), &listing, NOW_MILLIS).map_err(|error| *error)?;
        let mut live: Vec<Key> = lineage.live_blocks().iter().map(|output| output.key.clone()).collect();
        let mut restored: Vec<Key> = lineage.restored().to_vec();
        live.sort();
        restored.sort();
        Ok((live, restored))
    }

    #[test]
    fn outputs_that_no_record_replaced_are_live() {
        let records = [record(2, &[block(1, 0)], 1), record(1, &[segment(0), segment(1)], 2)];
        let present = [block(1, 1), block(2, 0)];
        assert_eq!(traced(&records, &present), Ok((vec![block(1, 1), block(2, 0)], vec![])));
        let before_the_sweep = [segment(0), segment(1), block(1, 0), block(1, 1), block(2, 0)];
        assert_eq!(traced(&records, &before_the_sweep), Ok((vec![block(1, 1), block(2, 0)], vec![])));
    }

    #[test]
    fn an_output_past_its_time_leaves_the_others_live() {
        let records = [record(1, &[segment(0), segment(1)], 2), record(2, &[block(1, 1)], 0)];
        assert_eq!(traced(&records, &[segment(1), block(1, 0)]), Ok((vec![block(1, 0)], vec![])));
        // Before deaths were recorded.
        let records = [Record { records_deaths: false, ..record(1, &[segment(0), segment(1)], 2) }];
        assert_eq!(traced(&records, &[segment(1), block(1, 0)]), Ok((vec![block(1, 0)], vec![])));
    }

    #[test]
    fn a_record_whose_outputs_were_not_copied_is_undone() {
        let records = [record(1, &[segment(0), segment(1)], 2)];
        let segments = vec![segment(0), segment(1)];
        assert_eq!(traced(&records, &segments), Ok((vec![], segments.clone())));
        let half = [segment(0), segment(1), block(1, 1)];
        assert_eq!(traced(&records, &half), Ok((vec![], segments)));
    }

    #[test]
    fn a_chain_of_merges_is_undone_as_far_as_its_inputs_were_copied() {
        let records = [record(1, &[segment(0)], 1), record(2, &[block(1, 0), block(9, 0)], 1)];
        let inputs = vec![block(9, 0), segment(0)];
        assert_eq!(traced(&records, &inputs), Ok((vec![], inputs.clone())));
        // The second is complete, but the first made another block, which is missing.
        let records = [record(1, &[segment(0)], 2), record(2, &[block(1, 0)], 1)];
        let copied = [segment(0), block(2, 0)];
        assert_eq!(traced(&records, &copied), Ok((vec![], vec![segment(0)])));
        // As before, but the segment is gone too: the existing block counts.
        assert_eq!(traced(&records, &[block(2, 0)]), Ok((vec![block(2, 0)], vec![])));
    }

    #[test]
    fn a_merge_of_copied_and_later_data_is_undone() {
        let records = [
            record(1, &[segment(0)], 1),
            record(2, &[segment(1)], 1),
            record(3, &[block(1, 0), block(2, 0)], 1),
        ];
        assert_eq!(traced(&records, &[block(1, 0)]), Ok((vec![block(1, 0)], vec![block(1, 0)])));
    }

    #[test]
    fn the_loss_of_one_output_undoes_no_merge_whose_inputs_were_swept() {
        // Both outputs of the first record were merged further; one of the results is lost. The segment still exists,
        // the older block of the other merge does not.
        let records = [
            record(1, &[segment(5)], 2),
            record(2, &[block(1, 0), block(8, 0)], 1),
            record(3, &[block(1, 1), block(9, 0)], 1),
        ];
        let present = [segment(5), segment(6), block(3, 0)];
        assert_eq!(traced(&records, &present), Ok((vec![block(3, 0)], vec![])));
        let older = [record(1, &[segment(0), segment(1)], 2)];
        let swept = [segment(1), segment(2), block(1, 0)];
        assert_eq!(traced(&older, &swept), Ok((vec![block(1, 0)], vec![])));
    }

    #[test]
    fn undoing_a_repeated_merge_restores_its_other_inputs() {
        let records = [
            record(1, &[segment(0)], 1),
            record(3, &[segment(0)], 1),
            record(4, &[segment(9)], 1),
            record(5, &[block(3, 0), block(4, 0)], 1),
        ];
        let present = [block(1, 0), block(3, 0), block(5, 0), segment(9)];
        assert_eq!(traced(&records, &present), Ok((vec![block(1, 0)], vec![segment(9)])));
    }

    #[test]
    fn two_records_of_one_job_are_one() {
        let second = record(1, &[segment(1)], 1);
        let records = [second, record(1, &[segment(0), segment(1)], 1)];
        let present = [segment(0), segment(1), block(1, 0)];
        for records in [records.to_vec(), records.iter().rev().cloned().collect()] {
            assert_eq!(traced(&records, &present), Ok((vec![block(1, 0)], vec![])));
            let lineage =
                Lineage::trace(records, &Listing::of_keys(&present), NOW_MILLIS).expect("no conflict");
            assert_eq!(lineage.undone_records().count(), 0);
            assert!(lineage.is_replaced(&segment(0)));
        }
    }

    #[test]
    fn the_earlier_of_two_merges_of_the_same_inputs_counts() {
        let records = [
            record(1, &[segment(0), segment(1)], 1),
            record(2, &[block(1, 0)], 1),
            record(3, &[segment(0)], 1),
            record(4, &[segment(1)], 1),
            record(5, &[block(3, 0), block(4, 0)], 1),
        ];
        let present = [block(2, 0), block(3, 0), block(4, 0), block(5, 0)];
        assert_eq!(traced(&records, &present), Ok((vec![block(2, 0)], vec![])));
    }

    #[test]
    fn merges_that_share_some_inputs_conflict_unless_the_other_inputs_exist() {
        let records = [record(1, &[segment(0), segment(1)], 1), record(2, &[segment(1), segment(2)], 1)];
        let blocks = [block(1, 0), block(2, 0)];
        let conflict = Conflict { first: JobId(1), second: JobId(2), input: segment(1) };
        assert_eq!(traced(&records, &blocks), Err(conflict));
        let present = [block(1, 0), block(2, 0), segment(2)];
        assert_eq!(traced(&records, &present), Ok((vec![block(1, 0)], vec![segment(2)])));
    }
}
