//! What an observation or action key holds: its `Space`, and `Array`s of values that fit it.
//!
//! This is the currency between environments, replay, agent and logs. It knows nothing of
//! tensors, gradients or devices.

mod array;
mod keys;
mod record;
mod space;

pub use array::{Array, Data};
pub use half::f16;
pub use keys::{STEPID, check_keys, chosen, is_log, observed};
pub use record::{row, stack, zeros};
pub use space::{DType, Space};

/// Named spaces in the order in which the environment declared them. The order matters in one
/// place: the image decoder hands its output channels to the image keys in this order.
pub type Spaces = indexmap::IndexMap<String, Space>;

/// Named values: one step of one environment, or a batch of them with leading axes.
pub type Record = std::collections::BTreeMap<String, Array>;
