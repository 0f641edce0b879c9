"""The theory of margins: where training stops, and which margin stops it half way to the next prototype."""

from ._native import theory as _theory

nearest_prototype_angle = _theory.nearest_prototype_angle
ln_wrong_class_sum = _theory.ln_wrong_class_sum
termination_angle = _theory.termination_angle
optimal_margin = _theory.optimal_margin
collapse_loss = _theory.collapse_loss
arcgrad_scale = _theory.arcgrad_scale
adacos_scale = _theory.adacos_scale

__all__ = [
    "adacos_scale",
    "arcgrad_scale",
    "collapse_loss",
    "ln_wrong_class_sum",
    "nearest_prototype_angle",
    "optimal_margin",
    "termination_angle",
]
