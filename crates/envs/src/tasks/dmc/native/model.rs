//! The models of dm_control, which describe bodies, joints and sensors in XML.

use super::physics::Physics;
use anyhow::{Context, Result, anyhow};
use mujoco_rs::prelude::MjModel;
use mujoco_rs::wrappers::mj_auxiliary::MjVfs;
use std::path::Path;

/// Files that models include and that affect the simulation, as by names and materials.
const INCLUDED: [&str; 2] = ["common/visual.xml", "common/materials.xml"];

/// Stands in for the sky, which is only drawn, and 12 MB large.
const NO_SKY: (&str, &str) = ("common/skybox.xml", "<mujoco><asset/></mujoco>");

/// The text of a model, such as `walker`, in the `folder` of dm_control's suite.
pub fn read(folder: &Path, name: &str) -> Result<String> {
    let path = folder.join(name).with_extension("xml");
    std::fs::read_to_string(&path).with_context(|| format!("the model {} cannot be read", path.display()))
}

/// The world that the text of a model describes. It may include files of `folder`.
pub fn build(folder: &Path, mut text: String) -> Result<Physics> {
    // Done by `set_total_mass` instead, as MuJoCo warns about this attribute each time.
    let mass = take(&mut text, " settotalmass=\"", "\"");
    let mass =
        mass.as_deref().map(str::parse).transpose().context("the model's attribute settotalmass is no number")?;
    let mut files = MjVfs::new();
    for name in INCLUDED {
        files.add_from_buffer(name, read(folder, name)?.as_bytes())?;
    }
    files.add_from_buffer(NO_SKY.0, NO_SKY.1.as_bytes())?;
    files.add_from_buffer("model.xml", text.as_bytes())?;
    let mut physics = Physics::new(MjModel::from_xml_vfs("model.xml", &files)?)?;
    if let Some(mass) = mass {
        physics.set_total_mass(mass);
    }
    Ok(physics)
}

/// Removes what begins with `start` up to the first `end`, and returns what lies between; none where it is not there.
fn take(text: &mut String, start: &str, end: &str) -> Option<String> {
    let from = text.find(start)?;
    let inside = from + start.len();
    let until = inside + text[inside..].find(end)?;
    let taken = text[inside..until].to_string();
    text.replace_range(from..until + end.len(), "");
    Some(taken)
}

/// Puts `with` in the place of the first element that begins with `start`, such as `<geom name="wall"`, up to `end`.
pub fn replace(text: &mut String, start: &str, end: &str, with: &str) -> Result<()> {
    let at = text.find(start);
    let at = at.filter(|_| take(text, start, end).is_some()).ok_or_else(|| {
        anyhow!("the model has no element {start}...{end}; try dm_control 1.0.50, or --env.dmc.engine python")
    })?;
    text.insert_str(at, with);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_replaced_and_attributes_taken_out() {
        let mut text = r#"<a x="1" settotalmass="14"/><b name="q"><c/></b><d/>"#.to_string();
        assert_eq!(take(&mut text, " settotalmass=\"", "\"").unwrap(), "14");
        replace(&mut text, "<b name=\"q\"", "</b>", "<e/>").unwrap();
        assert_eq!(text, r#"<a x="1"/><e/><d/>"#);
        let error = replace(&mut text, "<b name=\"q\"", "</b>", "").unwrap_err().to_string();
        assert!(error.starts_with("the model has no element <b name=\"q\"...</b>"), "{error}");
        assert_eq!(text, r#"<a x="1"/><e/><d/>"#);
    }
}
