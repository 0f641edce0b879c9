//! The result as one table, and as one HTML page that needs nothing else.

use std::{f64::consts::PI, fmt::Write, time::Duration};

use margin_softmax::{MarginSoftmax, Similarity};
use ndarray::{Array2, ArrayView1};
use plotters::style::RGBColor;

use crate::{
    common::{
        Result,
        charts::{self, Axis, COLOURS, Curve, Panel, plain},
        digits::{Digits, SEEN, UNSEEN},
        page::{self, escape, swatch},
    },
    metrics::Scores,
    training::{LOSSES, Loss, Run, Settings},
};

/// A loss, its run and its scores.
pub struct Trained {
    pub loss: Loss,
    pub run: Run,
    pub scores: Scores,
}

/// Everything that the page shows.
pub struct Report<'a> {
    pub device: &'a str,
    pub settings: Settings,
    pub digits: &'a Digits,
    pub untrained: &'a Scores,
    pub trained: &'a [Trained],
    /// The runs with three-dimensional embeddings.
    pub spheres: &'a [Trained],
}

/// Bins of the angle histograms, degrees.
const BIN: f64 = 3.0;

const HEADER: [&str; 8] =
    ["loss", "margin, scale", "test accuracy, %", "unseen EER, %", "M_intra, °", "M_inter, °", "step, ms", "head, ms"];

/// Header and rows of the result, for the terminal and for the page.
pub fn table(untrained: &Scores, trained: &[Trained]) -> ([&'static str; 8], Vec<Vec<String>>) {
    let scores =
        |s: &Scores| [100.0 * s.accuracy, 100.0 * s.eer, s.m_intra(), s.m_inter()].map(|v| format!("{v:.1}")).to_vec();
    let time = |t: Duration| format!("{:.3}", t.as_secs_f64() * 1e3);
    let cells = |texts: [&str; 2], middle: Vec<String>, times: [String; 2]| {
        texts.map(String::from).into_iter().chain(middle).chain(times).collect::<Vec<_>>()
    };
    let first = cells(["untrained", "–"], scores(untrained), ["–", "–"].map(String::from));
    let rest = trained.iter().map(|t| {
        let times = [t.run.course.step, t.run.course.head].map(time);
        cells([&t.loss.title, &t.loss.numbers()], scores(&t.scores), times)
    });
    (HEADER, std::iter::once(first).chain(rest).collect())
}

/// ChebyAAM is close to ArcFace: dashes leave both in sight.
fn dashed(loss: &Loss) -> bool {
    loss.name == "chebyaam"
}

impl Report<'_> {
    /// A loss of this example keeps its colour whichever are chosen; any other takes the next one.
    fn colour(&self, loss: &Loss) -> RGBColor {
        let known = |loss: &Loss| LOSSES.iter().position(|(name, _)| *name == loss.name);
        let others = self.trained.iter().map(|t| &t.loss).filter(|l| known(l).is_none());
        let place = || LOSSES.len() + others.take_while(|l| *l != loss).count();
        COLOURS[known(loss).unwrap_or_else(place) % COLOURS.len()]
    }

    /// The page.
    pub fn html(&self) -> Result<String> {
        let Settings { epochs, seed, dim, sub_centers, .. } = self.settings;
        let seen = SEEN.map(|d| d.to_string()).join(", ");
        let [one, other] = UNSEEN;
        let prototypes = if sub_centers == 1 { String::new() } else { format!(", {sub_centers} prototypes per class") };
        let mut page = String::new();
        write!(
            page,
            "<h1>Margin losses on handwritten digits</h1>
<p>A small network (64 → 128, ReLU, → {dim}) learns the digits {seen} of the UCI optical digits with one loss after the
other: {train} images to train on, {test} to test on, {epochs} {times}{prototypes}, seed {seed}, the same first weights and the same
order of images for each. The digits {one} and {other} are never trained; all pairs of their {unseen} images ask whether
two images show the same digit.</p>{beside}
<p class=\"device\">Head computed by: {device}</p>\n",
            times = if epochs == 1 { "epoch" } else { "epochs" },
            train = self.digits.train.labels.len(),
            test = self.digits.test.labels.len(),
            unseen = self.digits.unseen.labels.len(),
            device = escape(self.device),
            beside = match self.settings.beside() {
                all if all.is_empty() => String::new(),
                all => format!("\n<p>Beside every loss: {}.</p>", escape(&all.join("; "))),
            },
        )?;
        self.result(&mut page)?;
        self.training(&mut page)?;
        self.curves(&mut page)?;
        self.angles(&mut page)?;
        self.globes(&mut page)?;
        Ok(page::page("Margin losses on handwritten digits", &page, FOOTER))
    }

    fn result(&self, page: &mut String) -> Result<()> {
        let (header, rows) = table(self.untrained, self.trained);
        page.push_str("<h2>Result</h2>\n");
        let key = |row: usize| row.checked_sub(1).map(|i| self.colour(&self.trained[i].loss));
        page::table(page, &header, &rows, key)?;
        page.push_str(
            "<p>Test accuracy is the share of test images whose own prototype is the nearest. EER, the equal error rate, is the
share of wrong answers at that threshold on the cosine of two embeddings where the same share of different pairs is
accepted as of same pairs is refused; lower is better. M_intra is the mean angle of a test image to its own
prototype, M_inter to the nearest other one. Eight classes teach little about others: the EER depends on the two
digits that are left out, which were picked as a pair where training helps, and it does not say which loss is best
(examples/common/digits.rs has the mean over all pairs). A step is network forward, head, network backward and Adam,
for 64 images; the head is part of it.</p>\n",
        );
        for t in self.trained {
            if let Some(collapse) = t.scores.collapse {
                writeln!(page, "<p>{}: {collapse}.</p>", escape(&t.loss.title))?;
            }
        }
        if self.trained.iter().any(|t| t.loss.name == "ampface") {
            page.push_str(
                "<p>WC-ReLU: other classes at more than 90° exert no force. Without it AmpFace pushes them harder than it pulls the
own class: the prototypes drift together and the images end up opposite, at more than 90° from their own.</p>\n",
            );
        }
        Ok(())
    }

    fn training(&self, page: &mut String) -> Result<()> {
        // a loss may reach 0, which has no logarithm
        let log = |loss: f64| loss.max(1e-9).log10();
        let all = || self.trained.iter().flat_map(|t| t.run.course.losses.iter().map(|&loss| log(loss)));
        let low = all().fold(f64::INFINITY, f64::min).floor();
        let high = all().fold(f64::NEG_INFINITY, f64::max).ceil().max(low + 1.0);
        let y = Axis::steps("mean training loss", low, 1.0, (high - low) as usize, |v| plain(10_f64.powf(v)));
        let x = Axis::up_to("epoch", self.settings.epochs as f64, 12, plain);
        let curve = |t: &Trained| {
            let points = t.run.course.losses.iter().enumerate().map(|(i, &loss)| (i as f64, log(loss))).collect();
            Curve { colour: self.colour(&t.loss), dashed: dashed(&t.loss), points }
        };
        let curves: Vec<Curve> = self.trained.iter().map(curve).collect();
        write!(
            page,
            "<h2>Training loss</h2>
<p>A margin makes the task harder, so its curve lies higher; only the course of one curve can be read, not which of
two losses is better. At 0 stands the loss of the first step, before anything is learnt.</p>\n<figure>{}{}</figure>\n",
            self.legend(),
            charts::lines("Mean training loss over the epochs, one line per loss", (960, 360), &x, &y, &curves)?,
        )?;
        Ok(())
    }

    /// The losses over angles: a product has none.
    fn angular(&self) -> Vec<&Loss> {
        self.trained.iter().map(|t| &t.loss).filter(|l| l.loss.similarity == Similarity::Cosine).collect()
    }

    /// Value (0) or slope (1) of every target curve over the angle in degrees.
    fn targets(&self, pick: fn((f64, f64)) -> f64, steps_per_degree: u32) -> Vec<Curve> {
        let of = |loss: &MarginSoftmax| {
            let degrees = (0..=180 * steps_per_degree).map(|i| f64::from(i) / f64::from(steps_per_degree));
            degrees.map(|d| (d, pick(loss.target_value_slope(d.to_radians().cos())))).collect()
        };
        let curve = |l: &Loss| Curve { colour: self.colour(l), dashed: dashed(l), points: of(&l.loss) };
        self.angular().into_iter().map(curve).collect()
    }

    fn logits(&self, size: (u32, u32), steps_per_degree: u32) -> Result<String> {
        let x = Axis::steps("angle θ to the own prototype, °", 0.0, 30.0, 6, plain);
        let y = Axis::steps("target logit φ, before the scale", -1.5, 0.5, 5, plain);
        let curves = self.targets(|v| v.0, steps_per_degree);
        charts::lines("Target logit over the angle, one line per loss", size, &x, &y, &curves)
    }

    fn curves(&self, page: &mut String) -> Result<()> {
        if self.angular().is_empty() {
            return Ok(());
        }
        let slopes = self.targets(|v| v.1, 20);
        let x = |step: f64| Axis::steps("angle θ to the own prototype, °", 0.0, step, 6, plain);
        let slope = Axis::steps("slope dφ/d cos θ", -1.0, 1.0, 6, plain);
        let steep = Axis::steps("slope dφ/d cos θ", 0.0, 5.0, 5, plain);
        let size = (330, 290);
        write!(
            page,
            "<h2>Target logit and its slope</h2>
<p>The logit of the labelled class as a function of its angle. NormFace is the cosine itself; a margin lowers the
logit and so asks for a smaller angle. The slope is the factor on the gradient of that class. ArcFace's has no bound
towards 0° and leaves the picture; ChebyAAM's (dashed) follows it but is the slope of a polynomial, so it bends to a
finite value. Past the angle where θ + m2 reaches 180° both continue with slope 1. NormFace and CosFace share the
slope 1.</p>
<figure>{}<div class=\"three\"><div><h3>Logit φ</h3>{}</div><div><h3>Slope</h3>{}</div>
<div><h3>Slope at small angles</h3>{}</div></div></figure>\n",
            self.legend(),
            self.logits(size, 20)?,
            charts::lines("Slope over the angle, one line per loss", size, &x(30.0), &slope, &slopes)?,
            charts::lines("Slope over small angles, one line per loss", size, &x(2.0), &steep, &slopes)?,
        )?;
        Ok(())
    }

    /// A histogram per loss: the test images' angles to their own prototype and to the nearest other one.
    fn histograms(&self, size: (u32, u32)) -> Result<Vec<String>> {
        let all = || self.trained.iter().flat_map(|t| t.scores.intra.iter().chain(&t.scores.inter));
        let most = all().fold(0.0_f64, |a, &b| a.max(b));
        let bins = |angles: &[f64]| {
            let mut shares = vec![0.0; (180.0 / BIN) as usize];
            let last = shares.len() - 1;
            angles.iter().for_each(|angle| shares[((angle / BIN) as usize).min(last)] += 100.0 / angles.len() as f64);
            shares
        };
        let shares: Vec<[Vec<f64>; 2]> =
            self.trained.iter().map(|t| [bins(&t.scores.inter), bins(&t.scores.intra)]).collect();
        let highest = shares.iter().flatten().flatten().fold(0.0_f64, |a, &b| a.max(b));
        let draw = |(t, [inter, intra]): (&Trained, &[Vec<f64>; 2])| {
            let x = Axis::steps("angle, °", 0.0, 30.0, (most / 30.0).ceil().max(1.0) as usize, plain);
            let y = Axis::up_to("test images, %", highest, 5, plain);
            let [neutral, own] = charts::pair(self.colour(&t.loss));
            let label = format!("Histogram of the angles with {}", escape(&t.loss.title));
            charts::histograms(&label, size, &x, &y, BIN, [(inter, neutral), (intra, own)])
        };
        self.trained.iter().zip(&shares).map(draw).collect()
    }

    fn angles(&self, page: &mut String) -> Result<()> {
        page.push_str(
            "<h2>Angles of the test images</h2>
<p>In colour the angle to the own prototype, in grey the angle to the nearest other prototype. A margin draws the
images towards their prototype; where the two overlap, images are taken for another digit or nearly so.</p>
<figure><div class=\"three\">\n",
        );
        for (t, histogram) in self.trained.iter().zip(self.histograms((330, 250))?) {
            writeln!(
                page,
                "<div><h3>{}</h3><p class=\"key\">{}own, mean {:.1}° &ensp; <i class=\"other\"></i>other, mean {:.1}°</p>{}</div>",
                escape(&t.loss.title),
                swatch(self.colour(&t.loss)),
                t.scores.m_intra(),
                t.scores.m_inter(),
                histogram,
            )?;
        }
        page.push_str("</div></figure>\n");
        Ok(())
    }

    /// The README's picture, an SVG file: the target logits, and the angles under the first two losses.
    pub fn picture(&self) -> Result<String> {
        let size = (330, 250);
        let key = |t: &Trained| (escape(&t.loss.title), Some(self.colour(&t.loss)));
        let mut panels = vec![Panel {
            title: "A margin lowers the logit".to_string(),
            key: self.trained.iter().map(key).collect(),
            chart: self.logits(size, 1)?,
        }];
        for (t, chart) in self.trained.iter().zip(self.histograms(size)?).take(2) {
            let (own, other) = (t.scores.m_intra(), t.scores.m_inter());
            panels.push(Panel {
                title: escape(&t.loss.title),
                key: vec![
                    (format!("own prototype {own:.0}°,"), Some(self.colour(&t.loss))),
                    (format!("nearest other {other:.0}°"), None),
                ],
                chart,
            });
        }
        let label = "Target logits over the angle, and angles of test images to their own and to other prototypes";
        charts::sheet(label, size, &panels)
    }

    fn globes(&self, page: &mut String) -> Result<()> {
        page.push_str(
            "<h2>Three dimensions</h2>
<p>The same network with embeddings of length three, trained for this picture: every test image is a point on the
sphere, every numbered disc a prototype; small and pale is the far side. All spheres are seen from the same
direction. Eight classes are crowded on a sphere, so accuracy is lower than above; a margin draws each cluster
together.</p>\n<figure><p class=\"key\">",
        );
        for (class, digit) in SEEN.iter().enumerate() {
            write!(page, "<span>{}{digit}</span>", swatch(COLOURS[class % COLOURS.len()]))?;
        }
        page.push_str("</p><div class=\"two\">\n");
        let view = View::of(self.spheres);
        for t in self.spheres {
            let (points, marks) =
                (view.turn(&t.run.model.embed(&self.digits.test)), view.turn(&t.run.model.prototypes.value));
            let points: Vec<_> = points.into_iter().zip(self.digits.test.labels.iter().map(|&l| l as usize)).collect();
            let class = |prototype: usize| prototype / self.settings.sub_centers;
            let mark = |(i, at): (usize, [f64; 3])| (at, class(i), SEEN[class(i)].to_string());
            let marks: Vec<_> = marks.into_iter().enumerate().map(mark).collect();
            writeln!(
                page,
                "<div><h3>{}</h3><p class=\"key\">accuracy {:.1} %, M_intra {:.1}°, M_inter {:.1}°</p>{}</div>",
                escape(&t.loss.title),
                100.0 * t.scores.accuracy,
                t.scores.m_intra(),
                t.scores.m_inter(),
                charts::sphere(
                    &format!("Test images on a sphere with {}", escape(&t.loss.title)),
                    460,
                    &points,
                    &marks
                )?,
            )?;
        }
        page.push_str("</div></figure>\n");
        Ok(())
    }

    /// Which line is which loss, above a picture rather than over its data.
    fn legend(&self) -> String {
        page::legend(self.trained.iter().map(|t| (t.loss.title.as_str(), self.colour(&t.loss), dashed(&t.loss))))
    }
}

/// Three axes of length 1: right, up, towards the reader.
struct View([[f64; 3]; 3]);

impl View {
    /// One direction for all models, whose prototypes begin at the same places: that from which the most prototypes are
    /// well in sight.
    fn of(models: &[Trained]) -> Self {
        let rows = models.iter().flat_map(|t| t.run.model.prototypes.value.rows());
        let prototypes: Vec<[f64; 3]> = rows.map(direction).collect();
        let sight = |front: &[f64; 3]| -> f64 { prototypes.iter().map(|p| dot(*p, *front).clamp(-0.3, 0.6)).sum() };
        let better = |a: [f64; 3], b: [f64; 3]| if sight(&b) > sight(&a) { b } else { a };
        let front = spread(1000).fold([0.0, 0.0, 1.0], better);
        // any two directions across; the flatter axis cannot be parallel to the front
        let flat = if front[1].abs() < 0.8 { [0.0, 1.0, 0.0] } else { [1.0, 0.0, 0.0] };
        let right = unit(cross(flat, front));
        Self([right, cross(front, right), front])
    }

    /// The directions of the rows in this view.
    fn turn(&self, rows: &Array2<f32>) -> Vec<[f64; 3]> {
        let turned = |row: ArrayView1<'_, f32>| {
            let direction = direction(row);
            self.0.map(|axis| dot(axis, direction))
        };
        rows.rows().into_iter().map(turned).collect()
    }
}

/// Evenly spread directions: a Fibonacci lattice.
fn spread(count: usize) -> impl Iterator<Item = [f64; 3]> {
    (0..count).map(move |i| {
        let height = 1.0 - (2 * i + 1) as f64 / count as f64;
        let (sin, cos) = (i as f64 * PI * (3.0 - 5_f64.sqrt())).sin_cos();
        let width = (1.0 - height * height).sqrt();
        [width * cos, height, width * sin]
    })
}

fn direction(row: ArrayView1<'_, f32>) -> [f64; 3] {
    unit([0, 1, 2].map(|k| f64::from(row[k])))
}

fn cross(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn unit(v: [f64; 3]) -> [f64; 3] {
    let length = dot(v, v).sqrt().max(1e-12);
    v.map(|x| x / length)
}

const FOOTER: &str = "Data: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning
Repository, 1998, doi:10.24432/C50P49, CC BY 4.0; the test part as packaged by scikit-learn.";
