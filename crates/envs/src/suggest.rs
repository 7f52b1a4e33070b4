//! The names that a misspelt one probably meant.

/// The `count` names nearest to `wrong` by edit distance, nearest first.
pub fn nearest<'a>(wrong: &str, names: &'a [String], count: usize) -> Vec<&'a str> {
    let mut ranked: Vec<_> = names.iter().map(|name| (distance(wrong, name), name.as_str())).collect();
    ranked.sort();
    ranked.into_iter().take(count).map(|(_, name)| name).collect()
}

/// Levenshtein distance: insertions, deletions and replacements of one character.
pub fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &y) in b.iter().enumerate() {
            let replaced = diagonal + (x != y) as usize;
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_is_the_likely_one() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        let names = ["catch", "pinpad_three", "memory_10"].map(String::from);
        assert_eq!(nearest("pinpad_thre", &names, 1), ["pinpad_three"]);
        assert_eq!(nearest("katch", &names, 2), ["catch", "memory_10"]);
    }
}
