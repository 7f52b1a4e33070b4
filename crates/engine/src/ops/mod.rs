//! One operation a file: what it computes, its gradient, where it runs, its test.

mod affine;
mod categorical;
mod chunks;
mod conv;
mod gru;
mod image;
mod kl;
mod latent;
mod linear_combination;
mod mean;
mod norm_act;
mod normal;
mod optimizer;
mod planes;
mod regression;
mod returns;
mod shape;
mod twohot;

pub use affine::{Term, affine, linear};
pub use categorical::{binary_loss, binary_prob, categorical, categorical_loss, sample_categorical};
pub use chunks::{Staged, chunks, stage};
pub use conv::{Resample, conv_stage};
pub use gru::gru;
pub use image::{image_loss, images};
pub use kl::{entropy, kl};
pub use latent::{Draw, latent};
pub use linear_combination::{linear_combination, scale_rows};
pub use mean::weighted_mean;
pub use norm_act::{Act, Norm, NormKind, norm_act};
pub use normal::{NormalKind, normal, normal_params};
pub use optimizer::{OptimizerStep, Slot, UpdateStats, ema, optimizer_step};
pub use planes::{Planes, byte_planes, planes, rows_of_planes};
pub use regression::{Squash, squared_error, symexp, symlog};
pub use returns::{lambda_return, percentile};
pub use shape::{concat, concat_last, mask_rows, regroup, reshape, rows, stack_time, transpose01, unstack_time};
pub use twohot::{symexp_bins, twohot_loss, twohot_pred};
