//! The settings of a recording that decide what its samples mean.
//!
//! Owns: which settings count, their defaults, the time that one sample stands for.
//! Does not own: reading them (`events.rs`).

/// Interval of async-profiler where a setting is 0 or missing, in nanoseconds: of CPU samples, and of wall samples.
const CPU_INTERVAL: i64 = 10_000_000;
const WALL_INTERVAL: i64 = 50_000_000;

const SECOND: i64 = 1_000_000_000;

/// Settings read so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    /// What async-profiler samples: `cpu`, `itimer`, `ctimer`, `wall`, …
    pub(super) event: String,
    /// Nanoseconds; 0 is the default of the event.
    interval: Option<i64>,
    /// Interval of wall samples beside others, in nanoseconds; 0 is the default.
    wall: Option<i64>,
    /// Whether wall samples are written one by one, as events of the same type as CPU samples.
    is_unbatched: bool,
    /// Interval of the JDK, in nanoseconds.
    period: Option<i64>,
}

impl Settings {
    /// Takes a setting; `of_samples` if it belongs to `jdk.ExecutionSample`.
    pub(super) fn set(&mut self, name: &str, value: &str, of_samples: bool) {
        let interval = || value.parse().ok().filter(|interval: &i64| *interval >= 0);
        match name {
            "event" => self.event = value.to_owned(),
            "interval" if of_samples => self.interval = interval(),
            "wall" if of_samples => self.wall = interval(),
            "nobatch" if of_samples => self.is_unbatched = value == "true",
            "period" if of_samples => self.period = nanoseconds(value),
            _ => {}
        }
    }

    pub(super) fn is_wall(&self) -> bool {
        self.event == "wall"
    }

    /// Whether samples of running and sleeping threads are wall samples, and only those in the default state are
    /// CPU samples.
    pub(super) fn has_unbatched_wall(&self) -> bool {
        self.is_unbatched && self.wall.is_some() && !self.is_wall()
    }

    /// Nanoseconds of CPU time of one sample.
    pub(super) fn cpu_nanos(&self, sample_rate: Option<u32>) -> i64 {
        if let Some(rate) = sample_rate {
            return SECOND.checked_div(rate.into()).unwrap_or(0);
        }
        let default = if self.is_wall() { WALL_INTERVAL } else { CPU_INTERVAL };
        let set = self.interval.filter(|interval| *interval > 0);
        set.or(self.period).unwrap_or(default)
    }

    /// Nanoseconds of wall time of one sample.
    pub(super) fn wall_nanos(&self, sample_rate: Option<u32>) -> i64 {
        match self.wall {
            // The rate is that of the event, which is another one.
            Some(interval) if !self.is_wall() && sample_rate != Some(0) => {
                if interval > 0 {
                    interval
                } else {
                    WALL_INTERVAL
                }
            }
            _ => self.cpu_nanos(sample_rate),
        }
    }
}

/// The period of an event of the JDK, such as `10 ms`, if it is a positive time.
fn nanoseconds(text: &str) -> Option<i64> {
    let (number, unit) = text.split_once(' ')?;
    let unit = match unit {
        "ns" => 1,
        "us" => 1000,
        "ms" => 1_000_000,
        "s" => SECOND,
        _ => return None,
    };
    number.parse::<i64>().ok()?.checked_mul(unit).filter(|nanoseconds| *nanoseconds > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        let mut settings = Settings::default();
        pairs.iter().for_each(|(name, value)| settings.set(name, value, true));
        settings
    }

    #[test]
    fn the_rate_of_the_request_wins_over_the_settings_and_these_over_defaults() {
        let cases: [(&[(&str, &str)], Option<u32>, (i64, i64)); 9] = [
            (&[], Some(100), (10_000_000, 10_000_000)),
            (&[], Some(0), (0, 0)),
            (&[], None, (10_000_000, 10_000_000)),
            (&[("event", "wall"), ("interval", "0")], None, (50_000_000, 50_000_000)),
            (&[("event", "wall"), ("interval", "20000000")], None, (20_000_000, 20_000_000)),
            (&[("event", "cpu"), ("wall", "0")], Some(100), (10_000_000, 50_000_000)),
            (&[("event", "cpu"), ("wall", "200")], Some(0), (0, 0)),
            (&[("event", "cpu"), ("interval", "5"), ("wall", "200")], None, (5, 200)),
            (&[("period", "20 ms")], None, (20_000_000, 20_000_000)),
        ];
        for (pairs, rate, expected) in cases {
            let settings = settings(pairs);
            assert_eq!((settings.cpu_nanos(rate), settings.wall_nanos(rate)), expected, "{pairs:?} {rate:?}");
        }
    }

    #[test]
    fn settings_of_other_events_do_not_count_and_odd_ones_are_ignored() {
        let mut settings = settings(&[("interval", "-1"), ("period", "everyChunk"), ("wall", "x")]);
        settings.set("interval", "7", false);
        assert_eq!(settings.cpu_nanos(None), CPU_INTERVAL);
        assert!(!settings.has_unbatched_wall());
        for (name, value) in [("nobatch", "true"), ("wall", "0"), ("event", "cpu")] {
            settings.set(name, value, true);
        }
        assert!(settings.has_unbatched_wall());
        settings.set("event", "wall", false);
        assert!(!settings.has_unbatched_wall());
    }
}
