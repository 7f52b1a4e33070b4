//! Makes a world: terrain from noise, and the first creatures.

use super::noise::Noise;
use super::rules::{AREA, Material, WALKABLE};
use super::world::{Kind, PLAYER, Pos, World};

/// A new world from a seed. Random numbers are drawn in the package's order; noise is only computed where it matters.
pub fn generate(seed: u32) -> World {
    let mut world = World::new(seed);
    let noise = Noise::new(world.random.randint(0, (1 << 31) - 1));
    let mut tunnels = vec![];
    for x in 0..AREA {
        for y in 0..AREA {
            let (material, tunnel) = material(&mut world, &noise, [x, y]);
            world.set([x, y], material);
            tunnels.push(tunnel);
        }
    }
    let mut tunnels = tunnels.into_iter();
    for x in 0..AREA {
        for y in 0..AREA {
            settle(&mut world, [x, y], tunnels.next() == Some(true));
        }
    }
    world
}

/// The Euclidean distance to the player.
fn distance(world: &World, [x, y]: Pos) -> f64 {
    let [px, py] = world.objects[PLAYER].pos;
    f64::from((x - px).pow(2) + (y - py).pow(2)).sqrt()
}

/// The material of a cell, and whether it belongs to a tunnel.
fn material(world: &mut World, noise: &Noise, [column, row]: Pos) -> (Material, bool) {
    let (x, y) = (f64::from(column), f64::from(row));
    let at = |x: f64, y: f64, layer: f64, size: f64| noise.at([x / size, y / size, layer]);
    let layer = |layer: f64, size: f64| at(x, y, layer, size);
    // The player starts on grass.
    let start = 4.0 - distance(world, [column, row]) + 2.0 * layer(8.0, 3.0);
    let start = 1.0 / (1.0 + (-start).exp());
    if start > 0.5 {
        return (Material::Grass, false);
    }
    let water = layer(3.0, 15.0) + 0.15 * layer(3.0, 5.0) + 0.1 - 2.0 * start;
    let mountain = (layer(0.0, 15.0) + 0.3 * layer(0.0, 5.0)) / 1.3 - (4.0 * start + 0.3 * water);
    let mut luck = || world.random.random_sample();
    let material = if mountain > 0.15 {
        if mountain > 0.3 && layer(6.0, 7.0) > 0.15 {
            Material::Path // a cave
        } else if at(2.0 * x, y / 5.0, 7.0, 3.0) > 0.4 || at(x / 5.0, 2.0 * y, 7.0, 3.0) > 0.4 {
            return (Material::Path, true);
        } else if layer(1.0, 8.0) > 0.0 && luck() > 0.85 {
            Material::Coal
        } else if layer(2.0, 6.0) > 0.4 && luck() > 0.75 {
            Material::Iron
        } else if mountain > 0.18 && luck() > 0.994 {
            Material::Diamond
        } else if mountain > 0.3 && layer(6.0, 5.0) > 0.35 {
            Material::Lava
        } else {
            Material::Stone
        }
    } else if 0.25 < water && water <= 0.35 && layer(4.0, 9.0) > -0.2 {
        Material::Sand
    } else if 0.3 < water {
        Material::Water
    } else if layer(5.0, 7.0) > 0.0 && luck() > 0.8 {
        Material::Tree
    } else {
        Material::Grass
    };
    (material, false)
}

/// Puts a creature on a cell, or none.
fn settle(world: &mut World, pos: Pos, tunnel: bool) {
    let Some(material) = world.material(pos).filter(|material| WALKABLE.contains(material)) else { return };
    let distance = distance(world, pos);
    let mut luck = || world.random.random_sample();
    if distance > 3.0 && material == Material::Grass && luck() > 0.985 {
        world.add(Kind::Cow, pos);
    } else if distance > 10.0 && luck() > 0.993 {
        world.add(Kind::ZOMBIE, pos);
    } else if material == Material::Path && tunnel && luck() > 0.95 {
        world.add(Kind::SKELETON, pos);
    }
}
