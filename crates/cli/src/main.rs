//! The binary `dreamer`: argument parsing and nothing else.

fn main() {}
