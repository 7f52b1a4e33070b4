//! The game against recordings of the Python package, and its rules one by one.

use super::rules::{Item, Material};
use super::world::{Kind, Pos};
use super::*;
use crate::record::number;
use crate::tasks::crafter::noise::Noise;
use crate::{Rng, make_many};
use crc32fast::Hasher;
use serde_json::json;

/// A Python with the package: DREAMER_PYTHON, which has to have it, or python3 if it does. None says so.
fn python() -> Option<String> {
    let chosen = std::env::var("DREAMER_PYTHON");
    let python = chosen.clone().unwrap_or("python3".into());
    if textures::find(&python).is_some() {
        return Some(python);
    }
    assert!(chosen.is_err(), "DREAMER_PYTHON, '{python}', lacks the package crafter");
    eprintln!("SKIPPED: neither pictures nor the package crafter itself: name a Python that has it in DREAMER_PYTHON");
    None
}

fn crc(bytes: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(bytes);
    hasher.finalize()
}

/// Grey pictures in the place of the package's.
fn blank(size: [usize; 2]) -> View {
    View::new(|_| Ok(Texture::plain([90, 90, 90])), size).unwrap()
}

fn act(action: usize, reset: bool) -> Record {
    [("action".into(), Array::i32(action as i32)), ("reset".into(), Array::bool(reset))].into()
}

/// What `python/tests/crafter_bot.py` recorded.
#[derive(Deserialize)]
struct Recording {
    every: usize,
    runs: Vec<Run>,
}

/// `images` and `numbers` are checksums of all records until a step, one for each `every` steps.
#[derive(Deserialize)]
struct Run {
    seed: u32,
    size: [usize; 2],
    actions: String,
    images: Vec<u32>,
    numbers: Vec<u32>,
}

/// Plays a run anew and compares the checksums; those of images where `view` has the package's pictures. Returns the
/// achievements that it reached, a bit for each.
fn replay(run: &Run, every: usize, view: View, pictures: bool) -> u32 {
    let options = Options { size: run.size, logs: true, ..Options::default() };
    let mut env = Crafter::with_view("reward", &options, State::new(run.seed, 10_000), view);
    let (mut images, mut numbers, mut reached) = (Hasher::new(), Hasher::new(), 0);
    for (step, letter) in run.actions.bytes().enumerate() {
        let record = env.step(&act(usize::from(letter - b'a'), false)).unwrap();
        let spaces::Data::U8(image) = &record["image"].data else { panic!("the image is not of bytes") };
        images.update(image);
        let keys = ["reward", "is_first", "is_last", "is_terminal", "log/reward"].into_iter();
        for key in keys.chain(env.logs.iter().map(String::as_str)) {
            numbers.update(&number(&record, key).unwrap().to_le_bytes());
        }
        reached |= env.state.unlocked;
        if (step + 1) % every == 0 || step + 1 == run.actions.len() {
            let (at, near) = (step / every, format!("seed {}, in the {every} steps before {}", run.seed, step + 1));
            assert_eq!(numbers.clone().finalize(), run.numbers[at], "numbers, {near}");
            assert!(!pictures || images.clone().finalize() == run.images[at], "images, {near}");
        }
    }
    reached
}

#[test]
fn recorded_games_are_repeated_to_the_byte() {
    let text = concat!(env!("CARGO_MANIFEST_DIR"), "/../../python/tests/crafter.json");
    let recording: Recording = serde_json::from_str(&std::fs::read_to_string(text).unwrap()).unwrap();
    let assets = python().and_then(|python| textures::find(&python)); // without them, all but images are compared
    let mut reached = 0;
    for run in &recording.runs {
        let view = assets.as_ref().map(|folder| View::new(|name| Texture::read(folder, name), run.size).unwrap());
        let pictures = view.is_some();
        reached |= replay(run, recording.every, view.unwrap_or_else(|| blank(run.size)), pictures);
    }
    let missing = ACHIEVEMENTS.iter().enumerate().filter(|(i, _)| reached >> i & 1 == 0).collect::<Vec<_>>();
    assert!(missing.is_empty(), "the recordings leave out {missing:?}");
}

#[test]
fn the_worker_of_the_same_run_plays_the_same_game() {
    let Some(python) = python() else { return };
    let make = |engine: &str| {
        let crafter = json!({"engine": engine, "logs": true, "size": [36, 45]});
        let options = json!({"python": python, "crafter": crafter, "kwargs": {"length": 60}, "slots": 2});
        make_many("crafter_noreward", 3..5, 8, &options)
    };
    let mut workers = match make("python") {
        Ok(envs) => envs,
        Err(error) if std::env::var_os("DREAMER_PYTHON").is_none() => {
            return eprintln!("SKIPPED: the worker of Crafter was not compared: {error:#}");
        }
        Err(error) => panic!("{error:#}"),
    };
    let mut rng = Rng::new(0, 0);
    for (mut native, worker) in make("native").unwrap().into_iter().zip(&mut workers) {
        assert_eq!(native.obs_space(), worker.obs_space());
        assert_eq!(native.act_space(), worker.act_space());
        for step in 0..130 {
            let action = act(rng.below(17), step == 50);
            assert_eq!(native.step(&action).unwrap(), worker.step(&action).unwrap(), "step {step}");
        }
    }
}

// [hash((seed, episode)) % (2 ** 31 - 1) for seed, episode in ((0, 1), (1, 1), (12345, 2), (2 ** 30, 1000))]
#[test]
fn episodes_have_the_seeds_that_python_hashes() {
    let seeds = [(0, 1), (1, 1), (12345, 2), (1 << 30, 1000)].map(|(seed, episode)| world_seed(seed, episode));
    assert_eq!(seeds, [1256191933, 535231920, 1752302543, 621113510]);
}

// o = opensimplex.OpenSimplex(seed=1234567)
// [o.noise3(*p) for p in ((.1, .2, 3), (-4.3, 7.9, 0), (12.25, -3.5, 8), (.5, .5, .5))]
// o = opensimplex.OpenSimplex(seed=2 ** 31 - 3)
// all = [o.noise3(x / 7 - 3, y / 5, z) for x in range(48) for y in range(48) for z in range(9)]
// zlib.crc32(np.array(all))
#[test]
fn noise_is_opensimplex() {
    let noise = Noise::new(1234567);
    let points = [[0.1, 0.2, 3.0], [-4.3, 7.9, 0.0], [12.25, -3.5, 8.0], [0.5, 0.5, 0.5]];
    let recorded = [0.14060684466019407, -0.09303271844660303, 0.3976635921301022, 0.21332675970873832];
    assert_eq!(points.map(|point| noise.at(point)), recorded);
    let (noise, mut bytes) = (Noise::new((1 << 31) - 3), vec![]);
    for x in 0..48 {
        for y in 0..48 {
            let layers = (0..9).map(|z| noise.at([f64::from(x) / 7.0 - 3.0, f64::from(y) / 5.0, f64::from(z)]));
            bytes.extend(layers.flat_map(f64::to_le_bytes));
        }
    }
    assert_eq!(crc(&bytes), 3199466500);
}

// world = crafter.engine.World((64, 64), crafter.constants.materials, (12, 12)); world.reset(seed)
// player = crafter.objects.Player(world, (32, 32)); world.add(player)
// crafter.worldgen.generate_world(world, player)
// zlib.crc32((world._mat_map - 1).astype(np.uint8)), len(world.objects)
// kinds = ['Player', 'Cow', 'Zombie', 'Skeleton']
// zlib.crc32(np.array([[kinds.index(type(x).__name__), *x.pos] for x in world.objects], np.uint8))
// world.random.uniform()
#[test]
fn worlds_are_the_packages() {
    let recorded = [
        (0, 1196183637, 51, 3521563610, 0.23826632650205426),
        (1, 2537654022, 59, 3877870523, 0.06448264425865258),
        (2024, 2268838600, 45, 910235279, 0.07525030724486903),
    ];
    for (seed, materials, count, objects, next) in recorded {
        let mut world = worldgen::generate(seed);
        let cells = (0..64).flat_map(|x| (0..64).map(move |y| [x, y]));
        let bytes: Vec<u8> = cells.map(|pos| world.material(pos).unwrap() as u8).collect();
        assert_eq!(crc(&bytes), materials, "seed {seed}");
        let kind = |kind| match kind {
            Kind::Player => 0,
            Kind::Cow => 1,
            Kind::Zombie { .. } => 2,
            _ => 3,
        };
        let bytes: Vec<u8> =
            world.objects.iter().flat_map(|x| [kind(x.kind), x.pos[0] as u8, x.pos[1] as u8]).collect();
        assert_eq!((world.objects.len(), crc(&bytes)), (count, objects), "seed {seed}");
        assert_eq!(world.random.random_sample(), next, "seed {seed}");
    }
}

// env = crafter.Env(); env._step = step; env._update_time(); env._world.daylight
#[test]
fn days_have_300_steps() {
    let light = [0, 100, 210, 211, 299, 301, 9999].map(daylight);
    let recorded =
        [0.7969251898544335, 0.9327116467669383, 0.0, 0.00016448288443293713, 0.7880515360143441, 0.8056125421622269];
    assert_eq!(light[..6], recorded);
    assert_eq!(light[6], 0.9373592742624732);
}

/// A player in an empty field of grass, with the rules for it.
struct Field {
    state: State,
}

impl Field {
    fn new() -> Self {
        Field { state: State { done: false, ..State::new(0, 0) } }
    }

    fn set(mut self, pos: Pos, material: Material) -> Self {
        self.state.world.set(pos, material);
        self
    }

    fn with(mut self, item: Item, amount: i32) -> Self {
        self.state.player.give(item, amount - self.state.player.has(item));
        self
    }

    fn add(mut self, kind: Kind, pos: Pos) -> Self {
        self.state.world.add(kind, pos);
        self
    }

    /// Acts by the name of each action.
    fn act(&mut self, names: &[&str]) -> f64 {
        names.iter().map(|name| self.state.advance(action(name)).0).sum()
    }

    fn has(&self, item: Item) -> i32 {
        self.state.player.has(item)
    }

    fn achieved(&self) -> Vec<&'static str> {
        let counts = ACHIEVEMENTS.iter().zip(self.state.player.achieved());
        counts.filter(|(_, count)| **count > 0).map(|(name, _)| *name).collect()
    }

    fn player(&self) -> Pos {
        self.state.world.objects[PLAYER].pos
    }

    fn health(&self) -> i32 {
        self.state.world.objects[PLAYER].health
    }
}

fn action(name: &str) -> Action {
    let names = [
        "noop",
        "left",
        "right",
        "up",
        "down",
        "do",
        "sleep",
        "stone",
        "table",
        "furnace",
        "plant",
        "wood_pickaxe",
        "stone_pickaxe",
        "iron_pickaxe",
        "wood_sword",
        "stone_sword",
        "iron_sword",
    ];
    ACTIONS[names.iter().position(|known| *known == name).unwrap()]
}

/// The cell that a player in the middle faces at first.
const BELOW: Pos = [32, 33];

#[test]
fn tools_open_materials() {
    let mut field = Field::new().set(BELOW, Material::Tree).with(Item::Wood, 8);
    assert_eq!(field.act(&["do", "table"]), 2.0, "the tree leaves grass for the table");
    assert_eq!(field.state.world.material(BELOW), Some(Material::Table));
    assert_eq!(field.act(&["wood_pickaxe", "wood_sword", "stone_pickaxe"]), 2.0);
    assert_eq!((field.has(Item::Wood), field.has(Item::Stone)), (5, 0));
    let rocks = [Material::Stone, Material::Iron, Material::Coal, Material::Diamond];
    for (i, rock) in rocks.into_iter().enumerate() {
        field = field.set([31, 32], rock);
        field.act(&["left", "do"]);
        let gone = field.state.world.material([31, 32]) == Some(Material::Path);
        assert_eq!(gone, [true, false, true, false][i], "{rock:?}");
    }
    assert_eq!([Item::Stone, Item::Coal, Item::Iron].map(|item| field.has(item)), [1, 1, 0]);
    field.act(&["stone_pickaxe"]);
    field = field.set([31, 32], Material::Iron);
    field.act(&["do", "iron_pickaxe"]);
    assert_eq!((field.has(Item::Iron), field.has(Item::IronPickaxe)), (1, 0), "there is no furnace");
    field = field.with(Item::Stone, 4);
    field.act(&["furnace", "iron_pickaxe"]);
    assert_eq!((field.has(Item::Iron), field.has(Item::IronPickaxe), field.has(Item::Stone)), (0, 1, 0));
}

#[test]
fn nothing_is_near_in_the_first_row_or_column() {
    let mut world = World::new(0);
    for pos in [[0, 6], [1, 6], [6, 0], [63, 63]] {
        world.set(pos, Material::Table);
    }
    let near = [[0, 5], [1, 5], [5, 0], [5, 1], [62, 62], [2, 2]].map(|pos| world.is_near(pos, Material::Table));
    assert_eq!(near, [false, true, false, true, true, false]);
}

#[test]
fn needs_fall_and_are_met() {
    let mut field = Field::new().set(BELOW, Material::Water);
    field.act(&["noop"; 40]);
    assert_eq!([Item::Food, Item::Drink, Item::Energy].map(|item| field.has(item)), [8, 8, 8]);
    assert_eq!(field.act(&["do"]), 1.0);
    assert_eq!(field.has(Item::Drink), 9);
    field = field.add(Kind::Cow, [31, 32]).with(Item::StoneSword, 1).with(Item::Food, 2);
    field.act(&["left", "do"]);
    assert_eq!((field.has(Item::Food), field.state.world.objects.len()), (8, 1));
    assert_eq!(field.achieved(), ["collect_drink", "eat_cow"]);
}

#[test]
fn hunger_and_lava_kill() {
    let mut field = Field::new().with(Item::Food, 0);
    assert_eq!((field.act(&["noop"; 16]) * 10.0).round(), -1.0);
    assert_eq!(field.health(), 8);
    field = field.set([33, 32], Material::Lava);
    assert_eq!(field.state.advance(action("right")), (-0.8, true));
    assert!(field.state.done);
}

#[test]
fn sleepers_wake_rested_or_hurt() {
    let mut field = Field::new().with(Item::Energy, 8);
    field.act(&["sleep"]);
    assert!(field.state.player.sleeping);
    field.act(&["right"; 11]);
    assert_eq!((field.player(), field.achieved()), ([33, 32], vec!["wake_up"]), "it walks once it is awake");
    let mut field = Field::new().with(Item::Energy, 1).add(Kind::ZOMBIE, [31, 32]);
    field.act(&["sleep", "noop"]);
    assert_eq!((field.health(), field.state.player.sleeping), (2, false), "a sleeper is hurt by 7");
}

#[test]
fn plants_ripen_unless_they_are_trampled() {
    let mut field = Field::new().with(Item::Sapling, 2);
    assert_eq!(field.act(&["plant", "plant"]), 1.0, "one cell takes one plant");
    field.act(&["do"; 20]);
    assert_eq!(field.has(Item::Food), 9, "it is not ripe");
    field.state.world.objects[1].kind = Kind::Plant { grown: 300 };
    field = field.with(Item::Food, 1);
    field.act(&["noop", "do"]);
    assert_eq!((field.has(Item::Food), field.achieved()), (5, vec!["eat_plant", "place_plant"]));
    let mut field = field.add(Kind::Cow, [33, 33]);
    field.act(&["noop"]);
    assert!(!field.state.world.objects.iter().any(|object| matches!(object.kind, Kind::Plant { .. })));
}

#[test]
fn arrows_hurt_and_break_tables() {
    let arrow = |x: i32| (Kind::Arrow { facing: [x.signum(), 0] }, [32 - 2 * x.signum(), 32]);
    let (kind, pos) = arrow(1);
    let mut field = Field::new().add(kind, pos);
    field.act(&["noop"]);
    assert_eq!((field.health(), field.state.world.objects[1].pos), (9, [31, 32]));
    field.act(&["noop"]);
    assert_eq!((field.health(), field.state.world.objects.len()), (7, 1));
    let mut field = Field::new().add(Kind::Arrow { facing: [0, 1] }, [40, 32]).set([40, 33], Material::Table);
    field.act(&["noop"]);
    assert_eq!(field.state.world.material([40, 33]), Some(Material::Path));
}

#[test]
fn the_length_of_episodes_is_the_configured_one_after_loading_too() {
    let mut env = Crafter::with_view("reward", &Options::default(), State::new(3, 5), blank([64, 64]));
    env.load(&state::save("crafter_reward", &State::new(3, 100)).unwrap()).unwrap();
    assert_eq!(env.state.length, 5);
}

#[test]
fn damaged_states_are_refused() {
    let fresh = || State::new(3, 100);
    let load = |state: &State| {
        let mut env = Crafter::with_view("reward", &Options::default(), fresh(), blank([64, 64]));
        env.load(&state::save("crafter_reward", state).unwrap()).map_err(|error| format!("{error:#}"))
    };
    assert_eq!(load(&fresh()), Ok(()));
    let refuses = |part: &str, damage: fn(&mut State)| {
        let mut state = fresh();
        damage(&mut state);
        let error = load(&state).unwrap_err();
        assert!(
            error.starts_with("the saved state of 'crafter_reward' is damaged: ") && error.contains(part),
            "{error}"
        );
    };
    refuses("health", |state| state.health = -1);
    refuses("direction", |state| state.player.facing = [1, 1]);
    refuses("of each item", |state| state.player.give(Item::Wood, 10));
    refuses("outside", |state| state.world.objects[0].pos = [64, 0]);
    refuses("one cell", |state| state.world.objects.push(state.world.objects[0]));
    refuses("the player", |state| state.world.objects[0].kind = Kind::Cow);
    refuses("possible state", |state| state.world.objects[0].health = 10);
    refuses("chunks", |state| state.world.settled.clear());
}

#[test]
fn sizes_and_pictures_that_do_not_fit_are_sentences() {
    let error = |size| View::new(|_| Ok(Texture::plain([0; 3])), size).err().unwrap().to_string();
    assert_eq!(error([17, 64]), "env.crafter.size is 17 x 64, but its sides have to be 18 to 1024 pixels");
    let options = Options { assets: "no/such/folder".into(), ..Options::default() };
    let error = Crafter::new("reward", &options, &Kwargs::default(), "python3", 0).err().unwrap();
    assert!(error.to_string().contains("no/such/folder/water.png of the package crafter cannot be read"), "{error:#}");
    let options = Options { engine: Engine::Native, ..Options::default() };
    let error = Crafter::new("reward", &options, &Kwargs::default(), "no-python", 0).err().unwrap().to_string();
    assert!(error.contains("run `no-python -m pip install crafter==1.8.3`"), "{error}");
    assert!(!Options::default().is_native("no-python", true));
}
