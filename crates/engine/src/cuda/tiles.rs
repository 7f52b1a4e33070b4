//! How products are cut into tiles for blocks of threads, by their shapes and by whether the GPU has warpgroups.

use super::gpu::Gpu;
use super::launch::Grid;

/// The tile of a product that a block of threads computes (`Tile` in kernels/product.cuh), and the kernels that do.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Tile {
    pub rows: usize,
    pub columns: usize,
    /// Of the product, per stage.
    pub depth: usize,
    pub threads: u32,
    pub stages: usize,
    /// Blocks of threads that fit on a multiprocessor.
    pub fit: usize,
    /// Cycles, fitted to times of many shapes on an H100: of one step, as far as it does not overlap with steps of
    /// other blocks, and of the start and end of as many blocks as fit.
    pub step: f64,
    pub round: f64,
    /// Whether warpgroups compute it (kernels/wgmma.cuh), which only Hopper has.
    pub by_warpgroups: bool,
    pub forward: &'static str,
    pub input_grad: &'static str,
    pub weight_grad: &'static str,
}

pub(crate) const HUGE: Tile = Tile {
    rows: 256,
    columns: 128,
    depth: 32,
    threads: 256,
    stages: 4,
    fit: 1,
    step: 1420.0,
    round: 4400.0,
    by_warpgroups: false,
    forward: "gemm_huge",
    input_grad: "gemm_huge_transposed",
    weight_grad: "weight_grad_huge",
};

/// The same by warpgroups.
pub(crate) const GROUP: Tile = Tile {
    depth: 64,
    step: 1470.0,
    round: 4900.0,
    by_warpgroups: true,
    forward: "gemm_group",
    input_grad: "gemm_group_transposed",
    weight_grad: "weight_grad_group",
    ..HUGE
};

/// The same for two blocks on a multiprocessor, of which one multiplies while the other begins or ends.
pub(crate) const PAIR: Tile = Tile {
    rows: 128,
    threads: 128,
    stages: 3,
    fit: 2,
    step: 880.0,
    round: 3900.0,
    forward: "gemm_pair",
    input_grad: "gemm_pair_transposed",
    weight_grad: "weight_grad_pair",
    ..GROUP
};

pub(crate) const LARGE: Tile = Tile {
    rows: 128,
    threads: 128,
    fit: 2,
    step: 740.0,
    round: 4000.0,
    forward: "gemm_large",
    input_grad: "gemm_large_transposed",
    weight_grad: "weight_grad_large",
    ..HUGE
};

pub(crate) const MIDDLE: Tile = Tile {
    rows: 64,
    columns: 64,
    depth: 64,
    threads: 128,
    stages: 3,
    fit: 4,
    step: 450.0,
    round: 900.0,
    by_warpgroups: false,
    forward: "gemm_middle",
    input_grad: "gemm_middle_transposed",
    weight_grad: "weight_grad_middle",
};

/// For few rows: the warps split the depth. Has no kernel for weight gradients.
pub(crate) const FLAT: Tile = Tile {
    rows: 16,
    columns: 64,
    depth: 128,
    threads: 128,
    stages: 3,
    fit: 3,
    step: 480.0,
    round: 1100.0,
    by_warpgroups: false,
    forward: "gemm_flat",
    input_grad: "gemm_flat_transposed",
    weight_grad: "",
};

/// Tiles of products with weights, and of the gradients of weights.
pub(crate) const PRODUCTS: [Tile; 6] = [GROUP, PAIR, HUGE, LARGE, MIDDLE, FLAT];
pub(crate) const WEIGHT_GRADS: [Tile; 5] = [GROUP, PAIR, HUGE, LARGE, MIDDLE];

/// The same for convolutions; the number is that of channels gathered at a time.
pub(crate) const CONV_8: [Tile; 9] = [
    conv(CONV_GROUP, ["conv_group", "conv_input_grad_group", "conv_weight_grad_group"]),
    conv(CONV_GROUP_96, ["conv_group_96", "conv_input_grad_group_96", "conv_weight_grad_group_96"]),
    conv(CONV_GROUP_64, ["conv_group_64", "conv_input_grad_group_64", "conv_weight_grad_group_64"]),
    conv(CONV_HUGE, ["conv_huge", "conv_input_grad_huge", "conv_weight_grad_huge"]),
    conv(BROAD, ["conv_broad", "conv_input_grad_broad", "conv_weight_grad_broad"]),
    conv(CONV_LARGE, ["conv_large", "conv_input_grad_large", "conv_weight_grad_large"]),
    conv(HALF, ["conv_half", "conv_input_grad_half", "conv_weight_grad_half"]),
    conv(NARROW, ["conv_narrow", "conv_input_grad_narrow", "conv_weight_grad_narrow"]),
    conv(THIN, ["conv_thin", "conv_input_grad_thin", "conv_weight_grad_thin"]),
];
pub(crate) const CONV_4: [Tile; 3] = [
    conv(CONV_LARGE, ["conv_large_4", "conv_input_grad_large_4", "conv_weight_grad_large_4"]),
    conv(HALF, ["conv_half_4", "conv_input_grad_half_4", "conv_weight_grad_half_4"]),
    conv(THIN, ["conv_thin_4", "conv_input_grad_thin_4", "conv_weight_grad_thin_4"]),
];
/// For a weight's gradient from the gradient after a pool.
pub(crate) const CONV_POOLED: [Tile; 3] = [
    conv(CONV_LARGE, ["", "", "conv_pooled_grad_large"]),
    conv(HALF, ["", "", "conv_pooled_grad_half"]),
    conv(THIN, ["", "", "conv_pooled_grad_thin"]),
];
pub(crate) const CONV_1: [Tile; 1] = [conv(NARROW, ["conv_odd", "conv_input_grad_odd", "conv_weight_grad_odd"])];

// Gathering pixels takes extra time, so these have cycles of their own.
/// A weight's gradient has half the depth in twice as many stages: as many bytes (kernels/conv.cu).
const CONV_GROUP: Tile = Tile { step: 1350.0, round: 8800.0, ..GROUP };
/// For numbers of channels that are three times a power of two.
const CONV_GROUP_96: Tile = Tile { columns: 96, step: 1190.0, ..CONV_GROUP };
const CONV_GROUP_64: Tile = Tile { rows: 128, columns: 64, fit: 2, step: 535.0, round: 3300.0, ..GROUP };
const CONV_HUGE: Tile = Tile { step: 1460.0, round: 4700.0, ..HUGE };
const BROAD: Tile = Tile { columns: 96, step: 1210.0, round: 6700.0, ..HUGE };
const CONV_LARGE: Tile = Tile { step: 580.0, round: 5600.0, ..LARGE };
const HALF: Tile = Tile { columns: 64, fit: 3, step: 350.0, round: 5100.0, ..LARGE };
const NARROW: Tile = Tile { columns: 32, fit: 4, step: 263.0, round: 5600.0, ..LARGE };
const THIN: Tile = Tile { columns: 16, fit: 4, step: 220.0, round: 5400.0, ..LARGE };

const fn conv(tile: Tile, [forward, input_grad, weight_grad]: [&'static str; 3]) -> Tile {
    Tile { forward, input_grad, weight_grad, ..tile }
}

/// What kernels need to divide numbers below 2^31 by `by`, exactly, with a product and a shift.
pub(crate) struct Divider {
    pub by: usize,
    pub factor: usize,
    pub shift: usize,
}

impl Divider {
    pub fn new(by: usize) -> Divider {
        let by = by.max(1);
        let shift = by.next_power_of_two().ilog2() as usize; // of the smallest power of two from `by` on
        Divider { by, factor: (1usize << (31 + shift)).div_ceil(by), shift }
    }
}

impl Tile {
    /// The grid of an output [m, n], `parts` times.
    pub fn grid(&self, [m, n]: [usize; 2], parts: usize) -> Grid {
        let blocks = [n.div_ceil(self.columns), m.div_ceil(self.rows), parts];
        Grid { shared: self.shared(), ..Grid::of(blocks, self.threads) }
    }

    /// The grid of an output [m, n] with all tiles along the first axis, the only one that takes more than 65535: a
    /// batch of larger images has more pixels than that many tiles.
    pub fn in_line(&self, [m, n]: [usize; 2]) -> Grid {
        let blocks = n.div_ceil(self.columns) * m.div_ceil(self.rows);
        Grid { shared: self.shared(), ..Grid::blocks(blocks, self.threads) }
    }

    /// Shared memory of a block, in bytes.
    fn shared(&self) -> u32 {
        let columns = if self.by_warpgroups { self.columns.next_multiple_of(64) } else { self.columns };
        let stage = 2 * (self.rows + columns) * self.depth;
        (self.stages * stage) as u32
    }
}

/// A tile, and how many parts the depth is cut into, whose sums a second pass adds up.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub tile: Tile,
    pub parts: usize,
}

/// The multiprocessors that plans assume. So results do not depend on how many a GPU has, though another plan might be
/// faster. They do depend on whether it has warpgroups, whose tiles add up in another order.
const MULTIPROCESSORS: usize = 132;
/// Cycles of a kernel's start and end, and of those of a second pass.
const START: f64 = 4900.0;
const SECOND: f64 = 3500.0;
/// Bytes of partial sums that are written or read per cycle.
const BANDWIDTH: f64 = 2850.0;
/// The most parts, and the most bytes of partial sums.
const MOST_PARTS: usize = 256;
const MOST_BYTES: usize = 64 << 20;

impl Gpu {
    /// Those of `tiles` that this GPU has kernels for; an emulated GPU has all.
    pub(crate) fn able(&self, tiles: &[Tile]) -> Vec<Tile> {
        let warpgroups = self.properties().multiplies_by_warpgroups();
        tiles.iter().copied().filter(|tile| warpgroups || !tile.by_warpgroups).collect()
    }
}

/// The quickest of `tiles` with the best number of parts for `blocks` products [m, n] over `depths`.
pub(crate) fn plan(tiles: &[Tile], size: [usize; 2], blocks: usize, depths: &[usize]) -> Plan {
    best(tiles, size, blocks, depths, MOST_PARTS)
}

/// The quickest of `tiles` for a product [m, n] over `depth` in one part.
pub(crate) fn plan_whole(tiles: &[Tile], size: [usize; 2], depth: usize) -> Tile {
    best(tiles, size, 1, &[depth], 1).tile
}

fn best(tiles: &[Tile], size: [usize; 2], blocks: usize, depths: &[usize], most: usize) -> Plan {
    let mut best = (f64::INFINITY, Plan { tile: tiles[0], parts: 1 });
    for &tile in tiles {
        let steps: usize = depths.iter().map(|depth| depth.div_ceil(tile.depth)).sum();
        let mut parts = 1;
        while parts == 1 || parts <= most && 4 * parts <= steps {
            let bytes = 4 * size[0] * size[1] * blocks * parts;
            if parts > 1 && bytes > MOST_BYTES {
                break;
            }
            let cycles = cycles(&tile, size, blocks, steps, parts);
            if cycles < best.0 {
                best = (cycles, Plan { tile, parts });
            }
            parts *= 2;
        }
    }
    best.1
}

/// A rough model of the time: each multiprocessor runs its blocks in rounds of as many as fit, and the steps of a
/// round's blocks add up.
pub(super) fn cycles(tile: &Tile, [m, n]: [usize; 2], blocks: usize, steps: usize, parts: usize) -> f64 {
    let tiles = m.div_ceil(tile.rows) * n.div_ceil(tile.columns) * blocks * parts;
    let each = tiles.div_ceil(MULTIPROCESSORS); // on the busiest multiprocessor
    let steps = steps.div_ceil(parts);
    let second = if parts == 1 { 0.0 } else { SECOND + (8 * m * n * blocks * parts) as f64 / BANDWIDTH };
    START + each.div_ceil(tile.fit) as f64 * tile.round + (each * steps) as f64 * tile.step + second
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divisions_are_exact() {
        for by in (1..200).chain([1 << 20, (1 << 20) + 1, (1 << 31) - 1]) {
            let Divider { factor, shift, .. } = Divider::new(by);
            for x in (0..1000).chain([by - 1, by, 7 * by, (1 << 31) - 1]).chain((1..50).map(|i| i * by % (1 << 31))) {
                let x = x & ((1 << 31) - 1);
                let quotient = (2 * x * factor) >> 32 >> shift;
                assert_eq!(quotient, x / by, "{x} by {by}");
            }
            assert!(factor < 1 << 32);
        }
    }

    /// What the model says of shapes that matter.
    #[test]
    fn tiles_fit_their_products() {
        let name = |m, n, k, blocks| {
            let Plan { tile, parts } = plan(&PRODUCTS, [m, n], blocks, &[k]);
            (tile.forward, parts)
        };
        assert_eq!(name(16384, 1024, 1024, 1), ("gemm_group", 1));
        assert_eq!(name(1024, 3072, 1024, 8), ("gemm_group", 1));
        assert_eq!(name(16, 3072, 1024, 8).0, "gemm_flat");
        assert!(name(16, 1024, 8192, 1).1 > 1); // 16 tiles would leave most of the GPU idle
    }
}
