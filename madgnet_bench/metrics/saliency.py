"""Weighted F, S-measure, E-measure and threshold curves per case: the measures that came from salient object detection.

Probabilities and references are (N, K, H, W), every measure is (N, K) float64, every curve (N, K, 256) float64, on the device
of the inputs. The arithmetic is in double precision; a caller who wants several measures saves time by passing float64.

What the measures say where prediction or reference holds no foreground. An empty prediction is a map of zeros where the
measure reads the map itself, and one without a pixel over the threshold where it is cut:

| measure | both empty | only reference empty | only prediction empty | neither |
|---|---|---|---|---|
| `weighted_f` | ``empty`` | ``empty`` | 0; more within 3 pixels of the border | Margolin et al. |
| `s_measure` | 1 | 1 - mean(p) | by its formula: 0 on a full reference, near 1 on one pixel | Fan et al. |
| `e_measure` | 1 | share of pixels not predicted | 0.25; 0 on a full reference | Fan et al. |
| `e_adaptive`, `e_curve` | as `e_measure` | as `e_measure` | as `e_measure` | as `e_measure` at each threshold |
| `overlap_curves` | ``empty`` | 0 | 0 | counts |
| `released_e` | 0 | share of pixels not predicted | 0.25; 1 on a full reference | as `e_measure` |
| `released_s` | 1 | 1 - mean(p) | by its formula: 0 on a full reference | with its slip |

``empty`` has no default: 0 is the rule of PySODMetrics and PraNet, and NaN marks a case as undefined, to be left out of the
mean and counted by the caller. Only there does a function return NaN. The E-measure divides by the number of pixels less one,
by its definition: read 1 as n / (n - 1), and 0.25 likewise. Two formulas forgive a miss: the S-measure that of a small
object, and the weighted F that of an object at the border, where its window reads zeros. Read both beside the overlap.

`e_curve` is averaged over the cases first: the mean E is the mean of that curve, the max E its maximum (`mean_and_max`), and
not the mean of every case's own maximum. Under PraNet's protocol each map is first stretched to [0, 1] (`stretch`).

Where PySODMetrics 1.6.2 (``normalize=False``) differs: its S-measure is NaN where the reference's centroid lies in the last row
or column, as in every image of one row, because a block is empty; here an empty block has no weight. Its adaptive E takes an
all-zero map for all foreground (threshold 0); here such a map predicts nothing. Both agree on all other maps.

References: R. Margolin, L. Zelnik-Manor, A. Tal, How to Evaluate Foreground Maps?, CVPR 2014; D.-P. Fan et al.,
Structure-measure, ICCV 2017 (arXiv 1708.00786); D.-P. Fan et al., Enhanced-alignment Measure, IJCAI 2018 (arXiv 1805.10421).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from torch.nn import functional

from madgnet_bench.layers.distance import Backend, distance_to_foreground, nearest_within

__all__ = [
    "THRESHOLDS",
    "e_adaptive",
    "e_curve",
    "e_measure",
    "mean_and_max",
    "overlap_curves",
    "released_e",
    "released_s",
    "s_measure",
    "stretch",
    "threshold_counts",
    "weighted_f",
]

THRESHOLDS = 256
"""Thresholds of the curves: at threshold t, from 0 to 255, a pixel is predicted where floor(255 p) >= t."""

EPS = torch.finfo(torch.float64).eps
REACH = 3
"""Half the width of the weighted F's window of 7 x 7."""


def stretch(probability: Tensor) -> Tensor:
    """Stretch each map of (N, K, H, W) linearly to [0, 1], in float64; a constant map is left as it is."""
    p = probability.double()
    low, high = p.amin((-2, -1), keepdim=True), p.amax((-2, -1), keepdim=True)
    return torch.where(high > low, (p - low) / (high - low).clamp_min(EPS), p)


def weighted_f(probability: Tensor, reference: Tensor, *, empty: float, backend: Backend | None = None) -> Tensor:
    """Weighted F with beta 1: errors count less beside other hits and more far from the object.

    Args:
        probability: (N, K, H, W) float in [0, 1].
        reference: (N, K, H, W) bool.
        empty: Value where the reference is empty, whatever the prediction; NaN for undefined.
        backend: Distance transform, see `madgnet_bench.layers.distance`. All follow one rule of ties, so that the value is the
            same with each.
    """
    p, g = _checked(probability, reference)
    positives, missed, false_alarms = _by_case(lambda p, g: _weighted_errors(p, g, backend), p, g).unbind(-1)
    hits = positives - missed
    recall = 1 - missed / positives.clamp_min(1)
    precision = hits / (hits + false_alarms.clamp_min(0) + EPS)
    value = 2 * recall * precision / (recall + precision + EPS)
    return torch.where(positives == 0, torch.full_like(value, empty), value)


def s_measure(probability: Tensor, reference: Tensor, *, alpha: float = 0.5) -> Tensor:
    """S-measure: how alike the structures are, by object and by the four blocks around the reference's centroid.

    Args:
        probability: (N, K, H, W) float in [0, 1].
        reference: (N, K, H, W) bool.
        alpha: Share of the object's score; the blocks have the rest.
    """
    p, g = _checked(probability, reference)
    sums = _BlockSums(p, g)
    whole = p.shape[-2] * p.shape[-1]
    positives, total = sums.positives.sum((-2, -1)), sums.p_total()
    share = positives / whole
    front = _object_score(*sums.moments(foreground=True), flipped=False)
    back = _object_score(*sums.moments(foreground=False), flipped=True)
    score = alpha * (share * front + (1 - share) * back) + (1 - alpha) * sums.region_score()
    score = torch.where(positives == 0, 1 - total / whole, score.clamp_min(0))
    return torch.where(positives == whole, total / whole, score)


def e_measure(prediction: Tensor, reference: Tensor) -> Tensor:
    """E-measure of a binary map: how well prediction and reference, each less its mean, are aligned pixel by pixel.

    Args:
        prediction: (N, K, H, W) bool.
        reference: (N, K, H, W) bool.

    >>> g = torch.tensor([[[[True, True, False, False, False]]]])
    >>> round(e_measure(g, g).item(), 6), round(e_measure(~g, g).item(), 6)
    (1.25, 0.0)
    """
    hits, predicted = _total(prediction & reference), _total(prediction)
    return _alignment(hits, predicted - hits, _total(reference), reference.shape[-2] * reference.shape[-1])


def e_adaptive(probability: Tensor, reference: Tensor) -> Tensor:
    """E-measure of the map cut at twice its mean, at most 1; an all-zero map predicts nothing.

    Args:
        probability: (N, K, H, W) float in [0, 1].
        reference: (N, K, H, W) bool.
    """
    p, g = _checked(probability, reference)

    def counts(p: Tensor, g: Tensor) -> Tensor:
        threshold = (2 * p.mean((-2, -1), keepdim=True)).clamp_max(1)
        predicted = (p >= threshold) & (threshold > 0)
        return torch.stack([_total(predicted & g), _total(predicted), _total(g)], -1)

    hits, predicted, positives = _by_case(counts, p, g).unbind(-1)
    return _alignment(hits, predicted - hits, positives, p.shape[-2] * p.shape[-1])


def threshold_counts(probability: Tensor, reference: Tensor) -> Tensor:
    """Pixels predicted at each of the 256 thresholds, on the reference's foreground and off it.

    These counts are all that the curves need; counts of several cases may be stored and summed.

    Args:
        probability: (N, K, H, W) float in [0, 1].
        reference: (N, K, H, W) bool.

    Returns:
        (N, K, 2, 256) int64: true positives, then false positives, at threshold 0 (everything is predicted) to 255.
    """
    p, g = _checked(probability, reference)
    return _by_case(_threshold_counts, p, g)


def e_curve(counts: Tensor) -> Tensor:
    """E-measure at each threshold, (N, K, 256), from `threshold_counts`."""
    hits, alarms = counts.double().unbind(-2)
    return _alignment(hits, alarms, hits[..., :1], (hits + alarms)[..., :1])


def overlap_curves(counts: Tensor, *, empty: float) -> dict[str, Tensor]:
    """Overlap at each threshold, from `threshold_counts`.

    Args:
        counts: (N, K, 2, 256).
        empty: Value at a threshold at which neither prediction nor reference holds a pixel; 0 by PraNet's rule. Without a hit
            every measure is 0 otherwise.

    Returns:
        ``dsc``, ``iou``, ``precision`` and ``recall``, (N, K, 256) each.
    """
    hits, alarms = counts.double().unbind(-2)
    predicted, positives = hits + alarms, hits[..., :1].expand_as(hits)
    parts = {
        "dsc": (2 * hits, predicted + positives),
        "iou": (hits, alarms + positives),
        "precision": (hits, predicted),
        "recall": (hits, positives),
    }
    nothing = (predicted + positives) == 0
    return {name: torch.where(nothing, empty, above / below.clamp_min(1)) for name, (above, below) in parts.items()}


def mean_and_max(curves: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and maximum over the thresholds of the data set's mean curve, (K,) each, from its cases' curves (N, K, 256)."""
    curve = curves.mean(0)
    return curve.mean(-1), curve.amax(-1)


def released_e(prediction: Tensor, reference: Tensor) -> Tensor:
    """E-measure as the released MADGNet code computes it; for comparison with that code only.

    The binary map is cut once more at twice its mean. Where it holds a pixel that changes nothing. Where it holds none, the
    threshold is 0 and every pixel counts as foreground: 0 instead of 1 on an empty reference, 1 instead of 0 on a full one.

    Args:
        prediction: (N, K, H, W) bool.
        reference: (N, K, H, W) bool.
    """
    return e_measure(prediction | ~prediction.any(-1, keepdim=True).any(-2, keepdim=True), reference)


def released_s(prediction: Tensor, reference: Tensor) -> Tensor:
    """S-measure as the released MADGNet code computes it, slip included; for comparison with that code only.

    Its object term indexes the image with the numbers 0 and 1 of the mask where a selection of pixels was meant. So it sees the
    first row once for every 0 and the second row once for every 1, and hardly knows the object: it is about the background's
    share wherever the object stays clear of both rows. The blocks' variances of both maps are divided by n, their covariance
    by n - 1, and the score may fall below 0. Where a block is empty or holds one pixel, that code divides 0 by 0 and reports
    1e-6.

    Args:
        prediction: (N, K, H, W) bool.
        reference: (N, K, H, W) bool.

    Raises:
        ValueError: The maps have one row; the released code fails there too.
    """
    if reference.shape[-2] < 2:
        raise ValueError(f"the released S-measure reads two rows, the maps are {tuple(reference.shape)}")
    p, g = prediction.double(), reference.double()
    share = g.mean((-2, -1))
    front, back = _two_rows_score(p * g, share), _two_rows_score((1 - p) * (1 - g), 1 - share)
    score = 0.5 * (share * front + (1 - share) * back) + 0.5 * _BlockSums(p, reference.bool()).region_score(released=True)
    score = torch.where(share == 0, 1 - p.mean((-2, -1)), score.nan_to_num(1e-6))
    return torch.where(share == 1, p.mean((-2, -1)), score)


def _by_case(measure: Callable[[Tensor, Tensor], Tensor], p: Tensor, g: Tensor) -> Tensor:
    """Apply a measure of (N, K, H, W) on the CPU to one map at a time, elsewhere to all at once.

    One map stays in the processor's cache, can be cropped, and gives the same bits in a batch of any size. Torch's threads are
    given whole maps: at this size, operations that are split among them wait longer for each other than they work.
    """
    n, k = p.shape[:2]
    if p.device.type != "cpu" or n * k == 0:
        return measure(_in_range(p), g)
    places = [(slice(i, i + 1), slice(j, j + 1)) for i in range(n) for j in range(k)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if threads == 1 or len(places) == 1:
            found = [measure(_in_range(p[place]), g[place]) for place in places]
        else:
            with ThreadPoolExecutor(threads) as pool:
                found = list(pool.map(lambda place: measure(_in_range(p[place]), g[place]), places))
    finally:
        torch.set_num_threads(threads)
    return torch.cat(found).view(n, k, *found[0].shape[2:])


def _in_range(p: Tensor) -> Tensor:
    """The map, if it lies in [0, 1].

    Raises:
        ValueError: It holds NaN or another value.
    """
    if p.numel() and not bool((p.amin() >= 0) & (p.amax() <= 1)):
        raise ValueError("probabilities lie in [0, 1], and this map holds NaN or other values; give it after the sigmoid")
    return p


def _weighted_errors(p: Tensor, g: Tensor, backend: Backend | None) -> Tensor:
    """Foreground pixels, weighted errors on the foreground and off it, (N, K, 3).

    What lies beyond the foreground, the errors and the reach of the window adds nothing. On the foreground the distance is 0
    and the weight 1, so that the weighted errors off it are those everywhere less those of the foreground.
    """
    mask = _numbers(g)
    rows, columns = mask.sum(-1), mask.sum(-2)
    positives = rows.sum(-1)
    p, g, mask = _crop(p, g, mask, rows=p.sum(-1) + rows, columns=p.sum(-2) + columns)
    error = p.sub(mask).abs_()
    distances = distance_to_foreground(g, backend=backend)
    inner = _crop(g, mask, error, distances, rows=mask.sum(-1), columns=mask.sum(-2))
    on_foreground, missed = _foreground_errors(*inner)
    everywhere = _total(distances.mul_(-0.2).exp2_().neg_().add_(2).mul_(error))
    return torch.stack([positives, missed, everywhere - on_foreground], -1)


def _foreground_errors(g: Tensor, mask: Tensor, error: Tensor, distances: Tensor) -> tuple[Tensor, Tensor]:
    """Errors on the foreground, and weighted errors on it: each is the less of itself and of its smoothed surroundings.

    In the surroundings, a background pixel has the error of the nearest foreground pixel.
    """
    pixels, nearest = nearest_within(g, distances, REACH)
    carried = error.clone()
    carried.view(-1)[pixels] = error.view(-1)[nearest]
    error = error * mask
    return _total(error), _total(torch.minimum(error, _smooth(carried)))


def _crop(*maps: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, ...]:
    """Crop a single case's maps (1, 1, H, W) on the CPU to the rows and columns that hold more than 0, and REACH around them.

    A batch, and what lies on another device, is returned as it is: its boxes differ, or are not known without a wait.
    """
    if rows.device.type != "cpu" or rows.shape[:2] != (1, 1) or not rows.any():
        return maps
    box = [
        slice(max(0, int(at[0]) - REACH), int(at[-1]) + REACH + 1) for at in (rows.nonzero()[:, -1], columns.nonzero()[:, -1])
    ]
    return tuple(part[:, :, box[0], box[1]].contiguous() for part in maps)


def _threshold_counts(p: Tensor, g: Tensor) -> Tensor:
    """`threshold_counts` of checked maps."""
    n, k = p.shape[:2]
    level = (p * (THRESHOLDS - 1)).int()
    level += (~g).int() * THRESHOLDS
    level += torch.arange(0, 2 * THRESHOLDS * n * k, 2 * THRESHOLDS, device=p.device, dtype=torch.int32).view(n, k, 1, 1)
    counts = torch.bincount(level.view(-1), minlength=2 * THRESHOLDS * n * k).view(n, k, 2, THRESHOLDS)
    return counts.flip(-1).cumsum(-1).flip(-1)


class _BlockSums:
    """Sums over the four blocks that meet at the reference's centroid, (N, K, 2, 2) each: upper and lower, left and right.

    Each block's map is taken less its first pixel, so that a constant block has a variance of exactly 0.

    Attributes:
        pixels: Pixels of each block.
        positives: Foreground pixels of each block.
        start: The map's value at each block's first pixel.
    """

    def __init__(self, p: Tensor, g: Tensor) -> None:
        sums = _by_case(_block_sums, p, g)
        self.pixels, self.start, self.positives = sums[:, :, 0], sums[:, :, 1], sums[:, :, 2]
        self.q, self.q_inside, self.square, self.square_inside = sums[:, :, 3:].unbind(2)

    def p_total(self) -> Tensor:
        """Sum of the map, (N, K)."""
        return (self.q + self.start * self.pixels).sum((-2, -1))

    def moments(self, *, foreground: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Number, mean and sum of squared deviations of the map on the foreground or off it, (N, K) each."""
        n = self.positives if foreground else self.pixels - self.positives
        total = self.q_inside if foreground else self.q - self.q_inside
        square = self.square_inside if foreground else self.square - self.square_inside
        number = n.sum((-2, -1))
        mean = self.start + total / n.clamp_min(1)
        overall = (n * mean).sum((-2, -1)) / number.clamp_min(1)
        within = square - total.square() / n.clamp_min(1)
        between = n * (mean - overall[..., None, None]).square()
        return number, overall, (within + between).sum((-2, -1)).clamp_min(0)

    def region_score(self, *, released: bool = False) -> Tensor:
        """Similarity of the blocks, weighted by their size, (N, K)."""
        n = self.pixels.clamp_min(1)
        x, y = self.start + self.q / n, self.positives / n
        free, eps = (n - 1, 1e-8) if released else (n - 1 + EPS, EPS)
        x_spread = (self.square - self.q.square() / n).clamp_min(0) / (n if released else free)
        y_spread = (self.positives - self.positives * y) / (n if released else free)
        together = (self.q_inside - self.q * y) / free
        above = 4 * x * y * together
        below = (x.square() + y.square()) * (x_spread + y_spread)
        score = torch.where(above == 0, (below == 0).double(), above / (below + eps))
        if released:
            return torch.where(self.pixels < 2, torch.nan, score * self.pixels / self.pixels.sum((-2, -1), keepdim=True)).sum(
                (-2, -1)
            )
        return (score * self.pixels).sum((-2, -1)) / self.pixels.sum((-2, -1))


def _block_sums(p: Tensor, g: Tensor) -> Tensor:
    """The seven numbers of each block that `_BlockSums` holds, (N, K, 7, 2, 2), by products with the sides' indicators."""
    mask, width = _numbers(g), p.shape[-1]
    upper, left = _side(mask.sum(-1)), _side(mask.sum(-2))
    rows, columns = torch.stack([upper, 1 - upper], -2), torch.stack([left, 1 - left], -1)
    pixels = rows.sum(-1)[..., None] * columns.sum(-2)[..., None, :]
    place = (_first(upper)[..., None] * width + _first(left)[..., None, :]).flatten(2)
    start = p.flatten(2).gather(2, place).view(pixels.shape)
    sums = [pixels, start, rows @ mask @ columns]
    q = (rows.mT @ (start @ columns.mT)).neg_().add_(p)
    inside = mask.mul_(q)
    sums += [rows @ q @ columns, rows @ inside @ columns]
    inside.mul_(q)
    sums += [rows @ q.square_() @ columns, rows @ inside @ columns]
    return torch.stack(sums, 2)


def _side(profile: Tensor) -> Tensor:
    """1 up to the rounded centroid, which is included, 0 behind it; (N, K, length) from the foreground's profile."""
    places = torch.arange(profile.shape[-1], device=profile.device, dtype=profile.dtype)
    centroid = (profile * places).sum(-1) / profile.sum(-1).clamp_min(1)
    return (places <= centroid.round()[..., None]).to(profile.dtype)


def _first(side: Tensor) -> Tensor:
    """First place of either side, (N, K, 2), within the image."""
    second = side.sum(-1).long().clamp_max(side.shape[-1] - 1)
    return torch.stack([torch.zeros_like(second), second], -1)


def _object_score(number: Tensor, mean: Tensor, squares: Tensor, *, flipped: bool) -> Tensor:
    """Score of the pixels of one side from their number, mean and squared deviations; of 1 - p where flipped."""
    mean = 1 - mean if flipped else mean
    return 2 * mean / (mean.square() + 1 + (squares / (number - 1).clamp_min(1)).sqrt() + EPS)


def _two_rows_score(values: Tensor, share: Tensor) -> Tensor:
    """The released object score: the first row counts 1 - share times, the second share times."""
    first, second = values[..., 0, :], values[..., 1, :]
    mean = (1 - share) * first.mean(-1) + share * second.mean(-1)
    square = (1 - share) * first.square().mean(-1) + share * second.square().mean(-1)
    spread = (square - mean.square()).clamp_min(0).sqrt()
    return 2 * mean / (mean.square() + 1 + spread + 1e-8)


def _alignment(hits: Tensor, alarms: Tensor, positives: Tensor, pixels: Tensor | int) -> Tensor:
    """The E-measure from counts: within each of the four classes of pixels the alignment is one number."""
    predicted = hits + alarms
    p, g = predicted / pixels, positives / pixels
    classes = (
        (hits, 1 - p, 1 - g),
        (alarms, 1 - p, -g),
        (positives - hits, -p, 1 - g),
        (pixels - predicted - positives + hits, -p, -g),
    )
    total = sum(number * (1 + 2 * a * b / (a * a + b * b + EPS)).square() / 4 for number, a, b in classes)
    total = torch.where(positives == 0, pixels - predicted, torch.as_tensor(total))
    total = torch.where(positives == pixels, predicted, total)
    return total / torch.as_tensor(pixels - 1).clamp_min(1)


def _smooth(x: Tensor) -> Tensor:
    """Filter (N, K, H, W) with a Gaussian of 7 x 7 and sigma 5, zero outside the image."""
    kernel = torch.exp(torch.arange(REACH + 1, dtype=torch.float64).square() / -50)
    weights = (kernel / (2 * kernel.sum() - 1)).tolist()
    padded = functional.pad(x, (REACH,) * 4)
    height, width = padded.shape[-2:]
    flat = padded.flatten(2)
    for step in (1, width):
        flat = _weighted_sum(flat, step, weights)
    inner = functional.pad(flat, (0, 2 * REACH)).view(*x.shape[:2], height - 2 * REACH, width)
    return inner[..., : x.shape[-1]]


def _weighted_sum(x: Tensor, step: int, weights: list[float]) -> Tensor:
    """Weight every place and its neighbours ``step``, 2 ``step``, ... before and behind; ends without all of them fall off."""
    reach, length = (len(weights) - 1) * step, x.shape[-1]
    total = x[..., reach : length - reach] * weights[0]
    for number, weight in enumerate(weights[1:], start=1):
        near, far = reach - number * step, reach + number * step
        total.add_(x[..., near : length - reach - number * step] + x[..., far : length - reach + number * step], alpha=weight)
    return total


def _total(x: Tensor) -> Tensor:
    """Sum over the image, (N, K) float64."""
    return x.sum((-2, -1), dtype=torch.float64 if x.is_floating_point() else torch.int32).double()


def _numbers(mask: Tensor) -> Tensor:
    """A mask as float64; through bytes, which torch converts several times faster than bool."""
    return mask.view(torch.uint8).double()


def _checked(probability: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """The map as float64 and the reference as bool.

    Raises:
        ValueError: The shapes differ or are not (N, K, H, W).
    """
    if probability.shape != reference.shape or probability.dim() != 4:
        raise ValueError(
            f"these measures take images (N, K, H, W) of one shape: prediction is {tuple(probability.shape)}, "
            f"reference is {tuple(reference.shape)}"
        )
    return probability.double(), reference.bool()
