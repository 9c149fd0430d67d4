//! Deletions: the data that they match, and the profiles of a dataset that they erase.
//!
//! Owns: how matchers and time choose profiles to erase. Does not own: which deletions are in force, and for which
//! objects (the metastore); taking rows out of objects (`block`).

use block::{DatasetIndex, ErasedProfiles};
use model::label_names::{PROFILE_TYPE, TYPE_PARTS, is_of_type, is_service_name};
use model::{ProfileType, TenantId, TimeRange, Times};

use crate::scan::{DerivedLabels, in_range, select_runs};
use crate::selector::Selector;

/// A request to erase every matching profile that was stored before it.
#[derive(Clone, Debug)]
pub struct Deletion {
    /// Rises with every deletion of any tenant; at least 1.
    pub number: u64,
    pub tenant: TenantId,
    /// At least one matcher.
    pub selector: Selector,
    pub range: TimeRange,
}

impl Deletion {
    /// Whether a dataset may hold profiles to erase, judged by its directory entry alone. An empty list of types means
    /// any type.
    pub fn touches(&self, tenant: &TenantId, service: &str, types: &[ProfileType], times: Times) -> bool {
        if self.tenant != *tenant || !self.range.overlaps(times) {
            return false;
        }
        let mut of_service = self.selector.matchers.iter().filter(|m| is_service_name(&m.name));
        of_service.all(|matcher| matcher.matches(service))
            && (types.is_empty() || types.iter().any(|profile_type| self.matches_type(profile_type)))
    }

    /// The times of the profiles of a dataset that may remain, judged by its directory entry alone; `None` if none
    /// remains. Parameters are those of [`Self::touches`].
    pub fn remaining_times(
        &self,
        tenant: &TenantId,
        service: &str,
        types: &[ProfileType],
        times: Times,
    ) -> Option<Times> {
        let is_known = |name: &str| is_service_name(name) || is_of_type(name);
        let takes_all = self.selector.matchers.iter().all(|matcher| is_known(&matcher.name))
            && !types.is_empty()
            && types.iter().all(|profile_type| self.matches_type(profile_type));
        if !takes_all || !self.touches(tenant, service, types, times) {
            return Some(times);
        }
        let Times { mut first, mut last } = times;
        if self.range.start <= first {
            first = self.range.end;
        }
        if self.range.end > last {
            last = self.range.start.saturating_sub(1);
        }
        (first <= last).then_some(Times { first, last })
    }

    /// Whether it may erase profiles of this type.
    fn matches_type(&self, profile_type: &ProfileType) -> bool {
        self.selector.matchers.iter().all(|matcher| {
            if *matcher.name == *PROFILE_TYPE {
                return matcher.matches(&profile_type.to_string());
            }
            let part = TYPE_PARTS.into_iter().position(|part| *matcher.name == *part);
            part.is_none_or(|part| matcher.matches(profile_type.parts()[part]))
        })
    }
}

/// The profiles of a dataset that `deletions` erase: sorted by schema, column and profile, without overlap. Deletions
/// must be of the dataset's tenant.
pub fn erased<'a>(
    index: &DatasetIndex,
    deletions: impl IntoIterator<Item = &'a Deletion>,
) -> Vec<ErasedProfiles> {
    let mut all: Vec<ErasedProfiles> = Vec::new();
    for deletion in deletions {
        for (schema, value_schema) in index.schemas.iter().enumerate() {
            for column in 0..value_schema.columns.len() {
                let derived = DerivedLabels::new(value_schema, column);
                let Some(matchers) = derived.narrow(&deletion.selector.matchers) else {
                    continue;
                };
                select_runs(index, schema as u32, &matchers, |_, profiles| {
                    let profiles = in_range(index, profiles, deletion.range);
                    if !profiles.is_empty() {
                        all.push(ErasedProfiles { schema: schema as u32, column: column as u32, profiles });
                    }
                });
            }
        }
    }
    all.sort_unstable_by_key(|e| (e.schema, e.column, e.profiles.start, e.profiles.end));
    all.dedup_by(|next, before| {
        let joins = (next.schema, next.column) == (before.schema, before.column)
            && next.profiles.start <= before.profiles.end;
        if joins {
            before.profiles.end = before.profiles.end.max(next.profiles.end);
        }
        joins
    });
    all
}
