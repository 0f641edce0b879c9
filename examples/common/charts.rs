//! The pictures, as SVG text.

use std::{error::Error, fmt::Write, ops::Range};

use plotters::{
    coord::{
        Shift,
        ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter},
    },
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

type Result<T = (), E = Box<dyn Error>> = std::result::Result<T, E>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// After Okabe and Ito: told apart with any kind of colour vision, on white and on black; the last two are more.
pub const COLOURS: [RGBColor; 8] = [
    RGBColor(20, 125, 195),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(148, 103, 189),
    RGBColor(140, 110, 80),
];

/// Stand-ins that become the page's text and background colour: it may be light or dark.
const INK: RGBColor = RGBColor(1, 2, 3);
const PAPER: RGBColor = RGBColor(4, 5, 6);

/// plotters rounds every coordinate to a whole pixel; drawn this much larger, curves stay smooth.
const FINE: u32 = 8;

/// A line with its colour.
pub struct Curve {
    pub colour: RGBColor,
    pub dashed: bool,
    /// Breaks where y leaves the axis.
    pub points: Vec<(f64, f64)>,
}

/// One axis: what it shows, and where its labels are; the first and the last are its ends.
#[derive(Clone)]
pub struct Axis {
    pub title: &'static str,
    pub ticks: Vec<f64>,
    /// The label of a tick.
    pub label: fn(f64) -> String,
}

impl Axis {
    /// In whole steps.
    pub fn steps(title: &'static str, first: f64, step: f64, count: usize, label: fn(f64) -> String) -> Self {
        Self { title, ticks: (0..=count).map(|i| first + step * i as f64).collect(), label }
    }

    /// From 0 to at least `most`, in at most `count` whole steps of 1, 2 or 5 times a power of ten.
    pub fn up_to(title: &'static str, most: f64, count: usize, label: fn(f64) -> String) -> Self {
        let power = 10_f64.powf((most / count as f64).log10().floor()).max(1.0);
        let fits = |step: &f64| step * count as f64 >= most;
        let step = [1.0, 2.0, 5.0, 10.0].map(|s| s * power).into_iter().find(fits).unwrap_or(10.0 * power);
        Self::steps(title, 0.0, step, (most / step).ceil().max(1.0) as usize, label)
    }

    /// From at most `low` to at least `high`, in at most `count` whole steps as above.
    pub fn around(title: &'static str, [low, high]: [f64; 2], count: usize, label: fn(f64) -> String) -> Self {
        let mut width = Self::up_to(title, (high - low).max(1.0), count, label).width();
        loop {
            let (first, last) = ((low / width).floor(), (high / width).ceil());
            if last - first <= count as f64 {
                return Self::steps(title, first * width, width, (last - first).max(1.0) as usize, label);
            }
            width *= 2.0;
        }
    }

    /// Of a step.
    fn width(&self) -> f64 {
        self.ticks[1] - self.ticks[0]
    }

    /// Its ends.
    fn ends(&self) -> [f64; 2] {
        [self.ticks[0], self.ticks[self.ticks.len() - 1]]
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let [first, last] = self.ends();
        from + (f64::from(to - from) * (value - first) / (last - first)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() { vec![] } else { self.ticks.clone() }
    }

    fn range(&self) -> Range<f64> {
        let [first, last] = self.ends();
        first..last
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        (self.label)(*value)
    }
}

/// The plain number, without the dust of sums.
pub fn plain(value: f64) -> String {
    format!("{}", (value * 1e9).round() / 1e9).replace('-', "−")
}

/// Lines over one another.
pub fn lines(label: &str, size: (u32, u32), x: &Axis, y: &Axis, curves: &[Curve]) -> Result<String> {
    figure(label, size, |root| {
        let mut chart = axes(root, x, y)?;
        let ([left, right], [low, high]) = (x.ends(), y.ends());
        for curve in curves {
            let style = curve.colour.stroke_width(2 * FINE);
            let inside = |&(at, y): &(f64, f64)| (low..=high).contains(&y) && (left..=right).contains(&at);
            for piece in curve.points.split(|point| !inside(point)) {
                let points = piece.iter().copied();
                if curve.dashed {
                    chart.draw_series(DashedLineSeries::new(points, 9 * FINE, 6 * FINE, style))?;
                } else {
                    chart.draw_series(LineSeries::new(points, style))?;
                }
            }
        }
        Ok(())
    })
}

/// A line of [`intervals`].
pub struct Interval {
    pub title: String,
    pub colour: RGBColor,
    pub mean: f64,
    /// Half the length of the bar around it.
    pub deviation: f64,
    /// A ring to compare with.
    pub other: Option<f64>,
}

/// A line per interval, from the top: its title, a dot with a bar, and a ring.
pub fn intervals(label: &str, size: (u32, u32), x: &Axis, rows: &[Interval]) -> Result<String> {
    figure(label, size, |root| {
        let y = Axis::steps("", 0.0, 1.0, rows.len().max(1), plain);
        let mut chart = ChartBuilder::on(root)
            .margin_top(10 * FINE)
            .margin_right(16 * FINE)
            .margin_left(104 * FINE)
            .x_label_area_size(44 * FINE)
            .build_cartesian_2d(x.clone(), y)?;
        let line = |opacity: f64| INK.mix(opacity).stroke_width(FINE);
        chart
            .configure_mesh()
            .x_desc(x.title)
            .disable_y_mesh()
            .disable_y_axis()
            .axis_style(line(0.6))
            .bold_line_style(line(0.12))
            .light_line_style(TRANSPARENT)
            .label_style(text(root, 13.0, 1.0))
            .axis_desc_style(text(root, 14.0, 1.0))
            .set_all_tick_mark_size(4 * FINE)
            .draw()?;
        let pixels = |size: f64| (size * f64::from(FINE)) as i32;
        for (i, row) in rows.iter().enumerate() {
            let y = (rows.len() - i) as f64 - 0.5;
            let at = |x: f64| chart.plotting_area().map_coordinate(&(x, y));
            let (_, height) = at(row.mean);
            let style = text(root, 14.0, 1.0).pos(Pos::new(HPos::Right, VPos::Center));
            root.draw(&Text::new(row.title.clone(), (pixels(96.0), height), style))?;
            let bar = vec![at(row.mean - row.deviation), at(row.mean + row.deviation)];
            root.draw(&PathElement::new(bar, row.colour.stroke_width(3 * FINE)))?;
            root.draw(&Circle::new(at(row.mean), pixels(5.0), row.colour.filled()))?;
            if let Some(other) = row.other {
                root.draw(&Circle::new(at(other), pixels(5.0), INK.mix(0.8).stroke_width(FINE * 3 / 2)))?;
            }
        }
        Ok(())
    })
}

/// Two histograms over one another: shares of equal bins, each [0, 1] and `width` wide.
pub fn histograms(
    label: &str,
    size: (u32, u32),
    x: &Axis,
    y: &Axis,
    width: f64,
    bars: [(&[f64], RGBAColor); 2],
) -> Result<String> {
    figure(label, size, |root| {
        let mut chart = axes(root, x, y)?;
        for (shares, colour) in bars {
            let bar = |(bin, share): (usize, &f64)| {
                let left = bin as f64 * width;
                Rectangle::new([(left, 0.0), (left + width, *share)], colour.filled())
            };
            chart.draw_series(shares.iter().enumerate().filter(|(_, share)| **share > 0.0).map(bar))?;
        }
        Ok(())
    })
}

/// The colours of a pair of histograms: a loss and the neutral one.
pub fn pair(colour: RGBColor) -> [RGBAColor; 2] {
    [INK.mix(0.3), colour.mix(0.8)]
}

/// Where a prototype is, its class, and its name.
pub type Mark = ([f64; 3], usize, String);

/// A unit sphere seen along −z, with points and named marks, all of unit length.
pub fn sphere(label: &str, side: u32, points: &[([f64; 3], usize)], marks: &[Mark]) -> Result<String> {
    figure(label, (side, side), |root| {
        let middle = f64::from(side * FINE) / 2.0;
        let radius = middle * 0.9;
        let place = |[x, y, _]: [f64; 3]| ((middle + radius * x) as i32, (middle - radius * y) as i32);
        let pixels = |size: f64| (size * f64::from(FINE)) as i32;
        root.draw(&Circle::new(place([0.0; 3]), radius as i32, INK.mix(0.04).filled()))?;
        root.draw(&Circle::new(place([0.0; 3]), radius as i32, INK.mix(0.5).stroke_width(FINE)))?;
        for line in graticule() {
            root.draw(&PathElement::new(line.map(place).collect::<Vec<_>>(), INK.mix(0.1).stroke_width(FINE)))?;
        }

        let near = |z: f64| (1.0 + z) / 2.0; // 0 at the far pole, 1 at the near one
        let mut points = points.to_vec();
        points.sort_by(|a, b| a.0[2].total_cmp(&b.0[2]));
        let behind = points.partition_point(|(at, _)| at[2] < 0.0);
        let dot = |(at, class): &([f64; 3], usize)| {
            let near = near(at[2]);
            let colour = COLOURS[class % COLOURS.len()].mix(0.2 + 0.65 * near);
            root.draw(&Circle::new(place(*at), pixels(2.0 + 2.5 * near), colour.filled()))
        };
        let badge = |(at, class, name): &Mark| {
            let near = near(at[2]);
            let colour = COLOURS[class % COLOURS.len()].mix(0.4 + 0.6 * near);
            let size = 8.0 + 4.0 * near;
            root.draw(&Circle::new(place(*at), pixels(size), PAPER.filled()))?;
            root.draw(&Circle::new(place(*at), pixels(size), colour.stroke_width((2.5 * f64::from(FINE)) as u32)))?;
            let style = text(root, size * 1.35, 0.5 + 0.5 * near).pos(Pos::new(HPos::Center, VPos::Center));
            root.draw(&Text::new(name.clone(), place(*at), style))
        };
        points[..behind].iter().try_for_each(dot)?;
        marks.iter().filter(|(at, ..)| at[2] < 0.0).try_for_each(badge)?;
        points[behind..].iter().try_for_each(dot)?;
        marks.iter().filter(|(at, ..)| at[2] >= 0.0).try_for_each(badge)?;
        Ok(())
    })
}

/// The visible halves of three great circles through the poles of a tilted globe, and of its equator and tropics.
fn graticule() -> impl Iterator<Item = impl Iterator<Item = [f64; 3]>> {
    let turn = |i: i32| f64::from(i) * 3_f64.to_radians();
    let (tilt_sin, tilt_cos) = 0.4_f64.sin_cos();
    let tilt = move |[x, y, z]: [f64; 3]| [x, y * tilt_cos + z * tilt_sin, z * tilt_cos - y * tilt_sin];
    let parallels = [-60, -30, 0, 30, 60].map(move |latitude| {
        let (height, width) = f64::from(latitude).to_radians().sin_cos();
        Box::new((0..=120).map(move |i| [width * turn(i).cos(), height, width * turn(i).sin()]))
            as Box<dyn Iterator<Item = [f64; 3]>>
    });
    let meridians = [0, 30, 60, 90, 120, 150].map(move |longitude| {
        let (side, front) = f64::from(longitude).to_radians().sin_cos();
        Box::new((0..=120).map(move |i| [side * turn(i).cos(), turn(i).sin(), front * turn(i).cos()]))
            as Box<dyn Iterator<Item = [f64; 3]>>
    });
    parallels.into_iter().chain(meridians).flat_map(move |line| {
        let line: Vec<[f64; 3]> = line.map(tilt).collect();
        let halves = line.split(|at| at[2] < 0.0).filter(|piece| piece.len() > 1).map(<[_]>::to_vec);
        halves.map(Vec::into_iter).collect::<Vec<_>>()
    })
}

/// A chart with what is written above it: a title, and words in the colours that they explain.
pub struct Panel {
    pub title: String,
    pub key: Vec<(String, Option<RGBColor>)>,
    pub chart: String,
}

/// Panels side by side as an SVG file of its own, dark where the reader's pages are dark.
pub fn sheet(label: &str, (width, height): (u32, u32), panels: &[Panel]) -> Result<String> {
    const ABOVE: u32 = 42;
    let (all, high) = (width * panels.len() as u32, height + ABOVE);
    let mut svg = String::new();
    writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {all} {high}\" width=\"{all}\" height=\"{high}\" \
         role=\"img\" aria-label=\"{label}\">
<style>svg {{ color: #1c1f24; font: 12px sans-serif }} \
         @media (prefers-color-scheme: dark) {{ svg {{ color: #e4e7ec }} }}</style>"
    )?;
    for (i, Panel { title, key, chart }) in panels.iter().enumerate() {
        let left = width * i as u32;
        // where the y axis is
        let start = left + 60;
        writeln!(
            svg,
            "<text x=\"{start}\" y=\"16\" font-size=\"14\" font-weight=\"bold\" fill=\"currentColor\">{title}</text>"
        )?;
        write!(svg, "<text x=\"{start}\" y=\"34\" fill=\"currentColor\">")?;
        for (word, colour) in key {
            let fill = colour.map_or(String::new(), |RGBColor(r, g, b)| format!(" fill=\"rgb({r},{g},{b})\""));
            write!(svg, "<tspan{fill}>{word} </tspan>")?;
        }
        svg.push_str("</text>\n");
        let place = format!("<svg x=\"{left}\" y=\"{ABOVE}\" width=\"{width}\" height=\"{height}\" ");
        svg.push_str(&chart.replacen("<svg ", &place, 1));
    }
    Ok(svg + "</svg>\n")
}

type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Axis, Axis>>;

/// Axes with titles and a faint grid.
fn axes<'a, 'b>(root: &'a Area<'b>, x: &Axis, y: &Axis) -> Result<Chart<'a, 'b>> {
    let mut chart = ChartBuilder::on(root)
        .margin_top(10 * FINE)
        .margin_right(16 * FINE)
        .x_label_area_size(44 * FINE)
        .y_label_area_size(60 * FINE)
        .build_cartesian_2d(x.clone(), y.clone())?;
    let line = |opacity: f64| INK.mix(opacity).stroke_width(FINE);
    chart
        .configure_mesh()
        .x_desc(x.title)
        .y_desc(y.title)
        .axis_style(line(0.6))
        .bold_line_style(line(0.12))
        .light_line_style(TRANSPARENT)
        .label_style(text(root, 13.0, 1.0))
        .axis_desc_style(text(root, 14.0, 1.0))
        .set_all_tick_mark_size(4 * FINE)
        .draw()?;
    Ok(chart)
}

/// plotters' font size is 1.24 times that of the page.
fn text<'a>(root: &Area<'_>, pixels: f64, opacity: f64) -> TextStyle<'a> {
    ("sans-serif", pixels * 1.24 * f64::from(FINE)).with_color(INK.mix(opacity)).into_text_style(root)
}

/// Draws, then makes the text fit for a page: it scales, has a name for screen readers, and takes the page's colours.
fn figure(label: &str, size: (u32, u32), draw: impl FnOnce(&Area<'_>) -> Result) -> Result<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (size.0 * FINE, size.1 * FINE)).into_drawing_area();
        draw(&root)?;
        root.present()?;
    }
    let (_, body) = svg.split_once('>').ok_or("no SVG was drawn")?;
    let (width, height) = (size.0 * FINE, size.1 * FINE);
    let hex = |RGBColor(r, g, b): RGBColor| format!("#{r:02X}{g:02X}{b:02X}");
    let body = body.replace(&hex(INK), "currentColor").replace(&format!("fill=\"{}\"", hex(PAPER)), "class=\"paper\"");
    let open = format!("<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{}\">", label);
    Ok(open + &body)
}
