//! `Canvas`: the few shapes that the native tasks draw.

use spaces::Array;

pub type Color = [u8; 3];

/// A picture `[height, width, 3]` in the making. Coordinates are pixels, x to the right, y down.
pub struct Canvas {
    height: usize,
    width: usize,
    pixels: Vec<u8>,
}

impl Canvas {
    pub fn new(height: usize, width: usize, background: Color) -> Self {
        let mut pixels = vec![0; height * width * 3];
        pixels.as_chunks_mut().0.fill(background);
        Canvas { height, width, pixels }
    }

    pub fn finish(self) -> Array {
        Array::from_u8(&[self.height, self.width, 3], self.pixels)
    }

    /// Fills whole pixels `x0..x1`, `y0..y1`, as far as they lie on the canvas.
    pub fn fill(&mut self, x: std::ops::Range<usize>, y: std::ops::Range<usize>, color: Color) {
        let x = x.start.min(self.width)..x.end.min(self.width);
        for row in y.start.min(self.height)..y.end.min(self.height) {
            let start = row * self.width;
            self.pixels[3 * (start + x.start)..3 * (start + x.end)].as_chunks_mut().0.fill(color);
        }
    }

    /// A line with round ends of the given radius, its edge smoothed over one pixel.
    pub fn capsule(&mut self, from: [f32; 2], to: [f32; 2], radius: f32, color: Color) {
        let (dx, dy) = (to[0] - from[0], to[1] - from[1]);
        let square = (dx * dx + dy * dy).max(1e-6);
        self.shade([from, to], radius, color, |x, y| {
            let along = (((x - from[0]) * dx + (y - from[1]) * dy) / square).clamp(0.0, 1.0);
            let (ex, ey) = (x - from[0] - along * dx, y - from[1] - along * dy);
            radius - (ex * ex + ey * ey).sqrt()
        });
    }

    /// A rectangle around `center`, its edge smoothed over one pixel.
    pub fn rect(&mut self, center: [f32; 2], half: [f32; 2], color: Color) {
        let corners = [[center[0] - half[0], center[1] - half[1]], [center[0] + half[0], center[1] + half[1]]];
        let inside = |x: f32, y: f32| (half[0] - (x - center[0]).abs()).min(half[1] - (y - center[1]).abs());
        self.shade(corners, 0.0, color, inside);
    }

    /// Blends `color` into the pixels near a box, by how far their centre lies inside the shape.
    fn shade(&mut self, corners: [[f32; 2]; 2], margin: f32, color: Color, inside: impl Fn(f32, f32) -> f32) {
        let span = |a: f32, b: f32, limit: usize| {
            // A cast from float to usize clips at zero, as wanted.
            let low = (a.min(b) - margin - 1.0).floor() as usize;
            let high = (a.max(b) + margin + 1.0).ceil() as usize;
            low.min(limit)..high.min(limit)
        };
        let columns = span(corners[0][0], corners[1][0], self.width);
        for y in span(corners[0][1], corners[1][1], self.height) {
            for x in columns.clone() {
                let cover = (inside(x as f32 + 0.5, y as f32 + 0.5) + 0.5).clamp(0.0, 1.0);
                let at = 3 * (y * self.width + x);
                for (pixel, &ink) in self.pixels[at..at + 3].iter_mut().zip(&color) {
                    *pixel = (*pixel as f32 + cover * (ink as f32 - *pixel as f32)).round() as u8;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ink(canvas: Canvas) -> f32 {
        canvas.finish().to_f32().iter().sum::<f32>() / 255.0 / 3.0
    }

    #[test]
    fn shapes_cover_their_area() {
        let mut canvas = Canvas::new(40, 50, [0; 3]);
        canvas.capsule([10.3, 10.2], [30.6, 20.4], 3.0, [255; 3]);
        let length = (20.3f32.powi(2) + 10.2f32.powi(2)).sqrt();
        let area = length * 6.0 + std::f32::consts::PI * 9.0;
        assert!((ink(canvas) / area - 1.0).abs() < 0.02);
        let mut canvas = Canvas::new(40, 50, [0; 3]);
        canvas.rect([20.25, 9.5], [5.5, 3.0], [255; 3]);
        assert!((ink(canvas) / 66.0 - 1.0).abs() < 0.05);
    }

    #[test]
    fn shapes_are_clipped_to_the_canvas() {
        let mut canvas = Canvas::new(4, 4, [0; 3]);
        canvas.rect([-50.0, 2.0], [3.0, 3.0], [255; 3]);
        canvas.capsule([90.0, 90.0], [120.0, -70.0], 2.0, [255; 3]);
        canvas.fill(9..20, 0..99, [255; 3]);
        assert_eq!(ink(canvas), 0.0);
        let mut canvas = Canvas::new(4, 4, [0; 3]);
        canvas.fill(2..99, 3..99, [255; 3]);
        assert_eq!(ink(canvas), 2.0);
    }
}
