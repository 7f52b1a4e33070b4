//! OpenSimplex noise in three dimensions, to the bit that of the Python package `opensimplex`.
//!
//! Space is cut into skewed cubes, and each cube into two tetrahedra around opposite corners and an octahedron between
//! them. A point's noise is a sum over the corners of its solid and two more nearby, each with a gradient of its own.

const STRETCH: f64 = -1.0 / 6.0;
const SQUISH: f64 = 1.0 / 3.0;
const NORM: f64 = 103.0;

/// A corner of the lattice, relative to the cube's own corner.
struct Corner {
    at: [i32; 3],
    /// The part of `at` that is subtracted last: sums of floats depend on their order.
    late: [i32; 3],
}

const fn corner(x: i32, y: i32, z: i32) -> Corner {
    Corner { at: [x, y, z], late: [0; 3] }
}

// The corners of the three solids, in the order in which they are summed.
const LOW: [Corner; 4] = [corner(0, 0, 0), corner(1, 0, 0), corner(0, 1, 0), corner(0, 0, 1)];
const HIGH: [Corner; 4] = [corner(1, 1, 0), corner(1, 0, 1), corner(0, 1, 1), corner(1, 1, 1)];
const MIDDLE: [Corner; 6] =
    [corner(1, 0, 0), corner(0, 1, 0), corner(0, 0, 1), corner(1, 1, 0), corner(1, 0, 1), corner(0, 1, 1)];

// The two extra corners. `AXIS` tables are indexed by the one axis of a set, `PLANE` tables by the axis that a set of
// two lacks.
type Extra = [[Corner; 2]; 3];
const LOW_AXIS: Extra =
    [[corner(1, -1, 0), corner(1, 0, -1)], [corner(-1, 1, 0), corner(0, 1, -1)], [corner(-1, 0, 1), corner(0, -1, 1)]];
const LOW_PLANE: Extra =
    [[corner(0, 1, 1), corner(-1, 1, 1)], [corner(1, 0, 1), corner(1, -1, 1)], [corner(1, 1, 0), corner(1, 1, -1)]];
const HIGH_AXIS: Extra =
    [[corner(1, 0, 0), corner(2, 0, 0)], [corner(0, 1, 0), corner(0, 2, 0)], [corner(0, 0, 1), corner(0, 0, 2)]];
const HIGH_PLANE: Extra = [
    [Corner { at: [0, 2, 1], late: [0, 1, 0] }, corner(0, 1, 2)],
    [corner(2, 0, 1), corner(1, 0, 2)],
    [corner(2, 1, 0), Corner { at: [1, 2, 0], late: [0, 1, 0] }],
];
const FAR: Corner = corner(1, 1, 1);
const FAR_AXIS: [Corner; 3] = [corner(2, 0, 0), corner(0, 2, 0), corner(0, 0, 2)];
const NEAR: Corner = corner(0, 0, 0);
const NEAR_PLANE: [Corner; 3] = [corner(-1, 1, 1), corner(1, -1, 1), corner(1, 1, -1)];
const MIXED_AXIS: [Corner; 3] = [
    Corner { at: [2, 0, 0], late: [2, 0, 0] },
    Corner { at: [0, 2, 0], late: [0, 2, 0] },
    Corner { at: [0, 0, 2], late: [0, 0, 2] },
];

/// Noise in `[-1, 1]` as a function of a point, determined by a seed.
pub struct Noise {
    order: [u8; 256],
    gradients: [[f64; 3]; 256],
}

impl Noise {
    pub fn new(seed: i64) -> Self {
        let next = |x: i64| x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut state = next(next(next(seed)));
        let mut source: [u8; 256] = std::array::from_fn(|i| i as u8);
        let mut order = [0; 256];
        for i in (0..256).rev() {
            state = next(state);
            let chosen = (i128::from(state) + 31).rem_euclid(i as i128 + 1) as usize;
            order[i] = source[chosen];
            source[chosen] = source[i];
        }
        Noise { order, gradients: order.map(|number| gradient(number % 24)) }
    }

    /// The noise at a point.
    pub fn at(&self, point: [f64; 3]) -> f64 {
        let [x, y, z] = point;
        let stretch = (x + y + z) * STRETCH;
        let stretched = point.map(|v| v + stretch);
        let cube = stretched.map(floor);
        let squish = f64::from(cube[0] + cube[1] + cube[2]) * SQUISH;
        let inside: [f64; 3] = std::array::from_fn(|i| stretched[i] - f64::from(cube[i]));
        let from = std::array::from_fn(|i| point[i] - (f64::from(cube[i]) + squish));
        let total = inside[0] + inside[1] + inside[2];
        let add = |sum: f64, corner: &Corner| self.add(sum, cube, from, corner);
        let (sum, [first, second]) = if total <= 1.0 {
            (LOW.iter().fold(0.0, add), low(inside, total).each_ref())
        } else if total >= 2.0 {
            (HIGH.iter().fold(0.0, add), high(inside, total).each_ref())
        } else {
            (MIDDLE.iter().fold(0.0, add), middle(inside))
        };
        add(add(sum, first), second) / NORM
    }

    /// Adds to `sum` what a corner contributes to the noise at a point. `from` leads from `cube` to the point.
    #[inline(always)]
    fn add(&self, sum: f64, cube: [i32; 3], from: [f64; 3], corner: &Corner) -> f64 {
        let Corner { at, late } = corner;
        let squish = f64::from(at[0] + at[1] + at[2]) * SQUISH;
        let [dx, dy, dz] = std::array::from_fn(|i| from[i] - f64::from(at[i] - late[i]) - squish - f64::from(late[i]));
        // A corner too far away adds nothing. Without a branch, as it would be unpredictable.
        let reach = (2.0 - dx * dx - dy * dy - dz * dz).max(0.0);
        let [i, j, k] = std::array::from_fn(|i| (cube[i] + at[i]) as u8); // the lattice repeats after 256 cubes
        let along = self.order[self.order[i as usize].wrapping_add(j) as usize].wrapping_add(k);
        let [gx, gy, gz] = self.gradients[along as usize];
        let reach = reach * reach;
        sum + reach * reach * (gx * dx + gy * dy + gz * dz)
    }
}

/// The 24 gradients: for each choice of signs, the longest part along each axis.
fn gradient(number: u8) -> [f64; 3] {
    let (signs, longest) = (number / 3, number % 3);
    let negative = [signs & 1 == 0, signs & 2 != 0, signs & 4 != 0];
    std::array::from_fn(|i| {
        let length = if i == longest as usize { 11.0 } else { 4.0 };
        if negative[i] { -length } else { length }
    })
}

/// The largest integer that is not above `x`.
fn floor(x: f64) -> i32 {
    let whole = x as i32;
    whole - i32::from(x < f64::from(whole))
}

/// The axis of a set of one.
fn only(set: u8) -> usize {
    set.trailing_zeros() as usize
}

/// The axis that a set of two lacks.
fn missing(set: u8) -> usize {
    only(!set)
}

// Sets of axes are bits: 1 for x, 2 for y, 4 for z. Ties are broken as the package breaks them.

/// The extra corners near the tetrahedron at the cube's own corner.
fn low([x, y, z]: [f64; 3], total: f64) -> &'static [Corner; 2] {
    let (mut a, mut b) = ((1, x), (2, y));
    if a.1 >= b.1 && z > b.1 {
        b = (4, z);
    } else if a.1 < b.1 && z > a.1 {
        a = (4, z);
    }
    let own = 1.0 - total;
    if own > a.1 || own > b.1 {
        &LOW_AXIS[only(if b.1 > a.1 { b.0 } else { a.0 })]
    } else {
        &LOW_PLANE[missing(a.0 | b.0)]
    }
}

/// The extra corners near the tetrahedron at the opposite corner.
fn high([x, y, z]: [f64; 3], total: f64) -> &'static [Corner; 2] {
    let (mut a, mut b) = ((6, x), (5, y));
    if a.1 <= b.1 && z < b.1 {
        b = (3, z);
    } else if a.1 > b.1 && z < a.1 {
        a = (3, z);
    }
    let own = 3.0 - total;
    if own < a.1 || own < b.1 {
        &HIGH_PLANE[missing(if b.1 < a.1 { b.0 } else { a.0 })]
    } else {
        &HIGH_AXIS[only(a.0 & b.0)]
    }
}

/// The extra corners near the octahedron.
fn middle([x, y, z]: [f64; 3]) -> [&'static Corner; 2] {
    // For each pair of opposite corners, the closer: how much closer, which one, and whether it is on the far side.
    let closer = |sum: f64, far: u8| if sum > 1.0 { (sum - 1.0, far, true) } else { (1.0 - sum, 7 ^ far, false) };
    let (mut a, mut b, c) = (closer(x + y, 3), closer(x + z, 5), closer(y + z, 6));
    if a.0 <= b.0 && a.0 < c.0 {
        a = c;
    } else if a.0 > b.0 && b.0 < c.0 {
        b = c;
    }
    match (a.2, b.2) {
        (true, true) => [&FAR, &FAR_AXIS[only(a.1 & b.1)]],
        (false, false) => [&NEAR, &NEAR_PLANE[missing(a.1 | b.1)]],
        (true, false) => [&NEAR_PLANE[missing(a.1)], &MIXED_AXIS[only(b.1)]],
        (false, true) => [&NEAR_PLANE[missing(b.1)], &MIXED_AXIS[only(a.1)]],
    }
}
