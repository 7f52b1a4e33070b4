//! `LogImage`: adds what an environment draws to observations without an image, for videos.

use crate::Env;
use anyhow::Result;
use spaces::{Array, Data, Record, Space, Spaces};

/// The key, which the agent does not see.
const KEY: &str = "log/image";

/// Adds [`Env::render`] to each observation as `log/image`.
pub struct LogImage {
    env: Box<dyn Env>,
    obs_space: Spaces,
    /// The last picture, used if there is none or one of another size: a video must not cost an episode.
    last: Array,
}

impl LogImage {
    /// `env` as it is if it shows an image already, or draws nothing.
    pub fn around(env: Box<dyn Env>) -> Box<dyn Env> {
        if env.obs_space().values().any(|space| space.is_image()) {
            return env;
        }
        let Some(image) = env.render() else { return env };
        let (Data::U8(_), &[height, width, channels]) = (&image.data, &image.shape[..]) else { return env };
        let mut obs_space = env.obs_space().clone();
        obs_space.insert(KEY.into(), Space::image(height, width, channels));
        Box::new(LogImage { env, obs_space, last: image })
    }
}

impl Env for LogImage {
    forward!(act_space);
    forward!(begin);
    forward!(render);
    forward!(save, load);

    fn obs_space(&self) -> &Spaces {
        &self.obs_space
    }

    fn step(&mut self, action: &Record) -> Result<Record> {
        let mut obs = self.env.step(action)?;
        if let Some(image) = self.env.render().filter(|image| self.obs_space[KEY].check(KEY, image).is_ok()) {
            self.last = image;
        }
        obs.insert(KEY.into(), self.last.clone());
        Ok(obs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Rng, make, random_action};
    use serde_json::Value;

    #[test]
    fn vectors_get_an_image_of_the_same_state() {
        let mut env = LogImage::around(make("cartpole_swingup", 0, 0, &Value::Null).unwrap());
        assert!(env.obs_space()[KEY].is_image());
        let mut action = random_action(env.act_space(), &mut Rng::new(0, 0));
        for reset in [true, false] {
            action.insert("reset".into(), Array::bool(reset));
            let obs = env.step(&action).unwrap();
            assert_eq!(obs[KEY], env.render().unwrap());
        }
    }

    /// Draws the number of each step, but nothing at the third, and another size at the fourth.
    struct Flickering {
        env: Box<dyn Env>,
        steps: u8,
    }

    impl Env for Flickering {
        forward!(obs_space);
        forward!(act_space);

        fn step(&mut self, action: &Record) -> Result<Record> {
            self.steps += 1;
            self.env.step(action)
        }

        fn render(&self) -> Option<Array> {
            let height = if self.steps == 4 { 2 } else { 1 };
            let data = Data::U8(vec![self.steps; height * 3]);
            (self.steps != 3).then(|| Array { shape: vec![height, 1, 3], data })
        }
    }

    #[test]
    fn the_last_picture_stands_in_for_one_that_is_missing() {
        let env = make("memory_3", 0, 0, &Value::Null).unwrap();
        let mut env = LogImage::around(Box::new(Flickering { env, steps: 0 }));
        let action = random_action(env.act_space(), &mut Rng::new(0, 0));
        let seen = (0..5).map(|_| env.step(&action).unwrap()[KEY].to_bytes()[0]);
        assert_eq!(seen.collect::<Vec<_>>(), [1, 2, 2, 2, 5]);
    }

    #[test]
    fn what_shows_an_image_or_draws_nothing_stays_as_it_is() {
        for task in ["catch", "memory_3"] {
            let env = make(task, 0, 0, &Value::Null).unwrap();
            let keys: Vec<String> = env.obs_space().keys().cloned().collect();
            assert!(LogImage::around(env).obs_space().keys().eq(&keys), "{task}");
        }
    }
}
