"""Which prediction belongs to which reference, and both as maps that can be compared; every problem is told. No torch.

Two folders pair by name: ``PREDICTIONS/a/case1.png`` belongs with ``REFERENCES/a/case1.npy``; the case is ``a/case1``. Or a CSV
names every pair.
"""

from __future__ import annotations

import csv
import itertools
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from madgnet_bench.catalog.datasets import FileProblem
from madgnet_bench.catalog.maps import Content, MapTarget, map_suffixes, read_maps, show_size, suffix_of
from madgnet_bench.catalog.volumes import read_affine, read_header
from madgnet_bench.errors import ConfigError, Problem
from madgnet_bench.protocol import Protocol

__all__ = ["Pair", "PairMaps", "PairRules", "list_pairs", "read_pair", "read_pairs_file"]

_PASSED_OVER = frozenset({".csv", ".json", ".log", ".md", ".pkl", ".txt", ".yaml", ".yml"})
"""Endings of what lies beside maps and never is one."""

_CLUTTER = frozenset({"thumbs.db", "desktop.ini"})
_COLUMNS = ("case_id", "prediction", "reference")
_OPTIONAL = ("group_id", "dataset", "domain")
_ELSEWHERE = 0.1
"""Part of a voxel by which the corners of two volumes may differ."""


@dataclass(frozen=True, kw_only=True)
class PairRules:
    """How the files of a comparison are read.

    Attributes:
        protocol: How they will be compared.
        targets: In the order of the channels.
        maps: What predictions hold; references are always masks.
        background: Values of label maps that are background, beside 0.
        resize: A prediction of another size than its reference is resized, instead of refused.

    Raises:
        ConfigError: The targets do not fit together, or the protocol asks for what files cannot tell.
    """

    protocol: Protocol
    targets: tuple[MapTarget, ...] = (MapTarget("foreground"),)
    maps: Literal["masks", "probability"] = "masks"
    background: tuple[int, ...] = ()
    resize: bool = False

    def __post_init__(self) -> None:
        names = [target.name for target in self.targets]
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"--target: give one or more different names, not {names}.")
        if any(target.values for target in self.targets) and not self.labels:
            raise ConfigError("--target: give label values (NAME=VALUE) for every target, or for none.")
        if self.background and not self.labels:
            raise ConfigError("--background belongs to label maps: give each target its values, as --target disc=1.")
        if self.background and set(self.background) & {value for target in self.targets for value in target.values}:
            raise ConfigError("--background names a value of a target.")
        if self.protocol.dimensions == 3 and (self.resize or self.protocol.size != "native"):
            raise ConfigError("volumes are compared in the grid of their reference: resample the predictions to it.")
        if self.protocol.dimensions == 2 and self.protocol.unit == "mm":
            raise ConfigError(f"protocol {self.protocol} measures in mm, and images do not tell their spacing; use unit=pixel.")

    @property
    def labels(self) -> bool:
        """Whether references, and predicted masks, are label maps."""
        return all(target.values for target in self.targets)

    @property
    def reference_content(self) -> Content:
        """What reference files hold."""
        return "labels" if self.labels else "masks"

    @property
    def prediction_content(self) -> Content:
        """What prediction files hold."""
        return "probability" if self.maps == "probability" else self.reference_content


@dataclass(frozen=True, order=True)
class Pair:
    """The files of one case.

    Attributes:
        dataset: Name of the data set in tables.
        case_id: Unique in its data set.
        group_id: Patient, video or volume.
        domain: Domain inside the data set; empty where it is one domain.
        prediction: One file for all targets, or one per target in order.
        reference: Likewise.
    """

    dataset: str
    case_id: str
    group_id: str
    domain: str
    prediction: tuple[Path, ...]
    reference: tuple[Path, ...]


class PairMaps(NamedTuple):
    """One case as maps.

    Attributes:
        prediction: (K, *spatial): bool for masks, else float in [0, 1].
        reference: (K, *spatial) bool; of another size only where the rules allow it.
        spacing: Millimetres between voxels along D, H, W, from the reference; None where it does not tell.
    """

    prediction: NDArray[Any]
    reference: NDArray[np.bool_]
    spacing: tuple[float, ...] | None


Listing = tuple[list[Pair], list[Problem]]


def list_pairs(
    predictions: Path,
    references: Path,
    *,
    rules: PairRules,
    dataset: str,
    prediction_ending: str = "",
    reference_ending: str = "",
) -> Listing:
    """Pair two folders by the names of their files; subfolders are part of the names. Nothing is decoded.

    Where a folder holds a folder named like a target, each target is read from its own, and nothing else may lie there.

    Args:
        predictions: Folder of the predictions.
        references: Folder of the references.
        rules: How the files are read.
        dataset: Name of the data set in tables.
        prediction_ending: Only predictions whose file names end so are listed, and what stands before it is the case; the
            name without its suffix where empty.
        reference_ending: Likewise.

    Returns:
        The pairs, sorted, and every file that is missing, too many or of another kind.
    """
    found, problems = _list_side(predictions, rules, rules.prediction_content, prediction_ending)
    referred, more = _list_side(references, rules, rules.reference_content, reference_ending)
    problems += more
    if found and referred:
        how = "; where only endings differ, strip them with --prediction_ending or --reference_ending"
        for case in sorted(found.keys() ^ referred.keys()):
            if case in referred:
                problems.append(Problem(str(referred[case][0]), "reference without a prediction", f"predict {case} too{how}"))
            else:
                fix = f"add the reference of {case}, or remove the prediction{how}"
                problems.append(Problem(str(found[case][0]), "prediction without a reference", fix))
    both = sorted(found.keys() & referred.keys())
    return [Pair(dataset, case, case, "", found[case], referred[case]) for case in both], problems


def read_pairs_file(path: Path, *, rules: PairRules, dataset: str) -> Listing:
    """Read a CSV of pairs: case_id, prediction, reference, and where wanted group_id, dataset and domain.

    Files are relative to the CSV's folder, or absolute; ``;`` separates those of several targets. A domain becomes part of the
    name of the data set, as ``dataset/domain``.

    Args:
        path: The CSV.
        rules: How the files are read.
        dataset: Name of the data set of rows that give none.

    Returns:
        The pairs, sorted, and a problem for every row that cannot be used.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            rows, columns = list(reader), reader.fieldnames or ()
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        return [], [Problem(str(path), f"cannot be read ({error})", "name a CSV in UTF-8 of case_id, prediction, reference")]
    missing = [name for name in _COLUMNS if name not in columns]
    unknown = [str(name) for name in columns if name not in (*_COLUMNS, *_OPTIONAL)]
    if missing or unknown or not rows:
        what = f"no column {missing[0]}" if missing else f"unknown column {unknown[0]!r}" if unknown else "no row"
        return [], [Problem(str(path), what, f"columns: {', '.join(_COLUMNS)}; where wanted {', '.join(_OPTIONAL)}")]
    pairs, problems = [], []
    for line, row in enumerate(rows, start=2):
        try:
            pairs.append(_read_row(path, row, rules, dataset))
        except FileProblem as error:
            problem = error.problem
            problems.append(Problem(f"{path.name}, line {line}", f"{problem.problem}: {problem.file}", problem.fix))
    counts = Counter((pair.dataset, pair.case_id) for pair in pairs)
    for (name, case), count in counts.items():
        if count > 1:
            problems.append(Problem(str(path), f"case {case!r} of {name} stands {count} times", "one row per case"))
    return sorted(pairs), problems


def read_pair(pair: Pair, rules: PairRules) -> tuple[PairMaps | None, list[Problem]]:
    """Read one case, and everything wrong with it.

    Returns:
        The maps, or None where there is a problem; and the problems.

    Raises:
        ConfigError: nibabel is not installed.
    """
    problems: list[Problem] = []
    read: list[NDArray[Any]] = []
    for files, content, jpeg in (
        (pair.prediction, rules.prediction_content, False),
        (pair.reference, rules.reference_content, True),
    ):
        try:
            read.append(
                read_maps(
                    files,
                    targets=rules.targets,
                    content=content,
                    dimensions=rules.protocol.dimensions,
                    background=rules.background,
                    jpeg=jpeg,
                )
            )
        except FileProblem as error:
            problems.append(error.problem)
    if len(read) < 2:
        return None, problems
    prediction, reference = read
    problems += _compare_sizes(pair, rules, prediction.shape[1:], reference.shape[1:])
    spacing = _spacing(pair.reference[0]) if rules.protocol.dimensions == 3 else None
    if rules.protocol.dimensions == 3 and not problems:
        problems += _compare_grids(pair)
    if rules.protocol.unit == "mm" and not (spacing and min(spacing) > 0):
        fix = f"save references as NIfTI with their spacing, or choose {rules.protocol.name}[unit=pixel]"
        problems.append(Problem(str(pair.reference[0]), "tells no spacing, and distances are in mm", fix))
    return (None if problems else PairMaps(prediction, reference, spacing)), problems


def _list_side(
    folder: Path, rules: PairRules, content: Content, ending: str
) -> tuple[dict[str, tuple[Path, ...]], list[Problem]]:
    """The files of every case in a folder, by the case."""
    if not folder.is_dir():
        return {}, [Problem(str(folder), "no such folder", "name the folder of the predictions, then that of the references")]
    names = [target.name for target in rules.targets]
    if content == "labels" or not any((folder / name).is_dir() for name in names):
        files, problems = _list_tree(folder, rules.protocol, ending)
        return {case: (path,) for case, path in files.items()}, problems
    problems = [
        Problem(str(path), "lies beside the folders of the targets", "name it with --target, or move it away")
        for path in sorted(folder.iterdir())
        if path.name not in names and not _is_clutter(path.name) and path.suffix.lower() not in _PASSED_OVER
    ]
    trees: list[dict[str, Path]] = []
    for name in names:
        if (folder / name).is_dir():
            files, more = _list_tree(folder / name, rules.protocol, ending)
            trees.append(files)
            problems += more
        else:
            trees.append({})
            problems.append(Problem(str(folder / name), "no such folder", "every target needs its own, as others have one"))
    cases = list(dict.fromkeys(case for tree in trees for case in tree))
    for name, tree in zip(names, trees, strict=True):
        if tree:
            fix = "add it; where the target is absent, it is a map of zeros"
            problems += [Problem(str(folder / name), f"no map of case {case}", fix) for case in cases if case not in tree]
    return {case: tuple(tree[case] for tree in trees) for case in cases if all(case in tree for tree in trees)}, problems


def _list_tree(folder: Path, protocol: Protocol, ending: str) -> tuple[dict[str, Path], list[Problem]]:
    """The files of a folder and its subfolders, by their case."""
    found: dict[str, Path] = {}
    problems: list[Problem] = []
    suffixes = map_suffixes(protocol.dimensions)
    for path in _walk(folder):
        suffix = suffix_of(path)
        if ending and not path.name.endswith(ending):
            continue
        if suffix.lower() not in suffixes:
            if suffix.lower() not in _PASSED_OVER:
                readable = " ".join(sorted(suffixes))
                problems.append(Problem(str(path), f"no format of protocol {protocol}", f"it reads {readable}"))
            continue
        case = path.relative_to(folder).as_posix().removesuffix(ending or suffix)
        if not case or case.endswith("/"):
            problems.append(Problem(str(path), "nothing stands before the ending", "shorten the ending"))
        elif case in found:
            fix = "remove one of the two, or choose with --prediction_ending or --reference_ending"
            problems.append(Problem(str(path), f"is of the same case as {found[case].name}", fix))
        else:
            found[case] = path
    if not found and not problems:
        readable = " ".join(sorted(suffixes))
        what = f"holds no map whose name ends in {ending}" if ending else "holds no map"
        fix = f"write ending and suffix, as _mask.png; it reads {readable}" if ending else f"put files there of {readable}"
        problems.append(Problem(str(folder), what, fix))
    return found, problems


def _walk(folder: Path) -> Iterator[Path]:
    """Every file that is not hidden, sorted, through linked folders too."""
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not _is_clutter(name))
        yield from (Path(parent, name) for name in sorted(files) if not _is_clutter(name))


def _is_clutter(name: str) -> bool:
    return name.startswith(".") or name.lower() in _CLUTTER


def _read_row(path: Path, row: Mapping[str | None, Any], rules: PairRules, dataset: str) -> Pair:
    """One line of a CSV of pairs.

    Raises:
        FileProblem: It cannot be used.
    """
    if None in row or None in row.values():
        raise FileProblem(str(row.get("case_id")), "more or fewer fields than columns", "quote fields that hold a comma")
    values = {str(name): str(value).strip() for name, value in row.items()}
    empty = next((name for name in _COLUMNS if not values[name]), None)
    if empty:
        raise FileProblem(values["case_id"] or "?", f"{empty} is empty", "fill it in, or remove the row")
    name, domain = values.get("dataset") or dataset, values.get("domain", "")
    if domain and name != domain and not name.endswith(f"/{domain}"):
        name = f"{name}/{domain}"
    files = {}
    for side, content in (("prediction", rules.prediction_content), ("reference", rules.reference_content)):
        files[side] = tuple(path.parent / Path(part.strip()).expanduser() for part in values[side].split(";"))
        count, allowed = len(files[side]), {1} if content == "labels" else {1, len(rules.targets)}
        if count not in allowed:
            fix = f"one file, or one per target ({', '.join(target.name for target in rules.targets)}), separated by ;"
            raise FileProblem(values[side], f"{side} names {count} files", "one label map" if content == "labels" else fix)
        _check_files(files[side], rules.protocol)
    if set(files["prediction"]) & set(files["reference"]):
        raise FileProblem(values["prediction"], "prediction and reference are one file", "name the right one of each")
    case = values["case_id"]
    return Pair(name, case, values.get("group_id") or case, domain, files["prediction"], files["reference"])


def _check_files(files: Sequence[Path], protocol: Protocol) -> None:
    """Refuse files that are not there or of another kind."""
    for file in files:
        if suffix_of(file).lower() not in map_suffixes(protocol.dimensions):
            readable = " ".join(sorted(map_suffixes(protocol.dimensions)))
            raise FileProblem(str(file), f"no format of protocol {protocol}", f"it reads {readable}")
        if not file.is_file():
            raise FileProblem(str(file), "no such file", "paths are relative to the folder of the CSV, or absolute")


def _compare_sizes(pair: Pair, rules: PairRules, prediction: tuple[int, ...], reference: tuple[int, ...]) -> list[Problem]:
    """A wrong size is usually a mistake, so that it takes a word to allow it."""
    size = rules.protocol.size
    allowed = {reference} if size == "native" else {reference, (size, size)}
    if prediction in allowed or rules.resize:
        return []
    if rules.protocol.dimensions == 3:
        fix = "resample the prediction to the reference's grid"
    else:
        fix = "save it at that size, or pass --resize to have it resized"
    problem = f"is {show_size(prediction)}, its reference {show_size(reference)}"
    return [Problem(str(pair.prediction[0]), problem, fix)]


def _is_volume(path: Path) -> bool:
    return suffix_of(path).lower() in (".nii", ".nii.gz")


def _spacing(reference: Path) -> tuple[float, ...] | None:
    """The spacing of a volume; None for an array."""
    return read_header(reference, axes=None).spacing if _is_volume(reference) else None


def _compare_grids(pair: Pair) -> list[Problem]:
    """All volumes of a case must lie at one place: equal arrays in different orientations would be compared else."""
    volumes = [path for path in (*pair.reference, *pair.prediction) if _is_volume(path)]
    problems: list[Problem] = []
    for path in volumes[1:]:
        header = read_header(volumes[0], axes=None)
        corners = [[*corner, 1] for corner in itertools.product(*((0, side - 1) for side in header.shape[::-1]))]
        moved = (read_affine(path) - read_affine(volumes[0])) @ np.array(corners).T
        distance = np.linalg.norm(moved[:3], axis=0).max()
        if not distance <= _ELSEWHERE * min(header.spacing):
            where = f"lies elsewhere than {volumes[0].name}: corners are up to {distance:.3g} mm apart"
            fix = "save it with the reference's affine (origin, spacing, orientation), or resample it to that grid"
            problems.append(Problem(str(path), where, fix))
    return problems
