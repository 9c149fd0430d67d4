//! The item that a distributor sends to an ingester.

use std::sync::Arc;

use crate::{ItemKey, Labels, Profile, TenantId, ValueSchema};

/// One profile document on its way from the distributor to the ingester: validated, normalised
/// and split into series. It is never divided: all its series are stored in one segment. Cheap to
/// clone.
#[derive(Clone, Debug)]
pub struct PushItem {
    pub tenant: TenantId,
    /// Items with equal keys are the same push, and count once.
    pub key: ItemKey,
    /// Symbols and values; `series` selects the samples that count.
    pub profile: Arc<Profile>,
    /// At least one; label sets are distinct within one schema.
    pub series: Arc<[SeriesRows]>,
}

impl PushItem {
    /// Memory that this item is charged for while it waits, in bytes.
    pub fn byte_len(&self) -> usize {
        self.profile.symbols.byte_len() + self.profile.samples.values.len() * 8
    }
}

/// The samples of one profile that belong to one label set.
#[derive(Clone, Debug)]
pub struct SeriesRows {
    /// Sorted; without the labels that [`ValueSchema::series_labels`] derives. Has `service_name`.
    pub labels: Labels,
    pub schema: Arc<ValueSchema>,
    /// Indices into the samples of the profile. May be unsorted; samples with equal stacktraces are summed later.
    pub samples: Vec<u32>,
    /// The span of `samples[i]`; empty if no sample of this series has one.
    pub spans: Vec<Span>,
}

/// Trace context of a sample; zero means absent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Span {
    /// As 16 hexadecimal digits to clients, most significant first.
    pub span_id: u64,
    /// As 32 hexadecimal digits to clients, most significant first.
    pub trace_id: u128,
}
