//! The player: what it has, what it needs, and what it does in a step.

use super::rules::{
    ACHIEVEMENTS, Achievement, Action, COLLECT, ITEMS, Item, MOST, Make, Material, PLAYER_WALKABLE, Place,
};
use super::world::{DIRECTIONS, Kind, PLAYER, Pos, World};
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// Everything but its position and health, which the world's first object has.
#[derive(Serialize, Deserialize)]
pub struct Player {
    pub facing: Pos,
    pub sleeping: bool,
    inventory: [i32; ITEMS.len()],
    achieved: [u32; ACHIEVEMENTS.len()],
    /// Its health after its last step: it wakes up if its health has dropped.
    last_health: i32,
    // Counters that change at each step; beyond a threshold, they change food, drink, energy and health.
    hunger: f32,
    thirst: f32,
    fatigue: f32,
    recover: f32,
}

impl Player {
    pub fn new() -> Self {
        let mut inventory = [0; ITEMS.len()];
        inventory[..3].fill(MOST); // food, drink and energy
        Player {
            facing: [0, 1],
            sleeping: false,
            inventory,
            achieved: [0; ACHIEVEMENTS.len()],
            last_health: MOST,
            hunger: 0.0,
            thirst: 0.0,
            fatigue: 0.0,
            recover: 0.0,
        }
    }

    /// Checks a saved player; the error says what is wrong.
    pub fn check(&self) -> Result<()> {
        ensure!(DIRECTIONS.contains(&self.facing), "the player faces {:?}, which is no direction", self.facing);
        let fits = self.inventory.iter().all(|amount| (0..=MOST).contains(amount));
        ensure!(fits, "the player has {:?}, not 0 to {MOST} of each item", self.inventory);
        Ok(())
    }

    pub fn has(&self, item: Item) -> i32 {
        self.inventory[item as usize]
    }

    /// How many of each item it has, in their order.
    pub fn inventory(&self) -> &[i32] {
        &self.inventory
    }

    /// How often each achievement was reached, in their order.
    pub fn achieved(&self) -> &[u32] {
        &self.achieved
    }

    /// Adds to an item; the amount is clamped at the end of the step.
    pub fn give(&mut self, item: Item, amount: i32) {
        self.inventory[item as usize] += amount;
    }

    fn achieve(&mut self, achievement: Achievement) {
        let count = &mut self.achieved[achievement as usize];
        *count = count.saturating_add(1);
    }

    /// One step of the player.
    pub fn update(&mut self, world: &mut World, mut action: Action) {
        let [x, y] = world.objects[PLAYER].pos;
        let target = [x + self.facing[0], y + self.facing[1]];
        if self.sleeping {
            if self.has(Item::Energy) < MOST {
                action = Action::Sleep;
            } else {
                self.sleeping = false;
                self.achieve(Achievement::WakeUp);
            }
        }
        match action {
            Action::Noop => {}
            Action::Move(direction) => self.walk(world, direction),
            Action::Do => match world.object(target) {
                Some(object) => self.meet(world, object),
                None => self.collect(world, target),
            },
            Action::Sleep => self.sleeping |= self.has(Item::Energy) < MOST,
            Action::Place(place) => self.place(world, target, place),
            Action::Make(make) => self.make(world, make),
        }
        self.live();
        self.heal(world);
        for amount in &mut self.inventory {
            *amount = (*amount).clamp(0, MOST);
        }
        let health = &mut world.objects[PLAYER].health;
        *health = (*health).min(MOST);
        self.sleeping &= *health >= self.last_health;
        self.last_health = *health;
    }

    fn walk(&mut self, world: &mut World, direction: Pos) {
        self.facing = direction;
        world.walk(PLAYER, direction, PLAYER_WALKABLE);
        if world.material(world.objects[PLAYER].pos) == Some(Material::Lava) {
            world.objects[PLAYER].health = 0;
        }
    }

    /// Eats or hits an object.
    fn meet(&mut self, world: &mut World, index: usize) {
        let swords = [(Item::IronSword, 5), (Item::StoneSword, 3), (Item::WoodSword, 2)];
        let damage = swords.into_iter().find(|(sword, _)| self.has(*sword) > 0).map_or(1, |(_, damage)| damage);
        let kind = world.objects[index].kind;
        if matches!(kind, Kind::Zombie { .. } | Kind::Skeleton { .. } | Kind::Cow) {
            world.hurt(index, damage);
        }
        let dead = world.objects[index].health <= 0;
        match kind {
            Kind::Plant { grown } if ripe(grown) => {
                world.objects[index].kind = Kind::PLANT;
                self.give(Item::Food, 4);
                self.achieve(Achievement::EatPlant);
            }
            Kind::Zombie { .. } if dead => self.achieve(Achievement::DefeatZombie),
            Kind::Skeleton { .. } if dead => self.achieve(Achievement::DefeatSkeleton),
            Kind::Cow if dead => {
                self.give(Item::Food, 6);
                self.achieve(Achievement::EatCow);
                self.hunger = 0.0;
            }
            _ => {}
        }
    }

    /// Takes what a cell's material gives.
    fn collect(&mut self, world: &mut World, target: Pos) {
        let material = world.material(target);
        if material == Some(Material::Water) {
            self.thirst = 0.0;
        }
        let Some(rule) = COLLECT.iter().find(|rule| Some(rule.from) == material) else { return };
        if rule.needs.is_some_and(|tool| self.has(tool) < 1) {
            return;
        }
        world.set(target, rule.leaves);
        if world.random.random_sample() <= rule.probability {
            self.give(rule.gives, 1);
            self.achieve(rule.achieves);
        }
    }

    fn place(&mut self, world: &mut World, target: Pos, place: &Place) {
        let (item, amount) = place.uses;
        if !world.is_free(target, place.onto) || self.has(item) < amount {
            return;
        }
        self.give(item, -amount);
        match place.what {
            Some(material) => world.set(target, material),
            None => world.add(Kind::PLANT, target),
        }
        self.achieve(place.achieves);
    }

    fn make(&mut self, world: &World, make: &Make) {
        let pos = world.objects[PLAYER].pos;
        let near = make.nearby.iter().all(|&material| world.is_near(pos, material));
        if near && make.uses.iter().all(|&item| self.has(item) >= 1) {
            make.uses.iter().for_each(|&item| self.give(item, -1));
            self.give(make.what, 1);
            self.achieve(make.achieves);
        }
    }

    /// Grows hungry, thirsty and tired, or rests.
    fn live(&mut self) {
        let pace = if self.sleeping { 0.5 } else { 1.0 };
        self.hunger += pace;
        if self.hunger > 25.0 {
            self.hunger = 0.0;
            self.give(Item::Food, -1);
        }
        self.thirst += pace;
        if self.thirst > 20.0 {
            self.thirst = 0.0;
            self.give(Item::Drink, -1);
        }
        self.fatigue = if self.sleeping { (self.fatigue - 1.0).min(0.0) } else { self.fatigue + 1.0 };
        if self.fatigue < -10.0 {
            self.fatigue = 0.0;
            self.give(Item::Energy, 1);
        }
        if self.fatigue > 30.0 {
            self.fatigue = 0.0;
            self.give(Item::Energy, -1);
        }
    }

    /// Gains health while nothing is lacking, else loses it.
    fn heal(&mut self, world: &mut World) {
        let fed = self.has(Item::Food) > 0 && self.has(Item::Drink) > 0;
        let well = fed && (self.has(Item::Energy) > 0 || self.sleeping);
        self.recover += match (well, self.sleeping) {
            (true, true) => 2.0,
            (true, false) => 1.0,
            (false, true) => -0.5,
            (false, false) => -1.0,
        };
        if self.recover > 25.0 {
            self.recover = 0.0;
            world.hurt(PLAYER, -1);
        }
        if self.recover < -15.0 {
            self.recover = 0.0;
            world.hurt(PLAYER, 1);
        }
    }
}

/// Whether a plant can be eaten.
pub fn ripe(grown: u32) -> bool {
    grown > 300
}
