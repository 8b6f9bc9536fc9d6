"""Small run folders with pictures, made from phantoms without training: what the tests of the report open.

As a script it writes them for a look at the page:

    python tests/bench/report/phantom_runs.py FOLDER
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion, shift

from madgnet_bench import __version__
from madgnet_bench.catalog.phantoms import PhantomDataset
from madgnet_bench.pictures import KINDS, PARTS, case_panel
from madgnet_bench.records import CaseRow, RunFolder, run_id, summarize, write_atomically, write_json

PROTOCOL = "madgnet[size=96]"
NETWORKS = (
    ("UNet 16-256", 7_763_041, 0.0),
    ("MADGNet resnet18", 15_483_684, 0.5),
    ("TransUNet <small> & 'co'", 93_231_000, 0.25),
)
SHIFTS = (("seen", 0.0), ("unseen", 0.4), ("unseen", 0.9))


def write_runs(
    root: Path, *, seeds: tuple[int, ...] = (0, 1), cases: int = 6, size: int = 96, modality: str = "fundus", count: int = 3
) -> Path:
    """Write a run folder per network and seed."""
    sets = [(setting, PhantomDataset(modality, shift=level, cases=cases, size=size)) for setting, level in SHIFTS]
    for network, parameters, skill in NETWORKS:
        for seed in seeds:
            write_run(root, sets, network=network, parameters=parameters, skill=skill, seed=seed, count=count)
    return root


def write_run(root, sets, *, network, parameters, skill, seed, count):
    config = {"seed_everything": seed, "model": {"network": network}}
    manifests = {source.name: source.manifest.sha256 for _, source in sets}
    name = run_id(config, manifests, PROTOCOL)
    folder = RunFolder(root / name)
    quoted = network.replace("'", "''")
    write_atomically(folder.config_file, f"seed_everything: {seed}\nmodel:\n  network: '{quoted}'\n")
    draw = np.random.default_rng([seed, parameters])
    rows = [row for setting, source in sets for row in test_set(folder, setting, source, skill=skill, draw=draw, count=count)]
    folder.write_cases(rows)
    for epoch in range(8):
        level = 1 - math.exp(-(epoch + 1) * (0.3 + 0.2 * skill)) + draw.normal(0, 0.01)
        folder.append_history(epoch, {"train/loss": 1.6 - level, "train/dice": 0.9 - level / 2, "val/dsc": 0.9 * level})
    folder.write_result(
        {
            "run_id": name,
            "suite": "phantoms",
            "network": network,
            "parameters": parameters,
            "seed": seed,
            "epochs": 8,
            "image_size": sets[0][1].size,
            "protocol": PROTOCOL,
            "checkpoint": {"rule": "best", "epoch": 6, "monitor": "val/dsc", "value": 0.85},
            "training_sets": [sets[0][1].name],
            "manifests": manifests,
            "cells": summarize(rows),
            "package": {"version": __version__, "commit": "0123456789ab"},
            "hardware": {"machine": "x86_64", "accelerator": "cpu", "threads": 1},
            "seconds": 61.5,
            "deviations": ["predictions are drawn, not learned"] if skill else [],
        }
    )


def test_set(folder, setting, source, *, skill, draw, count):
    """The rows of one test set; its pictures are written."""
    rows, tested = [], []
    for case in source.manifest:
        image, reference = source.read_image(case), source.read_mask(case)
        prediction = np.stack([worsen(target, skill=skill, far=setting == "unseen", draw=draw) for target in reference])
        scores = [dsc(one, other) for one, other in zip(prediction, reference, strict=True)]
        tested.append((float(np.mean(scores)), case.case_id, image, prediction, reference))
        for target, score, one, other in zip(source.card.targets, scores, prediction, reference, strict=True):
            rows.append(
                CaseRow(
                    case_id=case.case_id,
                    group_id=case.group_id,
                    dataset=source.name,
                    modality=source.card.modality,
                    domain=case.domain,
                    setting=setting,
                    target=target,
                    protocol=PROTOCOL,
                    empty_case="neither",
                    measures={"dsc": score, "iou": score / (2 - score), "mae": float(np.mean(one != other))},
                )
            )
    write_gallery(folder.path / "predictions" / source.name.replace("/", "_"), source, tested, count)
    return rows


def write_gallery(folder, source, tested, count):
    rising = sorted(tested, key=lambda entry: entry[:2])
    middle = (len(rising) - 1) / 2
    around = sorted(range(len(rising)), key=lambda place: abs(place - middle))
    ordered = {"worst": rising, "median": [rising[place] for place in around], "best": rising[::-1]}
    folder.mkdir(parents=True)
    entries = []
    for kind in KINDS:
        for rank, (score, case_id, image, prediction, reference) in enumerate(ordered[kind][:count], start=1):
            file = f"{kind}{rank}_dsc{100 * score:05.1f}_{case_id}.png"
            Image.fromarray(case_panel(image, prediction, reference)).save(folder / file)
            about = {"case_id": case_id, "kind": kind, "rank": rank, "dsc": score, "file": file}
            entries.append({**about, "width": image.shape[1], "height": image.shape[0]})
    index = {"dataset": source.name, "parts": list(PARTS), "targets": list(source.card.targets), "cases": entries}
    write_json(folder / "gallery.json", {"schema_version": 1, **index})


def worsen(mask, *, skill, far, draw):
    """Move a mask and change its size."""
    away = draw.normal(0, (7 if far else 2) * (1 - 0.6 * skill), 2)
    moved = shift(mask.astype(float), away, order=0) > 0.5
    steps = int(abs(draw.normal(0, 4 if far else 1.5)))
    change = binary_dilation if draw.random() < 0.5 else binary_erosion
    return (change(moved, iterations=steps) if steps else moved).astype(np.uint8)


def dsc(one, other):
    total = int(one.sum()) + int(other.sum())
    return 2 * int((one & other).sum()) / total if total else 1.0


if __name__ == "__main__":
    write_runs(Path(sys.argv[1]), seeds=(0, 1, 2), cases=24, size=192)
