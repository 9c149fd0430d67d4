//! Profile types, and the schema of value columns from which they follow.

use std::fmt;
use std::str::FromStr;

use crate::Labels;
use crate::label_names::{DERIVED_SERVICE_NAME, PROFILE_TYPE, SERVICE_NAME, TYPE_PARTS};

/// `name:sample_type:sample_unit:period_type:period_unit`, for example
/// `process_cpu:cpu:nanoseconds:cpu:nanoseconds`. The period parts may be empty.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ProfileType {
    pub name: String,
    pub sample_type: String,
    pub sample_unit: String,
    pub period_type: String,
    pub period_unit: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "profile-type selection must be of the form <name>:<type>:<unit>:<period-type>:<period-unit>(:delta), got {parts} parts in {text:?}"
)]
pub struct ProfileTypeError {
    text: String,
    parts: usize,
}

impl ProfileType {
    /// In the order of the id.
    pub fn parts(&self) -> [&str; 5] {
        let Self { name, sample_type, sample_unit, period_type, period_unit } = self;
        [name, sample_type, sample_unit, period_type, period_unit]
    }
}

impl FromStr for ProfileType {
    type Err = ProfileTypeError;

    /// A sixth part, historically `delta`, is ignored.
    fn from_str(text: &str) -> Result<Self, ProfileTypeError> {
        let parts: Vec<&str> = text.split(':').collect();
        if parts.len() != 5 && parts.len() != 6 {
            return Err(ProfileTypeError { text: text.to_owned(), parts: parts.len() });
        }
        Ok(Self {
            name: parts[0].to_owned(),
            sample_type: parts[1].to_owned(),
            sample_unit: parts[2].to_owned(),
            period_type: parts[3].to_owned(),
            period_unit: parts[4].to_owned(),
        })
    }
}

impl fmt::Display for ProfileType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, sample_type, sample_unit, period_type, period_unit } = self;
        write!(f, "{name}:{sample_type}:{sample_unit}:{period_type}:{period_unit}")
    }
}

/// The meaning of the value columns of a profile: one `(type, unit)` per column.
///
/// One pushed profile is one set of rows with a column per sample type. For clients, each column is a separate
/// profile type, and so a separate series.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct ValueSchema {
    /// `__name__`, for example `process_cpu`.
    pub name: String,
    /// `(type, unit)` of each value column, in the order of the columns.
    pub columns: Vec<(String, String)>,
    /// `(type, unit)` of the sampling period; absent in some profiles.
    pub period: Option<(String, String)>,
}

impl ValueSchema {
    /// The profile type of value column `column`.
    pub fn profile_type(&self, column: usize) -> ProfileType {
        let [name, sample_type, sample_unit, period_type, period_unit] =
            self.type_parts(column).map(str::to_owned);
        ProfileType { name, sample_type, sample_unit, period_type, period_unit }
    }

    /// [`ProfileType::parts`] of [`Self::profile_type`], without copies.
    pub fn type_parts(&self, column: usize) -> [&str; 5] {
        let (sample_type, sample_unit) = &self.columns[column];
        let (period_type, period_unit) =
            self.period.as_ref().map_or(("", ""), |(of, unit)| (of.as_str(), unit.as_str()));
        [&self.name, sample_type, sample_unit, period_type, period_unit]
    }

    /// The label set that clients see for value column `column` of a series with the stored labels `labels`: these
    /// and the derived ones.
    pub fn series_labels(&self, column: usize, labels: &Labels) -> Labels {
        let parts = self.type_parts(column);
        let mut seen = labels.clone();
        seen.set(PROFILE_TYPE, &parts.join(":"));
        for (name, value) in TYPE_PARTS.into_iter().zip(parts).filter(|(_, value)| !value.is_empty()) {
            seen.set(name, value);
        }
        if let Some(service) = labels.get(SERVICE_NAME) {
            seen.set(DERIVED_SERVICE_NAME, service);
        }
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_without_period_keeps_its_empty_parts() {
        let text = "memory:malloc_objects:count::";
        assert_eq!(text.parse::<ProfileType>().map(|t| t.to_string()).as_deref(), Ok(text));
    }

    #[test]
    fn a_sixth_part_is_ignored_and_four_parts_are_refused() {
        assert!("a:b:c:d:e:delta".parse::<ProfileType>().is_ok());
        assert!("a:b:c:d".parse::<ProfileType>().is_err());
    }

    #[test]
    fn series_labels_include_the_derived_ones() {
        let schema = ValueSchema {
            name: "process_cpu".into(),
            columns: vec![("cpu".into(), "nanoseconds".into())],
            period: Some(("cpu".into(), "nanoseconds".into())),
        };
        let labels = schema.series_labels(0, &Labels::from_pairs([("service_name", "app")]));
        assert_eq!(labels.get("__service_name__"), Some("app"));
        assert_eq!(labels.get("__profile_type__"), Some("process_cpu:cpu:nanoseconds:cpu:nanoseconds"));
    }
}
