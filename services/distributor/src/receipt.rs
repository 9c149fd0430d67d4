//! The counts of stored and discarded samples that an accepted request is answered with.

use std::collections::BTreeMap;
use std::fmt;

/// Counts of the samples of one accepted request.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Receipt {
    /// Samples that are durable.
    pub(crate) stored: usize,
    /// Samples that were left out of accepted profiles. Samples with zeros only are not counted: they carry no
    /// information.
    pub(crate) discarded: DiscardCounts,
}

impl Receipt {
    pub(crate) fn add(&mut self, other: &Self) {
        self.stored += other.stored;
        self.discarded.add(&other.discarded);
    }
}

/// Why a sample is left out of an accepted profile.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Reason {
    NegativeValue,
    /// A location that is missing in the profile, or has neither line nor address.
    UnknownLocation,
    LineWithoutCount,
    /// A line of text that is too long, or comes after one.
    LineTooLong,
    /// The profile belongs to one span alone (label `profile_id`), and such profiles are not kept.
    SpanProfile,
}

impl Reason {
    /// The value of label `reason` in metrics, and the name in a response header.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::NegativeValue => "negative_value",
            Self::UnknownLocation => "unknown_location",
            Self::LineWithoutCount => "line_without_count",
            Self::LineTooLong => "line_too_long",
            Self::SpanProfile => "span_profile",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::NegativeValue => "with a negative value",
            Self::UnknownLocation => "with a location that is unknown or empty",
            Self::LineWithoutCount => "without a count",
            Self::LineTooLong => "in or after a line that is too long",
            Self::SpanProfile => "of one span alone",
        }
    }
}

/// Numbers of discarded samples by reason.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct DiscardCounts(BTreeMap<Reason, usize>);

impl DiscardCounts {
    pub(crate) fn count(&mut self, reason: Reason, samples: usize) {
        if samples > 0 {
            *self.0.entry(reason).or_default() += samples;
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        other.iter().for_each(|(reason, samples)| self.count(reason, samples));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Reason, usize)> {
        self.0.iter().map(|(reason, samples)| (*reason, *samples))
    }

    /// `negative_value=2, unknown_location=1`, as in a response header.
    pub(crate) fn header(&self) -> String {
        let pairs: Vec<String> =
            self.iter().map(|(reason, samples)| format!("{}={samples}", reason.name())).collect();
        pairs.join(", ")
    }
}

/// `2 with a negative value, 1 with a location that is unknown or empty`
impl fmt::Display for DiscardCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (reason, samples)) in self.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            write!(f, "{comma}{samples} {}", reason.words())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_added_and_written_in_a_fixed_order() {
        let mut first = Receipt { stored: 3, ..Receipt::default() };
        first.discarded.count(Reason::UnknownLocation, 1);
        first.discarded.count(Reason::SpanProfile, 0);
        let mut second = Receipt { stored: 4, ..Receipt::default() };
        second.discarded.count(Reason::NegativeValue, 2);
        second.discarded.count(Reason::UnknownLocation, 1);
        first.add(&second);
        assert_eq!(first.stored, 7);
        assert_eq!(first.discarded.header(), "negative_value=2, unknown_location=2");
        assert_eq!(
            first.discarded.to_string(),
            "2 with a negative value, 2 with a location that is unknown or empty"
        );
    }
}
