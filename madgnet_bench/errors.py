"""The exceptions of the suite: each message says what is wrong, where, and how to fix it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["BenchError", "ConfigError", "DataErrors", "InputError", "Problem", "RunError", "TrainingError", "nearest"]


class BenchError(Exception):
    """Base of every error that a user can fix; the command line prints it without a traceback and exits with 2."""


class ConfigError(BenchError):
    """A configuration names something that does not exist or does not fit together."""


class InputError(BenchError, ValueError):
    """Images do not fit the network that they are given to."""


class RunError(BenchError):
    """A run folder is missing, incomplete, damaged or of another schema version."""


class TrainingError(BenchError, FloatingPointError):
    """The training has left the finite numbers."""


@dataclass(frozen=True, order=True)
class Problem:
    """One thing wrong with one file of a data set.

    Attributes:
        file: The file or folder, as the user would find it.
        problem: What is wrong with it, in a few words.
        fix: What the user can do about it.
    """

    file: str
    problem: str
    fix: str


class DataErrors(BenchError):
    """Everything that is wrong with one or several data sets, collected and raised once.

    Args:
        where: The data set or folder concerned.
        problems: At least one problem, in the order in which they are shown.
        shown: How many rows the message prints before it only counts the rest.
        outcome: What did not happen for that reason.
    """

    def __init__(
        self, where: str, problems: Sequence[Problem], *, shown: int = 50, outcome: str = "nothing was trained or written"
    ) -> None:
        self.where = where
        self.problems = tuple(problems)
        super().__init__(_problem_table(where, self.problems, shown, outcome))


def _problem_table(where: str, problems: Sequence[Problem], shown: int, outcome: str) -> str:
    """Lay the problems out as an aligned table of file, problem and fix."""
    noun = "problem" if len(problems) == 1 else "problems"
    lines = [f"{where}: {len(problems)} {noun}; {outcome}."]
    rows = [("file", "problem", "fix"), *((p.file, p.problem, p.fix) for p in problems[:shown])]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    lines += [f"  {file:<{widths[0]}}  {problem:<{widths[1]}}  {fix}" for file, problem, fix in rows]
    if len(problems) > shown:
        lines.append(f"  ... and {len(problems) - shown} more")
    return "\n".join(lines)


def nearest(word: str, words: Iterable[str]) -> str:
    """Name the closest valid word, or all of them: the end of a message about an unknown one.

    >>> nearest("madgnett", ["madgnet", "native"])
    "did you mean 'madgnet'?"
    """
    known = list(words)
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"valid: {', '.join(known)}."
