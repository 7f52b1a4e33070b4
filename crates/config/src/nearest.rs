//! The nearest valid name to a mistyped one.

use strsim::osa_distance;

/// The candidate nearest to `name`, by edit distance. A dotted candidate also counts as near when its
/// last parts are: `train_ratio` finds `run.train_ratio`. `None` only where there are no candidates.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates.into_iter().min_by_key(|candidate| {
        let tails = candidate.match_indices('.').map(|(i, _)| &candidate[i + 1..]);
        // The left-out parts break ties in favour of the shorter key.
        let score = |tail: &str| (osa_distance(name, tail), candidate.len() - tail.len());
        std::iter::once(*candidate).chain(tails).map(score).min()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_parts_count() {
        let keys = ["seed", "run.steps", "run.train_ratio", "agent.opt.lr", "agent.enc.simple.depth"];
        assert_eq!(nearest("train_ratio", keys), Some("run.train_ratio"));
        assert_eq!(nearest("run.step", keys), Some("run.steps"));
        assert_eq!(nearest("opt.lr", keys), Some("agent.opt.lr"));
        assert_eq!(nearest("sede", keys), Some("seed"));
        assert_eq!(nearest("x", []), None);
    }
}
