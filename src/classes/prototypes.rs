//! Prototypes of classes that a head has not seen yet.

use super::tensors::check_size;
use crate::{
    Error, Result, Shape,
    monitor::{ClassCenters, norm},
    objective::{SHORTEST, in_range, random::normal},
    shape::check_length,
};

/// How prototypes of new classes begin: the first sub-centre in the mean direction of the embeddings of its class, the others
/// a little turned away from it, since equal sub-centres would stay equal: the first of them would get every gradient.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NewPrototypes {
    /// How long they are; the default is [`PrototypeLength::Mean`].
    pub length: PrototypeLength,
    /// The angle between the first sub-centre of a class and each other one, 0 to π/2 radians; default 0.1 (6°). Not used with
    /// one prototype per class.
    pub spread: f64,
    /// Of the directions in which sub-centres are turned; default 0.
    pub seed: u64,
}

/// The length of new prototypes. A cosine does not depend on it, but the length of a step's turn does, and so does the logit of
/// a linear head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PrototypeLength {
    /// The mean length of the prototypes that are there.
    #[default]
    Mean,
    /// 1.
    Unit,
}

impl Default for NewPrototypes {
    fn default() -> Self {
        Self { length: PrototypeLength::Mean, spread: 0.1, seed: 0 }
    }
}

impl NewPrototypes {
    /// Prototypes \[C' − C, K, D\] of the classes C to C' − 1, for [`ClassMap::values`](super::ClassMap::values): `shape` and
    /// `prototypes` \[C, K, D\] are those of the old head, `centers` are of C' classes and hold embeddings of every new class
    /// ([`add_directions`](ClassCenters::add_directions), with labels as in the new head; old classes may be among them). In f64,
    /// rounded once.
    ///
    /// [`Error::Length`] where `prototypes` or the dim of `centers` do not fit, [`Error::Size`] if `centers` has fewer classes
    /// than the head, [`Error::Parameter`] for `spread` outside its range and for prototypes that are not finite,
    /// [`Error::Class`] for a new class without an embedding, or whose embeddings cancel one another,
    /// [`Error::Combination`] for the mean length of prototypes that are all 0.
    pub fn from_centers(&self, shape: Shape, prototypes: &[f32], centers: &ClassCenters) -> Result<Vec<f32>> {
        let (old, k, dim) = (shape.classes(), shape.sub_centers(), shape.dim());
        let (classes, center_dim) = centers.sizes();
        check_length("dim of the centers", center_dim, dim)?;
        let range = 0.0..=std::f64::consts::FRAC_PI_2;
        in_range("spread", self.spread, range.contains(&self.spread), "0 <= spread <= pi/2 (radians)")?;
        let Some(added) = classes.checked_sub(old) else {
            let (needed, allowed) = (old as u64, classes as u64);
            return Err(Error::Size { what: "classes of the head", needed, allowed });
        };
        check_length("prototypes", prototypes.len(), shape.prototypes()?)?;
        check_size(classes, k * dim)?;
        let length = self.length_of(prototypes, dim)?;

        let mut new = Vec::with_capacity(added * k * dim);
        for class in old..classes {
            let first = direction(centers, class)?;
            for sub_center in 0..k {
                // the place among all prototypes of the new head
                let turned = self.turned(&first, sub_center, (class * k + sub_center) as u64);
                new.extend(turned.iter().map(|v| (v * length) as f32));
            }
        }
        Ok(new)
    }

    fn length_of(&self, prototypes: &[f32], dim: usize) -> Result<f64> {
        if self.length == PrototypeLength::Unit {
            return Ok(1.0);
        }
        let lengths = prototypes.chunks_exact(dim).map(|w| norm(&w.iter().map(|&v| v.into()).collect::<Vec<f64>>()));
        let mean = lengths.sum::<f64>() / (prototypes.len() / dim) as f64;
        in_range("prototypes", mean, true, "finite values")?;
        if mean < SHORTEST {
            let why = "the prototypes have none to take the mean of: choose the length 1";
            return Err(Error::Combination { what: "length", why });
        }
        Ok(mean)
    }

    /// A unit vector at the angle `spread` from the first, which the first sub-centre is itself.
    fn turned(&self, first: &[f64], sub_center: usize, place: u64) -> Vec<f64> {
        let mut side: Vec<f64> = (0..first.len() as u64).map(|i| normal(self.seed, place, i)).collect();
        let along: f64 = side.iter().zip(first).map(|(a, b)| a * b).sum();
        side.iter_mut().zip(first).for_each(|(a, b)| *a -= along * b);
        let across = norm(&side);
        // in one dimension there is no other direction
        if sub_center == 0 || across < 1e-6 {
            return first.to_vec();
        }
        let (sin, cos) = self.spread.sin_cos();
        first.iter().zip(&side).map(|(a, b)| cos * a + sin * b / across).collect()
    }
}

/// The mean direction of a class.
fn direction(centers: &ClassCenters, class: usize) -> Result<Vec<f64>> {
    let Some((count, sum)) = centers.of(class) else {
        return Err(Error::Class { class, why: "has no embedding to begin from" });
    };
    let total = norm(sum);
    // below this what is left of a sum of directions is rounding
    if total < SHORTEST * count as f64 {
        return Err(Error::Class { class, why: "has embeddings that cancel one another: they have no mean direction" });
    }
    Ok(sum.iter().map(|v| v / total).collect())
}
