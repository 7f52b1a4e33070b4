//! What objects other than the player do in a step, and how many creatures there are.
//!
//! An object that dies in its step still finishes it, without moving: it draws its random numbers and can do damage.

use super::rules::{ARROW_WALKABLE, Material, WALKABLE};
use super::world::{DIRECTIONS, Kind, PLAYER, Pos, World};

/// One step of the object at `index`. Zombies do more damage while the player sleeps.
pub fn update(world: &mut World, index: usize, sleeping: bool) {
    let object = &world.objects[index];
    let (kind, mortal) = (object.kind, !matches!(object.kind, Kind::Player | Kind::Arrow { .. }));
    if let Kind::Plant { grown } = kind {
        world.objects[index].kind = Kind::Plant { grown: grown.saturating_add(1) };
        trample(world, index);
    }
    if mortal && world.objects[index].health <= 0 {
        world.remove(index);
    }
    match kind {
        Kind::Cow => {
            if luck(world) < 0.5 {
                wander(world, index);
            }
        }
        Kind::Zombie { cooldown } => zombie(world, index, cooldown, sleeping),
        Kind::Skeleton { reload } => skeleton(world, index, reload.saturating_sub(1)),
        Kind::Arrow { facing } => arrow(world, index, facing),
        Kind::Plant { .. } | Kind::Player => {}
    }
}

fn luck(world: &mut World) -> f64 {
    world.random.random_sample()
}

fn wander(world: &mut World, index: usize) {
    let direction = DIRECTIONS[world.random.randint(0, 4) as usize];
    world.walk(index, direction, WALKABLE);
}

/// The direction from an object to the player along one axis, the longer or the shorter one.
fn toward(world: &World, index: usize, longer: bool) -> Pos {
    let ([x, y], [px, py]) = (world.objects[index].pos, world.objects[PLAYER].pos);
    let (dx, dy) = (px - x, py - y);
    if (dx.abs() > dy.abs()) == longer { [dx.signum(), 0] } else { [0, dy.signum()] }
}

/// A creature next to a plant damages it.
fn trample(world: &mut World, index: usize) {
    let [x, y] = world.objects[index].pos;
    let creature = |[dx, dy]: &Pos| {
        let kind = world.object([x + dx, y + dy]).map(|i| world.objects[i].kind);
        matches!(kind, Some(Kind::Zombie { .. } | Kind::Skeleton { .. } | Kind::Cow))
    };
    if DIRECTIONS.iter().any(creature) {
        world.hurt(index, 1);
    }
}

fn zombie(world: &mut World, index: usize, mut cooldown: u8, sleeping: bool) {
    let distance = world.distance(world.objects[index].pos);
    if distance <= 8 && luck(world) < 0.9 {
        let longer = luck(world) < 0.8;
        world.walk(index, toward(world, index, longer), WALKABLE);
    } else {
        wander(world, index);
    }
    if world.distance(world.objects[index].pos) <= 1 {
        if cooldown > 0 {
            cooldown -= 1;
        } else {
            world.hurt(PLAYER, if sleeping { 7 } else { 2 });
            cooldown = 5;
        }
        world.objects[index].kind = Kind::Zombie { cooldown };
    }
}

fn skeleton(world: &mut World, index: usize, reload: u8) {
    world.objects[index].kind = Kind::Skeleton { reload };
    let pos = world.objects[index].pos;
    let distance = world.distance(pos);
    if distance <= 3 {
        let longer = luck(world) < 0.6;
        let away = toward(world, index, longer).map(|d| -d);
        if world.walk(index, away, WALKABLE) {
            return;
        }
    }
    if distance <= 5 && luck(world) < 0.5 {
        let facing = toward(world, index, true);
        let ahead = [pos[0] + facing[0], pos[1] + facing[1]];
        if reload == 0 && facing != [0, 0] && world.is_free(ahead, ARROW_WALKABLE) {
            world.add(Kind::Arrow { facing }, ahead);
            world.objects[index].kind = Kind::Skeleton { reload: 4 };
        }
    } else if distance <= 8 && luck(world) < 0.3 {
        let longer = luck(world) < 0.6;
        world.walk(index, toward(world, index, longer), WALKABLE);
    } else if luck(world) < 0.2 {
        wander(world, index);
    }
}

/// An arrow flies until it hits: objects are hurt, tables and furnaces destroyed.
fn arrow(world: &mut World, index: usize, facing: Pos) {
    let [x, y] = world.objects[index].pos;
    let ahead = [x + facing[0], y + facing[1]];
    if let Some(hit) = world.object(ahead) {
        world.hurt(hit, 2);
        world.remove(index);
    } else if !world.walk(index, facing, ARROW_WALKABLE) {
        world.remove(index);
        if let Some(Material::Table | Material::Furnace) = world.material(ahead) {
            world.set(ahead, Material::Path);
        }
    }
}

/// How a kind of creature appears and vanishes in each chunk.
struct Species {
    kind: Kind,
    home: Material,
    /// The least distance to the player at which one may appear, and vanish.
    far: [i32; 2],
    /// The probabilities of appearing if there are too few, and of vanishing if there are too many.
    odds: [f64; 2],
    /// The fewest and the most there should be, from the light and the number of cells of `home`.
    target: fn(f64, usize) -> [f64; 2],
}

const SPECIES: [Species; 3] = [
    Species {
        kind: Kind::ZOMBIE,
        home: Material::Grass,
        far: [6, 0],
        odds: [0.3, 0.4],
        target: |light, space| [if space < 50 { 0.0 } else { 3.5 - 3.0 * light }, 3.5 - 3.0 * light],
    },
    Species {
        kind: Kind::SKELETON,
        home: Material::Path,
        far: [7, 7],
        odds: [0.1, 0.1],
        target: |_, space| [if space < 6 { 0.0 } else { 1.0 }, 2.0],
    },
    Species {
        kind: Kind::Cow,
        home: Material::Grass,
        far: [5, 5],
        odds: [0.01, 0.1],
        target: |light, space| [if space < 30 { 0.0 } else { 1.0 }, 1.5 + light],
    },
];

/// Lets creatures appear where there are few, and vanish where there are many. Only chunks count that have ever held an
/// object.
pub fn balance(world: &mut World, daylight: f64) {
    for i in 0..world.settled.len() {
        for species in &SPECIES {
            balance_species(world, world.settled[i], species, daylight);
        }
    }
}

fn balance_species(world: &mut World, chunk: u8, species: &Species, daylight: f64) {
    let same = |kind: &Kind| std::mem::discriminant(kind) == std::mem::discriminant(&species.kind);
    let creatures = world.inhabitants(chunk, same);
    let space = world.space(chunk, species.home);
    let [fewest, most] = (species.target)(daylight, space).map(|x| x as usize);
    if creatures.len() < fewest && luck(world) < species.odds[0] {
        let number = world.random.randint(0, space as i64) as usize;
        let Some(pos) = world.spot(chunk, species.home, number) else { return };
        if world.object(pos).is_none() && world.distance(pos) >= species.far[0] {
            world.add(species.kind, pos);
        }
    } else if creatures.len() > most && luck(world) < species.odds[1] {
        let creature = creatures[world.random.randint(0, creatures.len() as i64) as usize];
        if world.distance(world.objects[creature].pos) >= species.far[1] {
            world.remove(creature);
        }
    }
}
