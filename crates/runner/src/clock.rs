//! When to train, log, report and save: the training ratio and the clocks.

use crate::exact::Exact;
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// How many updates are owed at each policy step: the first as soon as training is possible, then
/// `ratio` a policy step. A ratio of 0 never trains; a negative one trains once a policy step.
#[derive(Clone, Debug)]
pub struct Ratio {
    ratio: f64,
    start: Option<u64>,
    done: u64,
}

/// What a checkpoint keeps of a [`Ratio`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RatioState {
    ratio: Exact,
    start: Option<u64>,
    done: u64,
}

impl Ratio {
    pub fn new(ratio: f64) -> Self {
        Ratio { ratio, start: None, done: 0 }
    }

    /// Counts anew from when training is possible again.
    pub fn restart(&mut self) {
        (self.start, self.done) = (None, 0);
    }

    /// Updates owed since the last call, at policy step `step`.
    pub fn owed(&mut self, step: u64) -> u64 {
        if self.ratio == 0.0 {
            return 0;
        }
        let ratio = if self.ratio < 0.0 { 1.0 } else { self.ratio };
        let start = *self.start.get_or_insert(step);
        // Counted from the start, so that no rounding error builds up over a long run.
        let total = 1 + (step.saturating_sub(start) as f64 * ratio) as u64;
        let owed = total.saturating_sub(self.done);
        self.done = total.max(self.done);
        owed
    }

    pub fn save(&self) -> RatioState {
        RatioState { ratio: Exact(self.ratio), start: self.start, done: self.done }
    }

    /// Continues from `state` at policy step `step`. A ratio that was changed since counts from here.
    pub fn load(&mut self, state: &RatioState, step: u64) {
        let same = state.ratio.0 == self.ratio;
        self.start = if same { state.start } else { state.start.map(|_| step) };
        // Before training has begun, the first update is still owed.
        self.done = if same { state.done } else { self.start.is_some() as u64 };
    }
}

/// Whether `every` has passed since it was last due. Negative is never, zero always.
///
/// Counted in seconds; in synchronous mode in policy steps, so that a run can be repeated exactly.
#[derive(Clone, Debug)]
pub struct Clock {
    every: f64,
    first: bool,
    last: Last,
}

#[derive(Clone, Debug)]
enum Last {
    Seconds(Option<Instant>),
    Steps(Option<u64>),
}

impl Clock {
    /// `first`: whether the first call is due at once. `steps`: count policy steps, not seconds.
    pub fn new(every: f64, first: bool, steps: bool) -> Self {
        let last = if steps { Last::Steps(None) } else { Last::Seconds(None) };
        Clock { every, first, last }
    }

    /// Whether it is due at policy step `step`; if so, counts anew.
    pub fn due(&mut self, step: u64) -> bool {
        if self.every <= 0.0 {
            return self.every == 0.0;
        }
        match &mut self.last {
            Last::Seconds(last) => {
                let due = last.map_or(self.first, |then| then.elapsed().as_secs_f64() >= self.every);
                if due || last.is_none() {
                    *last = Some(Instant::now());
                }
                due
            }
            Last::Steps(last) => {
                // On the multiples of `every`, whatever the number of environments that step at once.
                let now = (step as f64 / self.every) as u64;
                let due = last.map_or(self.first, |then| now > then);
                *last = Some(now);
                due
            }
        }
    }

    /// Makes the next call due like the first one, where what was due could not be done.
    pub fn again(&mut self) {
        match &mut self.last {
            Last::Seconds(last) => *last = None,
            Last::Steps(last) => *last = None,
        }
    }

    /// What a checkpoint keeps: the policy steps; 0 for seconds, which count anew in each process. `None` before the
    /// first call.
    pub fn save(&self) -> Option<u64> {
        match self.last {
            Last::Steps(last) => last,
            Last::Seconds(last) => last.map(|_| 0),
        }
    }

    pub fn load(&mut self, state: Option<u64>) {
        match &mut self.last {
            Last::Steps(last) => *last = state,
            Last::Seconds(last) => *last = state.map(|_| Instant::now()),
        }
    }
}

/// When to log, report, evaluate and save.
pub struct Clocks {
    pub log: Clock,
    pub report: Clock,
    pub eval: Clock,
    pub save: Clock,
}

impl Clocks {
    pub fn new(run: &config::Run) -> Self {
        let clock = |every, first| Clock::new(every, first, run.sync);
        Clocks {
            log: clock(run.log_every, false),
            report: clock(run.report_every, false),
            eval: clock(run.eval_every, true),
            save: clock(run.save_every, false),
        }
    }

    /// What a checkpoint keeps of each, in the order of the fields.
    pub fn save(&self) -> [Option<u64>; 4] {
        [&self.log, &self.report, &self.eval, &self.save].map(Clock::save)
    }

    pub fn load(&mut self, state: [Option<u64>; 4]) {
        let clocks = [&mut self.log, &mut self.report, &mut self.eval, &mut self.save];
        clocks.into_iter().zip(state).for_each(|(clock, saved)| clock.load(saved));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratio_gives_the_first_update_at_once_and_then_its_share() {
        let mut ratio = Ratio::new(64.0 / 1024.0);
        let owed: Vec<u64> = (1000..1100).map(|step| ratio.owed(step)).collect();
        assert_eq!(owed[0], 1);
        assert_eq!(owed.iter().sum::<u64>(), 1 + 99 / 16);
        assert!(owed[1..16].iter().all(|&n| n == 0));
        assert_eq!(owed[16], 1);
    }

    #[test]
    fn ratio_above_one_owes_several_and_zero_none() {
        let mut ratio = Ratio::new(2.5);
        assert_eq!([ratio.owed(4), ratio.owed(5), ratio.owed(6), ratio.owed(10)], [1, 2, 3, 10]);
        let mut none = Ratio::new(0.0);
        assert_eq!(none.owed(1_000_000), 0);
        let mut always = Ratio::new(-1.0);
        assert_eq!([always.owed(8), always.owed(12)], [1, 4]);
    }

    #[test]
    fn ratio_continues_where_it_was_and_rebases_when_changed() {
        let mut whole = Ratio::new(0.3);
        let mut first = whole.clone();
        let expect: Vec<u64> = (0..50).map(|step| whole.owed(step)).collect();
        let mut got: Vec<u64> = (0..20).map(|step| first.owed(step)).collect();
        let mut second = Ratio::new(0.3);
        second.load(&first.save(), 20);
        got.extend((20..50).map(|step| second.owed(step)));
        assert_eq!(got, expect);
        let mut changed = Ratio::new(10.0);
        changed.load(&first.save(), 20);
        assert_eq!([changed.owed(20), changed.owed(21)], [0, 10]);
        let mut idle = Ratio::new(0.0);
        idle.owed(20);
        let mut begun = Ratio::new(0.5);
        begun.load(&idle.save(), 20);
        assert_eq!([begun.owed(20), begun.owed(21), begun.owed(22)], [1, 0, 1]);
    }

    #[test]
    fn step_clock_is_due_on_multiples_and_resumes() {
        let mut clock = Clock::new(10.0, false, true);
        let due: Vec<u64> = (0..60).step_by(4).filter(|&step| clock.due(step)).collect();
        assert_eq!(due, [12, 20, 32, 40, 52]);
        let mut resumed = Clock::new(10.0, true, true);
        resumed.load(clock.save());
        assert!(!resumed.due(59));
        assert!(resumed.due(60));
    }

    #[test]
    fn what_could_not_be_done_is_due_again() {
        for steps in [false, true] {
            let mut clock = Clock::new(1e9, true, steps);
            let resumed = |clock: &Clock| {
                let mut resumed = Clock::new(1e9, true, steps);
                resumed.load(clock.save());
                resumed.due(7)
            };
            assert!(resumed(&clock), "nothing was due before the checkpoint");
            assert!(clock.due(5) && !clock.due(6) && !resumed(&clock));
            clock.again();
            assert!(resumed(&clock) && clock.due(7));
        }
    }

    #[test]
    fn clock_negative_is_never_and_zero_always_and_first_is_at_once() {
        assert!(!Clock::new(-1.0, true, false).due(1));
        assert!(Clock::new(0.0, false, true).due(1));
        assert!(Clock::new(1e9, true, false).due(1));
        let mut seconds = Clock::new(1e-9, false, false);
        assert!(!seconds.due(1));
        std::thread::sleep(std::time::Duration::from_millis(1));
        assert!(seconds.due(1));
    }
}
