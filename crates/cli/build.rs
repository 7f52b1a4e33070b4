//! With the feature `mujoco`, the binary looks for MuJoCo's library beside itself and where it was linked from.

use std::env::var_os;

fn main() {
    println!("cargo::rerun-if-env-changed=MUJOCO_DYNAMIC_LINK_DIR");
    let unix = var_os("CARGO_CFG_UNIX").is_some();
    if let (true, Some(_), Some(folder)) = (unix, var_os("CARGO_FEATURE_MUJOCO"), var_os("MUJOCO_DYNAMIC_LINK_DIR")) {
        println!("cargo::rustc-link-arg=-Wl,-rpath,$ORIGIN:{}", folder.display());
    }
}
