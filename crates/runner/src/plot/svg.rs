//! The drawing: one SVG of 800 by 480 with axes, grid, lines, shades and a legend, for light and dark pages.

use super::Options;
use super::curve::{Curve, Point};
use crate::log::format::trimmed;

const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 480.0;
const LEFT: f64 = 72.0;
const RIGHT: f64 = 24.0;
const TITLE: f64 = 56.0; // title and the first row of the legend; further rows push the plot down
const ROW: f64 = 17.0;
const BOTTOM: f64 = 56.0;
const DOT: f64 = 4.0; // the radius of a lone bin

/// Line colours on a light and on a dark page; the reference takes the last pair.
const COLOURS: [(&str, &str); 6] = [
    ("#2563eb", "#6ea8ff"),
    ("#0f9d6b", "#4cd6a4"),
    ("#9333ea", "#c99bff"),
    ("#c2255c", "#ff8fb5"),
    ("#0e7490", "#5ed4ee"),
    ("#d9730d", "#ffb35c"),
];

/// Values to pixels.
struct Frame {
    x: (f64, f64),
    y: (f64, f64),
    top: f64,
}

impl Frame {
    fn px(&self, x: f64) -> f64 {
        LEFT + (x - self.x.0) / (self.x.1 - self.x.0) * (WIDTH - LEFT - RIGHT)
    }

    fn py(&self, y: f64) -> f64 {
        HEIGHT - BOTTOM - (y - self.y.0) / (self.y.1 - self.y.0) * (HEIGHT - self.top - BOTTOM)
    }

    fn point(&self, x: f64, y: f64) -> String {
        format!("{:.1},{:.1}", self.px(x), self.py(y))
    }
}

/// Draws curves up to `xmax` environment frames.
pub fn draw(curves: &[Curve], xmax: f64, options: &Options) -> String {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let low = points().map(|p| p.mean - p.sd).fold(f64::INFINITY, f64::min);
    let high = points().map(|p| p.mean + p.sd).fold(f64::NEG_INFINITY, f64::max);
    // Scores that are never negative start at zero, though the shade may dip below it.
    let low = if points().all(|p| p.mean >= 0.0) { 0.0 } else { low };
    let yticks = ticks(if low.is_finite() { low } else { 0.0 }, if high.is_finite() { high } else { 1.0 }, 6);
    let (legend, rows) = legend(curves);
    let top = TITLE + ROW * rows as f64;
    let frame = Frame { x: (0.0, xmax), y: (yticks[0], yticks[yticks.len() - 1]), top };

    let mut out = String::new();
    header(&mut out, curves.len());
    axes(&mut out, &frame, &yticks, options);
    // Shades end at the axes; lines and dots have a margin, to be whole on the edge.
    for (id, margin) in [("area", 0.0), ("edge", DOT)] {
        out += &format!(
            "<clipPath id=\"{id}\"><rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/></clipPath>\n",
            LEFT - margin,
            top - margin,
            WIDTH - LEFT - RIGHT + 2.0 * margin,
            HEIGHT - top - BOTTOM + 2.0 * margin
        );
    }
    // All shades first, so that no line lies under one.
    out += "<g clip-path=\"url(#area)\">\n";
    for (i, curve) in curves.iter().enumerate() {
        band(&mut out, &frame, &curve.points, colour(i, curve));
    }
    out += "</g>\n<g clip-path=\"url(#edge)\">\n";
    for (i, curve) in curves.iter().enumerate() {
        line(&mut out, &frame, i, curve);
    }
    out += "</g>\n";
    out += &legend;
    out += "</svg>\n";
    out
}

fn colour(i: usize, curve: &Curve) -> usize {
    if curve.official { COLOURS.len() - 1 } else { i % (COLOURS.len() - 1) }
}

/// The opening tag, the styles and the background. Colours are classes, since a page's dark mode can override only those.
fn header(out: &mut String, curves: usize) {
    let style = |out: &mut String,
                 page: &str,
                 ink: &str,
                 dim: &str,
                 grid: &str,
                 pick: fn(&(&'static str, &'static str)) -> &'static str| {
        *out += &format!(
            ".page{{fill:{page}}} text{{fill:{ink}}} .dim{{fill:{dim}}} .grid{{stroke:{grid}}} .axis{{stroke:{dim}}}\n"
        );
        for (i, pair) in COLOURS.iter().enumerate() {
            let c = pick(pair);
            *out += &format!(".c{i}{{stroke:{c}}} .f{i}{{fill:{c}}}\n");
        }
    };
    *out += &format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         role=\"img\" aria-label=\"learning curves ({curves})\">\n<style>\n\
         text{{font:13px system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}} .title{{font-size:16px;font-weight:600}}\n\
         .grid{{stroke-width:1}} .axis{{stroke-width:1}} .line{{fill:none;stroke-width:2.2;stroke-linejoin:round;stroke-linecap:round}} \
         .band{{opacity:.18;stroke:none}}\n"
    );
    style(out, "#ffffff", "#1f2933", "#66727f", "#e6e9ed", |pair| pair.0);
    *out += "@media (prefers-color-scheme:dark){\n";
    style(out, "#0d1117", "#e6edf3", "#94a0ad", "#262d36", |pair| pair.1);
    *out += "}\n</style>\n";
    *out += &format!("<rect class=\"page\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>\n");
}

/// Grid, axis, tick labels, axis names and title.
fn axes(out: &mut String, frame: &Frame, yticks: &[f64], options: &Options) {
    let (right, bottom, top) = (WIDTH - RIGHT, HEIGHT - BOTTOM, frame.top);
    for &y in yticks {
        let py = frame.py(y);
        *out += &format!("<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{py:.1}\" y2=\"{py:.1}\"/>\n");
        let label = label(y, yticks);
        *out += &format!(
            "<text class=\"dim\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>\n",
            LEFT - 9.0,
            py + 4.5
        );
    }
    let mut xticks = ticks(0.0, frame.x.1, 7);
    xticks.retain(|&x| x <= frame.x.1 * (1.0 + 1e-9));
    for &x in &xticks {
        let px = frame.px(x);
        *out += &format!("<line class=\"grid\" x1=\"{px:.1}\" x2=\"{px:.1}\" y1=\"{top}\" y2=\"{bottom}\"/>\n");
        let label = label(x, &xticks);
        *out += &format!(
            "<text class=\"dim\" x=\"{px:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>\n",
            bottom + 19.0
        );
    }
    *out += &format!("<path class=\"axis\" fill=\"none\" d=\"M{LEFT} {top}V{bottom}H{right}\"/>\n");
    let (middle_x, middle_y) = ((LEFT + right) / 2.0, (top + bottom) / 2.0);
    *out += &format!(
        "<text x=\"{middle_x}\" y=\"{}\" text-anchor=\"middle\">environment frames</text>\n\
         <text transform=\"translate(20 {middle_y}) rotate(-90)\" text-anchor=\"middle\">{}</text>\n",
        HEIGHT - 14.0,
        escape(&options.key)
    );
    if let Some(title) = options.title.as_ref().or(options.task.as_ref()) {
        *out += &format!("<text class=\"title\" x=\"{LEFT}\" y=\"28\">{}</text>\n", escape(&short(title, 90)));
    }
}

fn band(out: &mut String, frame: &Frame, points: &[Point], colour: usize) {
    if points.is_empty() {
        return;
    }
    let upper = points.iter().map(|p| frame.point(p.frames, p.mean + p.sd));
    let lower = points.iter().rev().map(|p| frame.point(p.frames, p.mean - p.sd));
    let shape: Vec<String> = upper.chain(lower).collect();
    *out += &format!("<polygon class=\"band f{colour}\" points=\"{}\"/>\n", shape.join(" "));
}

/// A line through the bins; a lone bin is a dot.
fn line(out: &mut String, frame: &Frame, i: usize, curve: &Curve) {
    let (colour, dash) = (colour(i, curve), dash(i, curve));
    let shape: Vec<String> = curve.points.iter().map(|p| frame.point(p.frames, p.mean)).collect();
    *out += &format!("<polyline class=\"line c{colour}\"{dash} points=\"{}\"/>\n", shape.join(" "));
    if let [only] = &curve.points[..] {
        let (x, y) = (frame.px(only.frames), frame.py(only.mean));
        *out += &format!("<circle class=\"f{colour}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{DOT}\"/>\n");
    }
}

/// The names above the plot, and how many rows they take.
fn legend(curves: &[Curve]) -> (String, usize) {
    let mut out = String::new();
    let (mut x, mut rows) = (LEFT, 1);
    for (i, curve) in curves.iter().enumerate() {
        let text = format!("{} ({})", short(&curve.name, 70), curve.note);
        let width = 36.0 + 7.2 * text.chars().count() as f64 + 18.0; // generous for any font
        if x > LEFT && x + width > WIDTH - RIGHT {
            (x, rows) = (LEFT, rows + 1);
        }
        let y = 33.0 + ROW * rows as f64;
        let (c, dash) = (colour(i, curve), dash(i, curve));
        out += &format!(
            "<path class=\"line c{c}\"{dash} d=\"M{x:.0} {}h28\"/><text x=\"{:.0}\" y=\"{y}\">{}</text>\n",
            y - 4.5,
            x + 36.0,
            escape(&text)
        );
        x += width;
    }
    (out, rows)
}

/// The reference is dashed, so that colour-blind readers and black-and-white prints tell it from the runs. So are runs
/// for which no colour is left, each round of colours in another way.
fn dash(i: usize, curve: &Curve) -> &'static str {
    match i / (COLOURS.len() - 1) % 4 {
        _ if curve.official => " stroke-dasharray=\"7 5\"",
        0 => "",
        1 => " stroke-dasharray=\"2 4\"",
        2 => " stroke-dasharray=\"14 4\"",
        _ => " stroke-dasharray=\"12 4 2 4\"",
    }
}

/// At most `most` characters of a name, which then ends in three dots.
fn short(name: &str, most: usize) -> String {
    match name.chars().count() > most {
        true => name.chars().take(most - 1).chain(['…']).collect(),
        false => name.to_string(),
    }
}

/// Round numbers, 1, 2 or 5 times a power of ten apart, that enclose `low..high`: about `count` of them.
fn ticks(low: f64, high: f64, count: usize) -> Vec<f64> {
    let high = if high > low { high } else { low + low.abs().max(1.0) };
    let raw = (high - low) / count as f64;
    let power = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|&s| s >= raw * 0.999).unwrap_or(raw);
    let (first, last) = ((low / step + 1e-9).floor(), (high / step - 1e-9).ceil());
    (0..=(last - first) as usize).map(|i| (first + i as f64) * step).collect()
}

/// A tick's number, in thousands or millions where all are large, with the decimals that tell it from its neighbours.
fn label(x: f64, ticks: &[f64]) -> String {
    let largest = ticks.iter().fold(0.0f64, |a, b| a.max(b.abs()));
    let (unit, name) =
        [(1e9, "G"), (1e6, "M"), (1e3, "k")].into_iter().find(|(u, _)| largest >= 2.0 * u).unwrap_or((1.0, ""));
    let step = ticks.windows(2).map(|pair| pair[1] - pair[0]).fold(f64::INFINITY, f64::min);
    let decimals = (-(step / unit).log10().floor()).clamp(0.0, 9.0);
    let text = trimmed(x / unit, if decimals.is_finite() { decimals as usize } else { 0 });
    if text == "0" { text } else { text.replace('-', "−") + name }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ticks_are_round() {
        assert_eq!(ticks(0.0, 856.0, 6), [0.0, 200.0, 400.0, 600.0, 800.0, 1000.0]);
        assert_eq!(ticks(-0.7, 1.0, 6), [-1.0, -0.5, 0.0, 0.5, 1.0]);
        let labels = |t: &[f64]| t.iter().map(|&x| label(x, t)).collect::<Vec<_>>();
        assert_eq!(labels(&ticks(0.0, 50_000.0, 7)), ["0", "10k", "20k", "30k", "40k", "50k"]);
        assert_eq!(labels(&[0.0, 500_000.0, 1_000_000.0, 2_000_000.0]), ["0", "0.5M", "1M", "2M"]);
        assert_eq!(labels(&[-0.5, 0.0, 0.5]), ["−0.5", "0", "0.5"]);
        assert_eq!(labels(&[0.0, 500.0, 1000.0, 1500.0]), ["0", "500", "1000", "1500"]);
    }

    #[test]
    fn curves_of_one_colour_differ_in_their_dashes_and_long_names_are_cut() {
        let curve = |name: String| Curve { name, note: "b".into(), points: vec![], official: false };
        let curves: Vec<Curve> = (0..11).map(|i| curve(format!("{i}{}", "x".repeat(200)))).collect();
        let text = draw(&curves, 20.0, &Options { title: Some("t".repeat(200)), ..Options::default() });
        let styles: Vec<&str> =
            text.split("<polyline class=").skip(1).map(|rest| rest.split(" points").next().unwrap()).collect();
        let different: std::collections::BTreeSet<&&str> = styles.iter().collect();
        assert_eq!((styles.len(), different.len()), (11, 11));
        let [shades, lines] = [LEFT, LEFT - DOT].map(|x| text.find(&format!("<rect x=\"{x}\" y")));
        assert!(shades < lines && text.find("<polyline") > text.find("url(#edge)"), "{text}");
        assert!(!text.contains(&"x".repeat(70)) && !text.contains(&"t".repeat(90)) && text.contains("x… (b)"));
    }

    proptest! {
        #[test]
        fn ticks_enclose_the_range(low in -1e6..1e6f64, span in 1e-6..1e6f64) {
            let t = ticks(low, low + span, 6);
            let slack = 1e-6 * span;
            prop_assert!(t.len() >= 2 && t.len() <= 9, "{t:?}");
            prop_assert!(t[0] <= low + slack && t[t.len() - 1] >= low + span - slack, "{t:?}");
        }

        #[test]
        fn any_curve_draws_finite_numbers(ys in prop::collection::vec((-1e9..1e9f64, 0.0..1e6f64), 0..20)) {
            let points = (1..).zip(ys).map(|(i, (mean, sd))| Point { frames: f64::from(i), mean, sd, seeds: 1 });
            let curve = Curve { name: "a".into(), note: "b".into(), points: points.collect(), official: false };
            let text = draw(&[curve], 20.0, &Options::default());
            prop_assert!(!text.contains("NaN") && !text.contains("inf"));
        }
    }
}
