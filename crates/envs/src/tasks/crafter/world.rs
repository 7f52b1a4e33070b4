//! The world: cells of material, and the objects on them.

use super::rules::{AREA, CHUNK, MOST, Material};
use crate::numpy::RandomState;
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// Column and row, from the upper left; also a direction.
pub type Pos = [i32; 2];

/// The player's place among the objects.
pub const PLAYER: usize = 0;
/// The neighbours of a cell, in the order in which random directions are numbered.
pub const DIRECTIONS: [Pos; 4] = [[-1, 0], [1, 0], [0, -1], [0, 1]];

const SIDE: i32 = (AREA + CHUNK - 1) / CHUNK; // chunks in a row
const CELLS: usize = (AREA * AREA) as usize;
const MATERIALS: usize = 12;

/// What stands on a cell, with the state that only its kind has.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Kind {
    /// All its state but position and health is in `Player`.
    Player,
    Cow,
    /// `cooldown`: steps until it can hurt again.
    Zombie {
        cooldown: u8,
    },
    /// `reload`: steps until it can shoot again.
    Skeleton {
        reload: u8,
    },
    Arrow {
        facing: Pos,
    },
    /// `grown`: steps since it was planted or eaten.
    Plant {
        grown: u32,
    },
}

impl Kind {
    pub const ZOMBIE: Kind = Kind::Zombie { cooldown: 0 };
    pub const SKELETON: Kind = Kind::Skeleton { reload: 0 };
    pub const PLANT: Kind = Kind::Plant { grown: 0 };

    /// Its initial health.
    fn health(self) -> i32 {
        match self {
            Kind::Player => MOST,
            Kind::Zombie { .. } => 5,
            Kind::Cow | Kind::Skeleton { .. } => 3,
            Kind::Plant { .. } => 1,
            Kind::Arrow { .. } => 0,
        }
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Object {
    pub kind: Kind,
    pub pos: Pos,
    pub health: i32,
    /// It is gone, though its own step may not be over yet.
    pub removed: bool,
    /// When it entered its chunk, as a count of all such events.
    arrived: u64,
}

#[derive(Serialize, Deserialize)]
pub struct World {
    pub random: RandomState,
    materials: Vec<Material>, // [column, row]
    /// In order of creation, the player first.
    pub objects: Vec<Object>,
    arrivals: u64,
    /// Numbers of the chunks that ever held an object, in the order in which they first did.
    pub settled: Vec<u8>,
    // These two are derived from the rest, and so not saved.
    #[serde(skip)]
    occupied: Vec<u16>, // [column, row]: index among the objects, plus 1; 0 where there is none
    #[serde(skip)]
    space: Vec<[u16; MATERIALS]>, // cells of each material in each chunk
}

impl World {
    /// Grass everywhere, and a player in the middle.
    pub fn new(seed: u32) -> Self {
        let mut world = World {
            random: RandomState::new(seed),
            materials: vec![Material::Grass; CELLS],
            objects: vec![],
            arrivals: 0,
            settled: vec![],
            occupied: vec![],
            space: vec![],
        };
        world.index();
        world.add(Kind::Player, [AREA / 2, AREA / 2]);
        world
    }

    /// Computes the fields that are derived from the rest.
    fn index(&mut self) {
        self.space = vec![[0; MATERIALS]; (SIDE * SIDE) as usize];
        for (cell, &material) in self.materials.iter().enumerate() {
            self.space[chunk(position(cell))][material as usize] += 1;
        }
        self.occupied = vec![0; CELLS];
        for (i, object) in self.objects.iter().enumerate() {
            self.occupied[cell(object.pos)] = i as u16 + 1;
        }
    }

    /// Completes a loaded world; the error says what is wrong with it.
    pub fn restore(&mut self) -> Result<()> {
        self.check()?;
        self.index();
        Ok(())
    }

    fn check(&self) -> Result<()> {
        ensure!(self.materials.len() == CELLS, "the world has {} cells instead of {CELLS}", self.materials.len());
        let mut places: Vec<Pos> = self.objects.iter().map(|object| object.pos).collect();
        ensure!(places.iter().all(|&pos| inside(pos)), "an object is outside of the world");
        places.sort_unstable();
        ensure!(places.windows(2).all(|pair| pair[0] != pair[1]), "two objects are on one cell");
        let player = |object: &Object| object.kind == Kind::Player;
        ensure!(
            self.objects.first().is_some_and(player) && self.objects.iter().filter(|x| player(x)).count() == 1,
            "the first object, and no other, has to be the player"
        );
        let sound = |object: &Object| {
            let flies = !matches!(object.kind, Kind::Arrow { facing } if !DIRECTIONS.contains(&facing));
            (0..=MOST).contains(&object.health) && !object.removed && flies
        };
        ensure!(self.objects.iter().all(sound), "an object is in no possible state");
        let mut settled = self.settled.clone();
        settled.sort_unstable();
        settled.dedup();
        let known = |object: &Object| self.settled.contains(&(chunk(object.pos) as u8));
        let fits = settled.len() == self.settled.len() && settled.iter().all(|&i| i32::from(i) < SIDE * SIDE);
        ensure!(fits && self.objects.iter().all(known), "the chunks do not fit the objects");
        Ok(())
    }

    /// The material at a place, none outside of the world.
    pub fn material(&self, pos: Pos) -> Option<Material> {
        inside(pos).then(|| self.materials[cell(pos)])
    }

    /// The index of the object at a place.
    pub fn object(&self, pos: Pos) -> Option<usize> {
        if !inside(pos) {
            return None;
        }
        usize::from(self.occupied[cell(pos)]).checked_sub(1)
    }

    /// Changes the material at a place inside of the world.
    pub fn set(&mut self, pos: Pos, material: Material) {
        let old = std::mem::replace(&mut self.materials[cell(pos)], material);
        let space = &mut self.space[chunk(pos)];
        space[old as usize] -= 1;
        space[material as usize] += 1;
    }

    /// Whether an object could go there that walks on `materials`.
    pub fn is_free(&self, pos: Pos, materials: &[Material]) -> bool {
        self.material(pos).is_some_and(|material| materials.contains(&material)) && self.object(pos).is_none()
    }

    /// Whether a cell of a material is among the nine around a place. In the first column and row nothing is ever near:
    /// the package's slice from -1 is empty.
    pub fn is_near(&self, [x, y]: Pos, material: Material) -> bool {
        let mut around = (x - 1..=x + 1).flat_map(|x| (y - 1..=y + 1).map(move |y| [x, y]));
        x > 0 && y > 0 && around.any(|pos| self.material(pos) == Some(material))
    }

    /// Puts a new object on a free cell.
    pub fn add(&mut self, kind: Kind, pos: Pos) {
        self.objects.push(Object { kind, pos, health: kind.health(), removed: false, arrived: 0 });
        self.occupied[cell(pos)] = self.objects.len() as u16;
        self.arrive(self.objects.len() - 1);
    }

    /// Notes that an object has come into its chunk.
    fn arrive(&mut self, index: usize) {
        self.arrivals += 1;
        self.objects[index].arrived = self.arrivals;
        let chunk = chunk(self.objects[index].pos) as u8;
        if !self.settled.contains(&chunk) {
            self.settled.push(chunk);
        }
    }

    /// Takes an object off its cell. Its entry stays until [`World::sweep`].
    pub fn remove(&mut self, index: usize) {
        let object = &mut self.objects[index];
        if !object.removed {
            object.removed = true;
            self.occupied[cell(object.pos)] = 0;
        }
    }

    /// Moves an object by `step` if it can walk there on `materials`, and tells whether it could. One that was removed
    /// stays where it was.
    pub fn walk(&mut self, index: usize, step: Pos, materials: &[Material]) -> bool {
        let from = self.objects[index].pos;
        let to = [from[0] + step[0], from[1] + step[1]];
        if !self.is_free(to, materials) {
            return false;
        }
        if !self.objects[index].removed {
            self.occupied[cell(to)] = self.occupied[cell(from)];
            self.occupied[cell(from)] = 0;
            self.objects[index].pos = to;
            if chunk(from) != chunk(to) {
                self.arrive(index);
            }
        }
        true
    }

    /// Takes `damage` off an object's health.
    pub fn hurt(&mut self, index: usize, damage: i32) {
        let health = &mut self.objects[index].health;
        *health = (*health - damage).max(0);
    }

    /// Forgets the objects that were removed.
    pub fn sweep(&mut self) {
        if self.objects.iter().any(|object| object.removed) {
            self.objects.retain(|object| !object.removed);
            for (i, object) in self.objects.iter().enumerate() {
                self.occupied[cell(object.pos)] = i as u16 + 1;
            }
        }
    }

    /// Steps from the player to a place, along columns and rows.
    pub fn distance(&self, pos: Pos) -> i32 {
        let [x, y] = self.objects[PLAYER].pos;
        (pos[0] - x).abs() + (pos[1] - y).abs()
    }

    /// Cells of a material in a chunk.
    pub fn space(&self, chunk: u8, material: Material) -> usize {
        usize::from(self.space[usize::from(chunk)][material as usize])
    }

    /// The `number`-th cell of a material in a chunk, column by column.
    pub fn spot(&self, chunk: u8, material: Material, number: usize) -> Option<Pos> {
        let corner = [i32::from(chunk) / SIDE, i32::from(chunk) % SIDE].map(|i| i * CHUNK);
        let range = |start: i32| start..(start + CHUNK).min(AREA);
        let cells = range(corner[0]).flat_map(|x| range(corner[1]).map(move |y| [x, y]));
        cells.filter(|&pos| self.materials[cell(pos)] == material).nth(number)
    }

    /// Indices of the objects of a chunk that are `wanted`, in the order in which they came into it.
    pub fn inhabitants(&self, chunk: u8, wanted: impl Fn(&Kind) -> bool) -> Vec<usize> {
        let lives =
            |object: &Object| !object.removed && wanted(&object.kind) && self::chunk(object.pos) == usize::from(chunk);
        let mut found: Vec<usize> = (0..self.objects.len()).filter(|&i| lives(&self.objects[i])).collect();
        found.sort_unstable_by_key(|&i| self.objects[i].arrived);
        found
    }
}

fn inside([x, y]: Pos) -> bool {
    (0..AREA).contains(&x) && (0..AREA).contains(&y)
}

fn cell([x, y]: Pos) -> usize {
    (x * AREA + y) as usize
}

fn position(cell: usize) -> Pos {
    [cell as i32 / AREA, cell as i32 % AREA]
}

/// The number of the chunk of a place.
fn chunk([x, y]: Pos) -> usize {
    (x / CHUNK * SIDE + y / CHUNK) as usize
}
