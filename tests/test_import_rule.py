"""Who may import whom, and which rooms stay free of torch: every import of every module, also those inside functions."""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import madgnet_bench

PACKAGE = "madgnet_bench"
ROOT = Path(madgnet_bench.__file__).parent

ALWAYS = {"errors", "protocol", "pictures"}
ALLOWED = {
    "errors": set(),
    "protocol": {"errors"},
    "contracts": {"errors"},
    "catalog": ALWAYS,
    "records": ALWAYS,
    "pictures": {"errors", "protocol"},
    "layers": ALWAYS,
    "networks": ALWAYS | {"layers", "contracts"},
    "inference": ALWAYS | {"layers", "contracts"},
    "losses": ALWAYS | {"layers", "contracts"},
    "metrics": ALWAYS | {"layers", "contracts"},
    "tasks": ALWAYS | {"losses", "inference", "metrics", "layers", "contracts", "records"},
    "callbacks": ALWAYS | {"losses", "inference", "metrics", "layers", "contracts", "records"},
    "data": ALWAYS | {"catalog", "contracts"},
    "bench": ALWAYS | {"catalog", "records"},
}
ALLOWED["cli"] = set(ALLOWED)
ALLOWED["__main__"] = {"cli"}
WITHOUT_TORCH = {"errors", "protocol", "catalog", "records", "pictures", "bench"}
HEAVY = {
    *("torch", "torchvision", "torchmetrics", "lightning", "pytorch_lightning", "timm", "albumentations"),
    *("segmentation_models_pytorch", "monai", "transformers"),
}


def imports(tree: ast.AST, module: str) -> Iterator[tuple[int, str]]:
    """Yield line and absolute name of everything that is imported, by statement or by a literal import_module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")[: -node.level]
                base = ".".join([*parents, *filter(None, [base])])
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in ("import_module", "__import__"):
                yield node.lineno, str(node.args[0].value)


def violations(root: Path) -> list[str]:
    found = []
    for file in sorted(root.rglob("*.py")):
        relative = file.relative_to(root)
        room = relative.parts[0].removesuffix(".py")
        if room == "__init__":
            allowed, light = set(), True
        else:
            if room not in ALLOWED:
                found.append(f"{relative}: {room} is no room of DESIGN.md")
                continue
            allowed, light = ALLOWED[room] | {room}, room in WITHOUT_TORCH
        module = ".".join([PACKAGE, *relative.with_suffix("").parts])
        for line, name in imports(ast.parse(file.read_text(encoding="utf-8")), module):
            top, *rest = name.split(".")
            if top == PACKAGE and rest and rest[0] in ALLOWED and rest[0] not in allowed:
                found.append(f"{relative}:{line}: {room} must not import {rest[0]}")
            if light and top in HEAVY:
                found.append(f"{relative}:{line}: {room} must not import {top}")
    return found


def test_every_module_keeps_the_rule() -> None:
    assert violations(ROOT) == []


def test_every_room_exists_and_is_looked_at() -> None:
    rooms = {path.stem for path in ROOT.iterdir() if path.is_dir() or path.suffix == ".py"} - {"__init__", "__pycache__"}
    assert rooms == set(ALLOWED)


@pytest.mark.parametrize(
    ("room", "code", "message"),
    [
        ("bench/store.py", "import torch", "bench must not import torch"),
        ("bench/store.py", "def f():\n    from torch.nn import functional", "bench must not import torch"),
        (
            "bench/store.py",
            "def f():\n    import importlib\n    importlib.import_module('timm.models')",
            "must not import timm",
        ),
        ("catalog/cards.py", "if True:\n    import lightning.pytorch as pl", "catalog must not import lightning"),
        ("records.py", "from albumentations import Compose", "records must not import albumentations"),
        ("tasks/supervised.py", "from madgnet_bench.networks.unet import UNet", "tasks must not import networks"),
        ("tasks/supervised.py", "from madgnet_bench import networks", "tasks must not import networks"),
        ("tasks/supervised.py", "from ..networks import unet", "tasks must not import networks"),
        ("tasks/supervised.py", "from .. import networks", "tasks must not import networks"),
        ("networks/unet.py", "import madgnet_bench.tasks.supervised", "networks must not import tasks"),
        ("data/cases.py", "from madgnet_bench.records import run_id", "data must not import records"),
        ("contracts.py", "from madgnet_bench.protocol import Protocol", "contracts must not import protocol"),
        ("errors.py", "from madgnet_bench.records import run_id", "errors must not import records"),
        ("__init__.py", "import torch", "__init__ must not import torch"),
        ("utils.py", "", "utils is no room"),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, room: str, code: str, message: str) -> None:
    file = tmp_path / room
    file.parent.mkdir(exist_ok=True)
    file.write_text(code)
    found = violations(tmp_path)
    assert len(found) == 1 and message in found[0]


@pytest.mark.parametrize(
    ("room", "code"),
    [
        (
            "bench/store.py",
            "from madgnet_bench import __version__\nfrom madgnet_bench.bench.tables import Table\nimport pandas",
        ),
        ("layers/frequency.py", "import torch\nfrom madgnet_bench.errors import ConfigError"),
        ("cli/training.py", "from madgnet_bench.networks.unet import UNet\nimport lightning"),
        ("networks/unet.py", "from . import blocks\nfrom ..layers import padding"),
    ],
)
def test_what_is_allowed_is_not_reported(tmp_path: Path, room: str, code: str) -> None:
    file = tmp_path / room
    file.parent.mkdir(exist_ok=True)
    file.write_text(code)
    assert violations(tmp_path) == []


def test_light_rooms_really_import_nothing_heavy() -> None:
    modules = [
        ".".join([PACKAGE, *file.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__")
        for file in sorted(ROOT.rglob("*.py"))
        if file.relative_to(ROOT).parts[0].removesuffix(".py") in WITHOUT_TORCH
    ]
    modules += [f"{PACKAGE}.cli", f"{PACKAGE}.cli.tables", f"{PACKAGE}.cli.doctor", f"{PACKAGE}.cli.data"]
    code = textwrap.dedent(f"""
        import importlib, sys
        for name in {modules!r}:
            importlib.import_module(name)
            heavy = {HEAVY!r} & set(sys.modules)
            assert not heavy, f"{{name}} imports {{heavy}}"
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(modules) >= 15
