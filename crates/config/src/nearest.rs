//! The nearest valid name to a mistyped one.

/// The candidate nearest to `name`, by edit distance. A dotted candidate also counts as near when its
/// last parts are: `train_ratio` finds `run.train_ratio`. `None` only where there are no candidates.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates.into_iter().min_by_key(|candidate| {
        let tails = candidate.match_indices('.').map(|(i, _)| &candidate[i + 1..]);
        // The left-out parts break ties in favour of the shorter key.
        let score = |tail: &str| (distance(name, tail), candidate.len() - tail.len());
        std::iter::once(*candidate).chain(tails).map(score).min()
    })
}

/// Edits (insert, delete, replace, swap neighbours) that turn `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("catch", "cacth"), 1);
    }

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
