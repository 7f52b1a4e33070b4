//! Tests of checkpoints: what was saved comes back, and damage loses one checkpoint at most.

use super::*;
use spaces::Array;

fn moment(step: u64) -> Moment {
    let agent = Record::from([("dyn/dynin0/kernel".to_string(), Array::from_f32(&[3], vec![step as f32; 3]))]);
    let arrays = Record::from([("action/reset".to_string(), Array::from_bool(&[1], vec![true]))]);
    Moment { agent, arrays, state: serde_json::json!({ "step": step }) }
}

fn loaded_step(dir: &Path) -> (Option<u64>, usize) {
    let (moment, warnings) = Checkpoints::new(dir).load().unwrap();
    (moment.and_then(|m| m.state["step"].as_u64()), warnings.len())
}

fn folders(dir: &Path) -> Vec<String> {
    Checkpoints::new(dir).names().unwrap()
}

#[test]
fn folders_of_other_names_are_the_users_own() {
    for name in ["000000000400", "000000000400.001", "1234567890123"] {
        assert!(is_name(name), "{name}");
    }
    for name in ["000000000400-keep", "000000000400.x", "20260131T154500", "400", "best", ".tmp-000000000400"] {
        assert!(!is_name(name), "{name}");
    }
}

#[test]
fn the_last_two_are_kept_and_the_last_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(loaded_step(dir.path()), (None, 0));
    let mut checkpoints = Checkpoints::new(dir.path());
    for step in [5, 10, 200] {
        checkpoints.save(step, &moment(step)).unwrap();
    }
    assert_eq!(folders(dir.path()), ["000000000010", "000000000200"]);
    let back = Checkpoints::new(dir.path()).load().unwrap().0.unwrap();
    let expect = moment(200);
    assert_eq!((back.agent, back.arrays, back.state), (expect.agent, expect.arrays, expect.state));
    let agent = |step| (moment(step).agent, vec![]);
    assert_eq!(read_agent(dir.path()).unwrap(), agent(200));
    assert_eq!(read_agent(&dir.path().join("000000000010")).unwrap(), agent(10));
    assert_eq!(read_agent(&dir.path().join("000000000010").join(AGENT)).unwrap(), agent(10));
}

#[test]
fn any_damage_to_any_file_falls_back_to_the_previous_one() {
    for file in [AGENT, ARRAYS, STATE, SUMS] {
        for damage in ["flip", "truncate", "delete", "empty"] {
            let dir = tempfile::tempdir().unwrap();
            let mut checkpoints = Checkpoints::new(dir.path());
            checkpoints.save(1, &moment(1)).unwrap();
            let path = checkpoints.save(2, &moment(2)).unwrap().join(file);
            let mut bytes = fs::read(&path).unwrap();
            match damage {
                "flip" => {
                    // A digit of a number: the file stays well-formed.
                    let at = bytes.iter().rposition(|b| b.is_ascii_digit()).unwrap_or(bytes.len() - 1);
                    bytes[at] ^= 1;
                    fs::write(&path, &bytes).unwrap();
                }
                "truncate" => fs::write(&path, &bytes[..bytes.len() - 1]).unwrap(),
                "delete" => fs::remove_file(&path).unwrap(),
                _ => fs::write(&path, b"").unwrap(),
            }
            assert_eq!(loaded_step(dir.path()), (Some(1), 1), "{file} {damage}");
            let (agent, warnings) = read_agent(dir.path()).unwrap();
            assert!(agent == moment(1).agent && warnings[0].contains("000000000002 is skipped"), "{warnings:?}");
        }
    }
}

#[test]
fn a_fall_back_is_never_pruned_in_favour_of_the_damaged_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut checkpoints = Checkpoints::new(dir.path());
    checkpoints.save(1, &moment(1)).unwrap();
    let newest = checkpoints.save(2, &moment(2)).unwrap();
    fs::remove_file(newest.join(STATE)).unwrap();
    let mut resumed = Checkpoints::new(dir.path());
    resumed.load().unwrap();
    resumed.save(2, &moment(2)).unwrap();
    assert_eq!(folders(dir.path()), ["000000000001", "000000000002.001"]);
    assert_eq!(loaded_step(dir.path()), (Some(2), 0));
}

#[test]
fn when_all_are_damaged_it_is_an_error_not_a_new_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = Checkpoints::new(dir.path()).save(7, &moment(7)).unwrap();
    fs::remove_file(path.join(AGENT)).unwrap();
    let error = Checkpoints::new(dir.path()).load().err().unwrap().to_string();
    assert!(error.contains("can be read") && error.contains("000000000007"), "{error}");
}

#[test]
fn what_an_interrupted_save_left_is_ignored_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let mut checkpoints = Checkpoints::new(dir.path());
    checkpoints.save(1, &moment(1)).unwrap();
    let half = dir.path().join(".tmp-000000000002");
    fs::create_dir(&half).unwrap();
    fs::write(half.join(AGENT), b"half").unwrap();
    assert_eq!(loaded_step(dir.path()), (Some(1), 0));
    checkpoints.save(3, &moment(3)).unwrap();
    assert!(!half.exists());
}

#[test]
fn a_failed_save_is_a_sentence_and_leaves_the_earlier_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut checkpoints = Checkpoints::new(dir.path());
    checkpoints.save(1, &moment(1)).unwrap();
    // A file where the temporary folder should go stands for a full or read-only disk.
    fs::write(dir.path().join(".tmp-000000000002"), b"in the way").unwrap();
    let error = checkpoints.save(2, &moment(2)).unwrap_err().to_string();
    assert!(error.contains("step 2 could not be saved"), "{error}");
    assert_eq!(loaded_step(dir.path()), (Some(1), 0));
    fs::remove_file(dir.path().join(".tmp-000000000002")).unwrap();
    checkpoints.save(2, &moment(2)).unwrap();
    assert_eq!(loaded_step(dir.path()), (Some(2), 0));
}

#[test]
fn one_that_nothing_points_to_does_not_stay() {
    let dir = tempfile::tempdir().unwrap();
    let mut checkpoints = Checkpoints::new(dir.path());
    checkpoints.save(1, &moment(1)).unwrap();
    fs::remove_file(dir.path().join(LATEST)).unwrap();
    fs::create_dir_all(dir.path().join(LATEST).join("in the way")).unwrap();
    checkpoints.save(2, &moment(2)).unwrap_err();
    assert_eq!(folders(dir.path()), ["000000000001"]);
}

#[test]
fn the_folder_of_a_run_that_was_moved_away_is_not_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let [run, moved] = ["run", "moved"].map(|name| dir.path().join(name));
    fs::create_dir(&run).unwrap();
    let mut checkpoints = Checkpoints::new(&run.join("ckpt"));
    checkpoints.save(5, &moment(5)).unwrap();
    fs::rename(&run, &moved).unwrap();
    let error = format!("{:#}", checkpoints.save(6, &moment(6)).unwrap_err());
    assert!(error.contains("is gone; was it moved or removed") && !run.exists(), "{error}");
    assert_eq!(loaded_step(&moved.join("ckpt")), (Some(5), 0));
}

#[test]
fn a_checkpoint_with_numbers_that_are_none_is_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let mut checkpoints = Checkpoints::new(dir.path());
    checkpoints.save(5, &moment(5)).unwrap();
    let mut broken = moment(6);
    broken.agent.insert("pol/kernel".into(), Array::f32(f32::NAN));
    checkpoints.save(6, &broken).unwrap();
    assert_eq!(loaded_step(dir.path()), (Some(5), 1));
}
