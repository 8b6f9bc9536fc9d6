"""``madgnet-bench export``: a trained network as ONNX, kept only if onnxruntime agrees with torch."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from madgnet_bench import records
from madgnet_bench.cli.runs import arguments_of_run, split_arguments
from madgnet_bench.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from madgnet_bench.cli.training import BenchCLI
    from madgnet_bench.contracts import SegmentationNetwork

__all__ = ["main"]

_OUTPUTS = ("probability", "logits")

_OTHER_BATCH = 3
"""Images per batch, beside one, with which a file of any batch size is checked."""


class _Shape(NamedTuple):
    """Sides of the network's input; a batch of None is of any size."""

    batch: int | None
    channels: int
    height: int
    width: int


def main(arguments: Sequence[str]) -> int:
    """Export the network of a run, or of a configuration with trained weights.

    Returns:
        0 written, 1 the file computes something else than the network, and was not kept.

    Raises:
        BenchError: An option or the weights cannot be used, a library is missing, the file exists, or the network cannot be
            traced.
    """
    run, options, rest = split_arguments("export", _SUMMARY, arguments, _OPTIONS)
    _check_libraries()
    description_file = _check_output(options.output, overwrite=options.overwrite)
    from madgnet_bench.cli.training import run_cli  # costs seconds

    cli = run_cli(["predict", *arguments_of_run(run), *rest])
    side = cli.datamodule.image_size
    shape = _Shape(None if options.batch == "dynamic" else options.batch, options.channels, *(options.size or (side, side)))
    network = _trained_network(cli)
    description = _describe(cli, shape, run=run)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.output.parent, prefix=f".{options.output.name}.") as folder:
        file = Path(folder, options.output.name)
        description["opset"] = options.opset
        _write(network, file, shape=shape, description=description)
        description["check"] = check = _compare(network, file, shape=shape)
        shown = (
            f"onnxruntime {check['onnxruntime']} and torch {check['torch']} differ by at most {check['probability']:.1e} in "
            f"probabilities and {check['logits']:.1e} in logits (of up to {check['largest_logit']:.3g})"
        )
        if not max(check[name] for name in _OUTPUTS) <= options.tolerance:
            limit = f"{options.tolerance:g} is allowed (--tolerance; large logits may need more)"
            sys.stderr.write(f"madgnet-bench export: {shown}; {limit}. No file was kept.\n")
            return 1
        os.replace(file, options.output)
    records.write_json(description_file, description)
    sys.stdout.write(f"{description['network']}\n{shown}\n{options.output}, described in {description_file}\n")
    _remark_on_inference(cli)
    return 0


def _batch(text: str) -> int | str:
    """Read ``--batch``."""
    if text != "dynamic" and not re.fullmatch("[1-9][0-9]*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a positive number nor 'dynamic'")
    return text if text == "dynamic" else int(text)


def _size(text: str) -> tuple[int, int]:
    """Read ``--size``."""
    match = re.fullmatch("([1-9][0-9]*)(?:x([1-9][0-9]*))?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write 352, or 352x256 for height x width")
    return int(match[1]), int(match[2] or match[1])


_SUMMARY = "write a trained network as ONNX, check it with onnxruntime against torch, describe it in a JSON file beside it"

_OPTIONS: dict[str, dict[str, Any]] = {
    "--output": {"type": Path, "required": True, "metavar": "FILE.onnx", "help": "file to write; FILE.json stands beside it"},
    "--size": {
        "type": _size,
        "metavar": "H[xW]",
        "help": "sides of the images, fixed in the file: 352, or 352x256 for height x width (default: the run's image size)",
    },
    "--batch": {"type": _batch, "default": "dynamic", "metavar": "N", "help": "images per batch, or dynamic: any (default)"},
    "--channels": {"type": int, "default": 3, "metavar": "C", "help": "channels of the images (default: 3)"},
    "--opset": {"type": int, "default": 18, "metavar": "V", "help": "version of the ONNX operators (default: 18)"},
    "--tolerance": {
        "type": float,
        "default": 1e-4,
        "metavar": "T",
        "help": "largest absolute difference from torch, of probabilities and of logits, with which the file is kept "
        "(default: 1e-4; large logits may need more)",
    },
    "--overwrite": {"action": "store_true", "help": "replace an existing file"},
}


def _check_libraries() -> None:
    """Name the extra where one of its libraries is missing."""
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"export needs {', '.join(missing)}: pip install 'madgnet-bench[export]'")


def _check_output(output: Path, *, overwrite: bool) -> Path:
    """Return the file of the description, after making sure that both can be written."""
    if output.suffix != ".onnx":
        raise ConfigError(f"--output {output}: name a file that ends in .onnx.")
    description_file = output.with_suffix(".json")
    for path in (output, description_file):
        if path.is_dir() or (path.exists() and not overwrite):
            raise ConfigError(f"{path} exists; pass --overwrite to replace it, or choose another --output.")
    return description_file


def _trained_network(cli: BenchCLI) -> SegmentationNetwork:
    """The network with its trained weights, in eval mode."""
    from madgnet_bench.cli.training import read_checkpoint

    checkpoint = cli.config["predict"].get("ckpt_path")
    if checkpoint is not None:
        try:
            cli.model.load_state_dict(read_checkpoint(checkpoint)["state_dict"])
        except RuntimeError as error:
            first = " ".join(str(error).split())[:300]
            raise ConfigError(f"{checkpoint} is of another configuration: {first}") from error
    network: SegmentationNetwork = cli.model.network
    return network.float().eval().requires_grad_(False)


def _describe(cli: BenchCLI, shape: _Shape, *, run: str | None) -> dict[str, Any]:
    """What a user of the file must know: what goes in, what comes out, and where it is from."""
    from madgnet_bench.cli.environment import describe_package

    batch, channels, height, width = shape._replace(batch=shape.batch or "batch")  # type: ignore[arg-type]
    targets = list(cli.datamodule.targets)
    return {
        "schema_version": records.SCHEMA_VERSION,
        "network": cli.label,
        "run_id": Path(run).resolve().name if run else None,
        "targets": targets,
        "image_size": [height, width],
        "threshold": cli.model.protocol.threshold,
        "protocol": str(cli.model.protocol),
        "input": {"image": [batch, channels, height, width], "type": "float32 in [0, 1]"},
        "outputs": {name: [batch, len(targets), height, width] for name in _OUTPUTS},
        "package": describe_package(),
    }


def _write(network: SegmentationNetwork, file: Path, *, shape: _Shape, description: Mapping[str, Any]) -> None:
    """Trace the network and write it as one file, without what tracing remembers of this machine.

    Raises:
        ConfigError: The network does not take such images, or cannot be traced or written with these operators.
    """
    import torch

    image = torch.rand(shape.batch or 2, *shape[1:])
    try:
        with torch.no_grad():
            network(image, context=None)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"the network cannot be applied to images {tuple(image.shape)}: {error}") from error
    opset = description["opset"]
    try:
        program = _trace(network, image, dynamic=shape.batch is None, opset=opset)
        model = program.model
        for node in model.graph.all_nodes():
            node.metadata_props.clear()
        text = {name: value if isinstance(value, str) else json.dumps(value) for name, value in description.items()}
        model.metadata_props.update(text)
        program.save(str(file), external_data=False)
    except ImportError as error:
        raise ConfigError(
            f"torch {torch.__version__} cannot use the installed onnxscript ({error}): pip install --upgrade onnxscript onnx"
        ) from error
    except Exception as error:  # of many kinds
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "")[:300]
        hint = "try --batch 1" if shape.batch is None else "the network needs operations that ONNX has"
        raise ConfigError(f"the network cannot be exported ({type(error).__name__}: {reason}); {hint}.") from error
    written = model.opset_imports[""]
    if written != opset:
        raise ConfigError(f"the network cannot be written with --opset {opset}, only with {written}; leave --opset out.")


def _trace(network: SegmentationNetwork, image: Tensor, *, dynamic: bool, opset: int) -> Any:
    """Trace the network on an image (N, C, H, W), for any N where ``dynamic``; return torch's ONNX program."""
    import torch

    class Outputs(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
            logits = self.network(image, context=None).logits
            return logits.sigmoid(), logits

    sides = {"image": {0: torch.export.Dim("batch")}} if dynamic else None
    with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        traced = torch.export.export(Outputs().eval(), (image,), dynamic_shapes=sides, strict=False)
        return torch.onnx.export(
            traced,
            input_names=["image"],
            output_names=list(_OUTPUTS),
            opset_version=opset,
            dynamo=True,
            dynamic_shapes=sides,
            verbose=False,
        )


def _compare(network: SegmentationNetwork, file: Path, *, shape: _Shape) -> dict[str, Any]:
    """Run the file and the network, on the CPU, on noise and phantoms.

    Returns:
        Versions, batch sizes, the largest absolute difference of each output (infinite where a value is not finite) and the
        largest absolute logit.
    """
    import onnxruntime
    import torch

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(str(file), settings, providers=["CPUExecutionProvider"])
    batches = [shape.batch] if shape.batch else [1, _OTHER_BATCH]
    largest = dict.fromkeys((*_OUTPUTS, "largest_logit"), 0.0)
    for image in (image for batch in batches for image in _images(shape._replace(batch=batch))):
        with torch.no_grad():
            logits = network(image, context=None).logits
        found = session.run(list(_OUTPUTS), {"image": image.numpy()})
        differences = [torch.from_numpy(a) - b for a, b in zip(found, (logits.sigmoid(), logits), strict=True)]
        for name, values in zip(largest, (*differences, logits), strict=True):
            value = values.abs().max().item()
            largest[name] = max(largest[name], float("inf") if value != value else value)
    versions = {"onnxruntime": onnxruntime.__version__, "torch": str(torch.__version__)}
    return {**versions, "batches": batches, **largest}


def _images(shape: _Shape) -> list[Tensor]:
    """Two batches of images: noise, and phantoms of a skin lesion."""
    import torch

    from madgnet_bench.catalog.phantoms import PhantomDataset
    from madgnet_bench.data.transforms import resize_image

    batch, channels, height, width = shape
    assert batch is not None  # one is chosen for a file of any batch size
    noise = torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(0))
    dataset = PhantomDataset("dermoscopy", size=min(max(height, width, 32), 512), cases=max(batch, 5))
    pixels = [resize_image(dataset.read_image(case), (height, width)) for case in dataset.manifest.cases[:batch]]
    images = [torch.from_numpy(image[..., [c % image.shape[2] for c in range(channels)]]) for image in pixels]
    return [noise, torch.stack(images).permute(0, 3, 1, 2).float().div(255).contiguous()]


def _remark_on_inference(cli: BenchCLI) -> None:
    """Say what the file leaves out of how the run applies its network."""
    from madgnet_bench.inference.whole_image import WholeImage

    if type(cli.model.inferer) is not WholeImage:
        name = type(cli.model.inferer).__name__
        sys.stdout.write(f"The run's inference ({name}) is not part of the file, which makes one pass over whole images.\n")
