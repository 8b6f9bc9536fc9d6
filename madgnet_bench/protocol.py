"""Named evaluation protocols: how a prediction becomes a number.

A protocol is a frozen record. It is written as its name, or as the name with its departures in brackets, and reads back
from that text, so that a changed protocol can never travel under the plain name:

    >>> str(Protocol.parse("madgnet"))
    'madgnet'
    >>> Protocol.parse("madgnet[size=192]").size
    192
    >>> str(Protocol.parse("madgnet[size=352]"))
    'madgnet'
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any, Literal

from madgnet_bench.errors import ConfigError, nearest

__all__ = ["MEASURES", "PROMPTS", "PROTOCOLS", "VALIDATION_MEASURES", "Measure", "Protocol"]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """What a measure is called and how its numbers read; how it is computed stands in `madgnet_bench.metrics`.

    Attributes:
        name: Its key in case tables and results.
        title: Its name in headers.
        unit: ``"fraction"`` in [0, 1], shown in percent; ``"distance"`` in the protocol's unit; ``"nats"``.
        higher_is_better: Its direction.
        pooled: True where it is no mean over cases: it is made from curves that are averaged, or counts that are summed, over
            the cases of a data set first, and stands in results only.
    """

    name: str
    title: str
    unit: Literal["fraction", "distance", "nats"] = "fraction"
    higher_is_better: bool = True
    pooled: bool = False


MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        Measure(name="dsc", title="DSC"),
        Measure(name="iou", title="IoU"),
        Measure(name="miou", title="mIoU (two classes)"),
        Measure(name="precision", title="precision"),
        Measure(name="recall", title="recall"),
        Measure(name="mae", title="MAE", higher_is_better=False),
        Measure(name="wf", title="weighted F"),
        Measure(name="sm", title="S-measure"),
        Measure(name="em", title="E-measure"),
        Measure(name="em_adaptive", title="adaptive E"),
        Measure(name="em_mean", title="mean E"),
        Measure(name="em_max", title="max E", pooled=True),
        Measure(name="dsc_mean", title="mean Dice (256 thresholds)"),
        Measure(name="dsc_max", title="max Dice (256 thresholds)", pooled=True),
        Measure(name="iou_mean", title="mean IoU (256 thresholds)"),
        Measure(name="iou_max", title="max IoU (256 thresholds)", pooled=True),
        Measure(name="hd95", title="HD95", unit="distance", higher_is_better=False),
        Measure(name="assd", title="ASSD", unit="distance", higher_is_better=False),
        Measure(name="nsd", title="surface Dice"),
        Measure(name="brier", title="Brier score", higher_is_better=False),
        Measure(name="nll", title="NLL", unit="nats", higher_is_better=False),
        Measure(name="ece", title="ECE", higher_is_better=False, pooled=True),
        Measure(name="sm_released", title="S-measure (released code)"),
        Measure(name="em_released", title="E-measure (released code)"),
    )
}
"""Every measure, by name."""

VALIDATION_MEASURES = ("dsc", "iou", "mae")
"""What is measured after each epoch of training."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How predictions are compared with references.

    Attributes:
        name: The protocol's name, a key of `PROTOCOLS`.
        size: Side in pixels of the square at which network input, prediction and reference meet, or ``"native"``: the
            prediction is resized to the reference's own size.
        dimensions: 2 for images, 3 for volumes, which have no weighted F, S- and E-measure.
        threshold: A probability of at least this value is foreground.
        maps: What MAE, weighted F and S-measure read: ``"hard"``, the thresholded prediction, or ``"soft"``, the probability.
            Soft maps also have an adaptive E, and curves over 256 thresholds for the mean and maximum E.
        range: ``"stretched"``: each map is stretched linearly to [0, 1] before it is measured, as PraNet's evaluation does.
        empty: Value of the overlap measures where reference and prediction are both empty.
        empty_wf: Value of the weighted F where the reference is empty, for which it has no definition.
        tolerance: Distance up to which the surface Dice takes a surface for right, in the unit of distances.
        unit: Unit of distances: ``"pixel"`` of the compared maps, or ``"mm"`` by the spacing of the case.
        averaging: ``"case"``: every measure is taken per case, then averaged over cases.
        mask_resampling: How references are brought to ``size``: ``"bilinear"`` then cut at 0.5, or ``"nearest"``.
        checkpoint: Which checkpoint is tested: ``"best"`` by the mean DSC of the seen validation split, or ``"last"``.
        prompts: Where the prompts of promptable networks come from, one of `PROMPTS`, with a number behind it where that says
            so; ``"none"`` for automatic methods.
        dice_curves: ``"on"``: Dice and IoU over 256 thresholds too, their mean and maximum; the mean Dice and IoU of PraNet's
            tables.
        released: ``"on"``: also E- and S-measure as the released MADGNet code computes them, its slips included.
    """

    name: str
    size: int | Literal["native"]
    dimensions: Literal[2, 3] = 2
    threshold: float = 0.5
    maps: Literal["soft", "hard"] = "hard"
    range: Literal["as_is", "stretched"] = "as_is"
    empty: float = 1.0
    empty_wf: float = 0.0
    tolerance: float = 2.0
    unit: Literal["pixel", "mm"] = "pixel"
    averaging: Literal["case"] = "case"
    mask_resampling: Literal["bilinear", "nearest"] = "bilinear"
    checkpoint: Literal["best", "last"] = "best"
    prompts: str = "none"
    dice_curves: Literal["on", "off"] = "off"
    released: Literal["on", "off"] = "off"

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of the measures of a case under this protocol."""
        return tuple(name for name in self._names() if not MEASURES[name].pooled)

    @property
    def pooled_measures(self) -> tuple[str, ...]:
        """Names of the measures of a data set that are no means over its cases."""
        return tuple(name for name in self._names() if MEASURES[name].pooled)

    @property
    def oracle(self) -> bool:
        """Whether prompts are taken from the references of the cases that are tested: no rival of automatic methods."""
        return _prompt_kind(self.prompts)[1]

    def _names(self) -> list[str]:
        """Every measure of this protocol, in the order of tables."""
        names = ["dsc", "iou", "miou", "precision", "recall", "mae"]
        if self.dimensions == 2:
            names += ["wf", "sm", "em"]
            if self.maps == "soft":
                names += ["em_adaptive", "em_mean", "em_max"]
            if self.dice_curves == "on":
                names += ["dsc_mean", "dsc_max", "iou_mean", "iou_max"]
        names += ["hd95", "assd", "nsd", "brier", "nll", "ece"]
        return names + (["sm_released", "em_released"] if self.released == "on" and self.dimensions == 2 else [])

    def __str__(self) -> str:
        standard = PROTOCOLS[self.name]
        changes = [
            f"{field.name}={getattr(self, field.name)}"
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != getattr(standard, field.name)
        ]
        return f"{self.name}[{','.join(changes)}]" if changes else self.name

    @classmethod
    def parse(cls, text: str) -> Protocol:
        """Read a protocol from its text, such as ``madgnet`` or ``madgnet[size=192,checkpoint=last]``.

        Raises:
            ConfigError: The name, a field or a value is unknown; the message names the nearest valid one.
        """
        match = re.fullmatch(r"([\w-]+)(?:\[(.*)\])?", text.strip())
        if not match:
            raise ConfigError(f"protocol {text!r} cannot be read; write a name or name[field=value,...].")
        name, inside = match[1], match[2] or ""
        if name not in PROTOCOLS:
            raise ConfigError(f"unknown protocol {name!r}; {nearest(name, PROTOCOLS)}")
        fields = [field.name for field in dataclasses.fields(cls) if field.name != "name"]
        changes: dict[str, Any] = {}
        for item in filter(None, (part.strip() for part in inside.split(","))):
            key, _, value = item.partition("=")
            if key not in fields:
                raise ConfigError(f"protocol {text!r} has no field {key!r}; {nearest(key, fields)}")
            changes[key] = _value(key, value)
        return dataclasses.replace(PROTOCOLS[name], **changes)


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(name="madgnet", size=352),
        Protocol(name="native", size="native", maps="soft", mask_resampling="nearest"),
        Protocol(
            name="pranet",
            size="native",
            maps="soft",
            range="stretched",
            empty=0.0,
            mask_resampling="nearest",
            checkpoint="last",
            dice_curves="on",
        ),
        Protocol(name="volume", size="native", dimensions=3, maps="soft", unit="mm", tolerance=1.0, mask_resampling="nearest"),
    )
}
"""The protocols by name.

- ``madgnet``: 352 pixels, binarised at 0.5, per-case mean, DSC = IoU = 1 where both are empty: the rule behind the tables of
  arXiv 2405.06284.
- ``native``: the prediction is resized to the reference's own size; soft maps.
- ``pranet``: likewise, each map stretched to [0, 1] and compared at 256 thresholds, 0 where nothing is hit (arXiv 2006.11392).
  Its tables' mean Dice is ``dsc_mean``, not ``dsc``.
- ``volume``: volumes in their own grid, distances in millimetres.
"""

PROMPTS: dict[str, bool] = {
    "none": False,
    "image_box": False,
    "point": True,
    "clicks<n>": True,
    "box": True,
    "box_jitter<n>": True,
}
"""Sources of prompts, and whether each is an oracle, which reads the reference.

- ``none``: nothing is told; ``image_box``: the box of the whole image, whatever it shows.
- ``point``: a random pixel of the reference; ``clicks5``: that and four corrections, each in the largest error so far.
- ``box``: the box around the reference; ``box_jitter10``: each side of it moved by up to 10 percent.

`madgnet_bench.layers.prompts` draws them.
"""

_CHOICES: dict[str, tuple[str, ...]] = {
    "maps": ("soft", "hard"),
    "range": ("as_is", "stretched"),
    "unit": ("pixel", "mm"),
    "averaging": ("case",),
    "mask_resampling": ("bilinear", "nearest"),
    "checkpoint": ("best", "last"),
    "dice_curves": ("on", "off"),
    "released": ("on", "off"),
}

_INTEGERS = {"size": (1, 1_000_000), "dimensions": (2, 3)}
_GREATEST = {"tolerance": 1e6}
"""Of the fields that are numbers; 1 for all others."""


def _value(key: str, text: str) -> int | float | str:
    """Read the value of one field, checked against its range."""
    if key in _CHOICES:
        if text not in _CHOICES[key]:
            raise ConfigError(f"protocol field {key}={text!r} is not one of {', '.join(_CHOICES[key])}.")
        return text
    if key == "prompts":
        return _prompt_kind(text)[0]
    if key == "size" and text == "native":
        return text
    try:
        number = int(text) if key in _INTEGERS else float(text)
    except ValueError:
        raise ConfigError(f"protocol field {key}={text!r} is not a number.") from None
    least, greatest = _INTEGERS.get(key, (0, _GREATEST.get(key, 1)))
    if not least <= number <= greatest:
        raise ConfigError(f"protocol field {key}={text} is out of range.")
    return number


def _prompt_kind(text: str) -> tuple[str, bool]:
    """A source of prompts, and whether it is an oracle."""
    kind = re.sub(r"[1-9]\d*$", "<n>", text)
    if kind not in PROMPTS:
        raise ConfigError(
            f"protocol field prompts={text!r} is no source of prompts; {nearest(text, PROMPTS)} (<n> is a whole number)"
        )
    return text, PROMPTS[kind]
