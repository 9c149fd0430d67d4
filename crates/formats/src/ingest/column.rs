//! The value column of profiles without sample types.

const CPU: (&str, &str) = ("cpu", "nanoseconds");

/// Name and type of the values of a profile without sample types, derived from the suffix of its application name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Column {
    /// `__name__` of the series.
    pub name: &'static str,
    pub sample_type: &'static str,
    pub unit: &'static str,
    /// Nanoseconds per value of 1, with a period type of `cpu` in nanoseconds; 0 if values are not scaled and there
    /// is no period type.
    pub period: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown profile type: {0}")]
pub struct UnknownColumn(pub String);

/// The column for a `suffix` from [`super::AppName::split_column`]. `sample_rate` is in Hz.
///
/// # Errors
/// If the suffix is unknown.
pub fn column(suffix: &str, sample_rate: u32) -> Result<Column, UnknownColumn> {
    let (name, sample_type, unit) = match suffix {
        "cpu" | "itimer" => ("process_cpu", "samples", "count"),
        "wall" | "seconds" | "milliseconds" | "microseconds" | "nanoseconds" => ("wall", "samples", "count"),
        "inuse_objects" => ("memory", "inuse_objects", "count"),
        "alloc_objects" => ("memory", "alloc_objects", "count"),
        "inuse_space" => ("memory", "inuse_space", "bytes"),
        "alloc_space" => ("memory", "alloc_space", "bytes"),
        "goroutines" => ("goroutine", "goroutines", "count"),
        "mutex_count" => ("mutex", "contentions", "count"),
        "mutex_duration" => ("mutex", "delay", "nanoseconds"),
        "block_count" | "lock_count" => ("block", "contentions", "count"),
        "block_duration" | "lock_duration" => ("block", "delay", "nanoseconds"),
        "alloc_in_new_tlab_objects" => ("memory", "alloc_in_new_tlab_objects", "count"),
        "alloc_outside_tlab_objects" => ("memory", "alloc_outside_tlab_objects", "count"),
        "alloc_in_new_tlab_bytes" => ("memory", "alloc_in_new_tlab_bytes", "bytes"),
        "alloc_outside_tlab_bytes" => ("memory", "alloc_outside_tlab_bytes", "bytes"),
        "live" => ("memory", "live", "count"),
        "exceptions" => ("exceptions", "samples", "count"),
        "bytes" => ("memory", "samples", "bytes"),
        other => return Err(UnknownColumn(other.to_owned())),
    };
    let scaled = match name {
        "process_cpu" => Some(CPU),
        "wall" => Some(("wall", "nanoseconds")),
        _ => None,
    };
    match scaled.zip(1_000_000_000_u32.checked_div(sample_rate)) {
        Some(((sample_type, unit), period)) => {
            Ok(Column { name, sample_type, unit, period: i64::from(period) })
        }
        None => Ok(Column { name, sample_type, unit, period: 0 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suffix_determines_the_type_and_the_rate_the_scale() {
        let cases = [
            ("cpu", 100, "process_cpu:cpu:nanoseconds*10000000"),
            ("itimer", 0, "process_cpu:samples:count*0"),
            ("wall", 1000, "wall:wall:nanoseconds*1000000"),
            ("nanoseconds", 0, "wall:samples:count*0"),
            ("inuse_space", 100, "memory:inuse_space:bytes*0"),
            ("goroutines", 100, "goroutine:goroutines:count*0"),
            ("lock_duration", 100, "block:delay:nanoseconds*0"),
            ("mutex_count", 100, "mutex:contentions:count*0"),
            ("live", 100, "memory:live:count*0"),
            ("exceptions", 100, "exceptions:samples:count*0"),
            ("bytes", 100, "memory:samples:bytes*0"),
        ];
        for (suffix, rate, expected) in cases {
            let c = column(suffix, rate).unwrap();
            let got = format!("{}:{}:{}*{}", c.name, c.sample_type, c.unit, c.period);
            assert_eq!(got, expected);
        }
        let unknown = column("none", 100).unwrap_err();
        assert_eq!(unknown.to_string(), "unknown profile type: none");
    }
}
