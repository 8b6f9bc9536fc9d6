"""Turns the configuration parser's long messages into two or three lines with the nearest valid name."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
from collections.abc import Iterable, Sequence

from madgnet_bench.cli import classes
from madgnet_bench.errors import BenchError

__all__ = ["condense", "find_cause"]


def find_cause(error: BaseException) -> BenchError | None:
    """Find our own error among the causes of one that a library raised around it."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, BenchError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


def condense(message: str, options: Sequence[str] = ()) -> str:
    """Shorten a message of the configuration parser.

    Args:
        message: What the parser raised.
        options: Keys that the parser knows, dotted, for the nearest name.

    Returns:
        What is wrong, and where it is known the nearest valid name; at most three lines.
    """
    for pattern, explain in _RULES:
        match = re.search(pattern, message)
        if match:
            return explain(message, match, options)
    noise = ("Does not validate", "Subtypes:", "Errors:", "Given value", "- Expected a <class 'NoneType'>", "tip:")
    stripped = [line.strip() for line in message.splitlines()]
    lines = [line.removeprefix("- ") for line in stripped if line and not line.startswith(noise)]
    return "\n".join(lines[:1] + lines[-2:] if len(lines) > 3 else lines)


def _unknown_option(message: str, match: re.Match[str], options: Sequence[str]) -> str:
    """A class got an argument that it does not have."""
    owners = re.findall(r"class_path '([\w.]+)'", message[: match.start()])
    if not owners:
        return f"unknown key {match[1]!r}; {_nearest(match[1], options)}"
    return f"unknown key {match[1]!r} of {owners[-1].rsplit('.', 1)[-1]}; {_nearest(match[1], _parameters(owners[-1]))}"


def _unknown_argument(message: str, match: re.Match[str], options: Sequence[str]) -> str:
    """The command line or a file holds a key that nothing takes."""
    return f"unknown key {match[1]!r}; {_nearest(match[1], options)}"


def _unknown_class(message: str, match: re.Match[str], options: Sequence[str]) -> str:
    """A class name that is not known, or that does not fit its place."""
    keys = re.findall(r'Parser key "([\w.]+)"', message[: match.start()])
    name = match[1]
    fitting = classes.fitting(keys[-1] if keys else "")
    place = f" for {keys[-1]!r}" if keys else ""
    if name in classes.__all__:
        return f"class {name} does not fit{place}; valid: {', '.join(fitting)}, or your own by its module."
    nearest = _nearest(name.rsplit(".", 1)[-1], fitting)
    return f"unknown class {name!r}{place}; {nearest}\nYour own classes are named with their module."


def _missing_attribute(message: str, match: re.Match[str], options: Sequence[str]) -> str:
    """A class path whose module does not hold the class."""
    module, name = match[1], match[2]
    return f"module {module} has no {name!r}; {_nearest(name, _public_names(module))}"


def _missing_argument(message: str, match: re.Match[str], options: Sequence[str]) -> str:
    """A class was not given what it needs."""
    keys = re.findall(r'Parser key "([\w.]+)"', message[: match.start()])
    place = f"{keys[-1]!r} of the configuration" if keys else "the configuration"
    return f"{place} lacks {match[1]}; add --config with a file that has it, such as those in configs/."


def _wrong_value(message: str, match: re.Match[str], options: Sequence[str]) -> str:
    """A value of the wrong type."""
    keys = re.findall(r'Parser key "([\w.]+)"', message[: match.start()])
    given = re.search(r"Got value: (.+)", message) or re.search(r"Given value: (.+)", message)
    value = f" {given[1].strip()!r}" if given else ""
    return f"{keys[-1] if keys else 'a key'}: wrong value{value}; expected {match[1].rsplit('.', 1)[-1]}."


_RULES = (
    (r"Option '([\w.]+)' is not accepted", _unknown_option),
    (r"unrecognized arguments: (?:--)?([\w.]+)", _unknown_argument),
    (r"Key '([\w.]+)' is not expected", _unknown_argument),
    (r"module '([\w.]+)' has no attribute '(\w+)'", _missing_attribute),
    (r"Expected a dot import path string: ([\w.]+)", _unknown_class),
    (r"the following arguments are required: ([\w., ]+)", _missing_argument),
    (r"Expected a <class '(?!NoneType)([\w.]+)'>", _wrong_value),
)


def _public_names(module: str) -> list[str]:
    """Names that a module offers."""
    loaded = importlib.import_module(module)
    return list(getattr(loaded, "__all__", [name for name in vars(loaded) if not name.startswith("_")]))


def _parameters(class_path: str) -> list[str]:
    """Names of the arguments of a class."""
    module, name = class_path.rsplit(".", 1)
    signature = inspect.signature(getattr(importlib.import_module(module), name).__init__)
    return [parameter for parameter in signature.parameters if parameter != "self"]


def _nearest(word: str, words: Iterable[str]) -> str:
    """Name the closest valid word, or all of them."""
    known = sorted(set(words))
    folded = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), folded, n=1, cutoff=0.5)
    if close:
        return f"did you mean {folded[close[0]]!r}?"
    return f"valid: {', '.join(known)}." if known else "see --help."
