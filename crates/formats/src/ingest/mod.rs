//! The meaning of the parameters of `POST /ingest`: pure functions of text.
//!
//! Owns: the format, the `name`, times, the type of a profile's values. Does not own: HTTP, or the final labels of a
//! series (`distributor`).

mod app_name;
mod attime;
mod column;
mod format;
mod sample_types;
mod scripting;

pub use app_name::{AppName, AppNameError};
pub use attime::attime;
pub use column::{Column, UnknownColumn, column};
pub use format::{Format, Unsupported};
pub use sample_types::{ConfigError, SampleTypeConfig};
pub use scripting::{FrameNamesTooLong, put_files_into_frame_names};

/// The `sampleRate` parameter in Hz: 100 unless it is a valid 32-bit number.
pub fn sample_rate(text: &str) -> u32 {
    text.parse().unwrap_or(100)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_sample_rate_that_is_none_is_100() {
        for (text, expected) in [("", 100), ("x", 100), ("-1", 100), ("0", 0), ("97", 97)] {
            assert_eq!(super::sample_rate(text), expected, "{text:?}");
        }
    }
}
