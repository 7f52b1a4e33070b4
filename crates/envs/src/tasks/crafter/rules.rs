//! The game's constants: materials, items, achievements, and what may be collected, placed and made.
//!
//! Each list is in the order of the package's `data.yaml`, which decides what is drawn where and logged under which name.

use serde::{Deserialize, Serialize};

/// Cells of the world in each direction.
pub const AREA: i32 = 64;
/// Cells of the chunks in which creatures are counted; the last of a row or column is cut off.
pub const CHUNK: i32 = 12;
/// Cells that the player sees, in each direction; the last rows show its inventory.
pub const VIEW: [usize; 2] = [9, 9];
/// The most of each item that one can have.
pub const MOST: i32 = 9;

/// What a cell of the world is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Material {
    Water,
    Grass,
    Stone,
    Path,
    Sand,
    Tree,
    Lava,
    Coal,
    Iron,
    Diamond,
    Table,
    Furnace,
}

use Material::*;

pub const MATERIALS: [&str; 12] =
    ["water", "grass", "stone", "path", "sand", "tree", "lava", "coal", "iron", "diamond", "table", "furnace"];

/// Where creatures and plants may be.
pub const WALKABLE: &[Material] = &[Grass, Path, Sand];
/// Where the player may go.
pub const PLAYER_WALKABLE: &[Material] = &[Grass, Path, Sand, Lava];
/// Where arrows fly.
pub const ARROW_WALKABLE: &[Material] = &[Grass, Path, Sand, Water, Lava];

/// What the inventory counts. Health comes before these in the picture, but is kept with the player's position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    Food,
    Drink,
    Energy,
    Sapling,
    Wood,
    Stone,
    Coal,
    Iron,
    Diamond,
    WoodPickaxe,
    StonePickaxe,
    IronPickaxe,
    WoodSword,
    StoneSword,
    IronSword,
}

pub const HEALTH: &str = "health";
pub const ITEMS: [&str; 15] = [
    "food",
    "drink",
    "energy",
    "sapling",
    "wood",
    "stone",
    "coal",
    "iron",
    "diamond",
    "wood_pickaxe",
    "stone_pickaxe",
    "iron_pickaxe",
    "wood_sword",
    "stone_sword",
    "iron_sword",
];

/// What an episode can achieve; each is rewarded once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Achievement {
    CollectCoal,
    CollectDiamond,
    CollectDrink,
    CollectIron,
    CollectSapling,
    CollectStone,
    CollectWood,
    DefeatSkeleton,
    DefeatZombie,
    EatCow,
    EatPlant,
    MakeIronPickaxe,
    MakeIronSword,
    MakeStonePickaxe,
    MakeStoneSword,
    MakeWoodPickaxe,
    MakeWoodSword,
    PlaceFurnace,
    PlacePlant,
    PlaceStone,
    PlaceTable,
    WakeUp,
}

use Achievement::*;

pub const ACHIEVEMENTS: [&str; 22] = [
    "collect_coal",
    "collect_diamond",
    "collect_drink",
    "collect_iron",
    "collect_sapling",
    "collect_stone",
    "collect_wood",
    "defeat_skeleton",
    "defeat_zombie",
    "eat_cow",
    "eat_plant",
    "make_iron_pickaxe",
    "make_iron_sword",
    "make_stone_pickaxe",
    "make_stone_sword",
    "make_wood_pickaxe",
    "make_wood_sword",
    "place_furnace",
    "place_plant",
    "place_stone",
    "place_table",
    "wake_up",
];

/// What the player can do in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Noop,
    /// Turns to a neighbouring cell, and goes there if it is free.
    Move([i32; 2]),
    /// Uses, eats, drinks, hits or collects what it faces.
    Do,
    Sleep,
    Place(&'static Place),
    Make(&'static Make),
}

/// Every action by its number.
pub const ACTIONS: [Action; 17] = [
    Action::Noop,
    Action::Move([-1, 0]),
    Action::Move([1, 0]),
    Action::Move([0, -1]),
    Action::Move([0, 1]),
    Action::Do,
    Action::Sleep,
    Action::Place(&PLACE[0]),
    Action::Place(&PLACE[1]),
    Action::Place(&PLACE[2]),
    Action::Place(&PLACE[3]),
    Action::Make(&MAKE[0]),
    Action::Make(&MAKE[1]),
    Action::Make(&MAKE[2]),
    Action::Make(&MAKE[3]),
    Action::Make(&MAKE[4]),
    Action::Make(&MAKE[5]),
];

/// What a material yields.
pub struct Collect {
    pub from: Material,
    /// A tool that is needed, and not used up.
    pub needs: Option<Item>,
    pub gives: Item,
    /// How probably it is given; the material is gone in any case.
    pub probability: f64,
    /// The material that is left.
    pub leaves: Material,
    pub achieves: Achievement,
}

pub const COLLECT: [Collect; 7] = [
    collect(Tree, None, Item::Wood, Grass, CollectWood),
    collect(Stone, Some(Item::WoodPickaxe), Item::Stone, Path, CollectStone),
    collect(Coal, Some(Item::WoodPickaxe), Item::Coal, Path, CollectCoal),
    collect(Iron, Some(Item::StonePickaxe), Item::Iron, Path, CollectIron),
    collect(Diamond, Some(Item::IronPickaxe), Item::Diamond, Path, CollectDiamond),
    collect(Water, None, Item::Drink, Water, CollectDrink),
    Collect { probability: 0.1, ..collect(Grass, None, Item::Sapling, Grass, CollectSapling) },
];

const fn collect(from: Material, needs: Option<Item>, gives: Item, leaves: Material, achieves: Achievement) -> Collect {
    Collect { from, needs, gives, probability: 1.0, leaves, achieves }
}

/// What can be put on the cell that the player faces.
#[derive(Debug, PartialEq, Eq)]
pub struct Place {
    /// The new material; none for a plant, which stands on what is there.
    pub what: Option<Material>,
    pub uses: (Item, i32),
    pub onto: &'static [Material],
    pub achieves: Achievement,
}

pub const PLACE: [Place; 4] = [
    Place { what: Some(Stone), uses: (Item::Stone, 1), onto: &[Grass, Sand, Path, Water, Lava], achieves: PlaceStone },
    Place { what: Some(Table), uses: (Item::Wood, 2), onto: WALKABLE, achieves: PlaceTable },
    Place { what: Some(Furnace), uses: (Item::Stone, 4), onto: WALKABLE, achieves: PlaceFurnace },
    Place { what: None, uses: (Item::Sapling, 1), onto: &[Grass], achieves: PlacePlant },
];

/// A tool, made of one of each of some items.
#[derive(Debug, PartialEq, Eq)]
pub struct Make {
    pub what: Item,
    pub uses: &'static [Item],
    /// What has to be next to the player.
    pub nearby: &'static [Material],
    pub achieves: Achievement,
}

const WOOD: &[Item] = &[Item::Wood];
const WOOD_STONE: &[Item] = &[Item::Wood, Item::Stone];
const WOOD_COAL_IRON: &[Item] = &[Item::Wood, Item::Coal, Item::Iron];

pub const MAKE: [Make; 6] = [
    Make { what: Item::WoodPickaxe, uses: WOOD, nearby: &[Table], achieves: MakeWoodPickaxe },
    Make { what: Item::StonePickaxe, uses: WOOD_STONE, nearby: &[Table], achieves: MakeStonePickaxe },
    Make { what: Item::IronPickaxe, uses: WOOD_COAL_IRON, nearby: &[Table, Furnace], achieves: MakeIronPickaxe },
    Make { what: Item::WoodSword, uses: WOOD, nearby: &[Table], achieves: MakeWoodSword },
    Make { what: Item::StoneSword, uses: WOOD_STONE, nearby: &[Table], achieves: MakeStoneSword },
    Make { what: Item::IronSword, uses: WOOD_COAL_IRON, nearby: &[Table, Furnace], achieves: MakeIronSword },
];
