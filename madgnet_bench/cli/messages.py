"""Turns the configuration parser's long messages into two or three lines with the nearest valid name."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
from collections.abc import Iterable

__all__ = ["condense"]


def condense(message: str) -> str:
    """Shorten a message of the configuration parser.

    Args:
        message: What the parser raised.

    Returns:
        What is wrong, and where it is known the nearest valid name; at most three lines.
    """
    for pattern, explain in _RULES:
        match = re.search(pattern, message)
        if match:
            return explain(message, match)
    lines = [line.strip() for line in message.splitlines() if line.strip() and not line.strip().startswith("Given value")]
    return "\n".join(lines[:1] + lines[-2:] if len(lines) > 3 else lines)


def _unknown_option(message: str, match: re.Match[str]) -> str:
    """A class got an argument that it does not have."""
    key = match[1]
    owners = re.findall(r"class_path '([\w.]+)'", message[: match.start()])
    if not owners:
        return f"unknown key {key!r}."
    owner = owners[-1]
    return f"unknown key {key!r} of {owner.rsplit('.', 1)[-1]}; {_nearest(key, _parameters(owner))}"


def _unknown_class(message: str, match: re.Match[str]) -> str:
    """A class name that is not known."""
    keys = re.findall(r'Parser key "([\w.]+)"', message[: match.start()])
    from madgnet_bench.cli import classes

    place = f" for {keys[-1]!r}" if keys else ""
    return f"unknown class {match[1]!r}{place}; {_nearest(match[1].rsplit('.', 1)[-1], classes.__all__)}"


_RULES = (
    (r"Option '([\w.]+)' is not accepted", _unknown_option),
    (r"Expected a dot import path string: ([\w.]+)", _unknown_class),
)


def _parameters(class_path: str) -> list[str]:
    """Names of the arguments of a class."""
    module, name = class_path.rsplit(".", 1)
    signature = inspect.signature(getattr(importlib.import_module(module), name).__init__)
    return [p for p in signature.parameters if p != "self"]


def _nearest(word: str, words: Iterable[str]) -> str:
    """Name the closest valid word, or all of them."""
    known = list(words)
    close = difflib.get_close_matches(word.lower(), [name.lower() for name in known], n=1, cutoff=0.5)
    if close:
        return f"did you mean {next(name for name in known if name.lower() == close[0])!r}?"
    return f"valid: {', '.join(known)}."
