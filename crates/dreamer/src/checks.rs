//! Refuses configurations that cannot work, with sentences that name the key.

use crate::config::AgentConfig;
use crate::data::encoded_space;
use crate::heads::SCALAR_OUTPUTS;
use crate::loss::LOSSES;
use crate::nets::parse_norm;
use crate::optimizer::SCHEDULES;
use crate::params::{INITIALIZERS, split_winit};
use anyhow::{Result, anyhow, bail};
use engine::ops::Act;
use spaces::{Space, Spaces};
use std::ops::Bound::{self, Excluded, Included, Unbounded};
use std::ops::RangeBounds;

/// Checks `c` against the spaces.
pub fn check(obs_space: &Spaces, act_space: &Spaces, c: &AgentConfig) -> Result<()> {
    names(c)?;
    numbers(c)?;
    spaces::check_keys(obs_space, act_space).map_err(|sentence| anyhow!(sentence))?;
    action_space(act_space)?;
    observation_space(&encoded_space(obs_space), c)
}

fn one_of(key: &str, value: &str, valid: &[&str]) -> Result<()> {
    if !valid.contains(&value) {
        bail!("agent.{key} is '{value}'; it may be {}", valid.join(", "));
    }
    Ok(())
}

fn names(c: &AgentConfig) -> Result<()> {
    let (r, e, d) = (&c.dynamics.rssm, &c.enc.simple, &c.dec.simple);
    let styles = [
        ("dyn.rssm", &r.act, &r.norm, &r.winit),
        ("enc.simple", &e.act, &e.norm, &e.winit),
        ("dec.simple", &d.act, &d.norm, &d.winit),
        ("rewhead", &c.rewhead.act, &c.rewhead.norm, &c.rewhead.winit),
        ("conhead", &c.conhead.act, &c.conhead.norm, &c.conhead.winit),
        ("policy", &c.policy.act, &c.policy.norm, &c.policy.winit),
        ("value", &c.value.act, &c.value.norm, &c.value.winit),
    ];
    for (key, act, norm, winit) in styles {
        if Act::parse(act).is_none() {
            bail!("agent.{key}.act is '{act}'; it may be {}", Act::names().collect::<Vec<_>>().join(", "));
        }
        if parse_norm(norm).is_none() {
            bail!(
                "agent.{key}.norm is '{norm}'; it may be none, rms, layer, or one of them with an epsilon such as rms1em5"
            );
        }
        one_of(&format!("{key}.winit (before _in, _out or _avg)"), split_winit(winit).0, &INITIALIZERS)?;
    }
    one_of("dyn.typ", &c.dynamics.typ, &["rssm"])?;
    one_of("enc.typ", &c.enc.typ, &["simple"])?;
    one_of("dec.typ", &c.dec.typ, &["simple"])?;
    one_of("rewhead.output", &c.rewhead.output, &SCALAR_OUTPUTS)?;
    one_of("conhead.output", &c.conhead.output, &["binary"])?;
    one_of("value.output", &c.value.output, &SCALAR_OUTPUTS)?;
    one_of("policy_dist_disc", &c.policy_dist_disc, &["categorical", "categorical_unimix"])?;
    one_of("policy_dist_cont", &c.policy_dist_cont, &["bounded_normal", "normal_logstd"])?;
    one_of("opt.schedule", &c.opt.schedule, &SCHEDULES)?;
    for (key, norm) in [("retnorm", &c.retnorm), ("valnorm", &c.valnorm), ("advnorm", &c.advnorm)] {
        one_of(&format!("{key}.impl"), &norm.kind, &["none", "meanstd", "perc"])?;
    }
    Ok(())
}

fn numbers(c: &AgentConfig) -> Result<()> {
    let r = &c.dynamics.rssm;
    let sizes = [
        ("agent.dyn.rssm.deter", r.deter),
        ("agent.dyn.rssm.hidden", r.hidden),
        ("agent.dyn.rssm.stoch", r.stoch),
        ("agent.dyn.rssm.classes", r.classes),
        ("agent.dyn.rssm.blocks", r.blocks),
        ("agent.enc.simple.depth", c.enc.simple.depth),
        ("agent.enc.simple.units", c.enc.simple.units),
        ("agent.dec.simple.depth", c.dec.simple.depth),
        ("agent.dec.simple.units", c.dec.simple.units),
        ("agent.rewhead.units", c.rewhead.units),
        ("agent.conhead.units", c.conhead.units),
        ("agent.policy.units", c.policy.units),
        ("agent.value.units", c.value.units),
        ("agent.imag_length", c.imag_length),
        ("batch_size", c.batch_size),
        ("batch_length", c.batch_length),
    ];
    for (key, size) in sizes {
        if size == 0 {
            bail!("{key} is 0; it must be at least 1");
        }
    }
    if !r.deter.is_multiple_of(r.blocks) {
        bail!("agent.dyn.rssm.deter is {}, which agent.dyn.rssm.blocks ({}) does not divide", r.deter, r.blocks);
    }
    if r.classes > 256 && c.replay_context > 0 {
        bail!("agent.dyn.rssm.classes is {}; the replay stores classes as bytes, so at most 256 work", r.classes);
    }
    swiglu_widths(c)?;
    if c.repval_loss && c.imag_last == 1 {
        bail!("agent.imag_last is 1; agent.repval_loss needs at least 2 steps");
    }
    for (key, norm) in [("retnorm", &c.retnorm), ("valnorm", &c.valnorm), ("advnorm", &c.advnorm)] {
        for (part, q) in [("perclo", norm.perclo), ("perchi", norm.perchi)] {
            if !(0.0..=100.0).contains(&q) {
                bail!("agent.{key}.{part} is {q}; a percentile lies in 0 to 100");
            }
        }
        if norm.kind != "none" && norm.debias && norm.rate == 0.0 {
            bail!("agent.{key}.rate is 0, with which there is nothing to debias; set it above 0, or debias to false");
        }
    }
    let lengths = [("batch_length", c.batch_length, true), ("report_length", c.report_length, c.report)];
    for (key, length, used) in lengths {
        if c.repval_loss && used && length < 2 {
            bail!("{key} is {length}; agent.repval_loss needs at least 2 steps");
        }
    }
    ranges(c)?;
    for (key, head) in [("rewhead", &c.rewhead), ("value", &c.value)] {
        if head.output == "symexp_twohot" && head.bins < 2 {
            bail!("agent.{key}.bins is {}; symexp_twohot needs at least 2", head.bins);
        }
    }
    if c.slowvalue.every == 0 {
        bail!("agent.slowvalue.every is 0; it must be at least 1");
    }
    if c.slowvalue.rate != 1.0 && c.slowvalue.rate >= 0.5 {
        bail!("agent.slowvalue.rate is {}; it must be 1 or below 0.5", c.slowvalue.rate);
    }
    Ok(())
}

/// Numbers that must lie in a range, whose upper end may be left out.
fn ranges(c: &AgentConfig) -> Result<()> {
    let (above_0, from_0) = (Excluded(0.0), Included(0.0));
    let (any, below_1, to_1) = (Unbounded, Excluded(1.0), Included(1.0));
    let numbers: [(&str, f64, Bound<f64>, Bound<f64>); 20] = [
        ("agent.horizon", c.horizon, Excluded(1.0), any),
        ("agent.opt.lr", c.opt.lr, from_0, any),
        ("agent.opt.wd", c.opt.wd as f64, from_0, any),
        ("agent.slowvalue.rate", c.slowvalue.rate as f64, from_0, to_1),
        ("agent.opt.agc", c.opt.agc as f64, from_0, any),
        // Before a zero-initialised head gradients are zero at first, and without eps the step would be 0 / 0.
        ("agent.opt.eps", c.opt.eps as f64, above_0, any),
        // As the optimizer has them: closer to 1, they would be 1 there, and the bias correction 0 / 0.
        ("agent.opt.beta1", c.opt.beta1 as f32 as f64, from_0, below_1),
        ("agent.opt.beta2", c.opt.beta2 as f32 as f64, from_0, below_1),
        ("agent.dyn.rssm.unimix", c.dynamics.rssm.unimix as f64, from_0, to_1),
        ("agent.policy.unimix", c.policy.unimix as f64, from_0, to_1),
        ("agent.policy.minstd", c.policy.minstd as f64, above_0, any),
        ("agent.policy.maxstd", c.policy.maxstd as f64, Included(c.policy.minstd as f64), any),
        ("agent.imag_loss.lam", c.imag_loss.lam as f64, from_0, to_1),
        ("agent.repl_loss.lam", c.repl_loss.lam as f64, from_0, to_1),
        ("agent.retnorm.rate", c.retnorm.rate as f64, from_0, to_1),
        ("agent.valnorm.rate", c.valnorm.rate as f64, from_0, to_1),
        ("agent.advnorm.rate", c.advnorm.rate as f64, from_0, to_1),
        ("agent.retnorm.limit", c.retnorm.limit as f64, above_0, any),
        ("agent.valnorm.limit", c.valnorm.limit as f64, above_0, any),
        ("agent.advnorm.limit", c.advnorm.limit as f64, above_0, any),
    ];
    for (key, value, low, high) in numbers {
        if !(low, high).contains(&value) || !value.is_finite() {
            let low = match low {
                Included(low) => format!("at least {low}"),
                Excluded(low) => format!("above {low}"),
                Unbounded => unreachable!("every number here has a lower end"),
            };
            let high = match high {
                Included(high) => format!(" and at most {high}"),
                Excluded(high) => format!(" and below {high}"),
                Unbounded => String::new(),
            };
            bail!("{key} is {value}; it must be {low}{high}");
        }
    }
    Ok(())
}

/// swiglu halves its input, so the widths before it must be even.
fn swiglu_widths(c: &AgentConfig) -> Result<()> {
    let (r, e, d) = (&c.dynamics.rssm, &c.enc.simple, &c.dec.simple);
    let widths = [
        ("dyn.rssm.hidden", &r.act, 1, r.hidden),
        ("dyn.rssm.deter", &r.act, r.dynlayers, r.deter / r.blocks.max(1)),
        ("enc.simple.units", &e.act, e.layers, e.units),
        ("dec.simple.units", &d.act, d.layers, d.units),
        ("rewhead.units", &c.rewhead.act, c.rewhead.layers, c.rewhead.units),
        ("conhead.units", &c.conhead.act, c.conhead.layers, c.conhead.units),
        ("policy.units", &c.policy.act, c.policy.layers, c.policy.units),
        ("value.units", &c.value.act, c.value.layers, c.value.units),
    ];
    for (key, act, layers, width) in widths {
        if act == "swiglu" && layers > 0 && width % 2 != 0 {
            bail!(
                "agent.{key} gives a width of {width} (of deter, in each block); swiglu halves it, so it must be even"
            );
        }
    }
    Ok(())
}

fn action_space(act_space: &Spaces) -> Result<()> {
    if act_space.is_empty() {
        bail!("the environment has no action key besides 'reset'; there is nothing to learn");
    }
    for (key, space) in act_space {
        if space.shape.len() > 1 {
            bail!("action key '{key}' is {space}; at most one axis of several actions works");
        }
        if space.size() == 0 || space.is_discrete() && space.classes() == 0 {
            bail!("action key '{key}' is {space}, which leaves nothing to choose");
        }
        if space.dtype == spaces::DType::F16 {
            bail!("action key '{key}' is {space}; continuous actions are float32");
        }
    }
    Ok(())
}

fn observation_space(space: &Spaces, c: &AgentConfig) -> Result<()> {
    if space.is_empty() {
        bail!("the environment has no observation key besides its flags and log/ keys; there is nothing to see");
    }
    for (key, s) in space {
        if LOSSES.contains(&key.as_str()) {
            bail!("observation key '{key}' is the name of a loss, beside which its own would stand; call it obs/{key}");
        }
        if s.is_image() && s.size() == 0 {
            bail!("image key '{key}' is {s}, which holds no pixels");
        }
        if s.is_discrete() && !s.is_image() && s.classes() == 0 {
            bail!("observation key '{key}' is {s}, which can have no value");
        }
        if s.shape.len() > 3 {
            bail!("observation key '{key}' is {s}; at most three axes work");
        }
        if s.shape.len() == 3 && !s.is_image() {
            bail!("observation key '{key}' is {s}; three axes must be a uint8 image [height, width, channels]");
        }
        if s.dtype == spaces::DType::U8 && s.shape.len() == 2 {
            bail!("observation key '{key}' is {s}; give an image a third axis for its channels");
        }
    }
    let images: Vec<(&String, &Space)> = space.iter().filter(|(_, s)| s.is_image()).collect();
    let Some((first_key, first)) = images.first() else { return Ok(()) };
    if let Some((key, s)) = images.iter().find(|(_, s)| s.shape[..2] != first.shape[..2]) {
        bail!("image key '{key}' is {s} and '{first_key}' is {first}; all images must share one height and width");
    }
    image_size(first_key, first, c)
}

/// The smallest resolution must lie in 3..=16, and every halving must come out even.
fn image_size(key: &str, s: &Space, c: &AgentConfig) -> Result<()> {
    let (e, d) = (&c.enc.simple, &c.dec.simple);
    for (part, mults, kernel, outer) in [("enc", &e.mults, e.kernel, e.outer), ("dec", &d.mults, d.kernel, d.outer)] {
        if kernel.is_multiple_of(2) {
            bail!("agent.{part}.simple.kernel is {kernel}; convolution kernels must be odd");
        }
        if mults.contains(&0) {
            bail!("agent.{part}.simple.mults is {mults:?}; every stage needs channels");
        }
        let (act, depth) = if part == "enc" { (&e.act, e.depth) } else { (&d.act, d.depth) };
        if act == "swiglu" && mults.iter().any(|m| depth * m % 2 != 0) {
            bail!(
                "agent.{part}.simple.depth {depth} times mults {mults:?} must be even, since swiglu halves the channels"
            );
        }
        if mults.is_empty() {
            bail!("agent.{part}.simple.mults is empty; images need at least one stage");
        }
        if mults.len() > 16 {
            bail!("agent.{part}.simple.mults has {} stages; at most 16 work", mults.len());
        }
        let factor = 1usize << (mults.len() - outer as usize);
        for (axis, size) in [("height", s.shape[0]), ("width", s.shape[1])] {
            if !size.is_multiple_of(factor) || !(3..=16).contains(&(size / factor)) {
                bail!(
                    "image key '{key}' has a {axis} of {size}, which {} halvings (agent.{part}.simple.mults has {} stages) take to {}; \
                     it must come out even and within 3 to 16",
                    factor.ilog2(),
                    mults.len(),
                    size as f64 / factor as f64
                );
            }
        }
    }
    let r = &c.dynamics.rssm;
    let (g, depth) = (d.bspace, d.depth * d.mults[d.mults.len() - 1]);
    if g > 0 && (!r.deter.is_multiple_of(g) || !depth.is_multiple_of(g)) {
        bail!(
            "agent.dec.simple.bspace is {g}, which must divide agent.dyn.rssm.deter ({}) and the deepest channels ({depth}); 0 turns it off",
            r.deter
        );
    }
    Ok(())
}
