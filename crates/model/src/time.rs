/// A half-open range of Unix nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimeRange {
    pub start: i64,
    pub end: i64,
}

impl TimeRange {
    /// The instants that a client means by `start..=end` in Unix milliseconds, both included.
    pub fn from_millis_inclusive(start: i64, end: i64) -> Self {
        Self { start: start.saturating_mul(1_000_000), end: end.saturating_mul(1_000_000).saturating_add(1) }
    }

    pub fn contains(&self, nanos: i64) -> bool {
        self.start <= nanos && nanos < self.end
    }

    /// Whether any instant of `first..=last` lies within.
    pub fn overlaps(&self, first: i64, last: i64) -> bool {
        first < self.end && last >= self.start
    }
}
