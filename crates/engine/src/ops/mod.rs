//! One operation a file: what it computes, its gradient, where it runs, its test.

mod actor_loss;
mod affine;
mod categorical;
mod chunks;
mod conv;
mod conv_gpu;
mod draft;
mod elementwise;
mod few_images;
mod fill;
mod finite;
mod gru;
mod image;
mod images_gpu;
mod kl;
mod latent;
mod linear_combination;
mod mean;
mod noise;
mod norm_act;
mod norm_gpu;
mod normal;
mod optimizer;
mod optimizer_gpu;
mod pack;
mod planes;
mod regression;
mod returns;
mod running;
mod shape;
mod summary;
mod twohot;
mod varying;

pub use actor_loss::actor_loss;
pub use affine::{Term, affine, linear};
pub use categorical::{binary_loss, binary_prob, categorical, categorical_loss, one_hot, sample_categorical};
pub use chunks::{Staged, chunks, stage};
pub use conv::{Resample, conv_stage};
pub use elementwise::{denormalize, multiply, normalize, scale_shift, subtract};
pub use few_images::{FEW_IMAGES, FewImages, FewStage};
pub(crate) use fill::add_assign;
pub use fill::{full, zeros};
pub use finite::first_not_finite;
pub use gru::gru;
pub use image::{image_loss, images};
pub use kl::{entropy, kl, kl_both};
pub use latent::{Draw, latent};
pub use linear_combination::linear_combination;
pub use mean::{means, weighted_mean};
pub use noise::{DrawnRows, standard_normal, uniform};
pub use norm_act::{Act, Norm, NormKind, norm_act};
pub use normal::{NormalDraw, NormalKind, normal, normal_params, normal_sample};
pub use optimizer::{OptimizerStep, Slot, UpdateStats, ema, ema_all, optimizer_launch, optimizer_step};
pub use pack::{half_bytes, index_bytes};
pub use planes::{Planes, byte_planes, planes, rows_of_planes};
pub use regression::{Squash, squared_error, symexp, symlog};
pub use returns::{advantage, discount_weights, imagined_returns, lambda_return, percentile};
pub use running::Running;
pub use shape::{
    bound, column, concat, concat_last, fit_steps, mask_rows, regroup, reshape, rows, stack_time, transpose01,
    transpose01_all, unstack_time,
};
pub use summary::{Summary, summaries, summary};
pub use twohot::{symexp_bins, twohot_loss, twohot_loss_and_pred, twohot_pred};
pub use varying::Varying;
