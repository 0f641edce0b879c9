//! The parts of kernels that a loss brings: its curves, their link, and how a class' cosine follows from its prototypes.

use std::sync::Arc;

use super::kernel::Recipe;
use crate::{
    Link, MarginSoftmax, Others, Shape, Similarity,
    objective::snippet::{SharedText, Snippet, wgsl},
};

pub(super) const EXPONENTIAL: &str = wgsl!("common/exponential");
pub(super) const ANGLE: &str = wgsl!("common/angle");

/// The parts of a loss that decide which kernels it needs; all other kernels serve every loss.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snippets {
    pub(super) target: Snippet,
    /// The text of a curve from outside.
    custom: Option<Arc<str>>,
    others: Snippet,
    /// The text of a transform from outside.
    custom_others: Option<Arc<str>>,
    pub(super) link: Snippet,
    similarity: Similarity,
    /// For people: the target, the transform of the others, and the link if it is not the usual one.
    names: [Arc<str>; 3],
    /// More than one prototype per class.
    pub(super) many: bool,
    /// Targets of a row beside its label.
    pub(super) targets: usize,
    pub stages: Stages,
}

/// The steps that only some losses have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Stages {
    /// A state that is updated from the batch.
    pub update_state: bool,
    /// The scale is part of that state, and its update needs the cosines at the scale before.
    pub scale: bool,
    /// Noise on the margins.
    pub margin_noise: bool,
    /// Hardest classes that are selected.
    pub top_k: usize,
    /// Other classes that look at the target of their row.
    pub sees_target: bool,
}

impl Snippets {
    pub fn of(loss: &MarginSoftmax, shape: Shape) -> Self {
        let custom = loss.custom();
        let target = custom.map_or(loss.target.name(), |margin| margin.name());
        let others = loss.custom_others().map_or(loss.others.name(), |curve| curve.name());
        let stages = Stages {
            update_state: loss.state_follows(),
            scale: loss.scale_follows(),
            margin_noise: loss.draws().is_some(),
            top_k: loss.top_k(),
            sees_target: loss.others.sees_target(),
        };
        Self {
            target: loss.target.snippet(),
            custom: custom.map(|margin| margin.wgsl().into()),
            others: loss.others.snippet(),
            custom_others: loss.custom_others().map(|curve| curve.wgsl().into()),
            link: loss.link.snippet(),
            similarity: loss.similarity,
            names: [target, others, loss.link.name()].map(Arc::from),
            many: shape.sub_centers() > 1,
            targets: 0,
            stages,
        }
    }

    /// Whether the target's curve comes from outside.
    pub fn is_custom(&self) -> bool {
        self.custom.is_some()
    }

    /// Those of the pass that AdaCos makes at the scale before: raw cosines.
    pub fn raw(&self) -> Self {
        let (others, link) = (Others::Identity, Link::Softmax);
        let names = [self.names[0].clone(), others.name().into(), link.name().into()];
        Self { others: others.snippet(), custom_others: None, link: link.snippet(), names, targets: 0, ..self.clone() }
    }

    /// Those of rows with so many targets beside their labels.
    pub fn with_targets(self, targets: usize) -> Self {
        Self { targets, ..self }
    }

    /// A part that `one` target does without, bound last.
    pub(super) fn several(&self, recipe: Recipe, one: &'static str, several: &'static str) -> Recipe {
        if self.targets == 0 {
            return recipe.bound_part(one);
        }
        recipe.part(targets(self.targets)).bound_part(several)
    }

    /// The target and the transform of the others, and whatever else is not usual.
    pub fn name(&self) -> String {
        let [target, others, link] = &self.names;
        let mut name = format!("{target} + {others}");
        if **link != *Link::default().name() {
            name += &format!(" + {link}");
        }
        if self.similarity != Similarity::default() {
            name += &format!(" + {}", self.similarity.name());
        }
        let Stages { update_state, scale, margin_noise, top_k, .. } = self.stages;
        for (on, what) in [(update_state && !scale, "state"), (scale, "scale"), (margin_noise, "margin noise")] {
            if on {
                name += &format!(" + {what}");
            }
        }
        if top_k > 0 {
            name += &format!(" + top {top_k}");
        }
        name
    }

    /// The target's curve with what it calls.
    pub(super) fn target(&self, recipe: Recipe) -> Recipe {
        let recipe = with(recipe, self.target, &[]);
        match &self.custom {
            Some(text) => recipe.part(text.to_string()),
            None => recipe,
        }
    }

    /// The transform of the other classes beside a target or the link: what both call is there already.
    pub(super) fn other(&self, recipe: Recipe, beside: Snippet) -> Recipe {
        let recipe = with(recipe, self.others, beside.needs);
        match &self.custom_others {
            Some(text) => recipe.part(text.to_string()),
            None => recipe,
        }
    }

    /// Link and other classes as several targets of a row share them.
    pub(super) fn soft(&self, recipe: Recipe) -> Recipe {
        let recipe = self.other(self.link(recipe), self.link).part(targets(self.targets));
        recipe.part(if self.is_binary() { wgsl!("soft/soft_binary") } else { wgsl!("soft/soft_softmax") })
    }

    fn is_binary(&self) -> bool {
        *self.names[2] != *Link::default().name()
    }

    pub(super) fn link(&self, recipe: Recipe) -> Recipe {
        with(recipe, self.link, &[])
    }

    /// How a class' cosine follows from those of its prototypes; a linear head binds its bias last.
    pub(super) fn classes(&self, recipe: Recipe) -> Recipe {
        let recipe = recipe.part(if self.many { wgsl!("sub_centers/many") } else { wgsl!("sub_centers/one") });
        recipe.bound_part(match self.similarity {
            Similarity::Cosine => wgsl!("similarity/cosine"),
            Similarity::Dot => wgsl!("similarity/linear"),
        })
    }
}

/// A snippet with the texts that it calls, but for those that are there already.
fn with(recipe: Recipe, snippet: Snippet, there: &[SharedText]) -> Recipe {
    let missing = snippet.needs.iter().filter(|shared| !there.contains(shared));
    missing.fold(recipe, |recipe, &shared| recipe.part(text(shared))).part(snippet.text)
}

fn text(shared: SharedText) -> &'static str {
    match shared {
        SharedText::Angle => ANGLE,
        SharedText::Series => wgsl!("common/series"),
        SharedText::Exponential => EXPONENTIAL,
        SharedText::PowerCurve => wgsl!("common/power_curve"),
        SharedText::FixedMargins => wgsl!("target/fixed"),
    }
}

/// The number of targets of a row beside its label, for a shader.
pub(super) fn targets(count: usize) -> String {
    format!("const TARGETS = {count}u;")
}
