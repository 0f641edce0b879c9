"""Types of the native half. Arrays are C-contiguous or copied; shapes: N rows, C classes, D values of a vector, K sub-centers."""

from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import Any, Literal, Optional, TypedDict, Union

import numpy as np
from numpy.typing import NDArray

__version__: str
theory: ModuleType
verification: ModuleType

Floats = NDArray[np.float32]
# embeddings and prototypes: float32, float16, bfloat16 by its bits, float64 for the reference
Vectors = Union[NDArray[np.float32], NDArray[np.float16], NDArray[np.uint16], NDArray[np.float64]]
Integers = NDArray[Any]

class DeviceError(RuntimeError):
    """A device that is not there, was lost, refused or did not answer; a head of a process that was forked."""

class Cancelled(RuntimeError):
    """A call whose progress callback returned False: it has written and moved nothing."""

class MarginSoftmax:
    """A margin-softmax loss. Every preset is a function of this class; keywords are the names of the JSON form.

    Numbers: ``scale`` 0 < s ≤ 1e6, ``m0`` to ``m3`` of the unified margin m0·cos(m1·θ + m2) − m3 (m2 in radians), ``curve``,
    ``slope`` ("analytic", "detached"), ``fallback`` ("continuous", "sine", "mirror", "none", "easy"), ``label_smoothing`` 0 ≤ ε < 1,
    ``focal`` 0 ≤ γ ≤ 16, ``z_loss`` 0 ≤ λ ≤ 1e3, ``reduction`` ("mean", "sum", "none"), ``ignore_index``.
    """

    @property
    def scale(self) -> float: ...
    @property
    def reduction(self) -> Literal["mean", "sum", "none"]: ...
    @property
    def ignore_index(self) -> Optional[int]: ...
    @property
    def is_linear(self) -> bool: ...
    @property
    def is_binary(self) -> bool: ...
    @property
    def scale_follows(self) -> bool: ...
    @staticmethod
    def preset(name: str, **numbers: Any) -> MarginSoftmax: ...
    @staticmethod
    def from_dict(dict: dict[str, Any]) -> MarginSoftmax: ...
    @staticmethod
    def from_json(text: str) -> MarginSoftmax: ...
    def to_json(self) -> str: ...
    def to_dict(self) -> dict[str, Any]: ...
    def replace(self, **numbers: Any) -> MarginSoftmax: ...
    def curve(self, cosines: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """φ and its slope at cosines, without scale."""
    @staticmethod
    def normface(**numbers: Any) -> MarginSoftmax: ...
    @staticmethod
    def cosface(**numbers: Any) -> MarginSoftmax: ...
    @staticmethod
    def arcface(**numbers: Any) -> MarginSoftmax: ...
    @staticmethod
    def arcface_insightface(**numbers: Any) -> MarginSoftmax: ...
    @staticmethod
    def arcface_pml(**numbers: Any) -> MarginSoftmax: ...
    @staticmethod
    def arcface_speaker(**numbers: Any) -> MarginSoftmax: ...
    @staticmethod
    def sphereface(**numbers: Any) -> MarginSoftmax: ...
    @staticmethod
    def sphereface_raw(**numbers: Any) -> MarginSoftmax: ...
    @staticmethod
    def ampface(**numbers: Any) -> MarginSoftmax: ...
    @staticmethod
    def chebyaam(**numbers: Any) -> MarginSoftmax: ...
    @staticmethod
    def chebyaam_fit(**numbers: Any) -> MarginSoftmax: ...
    @staticmethod
    def softmax(**numbers: Any) -> MarginSoftmax: ...
    @staticmethod
    def m_softmax(**numbers: Any) -> MarginSoftmax: ...
    @staticmethod
    def arcgrad(**numbers: Any) -> MarginSoftmax: ...
    @staticmethod
    def arcgrad_series(**numbers: Any) -> MarginSoftmax: ...
    @staticmethod
    def li_arcface(**numbers: Any) -> MarginSoftmax: ...
    @staticmethod
    def curricularface(**numbers: Any) -> MarginSoftmax: ...
    @staticmethod
    def adaface(**numbers: Any) -> MarginSoftmax: ...
    @staticmethod
    def magface(**numbers: Any) -> MarginSoftmax: ...
    @staticmethod
    def elasticface_arc(**numbers: Any) -> MarginSoftmax: ...
    @staticmethod
    def elasticface_arc_plus(**numbers: Any) -> MarginSoftmax: ...
    @staticmethod
    def elasticface_cos(**numbers: Any) -> MarginSoftmax: ...
    @staticmethod
    def elasticface_cos_plus(**numbers: Any) -> MarginSoftmax: ...
    @staticmethod
    def sphereface2(**numbers: Any) -> MarginSoftmax: ...
    @staticmethod
    def sphereface2_angular(**numbers: Any) -> MarginSoftmax: ...
    @staticmethod
    def sphereface2_opensphere(**numbers: Any) -> MarginSoftmax: ...
    @staticmethod
    def adacos(**numbers: Any) -> MarginSoftmax: ...
    @staticmethod
    def arcface_topk(**numbers: Any) -> MarginSoftmax: ...
    @staticmethod
    def arcface_filter(**numbers: Any) -> MarginSoftmax: ...
    @staticmethod
    def modified_softmax(**numbers: Any) -> MarginSoftmax: ...
    @staticmethod
    def a_softmax(**numbers: Any) -> MarginSoftmax: ...
    @staticmethod
    def mv_am(**numbers: Any) -> MarginSoftmax: ...
    @staticmethod
    def mv_arc(**numbers: Any) -> MarginSoftmax: ...
    @staticmethod
    def arcnegface(**numbers: Any) -> MarginSoftmax: ...
    @staticmethod
    def ampface_rectified(**numbers: Any) -> MarginSoftmax: ...

class State:
    """Step, seed and running statistics of a loss: all that a run must keep beside its parameters."""

    @property
    def step(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def hardness(self) -> float: ...
    @property
    def norm_mean(self) -> float: ...
    @property
    def norm_deviation(self) -> float: ...
    @property
    def scale(self) -> float: ...
    def replace(self, *, step: Optional[int] = None, seed: Optional[int] = None) -> State: ...
    def to_dict(self) -> dict[str, Any]: ...
    @staticmethod
    def from_dict(dict: dict[str, Any]) -> State: ...

class Predictions:
    """The k nearest classes of every row, best first; a class of -1 where a row has no prediction."""

    classes: NDArray[np.int64]
    cosines: Floats
    log_probabilities: Floats
    sub_centers: NDArray[np.int64]
    log_sum_exps: Optional[Floats]
    non_finite_rows: int
    non_finite_prototypes: int

class Output:
    """The result of one batch; float64 from a reference that was given float64."""

    loss: float
    normalizer: float
    row_losses: Floats
    log_sum_exps: Optional[Floats]
    target_cosines: Floats
    other_cosines: Floats
    grad_embeddings: Optional[Floats]
    grad_prototypes: Optional[Floats]
    grad_scale: Optional[float]
    grad_bias: Optional[Floats]
    grad_margins: Optional[Floats]
    """dL/dm0 to dL/dm3: [4], [C, 4] or [N, 4]."""
    counts: dict[str, int]
    filtered: Optional[dict[str, float]]
    predictions: Optional[Predictions]
    classes: Optional[NDArray[np.int64]]

class _Options(TypedDict, total=False):
    sub_centers: int
    """K prototypes of a class; default 1."""
    device: str
    """"best" (a hardware GPU, else the CPU; the default), "cpu", "gpu", "reference" (float64), or part of an adapter's name."""
    budget: Optional[int]
    """The most bytes of workspace; default 256 MiB."""
    want: Union[str, Sequence[Literal["embeddings", "prototypes", "scale", "bias", "margins", "class_margins", "row_margins"]]]
    """The gradients; default embeddings and prototypes. Those of the margins come summed over the batch, by class or by row."""
    threads: Optional[int]
    """Of the CPU path; default ``get_num_threads()``."""
    predictions: Optional[int]
    """k of the predictions that come with a step, 1 to 64."""
    soft_labels: Optional[int]
    """The most targets of a row, 1 to 16."""
    filter: Optional[float]
    """ε of a gradient filter."""
    tile: Optional[str]
    preset: Optional[str]
    work_per_submit: Optional[int]
    """The most multiply-adds of one submit to a GPU."""
    range: Optional[tuple[int, int]]
    """The classes of a shard."""
    progress: Optional[Callable[[int, int], Optional[bool]]]
    """Told within each call how much work is done, and how much there is; ``False`` ends the call with ``Cancelled``, an exception
    with itself. Called on a thread of the library; it cannot use a head."""

class _Arguments(TypedDict, total=False):
    class_weights: Optional[Floats]
    """[C]"""
    row_weights: Optional[Floats]
    """[N]"""
    divisor: Optional[float]
    """In the place of the sum of the weights, by which a mean divides."""
    upstream: Union[None, float, Floats]
    """The gradient from above: [N] with the reduction "none"."""
    bias: Optional[Floats]
    """[C], of a linear head."""
    class_margins: Optional[dict[str, Floats]]
    """m0 to m3, each [C]."""
    row_margins: Optional[dict[str, Floats]]
    """m0 to m3, each [N]."""
    soft_labels: Optional[tuple[Integers, Floats]]
    """Classes (negative: none) and weights, both [N, T]."""

class _Step(_Arguments, total=False):
    out: Optional[dict[str, NDArray[Any]]]
    """Arrays to write into: row_losses, target_cosines, other_cosines, grad_embeddings, grad_prototypes."""

class Head:
    """A head over numpy arrays, for batches of at most ``rows`` rows. Calls from several threads take turns.

    ValueError and TypeError name the argument, the value found and those allowed, before any work starts.
    """

    def __new__(cls, loss: MarginSoftmax, rows: int, classes: int, dim: int, **options: Any) -> Head: ...
    def evaluate(self, embeddings: Vectors, prototypes: Vectors, labels: Integers, **arguments: Any) -> Output:
        """Loss and gradients at the state as it is. Embeddings [N, D], prototypes [C, D] ([C, K, D]), labels [N]."""
    def train(self, embeddings: Vectors, prototypes: Vectors, labels: Integers, **arguments: Any) -> Output:
        """The same, and the state moves: of AdaCos, AdaFace, CurricularFace and ElasticFace; the step counts."""
    def targets(self, embeddings: Vectors, prototypes: Vectors, labels: Integers, **arguments: Any) -> NDArray[np.float64]: ...
    def follow(self, embeddings: Vectors, prototypes: Vectors, labels: Integers, targets: Iterable[NDArray[np.float64]], **arguments: Any) -> None: ...
    def statistics(
        self, embeddings: Vectors, prototypes: Vectors, labels: Integers, targets: Iterable[NDArray[np.float64]], **arguments: Any
    ) -> NDArray[np.float64]: ...
    def gradients(
        self,
        embeddings: Vectors,
        prototypes: Vectors,
        labels: Integers,
        targets: Iterable[NDArray[np.float64]],
        statistics: Iterable[NDArray[np.float64]],
        **arguments: Any,
    ) -> Output: ...
    def update(self, loss: MarginSoftmax) -> None: ...
    @property
    def loss(self) -> MarginSoftmax: ...
    @property
    def state(self) -> State: ...
    @state.setter
    def state(self, state: Union[State, dict[str, Any]]) -> None: ...
    @property
    def rows(self) -> int: ...
    @property
    def classes(self) -> int: ...
    @property
    def dim(self) -> int: ...
    @property
    def sub_centers(self) -> int: ...
    @property
    def range(self) -> tuple[int, int]: ...
    @property
    def schedule(self) -> Literal["keep", "recompute"]: ...
    @property
    def device(self) -> str: ...

class SampledHead:
    """Partial FC: steps over the classes of a batch and a share of the others at random."""

    def __new__(cls, loss: MarginSoftmax, rows: int, classes: int, dim: int, rate: float, *, seed: int = 0, **options: Any) -> SampledHead: ...
    def train(self, embeddings: Vectors, prototypes: Vectors, labels: Integers, **arguments: Any) -> Output:
        """``grad_prototypes`` has a row for each of ``classes``."""
    def evaluate(
        self, embeddings: Vectors, prototypes: Vectors, labels: Integers, over: Literal["all", "sampled"] = "all", **arguments: Any
    ) -> Output: ...
    def update(self, loss: MarginSoftmax) -> None: ...
    @property
    def loss(self) -> MarginSoftmax: ...
    @property
    def state(self) -> State: ...
    @state.setter
    def state(self, state: Union[State, dict[str, Any]]) -> None: ...
    @property
    def sampler(self) -> dict[str, Any]: ...
    @sampler.setter
    def sampler(self, sampler: dict[str, Any]) -> None: ...

class Predictor:
    """The k nearest classes of embeddings without labels, in bounded memory."""

    def __new__(cls, loss: MarginSoftmax, rows: int, classes: int, dim: int, k: int, **options: Any) -> Predictor: ...
    def predict(self, embeddings: Vectors, prototypes: Vectors, bias: Optional[Floats] = None) -> Predictions: ...
    def set_state(self, state: Union[State, dict[str, Any]]) -> None: ...

class Monitor:
    """Accuracy, angles and their histograms over any number of batches."""

    def __new__(cls, bins: int = 64) -> Monitor: ...
    def add(self, out: Output, labels: Integers, ignore_index: Optional[int] = None) -> None: ...
    def merge(self, other: Monitor) -> None: ...
    def report(self) -> dict[str, Any]: ...

class CollapseDetector:
    """Watches the reports of a run for polar collapse: embeddings that are pushed away from their own prototypes."""

    def __new__(
        cls,
        classes: int,
        dim: int,
        *,
        sub_centers: int = 1,
        target_cosine: float = 0.0,
        mean_prototype: Optional[float] = None,
        warm_up: Optional[int] = None,
    ) -> CollapseDetector: ...
    def check(self, report: dict[str, Any], mean_prototype: Optional[float] = None) -> Optional[dict[str, Any]]:
        """A warning with its ``text``, its ``kind`` ("repelled", "collapsed") and the numbers, or None; once for each report."""

class BatchReport:
    """A batch as its loss saw it, over the rows that count: numbers for a log. Keywords are those of the call."""

    rows: int
    length_min: float
    length_mean: float
    length_max: float
    lengths_outside: Optional[float]
    margins: Optional[list[float]]
    scale: float
    margin_loss: float
    length_loss: Optional[float]
    target_cosines: list[float]
    embedding_gradient: Optional[float]
    prototype_gradient: Optional[float]
    @staticmethod
    def evaluated(
        loss: MarginSoftmax, state: Union[State, dict[str, Any]], embeddings: Vectors, labels: Integers, out: Output, **arguments: Any
    ) -> BatchReport: ...
    @staticmethod
    def trained(
        loss: MarginSoftmax, state: Union[State, dict[str, Any]], embeddings: Vectors, labels: Integers, out: Output, **arguments: Any
    ) -> BatchReport:
        """The state is that after the call."""

class Regularizer:
    """A penalty on the prototypes alone, to be added to the loss of a head; weights 0 < λ ≤ 1e6."""

    @staticmethod
    def reg_ss(weight: float = 1.0) -> Regularizer:
        """λ times the length of the mean of the prototypes' directions."""
    @staticmethod
    def uniform_face(weight: float = 1.0) -> Regularizer:
        """λ times the mean inverse distance of all pairs of directions."""
    @staticmethod
    def from_dict(dict: dict[str, Any]) -> Regularizer: ...
    def to_dict(self) -> dict[str, Any]: ...
    @property
    def name(self) -> Literal["reg_ss", "uniform_face"]: ...
    @property
    def weight(self) -> float: ...
    def penalty(self, prototypes: Vectors, *, device: str = "best", threads: Optional[int] = None) -> tuple[float, NDArray[Any]]:
        """The penalty of prototypes [C, D] and its gradient [C, D]."""

class CenterLoss:
    """Embeddings, not normalised, are drawn to the center of their class: λ/(2N)·Σ|x - c|². ``weight`` is λ, ``rate`` α, 0 < α ≤ 1."""

    def __new__(cls, weight: float = 0.02, rate: float = 0.5, ignore_index: Optional[int] = None) -> CenterLoss: ...
    @classmethod
    def from_dict(cls, dict: dict[str, Any]) -> CenterLoss: ...
    def to_dict(self) -> dict[str, Any]: ...
    @property
    def weight(self) -> float: ...
    @property
    def rate(self) -> float: ...
    @property
    def ignore_index(self) -> Optional[int]: ...
    def evaluate(
        self, embeddings: Vectors, labels: Integers, centers: NDArray[Any], *, device: str = "best", threads: Optional[int] = None
    ) -> tuple[float, NDArray[Any]]:
        """The loss of embeddings [N, D] around centers [C, D], and its gradient to the embeddings. The centers stay."""
    def moved(
        self, embeddings: Vectors, labels: Integers, centers: NDArray[Any], *, device: str = "best", threads: Optional[int] = None
    ) -> NDArray[Any]:
        """The centers after one move, once a step: a new array."""

class ClassMap:
    """Which classes of a head go on, and how many come after them. Classes that go on keep their order and become 0, 1, 2, …"""

    @staticmethod
    def grow(old: int, new: int) -> ClassMap: ...
    @staticmethod
    def keep(old: int, classes: Union[Sequence[int], Integers]) -> ClassMap: ...
    @staticmethod
    def without(old: int, classes: Union[Sequence[int], Integers]) -> ClassMap: ...
    @property
    def old_classes(self) -> int: ...
    @property
    def new_classes(self) -> int: ...
    def labels(self) -> NDArray[np.int64]:
        """[old classes]: the new label of each, -1 for one that is gone."""
    def relabel(self, labels: Integers, ignore_index: Optional[int] = None) -> NDArray[np.int64]:
        """New labels for old ones; rows whose class is gone get the ignore index."""
    def values(self, values: Floats, new: Optional[Floats] = None) -> Floats:
        """[C, …] becomes [C', …]: the values of the classes that go on, every bit, then ``new`` [C' - C, …], or 0."""
    def state(self, state: Union[State, dict[str, Any]]) -> State: ...

class ClassCenters:
    """Sums embeddings by their labels over any number of batches."""

    def __new__(cls, classes: int, dim: int) -> ClassCenters: ...
    def add(self, embeddings: Vectors, labels: Integers, ignore_index: Optional[int] = None, directions: bool = False) -> None:
        """With ``directions`` each embedding counts at length 1, as ``new_prototypes`` wants them."""
    def merge(self, other: ClassCenters) -> None: ...
    def classes(self) -> NDArray[np.int64]:
        """The classes with embeddings, ascending."""
    def vectors(self) -> Floats:
        """Their centers in the same order."""
    def mean_center_angle(self, prototypes: Floats) -> float:
        """WC-Intra: the mean angle between center and prototype of the classes present, in radians."""

def new_prototypes(
    prototypes: Floats, centers: ClassCenters, *, length: Literal["mean", "unit"] = "mean", spread: float = 0.1, seed: int = 0
) -> Floats:
    """Prototypes of the classes that ``centers`` has beyond those of ``prototypes`` ([C, D] or [C, K, D]), in the mean directions of
    their embeddings; further sub-centers ``spread`` radians away. For ``ClassMap.values``."""

def count_margins(counts: Integers, *, exponent: float = 0.25, lower: float = 0.05, upper: float = 0.5) -> Floats:
    """The margin of every class by the number of its rows: ``upper`` for the rarest, ``lower`` for the most frequent."""

def mean_prototype(prototypes: Floats, *, device: str = "best") -> float:
    """The length of the mean direction of prototypes [C, D]: 1 if all point the same way, about 1/√C at random."""

def mean_pair_angle(vectors: Floats, *, device: str = "best") -> float:
    """The mean angle between all pairs of vectors [C, D], in radians."""

def presets() -> list[tuple[str, str]]:
    """Name and source of every preset."""

def scheduled(loss: MarginSoftmax, schedules: dict[str, Any], step: int) -> MarginSoftmax:
    """The loss of a training step under schedules of m0 to m3, margin, scale and top_k."""

def merge_predictions(parts: Iterable[Any], classes: int) -> Predictions:
    """The nearest classes among those of all shards: objects with the attributes of ``Predictions``, and the ``range`` of their classes."""

def sample(
    labels: Integers, classes: int, rate: float, seed: int, step: int, ignore_index: Optional[int] = None
) -> tuple[NDArray[np.int64], NDArray[np.int64], Optional[int]]:
    """The classes of a step of Partial FC, the labels as positions in them, and the ignore index of these."""

def set_num_threads(threads: int) -> None:
    """Threads of the CPU path for heads that do not say; 0: as many as there are cores."""

def get_num_threads() -> int: ...
def adapters() -> list[str]:
    """The names of the GPUs, and of software adapters."""
