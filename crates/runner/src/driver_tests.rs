//! Tests of the driver: official semantics, whichever threads the environments run in.

use super::*;
use spaces::Space;

/// Episodes of `index + 2` steps; the observation counts all steps, and repeats the action it got.
struct Counting {
    obs: Spaces,
    act: Spaces,
    index: usize,
    at: usize,
    total: i32,
    resets: i32,
    fails: bool,
}

fn counting(index: usize) -> Counting {
    let mut obs = Spaces::from([("reward".to_string(), Space::float(&[]))]);
    for key in ["is_first", "is_last", "is_terminal"] {
        obs.insert(key.into(), Space::boolean());
    }
    for key in ["total", "heard", "resets", "log/total"] {
        obs.insert(key.into(), Space::discrete(&[], 1000));
    }
    let act = Spaces::from([("reset".to_string(), Space::boolean()), ("action".to_string(), Space::discrete(&[2], 9))]);
    Counting { obs, act, index, at: 0, total: 0, resets: 0, fails: false }
}

impl Env for Counting {
    fn obs_space(&self) -> &Spaces {
        &self.obs
    }

    fn act_space(&self) -> &Spaces {
        &self.act
    }

    fn step(&mut self, action: &Record) -> Result<Record> {
        if self.fails {
            panic!("lost at sea");
        }
        let reset = action["reset"].to_bool()[0];
        self.at = if reset { 0 } else { self.at + 1 };
        self.resets += reset as i32;
        self.total += 1;
        let last = self.at == self.index + 1;
        let heard = action["action"].to_i32()[0];
        let flags = [("is_first", self.at == 0), ("is_last", last), ("is_terminal", false)];
        let mut record: Record = flags.map(|(key, x)| (key.to_string(), Array::bool(x))).into();
        record.insert("reward".into(), Array::f32(self.at as f32));
        for (key, x) in [("total", self.total), ("log/total", self.total), ("heard", heard), ("resets", self.resets)] {
            record.insert(key.into(), Array::i32(x));
        }
        if last {
            record.insert("log/length".into(), Array::f32(self.at as f32));
        }
        Ok(record)
    }

    fn save(&self) -> Option<Vec<u8>> {
        // The second environment stands for those that cannot be saved.
        (self.index != 1)
            .then(|| [self.at as i32, self.total, self.resets].iter().flat_map(|x| x.to_le_bytes()).collect())
    }

    fn load(&mut self, state: &[u8]) -> Result<()> {
        let numbers: Vec<i32> = state.as_chunks().0.iter().map(|&b| i32::from_le_bytes(b)).collect();
        (self.at, self.total, self.resets) = (numbers[0] as usize, numbers[1], numbers[2]);
        Ok(())
    }
}

fn driver(count: usize, processors: usize) -> Driver {
    let envs = (0..count).map(|i| Box::new(counting(i)) as Box<dyn Env>).collect();
    Driver::new(envs, processors).unwrap()
}

/// Answers with the number of the step, and checks what it is shown.
fn policy(count: usize) -> impl FnMut(&Record) -> Result<Acted> {
    let mut step = 0;
    move |obs| {
        assert!(!obs.contains_key("log/total") && obs["total"].shape == [count]);
        step = step % 7 + 1;
        let action = Array::from_i32(&[count, 2], vec![step; 2 * count]);
        let latent = Array::from_u8(&[count, 1], vec![step as u8; count]);
        Ok(Acted {
            action: Record::from([("action".to_string(), action)]),
            replay: Record::from([("dyn/stoch".to_string(), latent)]),
        })
    }
}

fn play(driver: &mut Driver, steps: usize) -> Vec<Vec<Record>> {
    let mut policy = policy(driver.count());
    (0..steps).map(|_| driver.step(&mut policy).unwrap()).collect()
}

#[test]
fn actions_are_zero_at_the_last_step_and_the_next_step_resets() {
    let steps = play(&mut driver(1, 1), 5);
    let column = |key: &str| -> Vec<f32> { steps.iter().map(|step| step[0][key].item()).collect() };
    assert_eq!(column("is_first"), [1.0, 0.0, 1.0, 0.0, 1.0]);
    assert_eq!(column("is_last"), [0.0, 1.0, 0.0, 1.0, 0.0]);
    assert_eq!(column("action"), [1.0, 0.0, 3.0, 0.0, 5.0]);
    assert_eq!(column("heard"), [0.0, 1.0, 0.0, 3.0, 0.0]);
    assert_eq!(column("resets"), [1.0, 1.0, 2.0, 2.0, 3.0]);
    // What the policy adds for the replay stays, and so do the logs; `reset` is no part of a step.
    assert_eq!(column("dyn/stoch"), [1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(column("log/total"), [1.0, 2.0, 3.0, 4.0, 5.0]);
    // A number that only some steps have, and that no space declares, comes along too.
    let lengths: Vec<bool> = steps.iter().map(|step| step[0].contains_key("log/length")).collect();
    assert_eq!(lengths, [false, true, false, true, false]);
    assert!(!steps[0][0].contains_key("reset"));
}

#[test]
fn threads_change_nothing() {
    let inline = play(&mut driver(5, 1), 40);
    for processors in [2, 3, 16] {
        assert_eq!(play(&mut driver(5, processors), 40), inline);
    }
}

#[test]
fn a_saved_driver_goes_on_and_restarts_only_what_cannot_be_saved() {
    for processors in [1, 2] {
        let mut first = driver(3, processors);
        play(&mut first, 10);
        let state = first.save().unwrap();
        let mut second = driver(3, processors);
        assert_eq!(second.load(&state).unwrap(), 1);
        let (a, b) = (play(&mut first, 1), play(&mut second, 1));
        assert_eq!((&a[0][0], &a[0][2]), (&b[0][0], &b[0][2]));
        assert_eq!(b[0][1]["is_first"].item(), 1.0);
    }
}

#[test]
fn a_panic_is_an_error_that_names_the_environment() {
    for processors in [1, 4] {
        let envs = (0..3).map(|i| Box::new(Counting { fails: i == 2, ..counting(i) }) as Box<dyn Env>).collect();
        let error = Driver::new(envs, processors).unwrap().step(policy(3)).unwrap_err();
        assert_eq!(error.to_string(), "environment 2 panicked: lost at sea");
    }
}

#[test]
fn no_environment_or_unequal_ones_are_refused() {
    assert!(Driver::new(vec![], 1).err().unwrap().to_string().contains("run.envs is 0"));
    let mut other = counting(1);
    other.obs.insert("more".into(), Space::float(&[]));
    let envs: Vec<Box<dyn Env>> = vec![Box::new(counting(0)), Box::new(other)];
    let error = Driver::new(envs, 1).err().unwrap().to_string();
    assert!(error.contains("environment 1 has other spaces") && error.contains("it has the key 'more'"), "{error}");
}
