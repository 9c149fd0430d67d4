//! The grid of a time series: equally spaced points in time.

/// Grid points from `start_millis` on, one every `step_millis`, none after `end_millis`. Unix milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Grid {
    pub(crate) start_millis: i64,
    pub(crate) end_millis: i64,
    /// At least 1.
    pub(crate) step_millis: i64,
}

impl Grid {
    /// The number of the grid point that a profile belongs to: the first one that is not before the profile.
    pub(crate) fn bucket(&self, time_nanos: i64) -> Option<i64> {
        let millis = time_nanos.div_euclid(1_000_000);
        let after_start = i128::from(millis) - i128::from(self.start_millis);
        let step = i128::from(self.step_millis.max(1));
        if after_start < -step {
            return None;
        }
        let bucket = (after_start + step - 1).div_euclid(step).max(0);
        let last = (i128::from(self.end_millis) - i128::from(self.start_millis)).div_euclid(step);
        (bucket <= last).then_some(bucket as i64)
    }

    /// The time of grid point `bucket`, in Unix milliseconds.
    pub(crate) fn time(&self, bucket: i64) -> i64 {
        self.start_millis.saturating_add(bucket.saturating_mul(self.step_millis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_belongs_to_the_first_grid_point_that_is_not_before_it() {
        let grid = Grid { start_millis: 100, end_millis: 145, step_millis: 15 };
        let bucket = |millis: i64| grid.bucket(millis * 1_000_000);
        assert_eq!(bucket(84), None);
        assert_eq!(bucket(85), Some(0));
        assert_eq!(bucket(100), Some(0));
        assert_eq!(grid.bucket(100_999_999), Some(0));
        assert_eq!(bucket(101), Some(1));
        assert_eq!(bucket(115), Some(1));
        assert_eq!(bucket(145), Some(3));
        assert_eq!(bucket(146), None);
        assert_eq!(grid.time(3), 145);
    }

    #[test]
    fn a_range_shorter_than_the_step_has_one_point() {
        let grid = Grid { start_millis: 1000, end_millis: 6000, step_millis: 1_000_000 };
        assert_eq!(grid.bucket(1000 * 1_000_000), Some(0));
        assert_eq!(grid.bucket(1001 * 1_000_000), None);
    }
}
