//! Observes the steps of one query, for a client that asked for an explanation.
//!
//! Every method is a no-op if the client did not ask, so that the story in `execute` needs no branches for it.

use std::time::Duration;

use clock::Clock;
use rpc::Snapshot;

use crate::explain::{Explanation, UnitExplanation};

/// A step of the story whose duration is explained.
#[derive(Clone, Copy)]
pub(crate) enum Step {
    Find,
    Admit,
    Scan,
}

pub(crate) struct Trace {
    clock: Clock,
    /// End of the previous step, on the scale of `Clock::monotonic`.
    step_start: Duration,
    explanation: Option<Explanation>,
}

impl Trace {
    pub(crate) fn new(clock: &Clock, is_on: bool) -> Self {
        let explanation = is_on.then(Explanation::default);
        Self { clock: clock.clone(), step_start: Duration::ZERO, explanation }
    }

    /// Starts the clock of the next step: at the beginning, and each time the query runs again.
    pub(crate) fn start(&mut self) {
        if self.explanation.is_some() {
            self.step_start = self.clock.monotonic();
        }
    }

    /// Ends a step. Durations of the same step add up when the query runs again.
    pub(crate) fn step(&mut self, step: Step) {
        let Some(explanation) = &mut self.explanation else { return };
        let now = self.clock.monotonic();
        let duration = match step {
            Step::Find => &mut explanation.find,
            Step::Admit => &mut explanation.admit,
            Step::Scan => &mut explanation.scan,
        };
        *duration += now.saturating_sub(self.step_start);
        self.step_start = now;
    }

    /// Records the snapshot; `cost` is the estimate of the bytes to read.
    pub(crate) fn found(&mut self, snapshot: &Snapshot, cost: u64) {
        if let Some(explanation) = &mut self.explanation {
            explanation.found(snapshot, cost);
        }
    }

    /// Records a unit and the time that merging its partial took.
    pub(crate) fn unit(&mut self, unit: UnitExplanation, merge: Duration) {
        if let Some(explanation) = &mut self.explanation {
            explanation.unit(unit, merge);
        }
    }

    /// Drops the units of the run that failed.
    pub(crate) fn start_over(&mut self) {
        if let Some(explanation) = &mut self.explanation {
            explanation.start_over();
        }
    }

    pub(crate) fn into_explanation(self) -> Option<Explanation> {
        self.explanation
    }
}
