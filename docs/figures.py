"""Draw the figures of this folder and of the results from a run folder.

    python docs/figures.py curves RUN OUT.png     # loss terms, seen validation and learned scalars over the epochs
    python docs/figures.py stages RUN OUT.png     # MADGNet's maps of every decoder stage, on the first unseen test case

Draw ``stages`` for runs on phantoms only: the picture shows the image.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import yaml
from matplotlib.figure import Figure

from madgnet_bench.bench.figures import learning_curves
from madgnet_bench.catalog.phantoms import PhantomDataset
from madgnet_bench.networks.madgnet import MADGNet
from madgnet_bench.records import RunFolder


def main() -> None:
    """Parse the arguments and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", choices=("curves", "stages"))
    parser.add_argument("run", type=Path)
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    figure = learning_curves(RunFolder(options.run)) if options.figure == "curves" else _stages(options.run)
    figure.savefig(options.output, dpi=85)


def _stages(run: Path) -> Figure:
    """Image and reference, then region, distance and boundary of the four stages, as probabilities, the deepest first."""
    config = yaml.safe_load(RunFolder(run).config_file.read_text())
    network = MADGNet(**config["model"]["init_args"]["network"]["init_args"] | {"num_targets": 1, "pretrained": False})
    best = torch.load(RunFolder(run).checkpoints / "best.ckpt", weights_only=True, map_location="cpu")
    weights = {
        name.removeprefix("network."): value for name, value in best["state_dict"].items() if name.startswith("network.")
    }
    network.load_state_dict(weights)
    network.eval()
    network.training = True  # all maps, from the running statistics
    phantoms = PhantomDataset(**config["data"]["init_args"]["unseen"][0]["init_args"])
    case = phantoms.manifest.cases[0]
    image, mask = phantoms.read_image(case), phantoms.read_mask(case)
    with torch.no_grad():
        stages = network(torch.from_numpy(image).permute(2, 0, 1)[None] / 255).auxiliary
    figure = Figure(figsize=(7.2, 8.4), layout="constrained")
    axes = figure.subplots(5, 3)
    axes[0, 0].imshow(image.squeeze(), cmap="gray")
    axes[0, 1].imshow(mask[0], cmap="gray")
    axes[0, 0].set_title("image", fontsize=9)
    axes[0, 1].set_title("reference", fontsize=9)
    for number, (line, maps) in enumerate(zip(axes[1:], stages, strict=True), start=1):
        for axis, (task, logits) in zip(line, maps.items(), strict=True):
            axis.imshow(logits[0, 0].sigmoid(), vmin=0, vmax=1, cmap="viridis")
            axis.set_title(f"stage {number}: {task}", fontsize=9)
    for axis in axes.ravel():
        axis.axis("off")
    return figure


if __name__ == "__main__":
    main()
