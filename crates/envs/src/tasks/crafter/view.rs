//! What the player sees: the cells around it in the light of the day, and below them what it has.

use super::light::{Light, Pixel, vignette};
use super::player::{Player, ripe};
use super::rules::{HEALTH, ITEMS, MATERIALS, MOST, VIEW};
use super::textures::Texture;
use super::world::{Kind, PLAYER, Pos, World};
use crate::numpy::RandomState;
use anyhow::{Result, ensure};
use spaces::Array;

/// Pictures of objects, in the order of [`sprite`]; before them is the cell without any.
const SPRITES: [&str; 14] = [
    "player-left",
    "player-right",
    "player-up",
    "player-down",
    "player-sleep",
    "cow",
    "zombie",
    "skeleton",
    "arrow-left",
    "arrow-right",
    "arrow-up",
    "arrow-down",
    "plant",
    "plant-ripe",
];
/// Tiles of one material: with each sprite, and without.
const LAYERS: usize = SPRITES.len() + 1;
/// The number of tiles; the first of all is that of cells outside of the world.
const TILES: usize = (MATERIALS.len() + 1) * LAYERS;
const OUTSIDE: [u8; 3] = [127; 3];

/// Columns of cells, and rows of them that show the world; the rest shows items.
const GRID: [usize; 2] = [VIEW[0], VIEW[1] - (ITEMS.len() + 1).div_ceil(VIEW[0])];

/// Every picture of a cell, drawn ahead of time for one size.
pub struct View {
    size: [usize; 2],   // width, height
    unit: [usize; 2],   // of a cell
    border: [usize; 2], // left and right, above and below: what cells do not fill
    tiles: Vec<Pixel>,  // [tile, row, column]
    items: Vec<Pixel>,  // [item, amount, row, column]
    shade: Vec<f64>,    // [column, row] of the world's picture: how much noise the night has
}

impl View {
    /// `size` is height and width in pixels; `read` returns the package's pictures by their names.
    pub fn new(read: impl Fn(&str) -> Result<Texture>, size: [usize; 2]) -> Result<Self> {
        let size = [size[1], size[0]];
        let unit = [size[0] / VIEW[0], size[1] / VIEW[1]];
        ensure!(
            unit[0] >= 2 && unit[1] >= 2 && size[0].max(size[1]) <= 1024,
            "env.crafter.size is {} x {}, but its sides have to be 18 to 1024 pixels",
            size[1],
            size[0]
        );
        let border = [0, 1].map(|i| (size[i] - unit[i] * VIEW[i]) / 2);
        let (tiles, items) = (tiles(&read, unit)?, items(&read, unit)?);
        let shade = vignette([GRID[0] * unit[0], GRID[1] * unit[1]]);
        Ok(View { size, unit, border, tiles, items, shade })
    }

    /// The brightness of the night's noise at each pixel of the world's picture, [column, row]; nothing by day.
    pub fn noise(&self, daylight: f64, random: &mut RandomState) -> Vec<f64> {
        let count = if daylight < 0.5 { self.shade.len() } else { 0 };
        (0..count).map(|_| random.uniform(32.0, 127.0)).collect()
    }

    /// The picture [height, width, 3] of a moment, with the [`View::noise`] that was drawn for it.
    pub fn draw(&self, world: &World, player: &Player, daylight: f64, noise: &[f64]) -> Array {
        let mut picture = vec![[0; 3]; self.size[0] * self.size[1]];
        let tiles = self.visible(world, player);
        let light = Light::new(daylight, player.sleeping);
        if noise.is_empty() {
            self.draw_day(&mut picture, &tiles, &light);
        } else {
            self.draw_night(&mut picture, &tiles, &light, 2.0 * (0.5 - daylight), noise);
        }
        self.draw_items(&mut picture, world.objects[PLAYER].health, player);
        Array::from_u8(&[self.size[1], self.size[0], 3], picture.into_flattened())
    }

    /// The tile of every cell in view, [column, row].
    fn visible(&self, world: &World, player: &Player) -> [[u8; GRID[1]]; GRID[0]] {
        let [x, y] = world.objects[PLAYER].pos;
        let corner = [x - (GRID[0] / 2) as i32, y - (GRID[1] / 2) as i32];
        std::array::from_fn(|column| {
            std::array::from_fn(|row| {
                let pos = [corner[0] + column as i32, corner[1] + row as i32];
                let background = world.material(pos).map_or(0, |material| material as usize + 1);
                let sprite = world.object(pos).map_or(0, |i| sprite(world.objects[i].kind, player) + 1);
                (background * LAYERS + sprite) as u8
            })
        })
    }

    fn tile(&self, tile: u8) -> &[Pixel] {
        let area = self.unit[0] * self.unit[1];
        &self.tiles[usize::from(tile) * area..][..area]
    }

    /// Where the pixels of a cell begin in the picture.
    fn origin(&self, column: usize, row: usize) -> usize {
        (self.border[1] + row * self.unit[1]) * self.size[0] + self.border[0] + column * self.unit[0]
    }

    /// By day the light changes all cells alike: each tile is lit once, and copied where it comes again.
    fn draw_day(&self, picture: &mut [Pixel], tiles: &[[u8; GRID[1]]; GRID[0]], light: &Light) {
        let mut drawn = [None; TILES];
        let [width, height] = self.unit;
        for (column, tiles) in tiles.iter().enumerate() {
            for (row, &tile) in tiles.iter().enumerate() {
                let to = self.origin(column, row);
                match drawn[usize::from(tile)] {
                    Some(from) => {
                        for line in (0..height).map(|y| y * self.size[0]) {
                            picture.copy_within(from + line..from + line + width, to + line);
                        }
                    }
                    None => {
                        for (y, line) in self.tile(tile).chunks_exact(width).enumerate() {
                            let to = &mut picture[to + y * self.size[0]..];
                            to.iter_mut().zip(line).for_each(|(to, &pixel)| *to = light.fall(pixel, pixel));
                        }
                        drawn[usize::from(tile)] = Some(to);
                    }
                }
            }
        }
    }

    /// By night each pixel has noise of its own, drawn column by column.
    fn draw_night(
        &self,
        picture: &mut [Pixel],
        tiles: &[[u8; GRID[1]]; GRID[0]],
        light: &Light,
        amount: f64,
        noise: &[f64],
    ) {
        let [width, height] = self.unit;
        let mut covers = self.shade.iter().zip(noise);
        for (column, tiles) in tiles.iter().enumerate() {
            for x in 0..width {
                for (row, &tile) in tiles.iter().enumerate() {
                    let (tile, to) = (self.tile(tile), self.origin(column, row));
                    for (y, (shade, noise)) in (0..height).zip(&mut covers) {
                        let (pixel, mask) = (tile[y * width + x], amount * shade);
                        let seen = pixel.map(|v| ((1.0 - mask) * f64::from(v) + mask * noise) as u8);
                        picture[to + y * self.size[0] + x] = light.fall(pixel, seen);
                    }
                }
            }
        }
    }

    fn draw_items(&self, picture: &mut [Pixel], health: i32, player: &Player) {
        let [width, height] = self.unit;
        for (i, &amount) in std::iter::once(&health).chain(player.inventory()).enumerate() {
            let to = self.origin(i % GRID[0], GRID[1] + i / GRID[0]);
            let number = i * (MOST as usize + 1) + amount.clamp(0, MOST) as usize;
            let tile = &self.items[number * width * height..][..width * height];
            for (y, line) in tile.chunks_exact(width).enumerate() {
                picture[to + y * self.size[0]..][..width].copy_from_slice(line);
            }
        }
    }
}

/// The place of an object's picture among [`SPRITES`].
fn sprite(kind: Kind, player: &Player) -> usize {
    let turned = |facing: Pos| match facing {
        [-1, _] => 0,
        [1, _] => 1,
        [_, -1] => 2,
        _ => 3,
    };
    match kind {
        Kind::Player if player.sleeping => 4,
        Kind::Player => turned(player.facing),
        Kind::Cow => 5,
        Kind::Zombie { .. } => 6,
        Kind::Skeleton { .. } => 7,
        Kind::Arrow { facing } => 8 + turned(facing),
        Kind::Plant { grown } => 12 + usize::from(ripe(grown)),
    }
}

/// Each material, and each with each sprite on it: [material and outside, sprite and none, row, column].
fn tiles(read: &impl Fn(&str) -> Result<Texture>, unit: [usize; 2]) -> Result<Vec<Pixel>> {
    let scaled = |name: &&str| Ok(read(name)?.resize(unit[0], unit[1]));
    let materials = MATERIALS.iter().map(scaled).collect::<Result<Vec<_>>>()?;
    let sprites = SPRITES.iter().map(scaled).collect::<Result<Vec<_>>>()?;
    let mut tiles = vec![];
    for material in std::iter::once(None).chain(materials.iter().map(Some)) {
        for sprite in std::iter::once(None).chain(sprites.iter().map(Some)) {
            for (y, x) in (0..unit[1]).flat_map(|y| (0..unit[0]).map(move |x| (y, x))) {
                let below = material.map_or(OUTSIDE, |material| material.color(x, y));
                tiles.push(sprite.map_or(below, |sprite| sprite.over(x, y, below)));
            }
        }
    }
    Ok(tiles)
}

/// Each item with each amount in its lower right: [item, amount, row, column]. An amount of 0 is black.
fn items(read: &impl Fn(&str) -> Result<Texture>, unit: [usize; 2]) -> Result<Vec<Pixel>> {
    let scaled = |name: &str, part: f64| {
        let [width, height] = unit.map(|unit| (part * unit as f64) as usize);
        Ok(read(name)?.resize(width, height))
    };
    let digits = (1..=MOST).map(|digit| scaled(&digit.to_string(), 0.6)).collect::<Result<Vec<_>>>()?;
    let mut all = vec![];
    for (i, name) in std::iter::once(HEALTH).chain(ITEMS).enumerate() {
        let item = scaled(name, 0.8)?;
        let cell = [i % GRID[0], i / GRID[0]];
        // The package rounds places in the whole picture, not in the cell.
        let offset = |axis: usize, part: f64| {
            let start = cell[axis] * unit[axis];
            (start as f64 + part * unit[axis] as f64) as usize - start
        };
        let blank = vec![[0; 3]; unit[0] * unit[1]];
        all.extend(&blank);
        for digit in &digits {
            let mut tile = blank.clone();
            for (texture, part) in [(&item, 0.1), (digit, 0.4)] {
                let (left, upper) = (offset(0, part), offset(1, part));
                for (y, x) in (0..texture.height).flat_map(|y| (0..texture.width).map(move |x| (y, x))) {
                    let pixel = &mut tile[(upper + y) * unit[0] + left + x];
                    *pixel = texture.over(x, y, *pixel);
                }
            }
            all.extend(tile);
        }
    }
    Ok(all)
}
