"""Every shipped YAML is read and run.

Configurations: on phantoms, one batch of training and validation through the real command line. Suites: expanded, and of every
network the arguments read by the parser of the command line, the network built, and its loss carried back through it.
"""

import dataclasses
import importlib
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from jsonargparse import Namespace
from standins import batch_of

from madgnet_bench.bench.suite import Suite
from madgnet_bench.catalog.official import READERS, CatalogDataset
from madgnet_bench.cli import classes, main
from madgnet_bench.cli.training import BenchCLI
from madgnet_bench.protocol import Protocol

ROOT = Path(__file__).parents[1]
PHANTOMS = ROOT / "configs/data/phantoms_microscopy.yaml"
SMALL = ROOT / "configs/network/unet_16_256.yaml"

CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
SUITES = sorted((ROOT / "benchmarks").rglob("*.yaml"))

MADGNET = [ROOT / "configs/network/madgnet_multi_task.yaml", ROOT / "configs/trainer/madgnet.yaml"]

COMPANIONS = {"data": [SMALL], "network": [PHANTOMS], "trainer": [PHANTOMS, SMALL], "demo": [], "madgnet": MADGNET}
"""What a configuration of each folder needs beside it to be whole."""

JOBS = {
    "ablation_attention": 4 * 3 * 3,
    "ablation_basis": 3 * 3 * 3,
    "ablation_encoder": 3 * 3 * 3,
    "ablation_formulation": 2 * 2 * 3 * 3,
    "ablation_frequencies": 6 * 3 * 3,
    "ablation_frequency_scale": 4 * 5 * 3,
    "ablation_scales": 4 * 3 * 3,
    "ablation_selection": 3 * 3 * 3,
    "ablation_sub_decoder": 3 * 3 * 3,
    "fundus": 2 * 3,
    "mixed_modality": 2 * 2 * 2 * 3,
    "real_subsets": 5 * 4 * 2,
    "seen_unseen": 2 * 5 * 3,
    "smoke": 3 * 2,
}
"""Jobs of every suite: networks (and losses) x training sets x seeds."""

EXPERIMENTS = {
    "busi": ({"busi"}, {"stu"}, "madgnet[checkpoint=last]"),
    "covid19_1": ({"covid19_1"}, {"covid19_2"}, "madgnet[checkpoint=last]"),
    "dsb2018": ({"dsb2018"}, {"monuseg2018_mixture"}, "madgnet"),
    "isic2018": ({"isic2018"}, {"ph2"}, "madgnet"),
    "polyp": (
        {"polyp_pranet/cvc_clinicdb", "polyp_pranet/kvasir"},
        {"polyp_pranet/cvc_300", "polyp_pranet/cvc_colondb", "polyp_pranet/etis"},
        "madgnet[checkpoint=last]",
    ),
    "refuge": ({"refuge"}, {"drishti_gs"}, "madgnet[checkpoint=last]"),
}
"""Seen and unseen sets of the paper's experiments, and how they are evaluated."""

FAST = """
data:
  class_path: SeenUnseenDataModule
  init_args:
    seen:
      - {class_path: PhantomDataset, init_args: {name: near, modality: microscopy, size: 64, cases: 10}}
    unseen:
      - {class_path: PhantomDataset, init_args: {name: far, modality: microscopy, size: 64, cases: 5, shift: 0.5, seed: 1}}
    batches: {class_path: ShuffledBatches, init_args: {batch_size: 2}}
trainer:
  accelerator: cpu
  fast_dev_run: true
"""
"""Phantoms for the images, small batches, no GPU: everything else is the file's own."""

SMALL_ENCODERS = {
    "smp_dpt.yaml": "test_vit",
    "smp_segformer.yaml": "pvt_v2_b0",
    "smp_upernet.yaml": "test_convnext",
    **{f"smp_{name}.yaml": "test_resnet" for name in ("deeplab_v3_plus", "fpn", "manet", "unet", "unet_plus_plus")},
}
"""Encoders with which a configuration is run; it is built at full size elsewhere."""

SMALL_SAM = {
    name: {"size": "tiny", "image_size": 64, **weights}
    for weights, names in (
        ({}, ("sam_tiny_point", "sam_med2d_point")),
        ({"checkpoint": None}, ("sam_frozen_point", "sam_point", "sam_lora_box")),
        ({"encoder_checkpoint": None}, ("sam_automatic", "self_prompt_sam")),
    )
    for name in names
}
"""Arguments with which SAM and its relatives are run: a tiny one, nothing downloaded."""

PARAMETERS = {
    "attention_unet.yaml": 34_878_573,
    "sam_automatic.yaml": 90_042_289,
    "sam_frozen_point.yaml": 93_735_472,
    "sam_lora_box.yaml": 91_490_864,  # at 512 pixels: fewer positions than at 1024
    "sam_med2d_point.yaml": 271_241_776,
    "sam_point.yaml": 93_735_472,
    "sam_tiny_point.yaml": 102_956,
    "self_prompt_sam.yaml": 93_735_472,
    "smp_deeplab_v3_plus.yaml": 22_437_457,
    "smp_dpt.yaml": 121_007_617,
    "smp_fpn.yaml": 23_155_393,
    "smp_manet.yaml": 31_783_633,
    "smp_segformer.yaml": 25_375_937,
    "smp_unet.yaml": 24_436_369,
    "smp_unet_plus_plus.yaml": 26_078_609,
    "smp_upernet.yaml": 37_043_873,
    "unet_plus_plus.yaml": 9_163_329,
    "unet_plus_plus_deep.yaml": 9_163_428,
    "unet.yaml": 31_037_633,
    "unet_16_256.yaml": 1_942_577,
    "madgnet.yaml": 33_366_372 - 2 * (256 + 128 + 64 + 32 + 4),  # without the distance and boundary maps of four stages
    "madgnet_multi_task.yaml": 33_366_372,
    "madgnet_resnet18.yaml": 15_482_716,
    "madgnet_resnet18_multi_task.yaml": 15_482_716 + 2 * (256 + 128 + 64 + 32 + 4),
}
"""Parameters of every network's configuration, with one target."""

INITIAL_WEIGHTS = ("pretrained", "checkpoint", "encoder_checkpoint")
"""Arguments of networks that change no shape."""

FOUND = {"data": 8, "demo": 2, "madgnet": 6, "network": len(PARAMETERS), "trainer": 4}
"""How many configurations lie in each folder."""


def test_every_configuration_is_found():
    assert Counter(path.parent.name for path in CONFIGS) == FOUND
    assert {path.name for path in CONFIGS if path.parent.name == "network"} == set(PARAMETERS)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_first_line_is_a_comment_with_a_command_that_names_real_files(path):
    comment = path.read_text().splitlines()[0]
    assert comment.startswith("# ")
    command = comment.split("madgnet-bench ", 1)[1]
    assert command.startswith("fit ")
    files = re.findall(r"--config (\S+)", command)
    assert str(path.relative_to(ROOT)) in files
    assert all((ROOT / file).is_file() for file in files)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_it_runs(path, tmp_path, capsys):
    fast = tmp_path / "fast.yaml"
    fast.write_text(FAST)
    files = [*COMPANIONS[path.parent.name], path, fast]
    if path.stem in SMALL_SAM:
        files.append(tmp_path / "small.yaml")
        network = {"init_args": SMALL_SAM[path.stem]}
        files[-1].write_text(yaml.safe_dump({"model": {"init_args": {"network": network}}}))
    texts = [file.read_text() for file in files]
    protocol = Protocol.parse(next((yaml.safe_load(t)["protocol"] for t in reversed(texts) if "\nprotocol:" in t), "madgnet"))
    size = 96 if any("rates:" in text for text in texts) else 64  # the smallest of which every rate makes another size
    arguments = ["fit", *(word for file in files for word in ("--config", str(file)))]
    arguments += ["--protocol", str(dataclasses.replace(protocol, size=size))]
    if any("pretrained: true" in text for text in texts):
        arguments += ["--model.init_args.network.init_args.pretrained", "false"]
    if path.parent.name == "madgnet":  # the network is not the file's own
        arguments += ["--model.init_args.network.init_args.encoder", "resnet10t"]
    if path.name in SMALL_ENCODERS:
        arguments += ["--model.init_args.network.init_args.encoder", SMALL_ENCODERS[path.name]]
    assert main([*arguments, "--run.root", str(tmp_path / "runs")]) == 0, capsys.readouterr().err
    assert "fast_dev_run" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("path", [p for p in CONFIGS if p.parent.name == "network"], ids=lambda path: path.name)
def test_networks_are_built_at_full_size(path):
    described = yaml.safe_load(path.read_text())["model"]["init_args"]["network"]
    network_class = getattr(classes, described["class_path"])
    arguments = {name: value for name, value in described["init_args"].items() if name not in INITIAL_WEIGHTS}
    with torch.device("meta"):
        network = network_class(1, **arguments)
    assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS[path.name]
    if described["class_path"] != "SelfPromptSAM":  # it prompts itself by values, of which the meta device has none
        with torch.device("meta"):
            assert network.eval()(torch.empty(1, 3, 352, 352)).logits.shape == (1, 1, 352, 352)


def test_every_data_set_has_a_reader():
    files = [yaml.safe_load(path.read_text()) for path in (*CONFIGS, *SUITES)]
    named = [arguments for file in files for arguments in described(file, "CatalogDataset")]
    assert {arguments["name"] for arguments in named} <= set(READERS)
    names = {CatalogDataset(**arguments).name for arguments in named}  # knows the domains, too
    assert names >= set().union(*(seen | unseen for seen, unseen, _ in EXPERIMENTS.values()))


def described(value: Any, class_path: str) -> Iterator[dict[str, Any]]:
    """The arguments of every object of a class in a configuration."""
    if isinstance(value, dict):
        if value.get("class_path") == class_path:
            yield value.get("init_args", {})
        value = list(value.values())
    for item in value if isinstance(value, list) else ():
        yield from described(item, class_path)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_experiments_of_the_paper_are_whole(name, parse):
    files = [*MADGNET, ROOT / f"configs/madgnet/{name}.yaml"]
    config = parse([word for file in files for word in ("--config", str(file))])
    data = build(config.data)
    seen, unseen, protocol = EXPERIMENTS[name]
    assert ({source.name for source in data.seen}, {source.name for source in data.unseen}) == (seen, unseen)
    assert (config.protocol, str(data.protocol), data.image_size) == (protocol, protocol, 352)
    assert data.num_targets == (2 if name == "refuge" else 1)
    assert config.data.init_args.rates == [0.75, 1.0, 1.25]
    assert config.data.init_args.batches.init_args.batch_size == 16
    model = config.model.init_args
    assert model.network.init_args.encoder == "resnest50d"
    assert (model.network.init_args.pretrained, model.network.init_args.supervision) == (True, "multi_task")
    assert (model.optimizer.init_args.lr, model.schedule.init_args.minimum) == (1e-4, 1e-6)
    assert model.loss.class_path.endswith(".MultiTaskLoss")


def test_every_suite_expands_into_the_expected_jobs():
    assert {path.stem: len(Suite.read(path).jobs()) for path in SUITES} == JOBS
    assert {path.parent for path in SUITES} == {ROOT / "benchmarks"}


def test_the_readme_lists_every_suite_and_its_example_is_one(tmp_path):
    text = (ROOT / "benchmarks/README.md").read_text()
    rows = re.findall(r"^\| `(\w+)\.yaml` \|.*\| (\d+) \|$", text, re.MULTILINE)
    assert {name: int(jobs) for name, jobs in rows} == JOBS
    example = tmp_path / "example.yaml"
    example.write_text(re.search(r"```yaml\n(.+?)```", text, re.DOTALL)[1].replace("../", f"{ROOT}/"))
    jobs = Suite.read(example).jobs()
    assert len(jobs) == 2 * (3 * 2 + 3) + 2 * (2 + 1)  # protocols x (S1: two batches on dsb2018, one on busi), then unet alike
    assert "S1/dsb2018/madgnet/b16/0" in {job.name for job in jobs}


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.name)
def test_suites_begin_with_their_command(path):
    assert re.fullmatch(rf"# .+: madgnet-bench run {path.relative_to(ROOT)}", path.read_text().splitlines()[0])


@pytest.fixture(scope="module")
def parse():
    """Reads arguments of `fit` with the parser of the command line, building nothing."""

    class Parsed(Exception):
        pass

    class Parser(BenchCLI):
        def before_instantiate_classes(self) -> None:
            raise Parsed(self.parser)

    with warnings.catch_warnings(), pytest.raises(Parsed) as caught:
        warnings.simplefilter("ignore")  # about arguments that come from elsewhere than the command line
        Parser(["fit", "--config", str(PHANTOMS), "--config", str(SMALL)])
    (parser,) = caught.value.args
    return lambda arguments: parser.parse_args(["fit", *arguments]).fit


@pytest.fixture(scope="module")
def trained():
    """What was trained already, with and without its suite: most suites hold the default network."""
    return set()


def cells_of_the_suites() -> list[Any]:
    """The first job of every suite, network and further axis: training sets and seeds make no other network."""
    jobs: dict[tuple[str, ...], Any] = {}
    for path in SUITES:
        for job in Suite.read(path).jobs():
            cells = [name for axis, name in job.cells.items() if axis not in ("training_set", "seed")]
            jobs.setdefault((job.suite, *cells), job)
    return [pytest.param(job, id=f"{suite}-{'-'.join(cells)}") for (suite, *cells), job in jobs.items()]


@pytest.mark.parametrize("job", cells_of_the_suites())
def test_the_networks_of_suites_train_under_their_losses(job, parse, trained):
    model = parse(job.arguments).model.init_args
    is_new = (job.suite, str(model)) not in trained
    assert is_new or not job.suite.startswith("ablation_"), "two cells of an ablation describe one network and loss"
    known = str(model) in trained
    trained.update({str(model), (job.suite, str(model))})
    if known:
        return
    if job.suite == "ablation_encoder":  # large, so built without values
        with torch.device("meta"):
            build(model.network, pretrained=False)
        return
    small = {"pretrained": False, "encoder": "resnet10t"} if "encoder" in model.network.init_args else {}
    network, loss = build(model.network, **small), build(model.loss)
    mask = torch.zeros(2, 1, 64, 64)
    mask[:, :, 16:40, 16:40] = 1
    terms = loss(network.train()(torch.rand(2, 3, 64, 64)), batch_of(mask))
    torch.stack(list(terms.values())).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def build(value: Any, **changes: Any) -> Any:
    """Build what a parsed configuration describes, nested objects included."""
    if isinstance(value, list):
        return [build(item) for item in value]
    if not hasattr(value, "class_path"):
        return value
    module, name = value["class_path"].rsplit(".", 1)
    arguments = {key: build(item) for key, item in vars(value.get("init_args", Namespace())).items()}
    return getattr(importlib.import_module(module), name)(**{**arguments, **changes})
