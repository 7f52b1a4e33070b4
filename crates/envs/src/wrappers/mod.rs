//! Environments around environments: each changes one thing and passes the rest through.

/// Methods of [`crate::Env`] that a wrapper hands to its field `env` unchanged.
macro_rules! forward {
    (obs_space) => {
        fn obs_space(&self) -> &spaces::Spaces {
            self.env.obs_space()
        }
    };
    (act_space) => {
        fn act_space(&self) -> &spaces::Spaces {
            self.env.act_space()
        }
    };
    (begin) => {
        fn begin(&mut self, action: &spaces::Record) {
            self.env.begin(action);
        }
    };
    (render) => {
        fn render(&self) -> Option<spaces::Array> {
            self.env.render()
        }
    };
    (save, load) => {
        fn save(&self) -> Option<Vec<u8>> {
            self.env.save()
        }

        fn load(&mut self, state: &[u8]) -> anyhow::Result<()> {
            self.env.load(state)
        }
    };
}

mod action_repeat;
mod check_spaces;
mod clip_action;
mod log_image;
mod normalize_action;
mod resize_image;
mod restart_on_exception;
mod time_limit;

pub use action_repeat::ActionRepeat;
pub use check_spaces::CheckSpaces;
pub use clip_action::ClipAction;
pub use log_image::LogImage;
pub use normalize_action::NormalizeAction;
pub use resize_image::ResizeImage;
pub use restart_on_exception::RestartOnException;
pub use time_limit::TimeLimit;

#[cfg(test)]
mod probe;

#[cfg(test)]
mod tests {
    use super::probe::{Probe, act};
    use super::*;
    use crate::Env;
    use crate::record::flag;
    use spaces::Record;
    use std::sync::{Arc, Mutex};

    /// An environment that notes whether it was told to reset ahead of time.
    struct Told {
        env: Box<Probe>,
        resets: Arc<Mutex<Vec<bool>>>,
    }

    impl Env for Told {
        forward!(obs_space);
        forward!(act_space);

        fn begin(&mut self, action: &Record) {
            self.resets.lock().unwrap().push(flag(action, "reset").unwrap());
        }

        fn step(&mut self, action: &Record) -> anyhow::Result<Record> {
            self.env.step(action)
        }
    }

    #[test]
    fn every_wrapper_tells_the_action_ahead_of_time() {
        let resets: Arc<Mutex<Vec<bool>>> = Arc::default();
        let told = resets.clone();
        let build = move |_| -> anyhow::Result<Box<dyn Env>> {
            let env = Box::new(Told { env: Probe::endless(), resets: told.clone() });
            let env = Box::new(NormalizeAction::new(Box::new(CheckSpaces::new(env, "told")?)));
            let env = Box::new(ActionRepeat::new(Box::new(ClipAction::new(env, -1.0, 1.0)?), 2)?);
            Ok(LogImage::around(Box::new(ResizeImage::new(Box::new(TimeLimit::new(env, 2)?), [8, 8])?)))
        };
        let mut env = RestartOnException::new(Box::new(build), 1, 10).unwrap();
        for _ in 0..4 {
            env.begin(&act(0.5));
            env.step(&act(0.5)).unwrap();
        }
        assert_eq!(*resets.lock().unwrap(), [false, false, false, true], "the time limit resets after its end");
    }
}
