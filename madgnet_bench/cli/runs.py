"""The arguments of the commands that take a run folder or, without one, a configuration and trained weights. No torch."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from madgnet_bench.errors import RunError
from madgnet_bench.protocol import Protocol
from madgnet_bench.records import RunFolder

__all__ = ["arguments_of_run", "keep_nulls", "split_arguments"]


def split_arguments(
    command: str, summary: str, arguments: Sequence[str], options: Mapping[str, Mapping[str, Any]] | None = None
) -> tuple[str | None, argparse.Namespace, list[str]]:
    """Take the run folder and a command's own options out of its arguments.

    Args:
        command: Name of the command.
        summary: What it does, for its help.
        arguments: What follows its name.
        options: Settings of `argparse.ArgumentParser.add_argument` by name of the option.

    Returns:
        The run folder, if one is named first, the options, and the rest, which belongs to the configuration.
    """
    parser = argparse.ArgumentParser(
        prog=f"madgnet-bench {command}",
        usage=f"madgnet-bench {command} [RUN] [options] [keys of the configuration]",
        description=(
            f"{summary[0].upper()}{summary[1:]}. RUN is a run folder. Without it, pass --config and --ckpt_path, or --config "
            "alone where the network's argument `checkpoint` names the weights of the whole network, such as released ones."
        ),
        epilog="Any key of the configuration may follow, such as --data_root or --trainer.accelerator; see fit --help.",
        allow_abbrev=False,
    )
    for name, settings in (options or {}).items():
        parser.add_argument(name, **settings)
    run = arguments[0] if arguments and not arguments[0].startswith("-") else None
    known, rest = parser.parse_known_args(arguments[1:] if run else arguments)
    return run, known, rest


def arguments_of_run(run: str | None) -> list[str]:
    """The configuration and the chosen checkpoint of a run folder, as options; none where there is no run.

    Raises:
        RunError: It is no run folder, or its checkpoint is missing.
    """
    if run is None:
        return []
    folder = RunFolder(Path(run))
    if not folder.config_file.is_file():
        raise RunError(f"{run}: not a run folder (no config.yaml); `madgnet-bench leaderboard` lists runs.")
    try:
        rule = Protocol.parse(str(yaml.safe_load(folder.config_file.read_text(encoding="utf-8"))["protocol"])).checkpoint
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError):
        raise RunError(f"{folder.config_file}: not the configuration of a run; name a run folder.") from None
    checkpoint = folder.checkpoints / f"{rule}.ckpt"
    if not checkpoint.is_file():
        raise RunError(
            f"{checkpoint}: no such checkpoint; start the run again with: madgnet-bench fit --config {folder.config_file}"
        )
    return ["--config", str(folder.config_file), "--ckpt_path", str(checkpoint)]


def keep_nulls(arguments: Sequence[str]) -> list[str]:
    """Turn each ``--a.init_args.b null`` into a configuration of that one key.

    Given as an option, jsonargparse (4.53) makes the text "None" of it where one class stands inside another.

    Examples:
        >>> keep_nulls(["--x", "1", "--model.init_args.network.init_args.checkpoint", "null"])
        ['--x', '1', '--config={"model": {"init_args": {"network": {"init_args": {"checkpoint": null}}}}}']
    """
    kept: list[str] = []
    rest = list(arguments)
    while rest:
        words = rest.pop(0).split("=", 1)
        if words[0].startswith("--") and ".init_args." in words[0] and len(words) == 1 and rest:
            words.append(rest.pop(0))
        if ".init_args." in words[0] and words[1:] == ["null"]:
            nested: Any = None
            for key in reversed(words[0].removeprefix("--").split(".")):
                nested = {key: nested}
            words = [f"--config={json.dumps(nested)}"]
        kept += ["=".join(words)]
    return kept
