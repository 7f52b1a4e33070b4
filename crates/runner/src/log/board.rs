//! `Board`: what the progress display knows of a run, and how it reads as a block or a line.

use super::format::{duration, short};
use indexmap::IndexMap;
use std::collections::VecDeque;
use std::time::Duration;

/// Most columns of a line.
pub const COLUMNS: usize = 100;
/// Most lines of a block.
pub const LINES: usize = 6;
/// Episodes in the running mean of the score.
pub const RECENT: usize = 50;

/// What the display knows of a run. Pure state: the clock is an argument.
#[derive(Default)]
pub struct Board {
    title: String,
    step: u64, // environment frames
    total: Option<u64>,
    recent: VecDeque<f64>,
    best: Option<f64>,
    episodes: u64,
    length: Option<f64>,
    fps: [Option<f64>; 2], // acting, training
    memory: Option<f64>,   // bytes
    shown: IndexMap<String, f64>,
    pace: VecDeque<(Duration, u64)>,
}

impl Board {
    /// A run at environment frame `step` of `total`; `title` stands at the left of the bar.
    pub fn new(title: &str, step: u64, total: Option<u64>) -> Self {
        let title = title.chars().filter(|c| !c.is_control()).take(28).collect();
        Board { title, step, total, ..Board::default() }
    }

    /// Takes in an episode's score, as well as those read back from an earlier part of the run.
    pub fn score(&mut self, score: f64) {
        self.recent.push_back(score);
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        self.episodes += 1;
        self.best = Some(self.best.map_or(score, |best| best.max(score)));
    }

    /// Mean score of the last [`RECENT`] episodes, or of as many as there were, and their number.
    pub fn mean_score(&self) -> Option<(f64, usize)> {
        let n = self.recent.len();
        (n > 0).then(|| (self.recent.iter().sum::<f64>() / n as f64, n))
    }

    /// Takes in one scalar; `shown` says whether the filter lets it through.
    pub fn scalar(&mut self, key: &str, x: f64, shown: bool) {
        match key {
            "episode/score" => self.score(x),
            "episode/length" => self.length = Some(x),
            "fps/policy" => self.fps[0] = Some(x),
            "fps/train" => self.fps[1] = Some(x),
            _ if shown => drop(self.shown.insert(key.to_string(), x)),
            _ => {}
        }
    }

    /// Resident memory in bytes.
    pub fn memory(&mut self, bytes: f64) {
        self.memory = Some(bytes);
    }

    /// Notes how far the run is, for the time left; `now` is the time since the process started.
    pub fn advance(&mut self, now: Duration, step: u64) {
        self.step = step;
        if self.pace.back().is_none_or(|&(then, _)| now >= then + Duration::from_secs(2)) {
            self.pace.push_back((now, step));
        }
        if self.pace.len() > 60 {
            self.pace.pop_front();
        }
    }

    /// Time left at the pace of about the last two minutes.
    fn left(&self, now: Duration) -> Option<Duration> {
        let &(then, from) = self.pace.front()?;
        let time = now.checked_sub(then).filter(|&time| time >= Duration::from_secs(5))?;
        let rate = self.step.checked_sub(from)? as f64 / time.as_secs_f64();
        let seconds = self.total?.saturating_sub(self.step) as f64 / rate;
        Duration::try_from_secs_f64(seconds).ok()
    }

    /// The block for a terminal: at most [`LINES`] lines of at most [`COLUMNS`] columns.
    pub fn block(&self, now: Duration) -> Vec<String> {
        let mut lines = vec![self.bar(now)];
        if !self.scores().is_empty() {
            lines.extend(flow("score", &self.scores(), 1));
        }
        let mut speed = self.speed();
        speed.extend(self.memory_text());
        lines.extend(flow("speed", &speed, 1));
        let (losses, others) = self.shown();
        lines.extend(flow("loss", &losses, 2));
        lines.extend(flow("more", &others, LINES.saturating_sub(lines.len())));
        lines.truncate(LINES);
        lines.into_iter().map(|line| clip(&line)).collect()
    }

    /// Everything in one line of at most [`COLUMNS`] columns, for logs.
    pub fn plain(&self, now: Duration) -> String {
        let mut items = vec![self.progress()];
        items.extend(self.left(now).map(|left| format!("left {}", duration(left))));
        items.extend(self.mean_score().map(|(score, _)| format!("score {}", short(score))));
        items.extend(self.best.map(|best| format!("best {}", short(best))));
        items.extend(self.length.map(|length| format!("length {}", short(length))));
        let named = ["act", "train"].iter().zip(self.fps);
        items.extend(named.filter_map(|(name, fps)| fps.map(|fps| format!("{name} {}/s", short(fps)))));
        items.extend(self.memory_text());
        let (losses, others) = self.shown();
        items.extend(losses.into_iter().chain(others));
        flow("step", &items, 1).pop().unwrap_or_default().trim_start().replacen("step    ", "step ", 1)
    }

    fn progress(&self) -> String {
        match self.total {
            Some(total) => format!("{}/{} {:.1}%", short(self.step as f64), short(total as f64), 100.0 * self.share()),
            None => short(self.step as f64),
        }
    }

    /// Share of the run done, 0 to 1.
    fn share(&self) -> f64 {
        let total = self.total.unwrap_or(0).max(1);
        (self.step as f64 / total as f64).min(1.0)
    }

    fn bar(&self, now: Duration) -> String {
        let title = &self.title;
        let times = match self.left(now) {
            Some(left) => format!("{} + {} left", duration(now), duration(left)),
            None => duration(now),
        };
        // Last, as a narrow window cuts lines.
        let bar = match self.total {
            Some(_) => {
                let width = 30;
                let full = (self.share() * width as f64) as usize;
                format!("  {}{}", "━".repeat(full), "┄".repeat(width - full))
            }
            None => String::new(),
        };
        format!(" {title}{}{} · {times}{bar}", if title.is_empty() { "" } else { "  " }, self.progress())
    }

    fn scores(&self) -> Vec<String> {
        let mut items = vec![];
        if let Some((mean, count)) = self.mean_score() {
            items.push(format!("{} mean of last {count}", short(mean)));
        }
        items.extend(self.best.map(|best| format!("{} best", short(best))));
        items.extend(self.length.map(|length| format!("length {}", short(length))));
        if self.episodes > 0 {
            items.push(format!("episodes {}", short(self.episodes as f64)));
        }
        items
    }

    fn speed(&self) -> Vec<String> {
        let named = ["acting", "training"].iter().zip(self.fps);
        named.filter_map(|(name, fps)| fps.map(|fps| format!("{name} {}/s", short(fps)))).collect()
    }

    fn memory_text(&self) -> Option<String> {
        self.memory.map(|bytes| format!("memory {}B", short(bytes)))
    }

    /// The training losses by their short names, and the other numbers that the filter lets through.
    fn shown(&self) -> (Vec<String>, Vec<String>) {
        let (mut losses, mut others) = (vec![], vec![]);
        for (key, &x) in &self.shown {
            match key.strip_prefix("train/loss/") {
                Some(name) => losses.push(format!("{name} {}", short(x))),
                None => others.push(format!("{key} {}", short(x))),
            }
        }
        (losses, others)
    }
}

/// Items one after another behind a name, in at most `lines` lines; what does not fit is left out.
fn flow(name: &str, items: &[String], lines: usize) -> Vec<String> {
    let mut out: Vec<String> = vec![];
    let mut width = 0;
    for item in items {
        let item = clip_to(item, COLUMNS - 12);
        let more = item.chars().count() + 3;
        let new = out.is_empty() || width + more > COLUMNS;
        if new && out.len() == lines {
            break;
        } else if new {
            out.push(format!(" {:<7} {item}", if out.is_empty() { name } else { "" }));
            width = more + 6;
        } else if let Some(line) = out.last_mut() {
            line.push_str(&format!(" · {item}"));
            width += more;
        }
    }
    out
}

fn clip(line: &str) -> String {
    clip_to(line, COLUMNS)
}

fn clip_to(line: &str, columns: usize) -> String {
    line.chars().filter(|c| !c.is_control()).take(columns).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seconds(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    fn board() -> Board {
        let mut board = Board::new("crafter_reward", 0, Some(1_000_000));
        board.advance(seconds(0), 400_000);
        board.advance(seconds(100), 412_000);
        for i in 0..60 {
            board.scalar("episode/score", f64::from(i % 10), true);
        }
        board.scalar("episode/length", 512.0, true);
        board.scalar("fps/policy", 120.4, true);
        board.scalar("fps/train", 3456.0, true);
        board.scalar("train/loss/dyn", 1.2345, true);
        board.scalar("train/loss/rew", 0.00123, true);
        board.scalar("train/opt/hidden", 1.0, false);
        board.scalar("replay/ratio", 32.0, true);
        board.memory(1.234e9);
        board
    }

    #[test]
    fn the_block_reads_well() {
        let full = "━".repeat(12) + &"┄".repeat(18);
        let wanted = [
            &format!(" crafter_reward  412k/1M 41.2% · 1:40 + 1:21:40 left  {full}"),
            " score   4.5 mean of last 50 · 9 best · length 512 · episodes 60",
            " speed   acting 120/s · training 3.5k/s · memory 1.2GB",
            " loss    dyn 1.23 · rew 0.0012",
            " more    replay/ratio 32",
        ];
        assert_eq!(board().block(seconds(100)), wanted);
    }

    #[test]
    fn the_plain_line_reads_well() {
        assert_eq!(
            board().plain(seconds(100)),
            "step 412k/1M 41.2% · left 1:21:40 · score 4.5 · best 9 · length 512 · act 120/s · train 3.5k/s"
        );
    }

    #[test]
    fn an_empty_board_is_drawn() {
        assert_eq!(Board::default().block(seconds(3)), [" 0 · 0:03"]);
        assert_eq!(Board::default().plain(seconds(3)), "step 0");
    }

    proptest! {
        #[test]
        fn nothing_is_wider_or_higher_than_promised(
            title in "\\PC{0,60}",
            step in 0u64..u64::MAX,
            total in prop::option::of(0u64..u64::MAX),
            values in prop::collection::vec(("(train/loss/)?[a-z/]{1,150}", prop::num::f64::ANY), 0..60),
            clock in 0u64..10_000_000,
        ) {
            let mut board = Board::new(&title, 0, total);
            board.advance(seconds(0), 0);
            board.advance(seconds(clock), step);
            for (key, x) in values {
                board.scalar(&key, x, true);
                board.scalar("episode/score", x, true);
                board.scalar("episode/length", x, true);
                board.scalar("fps/policy", x, true);
                board.memory(x);
            }
            let mut lines = board.block(seconds(clock));
            prop_assert!(lines.len() <= LINES);
            lines.push(board.plain(seconds(clock)));
            for line in lines {
                prop_assert!(line.chars().count() <= COLUMNS && !line.contains('\n'), "{line}");
            }
        }
    }
}
