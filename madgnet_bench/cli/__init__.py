"""The command line: one static table of commands, of which only the chosen one's module is imported."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence

from madgnet_bench import __version__
from madgnet_bench.errors import BenchError

__all__ = ["main"]

_COMMANDS = {
    "fit": ("training:fit", "train, then test the chosen checkpoint on every seen and unseen set"),
    "validate": ("training:validate", "measure a checkpoint on the seen validation sets"),
    "test": ("training:test", "measure a checkpoint on every seen and unseen test set"),
    "predict": ("training:predict", "write masks and overlays for any folder of images"),
    "export": ("export:main", "write a trained network as ONNX, checked against torch"),
    "evaluate": ("evaluate:main", "score masks or probability maps of any framework against references"),
    "data": ("data:main", "list, get, check, audit, profile and show data sets"),
    "run": ("suites:run", "train and test every job of a suite that is not done"),
    "status": ("suites:status", "show how far the jobs of a suite are"),
    "leaderboard": ("tables:main", "compare runs: models x data sets, seen and unseen apart"),
    "report": ("report:main", "write a page of tables, figures, tests and pictures of cases"),
    "compare": ("compare:main", "fail where a measure fell below a baseline: the gate for CI"),
    "doctor": ("doctor:main", "check versions, hardware, data root and what is missing"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: What follows the program's name; taken from the command line where not given.

    Returns:
        0 done, 1 the check failed, 2 wrong use or bad input.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        sys.stdout.write(_help())
        return 0 if words else 2
    if words[0] == "--version":
        sys.stdout.write(f"madgnet-bench {__version__}\n")
        return 0
    command = words[0]
    if command not in _COMMANDS:
        close = difflib.get_close_matches(command, _COMMANDS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"commands: {', '.join(_COMMANDS)}."
        sys.stderr.write(f"madgnet-bench: unknown command {command!r}; {hint}\n")
        return 2
    module, function = _COMMANDS[command][0].split(":")
    try:
        status: int = getattr(importlib.import_module(f"madgnet_bench.cli.{module}"), function)(words[1:])
    except BenchError as error:
        sys.stderr.write(f"madgnet-bench {command}: {error}\n")
        return 2
    except OSError as error:
        if error.filename is None:  # of no file: not the user's to mend
            raise
        sys.stderr.write(f"madgnet-bench {command}: {error.filename}: {error.strerror}.\n")
        return 2
    return status


def _help() -> str:
    """What `--help` prints."""
    width = max(map(len, _COMMANDS))
    lines = [f"  {name:<{width}}  {summary}" for name, (_, summary) in _COMMANDS.items()]
    return "\n".join(
        [
            "usage: madgnet-bench COMMAND ...",
            "",
            "Domain-generalization benchmarks for medical image segmentation.",
            "",
            *lines,
            "",
            "madgnet-bench COMMAND --help says more.",
            "",
        ]
    )
