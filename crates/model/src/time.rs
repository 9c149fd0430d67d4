//! Time ranges: half-open `TimeRange`, inclusive `Times`, and the aligned `Window` of a block.

/// A half-open range of Unix nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimeRange {
    pub start: i64,
    pub end: i64,
}

impl TimeRange {
    /// The range of a client's `start..=end` in Unix milliseconds, both included.
    pub fn from_millis_inclusive(start: i64, end: i64) -> Self {
        Self { start: start.saturating_mul(1_000_000), end: end.saturating_mul(1_000_000).saturating_add(1) }
    }

    pub fn contains(&self, nanos: i64) -> bool {
        self.start <= nanos && nanos < self.end
    }

    /// Whether the range holds any instant of `times`.
    pub fn overlaps(&self, times: Times) -> bool {
        times.first < self.end && times.last >= self.start
    }
}

/// The first and the last of a set of instants, both inclusive, in Unix nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Times {
    pub first: i64,
    pub last: i64,
}

impl Times {
    /// The shortest `Times` that hold both.
    pub fn join(self, other: Self) -> Self {
        Self { first: self.first.min(other.first), last: self.last.max(other.last) }
    }
}

/// An hour in seconds.
pub const HOUR: i64 = 3_600;
/// A day in seconds.
pub const DAY: i64 = 24 * HOUR;

/// The time range of a block's profiles: half-open, in Unix seconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Window {
    pub start: i64,
    pub length: i64,
}

impl Window {
    /// The window of `length` seconds that contains `second`; windows of one length are adjacent, from 1970 on.
    pub fn around(second: i64, length: i64) -> Self {
        Self { start: second.div_euclid(length) * length, length }
    }

    /// The first second after the window.
    pub fn end(&self) -> i64 {
        self.start.saturating_add(self.length)
    }

    pub fn contains(&self, second: i64) -> bool {
        self.start <= second && second < self.end()
    }

    /// The window's first and last nanosecond.
    pub fn times(&self) -> Times {
        const SECOND_NANOS: i64 = 1_000_000_000;
        let first = self.start.saturating_mul(SECOND_NANOS);
        Times { first, last: self.end().saturating_mul(SECOND_NANOS).saturating_sub(1) }
    }

    /// Number of the day, from 1970, in which the window starts.
    pub fn day(&self) -> i64 {
        self.start.div_euclid(DAY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_before_1970_has_its_day_and_times() {
        let window = Window::around(-1, HOUR);
        assert_eq!(window, Window { start: -HOUR, length: HOUR });
        assert_eq!((window.end(), window.day()), (0, -1));
        assert!(window.contains(-HOUR) && window.contains(-1) && !window.contains(0));
        assert_eq!(window.times(), Times { first: -HOUR * 1_000_000_000, last: -1 });
    }
}
