//! Curves for several values of each margin, and what theory predicts over the margin: after figures 2 to 5 of "Unifying
//! Margin-Based Softmax Losses in Face Recognition".

use std::fmt::Write;

use margin_softmax::{
    objective::Fallback,
    theory::{self, Criterion},
};

use crate::{
    charts::{self, Axis, COLOURS, Curve, plain},
    report::{GREY, Line, Result, SIZE, chart, covering, curves, legend, swatch, upright, whole},
    setting::{CERTAIN, PULL, Setting},
};

/// A margin on its own: its name, its place in m0..m3, the values that are drawn, and the range of the predictions.
struct Family {
    name: &'static str,
    place: usize,
    values: &'static [f64],
    range: (f64, f64, usize),
}

const FAMILIES: [Family; 4] = [
    Family { name: "m0 (AmpFace)", place: 0, values: &[1.0, 0.8, 0.65, 0.5, 0.35, 0.2], range: (0.2, 0.1, 8) },
    Family { name: "m1 (SphereFace)", place: 1, values: &[1.0, 1.2, 1.35, 1.6, 1.85, 2.2], range: (1.0, 0.2, 6) },
    Family { name: "m2 (ArcFace)", place: 2, values: &[0.0, 0.2, 0.4, 0.5, 0.6, 0.8], range: (0.0, 0.1, 9) },
    Family { name: "m3 (CosFace)", place: 3, values: &[0.0, 0.2, 0.35, 0.5, 0.65, 0.8], range: (0.0, 0.1, 8) },
];

impl Family {
    /// The four margins with this value in its place.
    fn margins(&self, value: f64) -> [f64; 4] {
        let mut margins = [1.0, 1.0, 0.0, 0.0];
        margins[self.place] = value;
        margins
    }
}

/// The margins whose losses figure 5 compares: the paper's predictions, in steps of 0.05.
const PREDICTED: [f64; 4] = [0.35, 1.85, 0.6, 0.5];

/// All of them.
pub fn sections(page: &mut String, setting: &Setting) -> Result<()> {
    over_values(page, setting)?;
    over_the_margin(page, setting)?;
    predicted(page, setting)
}

/// Figures 2 and 3: a picture per margin, a line per value.
fn over_values(page: &mut String, setting: &Setting) -> Result<()> {
    page.push_str(
        "<h2>One margin at a time</h2>
<p>Left, the loss of an embedding that has the same angle to all prototypes: training begins at 90°, and a loss that falls
from there to 180° invites a collapse, with all prototypes in one point and every embedding opposite to it. Middle and
right, the loss and its gradient over the angle to the own prototype, with the others at random. No fallback, as in the
paper, so that m1 and m2 turn the curve round where m1·θ + m2 passes 180°.</p>\n",
    );
    for family in &FAMILIES {
        let line = |(&value, colour)| Line {
            name: format!("m{} = {value}", family.place),
            loss: setting.loss(family.margins(value), Fallback::None),
            colour,
            dashed: false,
            from: 0.0,
        };
        let lines: Vec<Line> = family.values.iter().zip(COLOURS).map(line).collect();
        let classes = setting.classes;
        let equal = curves(setting, &lines, &|loss, _, angle| theory::equal_angle_loss(loss, classes, angle))?;
        let loss = curves(setting, &lines, &theory::row_loss)?;
        let pull = curves(setting, &lines, &theory::gradient)?;
        let equal_axis = covering("loss at equal angles", &equal);
        writeln!(
            page,
            "<h3>{}</h3><figure>{}<div class=\"three\">{}{}{}</div></figure>",
            family.name,
            legend(setting, &lines),
            charts::lines("Loss at an equal angle to all prototypes", SIZE, &equal_angles(), &equal_axis, &equal)?,
            chart(setting, "Loss", &whole(), &covering("loss", &loss), loss)?,
            chart(setting, "Gradient", &whole(), &covering("gradient dL/dθ, per radian", &pull), pull)?,
        )?;
    }
    Ok(())
}

fn equal_angles() -> Axis {
    Axis { title: "angle to all prototypes, °", ..whole() }
}

/// Figure 4's theory: where training stops over each margin, and where an embedding then lies on average.
fn over_the_margin(page: &mut String, setting: &Setting) -> Result<()> {
    let (nearest, half) = (setting.nearest.to_degrees(), setting.half().to_degrees());
    let key = [
        swatch("stops where P(y) = 0.95", COLOURS[0], false),
        swatch("stops where dL/dθ = 1", COLOURS[1], false),
        swatch("mean within the first: M_intra", COLOURS[0], true),
        swatch(&format!("nearest prototype, {nearest:.2}°: M_inter"), COLOURS[2], false),
        swatch(&format!("half way, {half:.2}°, and the margin that stops there"), GREY, false),
    ]
    .concat();
    write!(
        page,
        "<h2>Predictions over the margin</h2>
<p>Training stops at an angle that the margin chooses; embeddings spread over that cap lie near its rim on average. The
distance to the nearest other prototype has nothing to do with the margin: these are predictions, which the example
<code>margins</code> compares with what is measured.</p>\n<figure><p class=\"key\">{key}</p><div class=\"two\">"
    )?;
    let best = theory::optimal_margin(setting.half(), setting.ln_b, setting.scale, Criterion::Probability(CERTAIN))?;
    for (family, best) in FAMILIES.iter().zip([best.m0, best.m1, best.m2, best.m3]) {
        let mut lines = [const { Vec::new() }; 3];
        let (first, step, count) = family.range;
        for i in 0..=count * 10 {
            let value = first + step * i as f64 / 10.0;
            let loss = setting.loss(family.margins(value), Fallback::None);
            let stop = |criterion| theory::termination_angle(&loss, setting.ln_b, criterion);
            let (certain, pull) = (stop(Criterion::Probability(CERTAIN))?, stop(Criterion::Gradient(PULL))?);
            let within = |cap: f64| theory::mean_angle_within(cap, setting.dim);
            let mean = certain.filter(|&cap| cap > 0.0).map(within).transpose()?;
            for (line, angle) in lines.iter_mut().zip([certain, pull, mean]) {
                line.push((value, angle.map_or(f64::NAN, f64::to_degrees))); // a line breaks where there is none
            }
        }
        let x = Axis::steps(TITLES[family.place], first, step, count, plain);
        let y = Axis::steps("angle, °", 0.0, 10.0, 9, plain);
        let colours = [(COLOURS[0], false), (COLOURS[1], false), (COLOURS[0], true)];
        let last = first + step * count as f64;
        let level = |angle, colour| Curve { colour, dashed: false, points: vec![(first, angle), (last, angle)] };
        let mut all = vec![level(half, GREY), level(nearest, COLOURS[2])];
        all.extend(best.map(|best| upright(best, &y, GREY, false)));
        let drawn = lines.into_iter().zip(colours).map(|(points, (colour, dashed))| Curve { colour, dashed, points });
        all.extend(drawn);
        let best = best.map_or("no value stops half way".into(), |best| format!("{best:.3} stops half way"));
        let label = format!("Predicted angles over {}", family.name);
        writeln!(page, "<div><h3>{}: {best}</h3>{}</div>", family.name, charts::lines(&label, SIZE, &x, &y, &all)?)?;
    }
    page.push_str("</div></figure>\n");
    Ok(())
}

/// Of the axes; an axis keeps its title.
const TITLES: [&str; 4] = ["m0", "m1", "m2, radians", "m3"];

/// Figure 5: the losses with the margins that the paper predicts, between its two lines.
fn predicted(page: &mut String, setting: &Setting) -> Result<()> {
    let line = |(family, colour): (&Family, _)| {
        let value = PREDICTED[family.place];
        Line {
            name: format!("m{} = {value}", family.place),
            loss: setting.loss(family.margins(value), Fallback::None),
            colour,
            dashed: false,
            from: 0.0,
        }
    };
    let lines: Vec<Line> = FAMILIES.iter().zip(&COLOURS[1..]).map(|(family, &colour)| line((family, colour))).collect();
    let x = Axis::steps("angle θ to the own prototype, °", 0.0, 15.0, 6, plain);
    let mut pictures = Vec::new();
    for (label, title, of) in [
        ("Loss", "loss", &theory::row_loss as &dyn Fn(&_, f64, f64) -> _),
        ("Gradient", "gradient dL/dθ, per radian", &theory::gradient),
    ] {
        let drawn = curves(setting, &lines, of)?;
        // only what is in the picture sets its height
        let inside = |c: &Curve| {
            let points = c.points.iter().copied().filter(|&(x, _)| x <= 90.0).collect();
            Curve { colour: c.colour, dashed: false, points }
        };
        let drawn: Vec<Curve> = drawn.iter().map(inside).collect();
        let y = covering(title, &drawn);
        let marks = [setting.half(), setting.nearest].map(|angle| upright(angle.to_degrees(), &y, GREY, true));
        let all: Vec<Curve> = marks.into_iter().chain(drawn).collect();
        pictures.push(charts::lines(&format!("{label} with the margins the paper predicts"), SIZE, &x, &y, &all)?);
    }
    let keys: String = lines.iter().map(|line| swatch(&line.name, line.colour, false)).collect();
    let both = format!(
        "half way to the nearest prototype, {:.2}°, and the nearest prototype, {:.2}°",
        setting.half().to_degrees(),
        setting.nearest.to_degrees()
    );
    let paper = "Figure 5 with its own margins: m0 = 0.35, m1 = 1.85, m2 = 0.6, m3 = 0.5, which the paper chose in steps of \
                 0.05 for 85,742 classes in 512 dimensions at scale 64. There the lines are at 39.32° and 78.64°, \
                 and all four losses vanish near the first: embeddings nearer to their prototype feel nothing.";
    writeln!(
        page,
        "<h2>The predicted margins between both lines</h2>\n<p>{paper}</p>\n<figure><p class=\"key\">{keys}{}</p>\
         <div class=\"two\">{}</div></figure>",
        swatch(&both, GREY, true),
        pictures.concat()
    )?;
    Ok(())
}
