"""MADGNet against the plain formulation of the same mathematics: time and peak memory, as ratios from one run.

    python benchmarks/speed/madgnet.py                     # a CPU: inference of 1 and 8 images, training steps of 2 and 8
    python benchmarks/speed/madgnet.py --device cuda       # a GPU: also bfloat16, channels last, compiled
    python benchmarks/speed/madgnet.py --compile           # also both compiled, against the plain one as it is (minutes)
    python benchmarks/speed/madgnet.py --profile           # where the time of inference goes

Both networks are whole (encoder included) and have equal weights; the plain one is `reference_madgnet`. A training step is
forward, the mean cross entropy of all twelve maps, backward. It needs two images at least: ResNeSt normalises pooled values
over the batch. Times are medians of rounds in which both take turns. Peak memory of a CPU is the growth of the process's
resident set over one step, each in a process of its own; of a GPU, what torch allocated.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.speed.reference_madgnet import ReferenceMADGNet
from benchmarks.speed.timing import hardware, in_turn, medians
from madgnet_bench.networks.encoders import timm_encoder
from madgnet_bench.networks.madgnet import MADGNet
from madgnet_bench.networks.released import convert_released_weights

Step = Callable[[], object]


def main() -> None:
    """Parse the options and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", type=int, default=352, help="side of the images (default: 352)")
    parser.add_argument("--encoder", default="resnest50d")
    parser.add_argument("--repeats", type=int, default=7, help="measured rounds (default: 7)")
    parser.add_argument("--inference", type=int, nargs="*", default=[1, 8], metavar="N", help="batches (default: 1 8)")
    parser.add_argument("--training", type=int, nargs="*", default=[2, 8], metavar="N", help="batches (default: 2 8)")
    parser.add_argument("--compile", action="store_true", help="also time inference with torch.compile")
    parser.add_argument("--profile", action="store_true", help="only show where the time of inference goes")
    parser.add_argument("--memory-of", metavar="NAME:N", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        print(_resident_growth(options))
        return
    print(f"{options.encoder}, {options.size} x {options.size}, torch {torch.__version__}, {hardware(options.device)}")
    networks = _networks(options)
    if options.profile:
        _profile(networks["suite"], _image(options, 1))
        return
    print(f"{'what':<16}{'batch':>6}{'plain':>12}{'suite':>12}{'ratio':>8}")
    for batch in options.inference:
        image = _image(options, batch)
        ways = {name: _inference(network.eval(), image) for name, network in networks.items()}
        if options.compile:
            ways |= {f"{name} compiled": _inference(torch.compile(network), image) for name, network in networks.items()}
        seconds = medians(in_turn(ways, repeats=options.repeats, warm_up=2))
        _row("inference", batch, seconds, "ms", 1e3)
        if options.compile:
            for name in networks:
                _row(f"{name} compiled", batch, {"plain": seconds["plain"], "suite": seconds[f"{name} compiled"]}, "ms", 1e3)
    for batch in options.training:
        image = _image(options, batch)
        ways = {name: _training(network.train(), image) for name, network in networks.items()}
        _row("step", batch, medians(in_turn(ways, repeats=options.repeats)), "ms", 1e3)
        _row("step memory", batch, {name: _peak(ways[name], name, batch, options) for name in ways}, "MB", 1e-6)
        if options.device != "cpu":
            fast = networks["suite"].to(memory_format=torch.channels_last)
            ways["suite"] = _training(torch.compile(fast), image, bfloat16=True)
            _row("bf16 comp.", batch, medians(in_turn(ways, repeats=options.repeats, warm_up=5)), "ms", 1e3)
            networks["suite"].to(memory_format=torch.contiguous_format)


def _networks(options: argparse.Namespace) -> dict[str, nn.Module]:
    """Both formulations, with the same random weights."""
    torch.manual_seed(0)
    plain = ReferenceMADGNet(*timm_encoder(options.encoder))
    suite = MADGNet(1, encoder=options.encoder, supervision="multi_task")
    suite.load_state_dict(convert_released_weights(plain.state_dict(), suite))
    return {"plain": plain.to(options.device), "suite": suite.to(options.device)}


def _image(options: argparse.Namespace, batch: int) -> Tensor:
    return torch.rand(batch, 3, options.size, options.size, generator=torch.Generator().manual_seed(1)).to(options.device)


def _inference(network: nn.Module, image: Tensor) -> Step:
    def run() -> object:
        with torch.inference_mode():
            return network(image)

    return run


def _training(network: nn.Module, image: Tensor, *, bfloat16: bool = False) -> Step:
    reference = (image[:, :1] > 0.5).float()

    def run() -> None:
        network.zero_grad()
        with torch.autocast(image.device.type, torch.bfloat16, enabled=bfloat16):
            output = network(image)
        stages = output if isinstance(output, list) else [list(maps.values()) for maps in output.auxiliary]
        logits = torch.cat([logits.float() for maps in stages for logits in maps], dim=1)
        functional.binary_cross_entropy_with_logits(logits, reference.expand_as(logits)).backward()

    return run


def _peak(step: Step, name: str, batch: int, options: argparse.Namespace) -> float:
    """Bytes that one training step needs beyond what is there before."""
    if options.device == "cpu":
        command = [sys.executable, __file__, "--memory-of", f"{name}:{batch}", "--size", str(options.size)]
        found = subprocess.run([*command, "--encoder", options.encoder], capture_output=True, text=True, check=True)
        return float(found.stdout)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    return torch.cuda.max_memory_allocated() - before


def _resident_growth(options: argparse.Namespace) -> int:
    """How far the resident set of this process rises above its present size in one training step (Linux)."""
    name, batch = options.memory_of.split(":")
    step = _training(_networks(options)[name].train(), _image(options, int(batch)))
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = _status("VmRSS")
    step()
    return 1024 * (_status("VmHWM") - before)


def _status(field: str) -> int:
    """A number of this process's status, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def _row(what: str, batch: int, values: dict[str, float], unit: str, scale: float) -> None:
    plain, suite = (f"{scale * values[name]:.0f} {unit}" for name in ("plain", "suite"))
    print(f"{what:<16}{batch:>6}{plain:>12}{suite:>12}{values['suite'] / values['plain']:>8.2f}", flush=True)


def _profile(network: nn.Module, image: Tensor) -> None:
    """Print the share of each kind of operation in inference, the encoder's and the decoder's apart."""
    step = _inference(network.eval(), image)
    for _ in range(3):
        step()
    with torch.inference_mode():
        features = network.encode(image)
        parts: dict[str, Step] = {
            "encoder": lambda: network.encode(image),
            "decoder": lambda: network.decode(features, image.shape[2:]),
        }
        for part, run in parts.items():
            run()
            with torch.profiler.profile() as profile:
                run()
            events = sorted(profile.key_averages(), key=lambda event: -event.self_cpu_time_total)
            total = sum(event.self_cpu_time_total for event in events)
            print(f"{part}: {total / 1e3:.0f} ms")
            for event in events[:12]:
                print(f"  {event.key:<32}{event.count:>5} calls {100 * event.self_cpu_time_total / total:5.1f} %")


if __name__ == "__main__":
    main()
