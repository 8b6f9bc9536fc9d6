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
import difflib
import re
from dataclasses import dataclass
from typing import Any, Literal

from madgnet_bench.errors import ConfigError

__all__ = ["PROTOCOLS", "Protocol"]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How predictions are compared with references.

    Attributes:
        name: The protocol's name, a key of `PROTOCOLS`.
        size: Side in pixels of the square at which network input, prediction and reference meet, or ``"native"``: the
            prediction is resized to the reference's own size.
        threshold: A probability of at least this value is foreground.
        mae: ``"hard"`` takes the mean absolute error of the thresholded prediction, ``"soft"`` of the probability.
        empty: Value of the overlap measures where reference and prediction are both empty.
        averaging: ``"case"``: every measure is taken per case, then averaged over cases.
        mask_resampling: How references are brought to ``size``: ``"bilinear"`` then cut at 0.5, or ``"nearest"``.
        checkpoint: Which checkpoint is tested: ``"best"`` by the mean DSC of the seen validation split, or ``"last"``.
        prompts: Where the prompts of promptable networks come from; ``"none"`` for automatic methods.
    """

    name: str
    size: int | Literal["native"]
    threshold: float = 0.5
    mae: Literal["soft", "hard"] = "hard"
    empty: float = 1.0
    averaging: Literal["case"] = "case"
    mask_resampling: Literal["bilinear", "nearest"] = "bilinear"
    checkpoint: Literal["best", "last"] = "best"
    prompts: str = "none"

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
            raise ConfigError(f"unknown protocol {name!r}; {_nearest(name, list(PROTOCOLS))}")
        fields = [field.name for field in dataclasses.fields(cls) if field.name != "name"]
        changes: dict[str, Any] = {}
        for item in filter(None, (part.strip() for part in inside.split(","))):
            key, _, value = item.partition("=")
            if key not in fields:
                raise ConfigError(f"protocol {text!r} has no field {key!r}; {_nearest(key, fields)}")
            changes[key] = _value(key, value)
        return dataclasses.replace(PROTOCOLS[name], **changes)


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(name="madgnet", size=352),
        Protocol(name="native", size="native", mae="soft", mask_resampling="nearest"),
    )
}
"""The protocols by name. ``madgnet``: 352 pixels, binarised at 0.5, per-case mean, DSC = IoU = 1 where both are empty: the
rule behind the tables of arXiv 2405.06284. ``native``: the prediction is resized to the reference's own size, soft MAE."""

_CHOICES: dict[str, tuple[str, ...]] = {
    "mae": ("soft", "hard"),
    "averaging": ("case",),
    "mask_resampling": ("bilinear", "nearest"),
    "checkpoint": ("best", "last"),
}


def _value(key: str, text: str) -> int | float | str:
    """Read the value of one field, checked against its range."""
    if key in _CHOICES:
        if text not in _CHOICES[key]:
            raise ConfigError(f"protocol field {key}={text!r} is not one of {', '.join(_CHOICES[key])}.")
        return text
    if key == "prompts" or (key == "size" and text == "native"):
        return text
    try:
        number = int(text) if key == "size" else float(text)
    except ValueError:
        raise ConfigError(f"protocol field {key}={text!r} is not a number.") from None
    if (key == "size" and number < 1) or (key != "size" and not 0 <= number <= 1):
        raise ConfigError(f"protocol field {key}={text} is out of range.")
    return number


def _nearest(word: str, words: list[str]) -> str:
    """Name the closest valid word, or all of them."""
    close = difflib.get_close_matches(word, words, n=1)
    return f"did you mean {close[0]!r}?" if close else f"valid: {', '.join(words)}."
