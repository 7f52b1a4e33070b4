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
