//! The direction from which the spheres are seen.

use ndarray::{Array2, ArrayView1};

/// A rotation of three-dimensional vectors.
pub struct View {
    from: [f64; 3],
    to: [f64; 3],
}

/// Right, up, and a little towards the reader: there prototypes and what flees from them are both in sight.
const PLACE: [f64; 3] = [0.70, 0.45, 0.55];

impl View {
    /// The rotation that brings the mean direction of these prototypes to one place of the picture.
    pub fn of(prototypes: &Array2<f32>) -> Self {
        let directions = prototypes.rows().into_iter().map(direction);
        let mean = directions.fold([0.0; 3], |sum, d| std::array::from_fn(|k| sum[k] + d[k]));
        let (from, to) = (unit(mean), unit(PLACE));
        // opposite directions have no shortest rotation
        Self { from, to: if dot(from, to) < -0.99 { from } else { to } }
    }

    /// The directions of all rows, rotated.
    pub fn turn(&self, rows: &Array2<f32>) -> Vec<[f64; 3]> {
        let Self { from, to } = self;
        let both: [f64; 3] = std::array::from_fn(|k| from[k] + to[k]);
        let one = |row: ArrayView1<'_, f32>| {
            let v = direction(row);
            let (along, own) = (dot(both, v) / (1.0 + dot(*from, *to)), 2.0 * dot(*from, v));
            std::array::from_fn(|k| v[k] - along * both[k] + own * to[k])
        };
        rows.rows().into_iter().map(one).collect()
    }
}

fn direction(row: ArrayView1<'_, f32>) -> [f64; 3] {
    unit(std::array::from_fn(|k| row.get(k).copied().unwrap_or(0.0).into()))
}

fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// A zero vector stays one.
fn unit(v: [f64; 3]) -> [f64; 3] {
    let length = dot(v, v).sqrt().max(1e-12);
    v.map(|x| x / length)
}
