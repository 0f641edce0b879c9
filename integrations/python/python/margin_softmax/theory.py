"""The theory of margins: where training stops, and which margin stops it half way to the next prototype."""

from ._native import theory as _theory

nearest_prototype_angle = _theory.nearest_prototype_angle
ln_wrong_class_sum = _theory.ln_wrong_class_sum
ln_wrong_class_sum_rectified = _theory.ln_wrong_class_sum_rectified
ln_wrong_class_sum_variance = _theory.ln_wrong_class_sum_variance
mean_angle_within = _theory.mean_angle_within
termination_angle = _theory.termination_angle
optimal_margin = _theory.optimal_margin
equal_angle_loss = _theory.equal_angle_loss
collapse_loss = _theory.collapse_loss
arcgrad_scale = _theory.arcgrad_scale
adacos_scale = _theory.adacos_scale

__all__ = [
    "adacos_scale",
    "arcgrad_scale",
    "collapse_loss",
    "equal_angle_loss",
    "ln_wrong_class_sum",
    "ln_wrong_class_sum_rectified",
    "ln_wrong_class_sum_variance",
    "mean_angle_within",
    "nearest_prototype_angle",
    "optimal_margin",
    "termination_angle",
]
