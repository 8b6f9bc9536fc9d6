from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from madgnet_bench.catalog.audit.pretraining import pretraining_contamination
from madgnet_bench.catalog.models import MODELS, UNKNOWN, ModelCard, Weights, data_sets_of_tag, pretraining_of
from madgnet_bench.cli import classes
from madgnet_bench.contracts import SegmentationNetwork
from madgnet_bench.networks.smp import weights_tag

ROOT = Path(__file__).parents[2]
NETWORKS = {
    name: value
    for name, value in vars(classes).items()
    if inspect.isclass(value) and issubclass(value, SegmentationNetwork) and value is not SegmentationNetwork
}


def test_every_network_has_a_card_and_every_card_a_network() -> None:
    assert len(NETWORKS) >= 6
    assert set(MODELS) == set(NETWORKS)
    assert all(name == card.name for name, card in MODELS.items())


@pytest.mark.parametrize("name", [name for name, card in MODELS.items() if card.parameters is not None])
def test_parameters_are_counted_at_the_defaults(name: str) -> None:
    with torch.device("meta"):
        network = NETWORKS[name](1)
    assert sum(parameter.numel() for parameter in network.parameters()) == MODELS[name].parameters


@pytest.mark.parametrize("card", MODELS.values(), ids=lambda card: card.name)
def test_a_card_names_arguments_that_exist(card: ModelCard) -> None:
    arguments = inspect.signature(NETWORKS[card.name]).parameters
    for weights in card.weights:
        assert weights.argument in arguments
        assert not weights.encoder or weights.encoder in arguments
        assert weights.pretraining or weights.encoder, "weights of no data set"
    told = {weights.argument for weights in card.weights}
    assert {"pretrained", "checkpoint", "encoder_checkpoint"} & set(arguments) <= told


@pytest.mark.parametrize("card", MODELS.values(), ids=lambda card: card.name)
def test_the_page_has_a_row_of_every_card(card: ModelCard) -> None:
    (row,) = re.findall(rf"^\| `{card.name}` \|.*", (ROOT / "docs/networks.md").read_text(), re.MULTILINE)
    assert card.parameters is None or f" {card.parameters:,} " in row
    found = re.search(r"\d{4}\.\d{5}", card.paper)
    assert found is None or found[0] in row


@pytest.mark.parametrize(
    ("tag", "sets"),
    [
        ("a1_in1k", ("ImageNet-1k",)),
        ("fcmae_ft_in22k_in1k_384", ("ImageNet-21k", "ImageNet-1k")),
        ("fb_swsl_ig1b_ft_in1k", ("Instagram-1B", "ImageNet-1k")),
        ("laion2b_ft_in12k_in1k", ("LAION-2B", "ImageNet-12k", "ImageNet-1k")),
        ("sa1b", ("SA-1B",)),
        ("sam_in1k", ("ImageNet-1k",)),  # trained with sharpness-aware minimisation
        ("fb_r896", (UNKNOWN,)),
        ("", (UNKNOWN,)),
    ],
)
def test_data_sets_of_tags(tag: str, sets: tuple[str, ...]) -> None:
    assert data_sets_of_tag(tag) == sets


@pytest.mark.parametrize(
    ("network", "config", "sets"),
    [
        ("UNet", {}, ()),
        ("madgnet_bench.networks.unet_plus_plus.UNetPlusPlus", {"deep_supervision": True}, ()),
        ("MADGNet", {"encoder": "resnest50d", "pretrained": False, "checkpoint": None}, ()),
        ("MADGNet", {"encoder": "resnest50d", "pretrained": True}, ("ImageNet-1k",)),
        ("MADGNet", {"encoder": "resnest50d", "encoder_checkpoint": "a.pth"}, (UNKNOWN,)),
        ("MADGNet", {"encoder": "resnest50d", "pretrained": True, "checkpoint": "a.pth"}, (UNKNOWN,)),
        ("SMPNetwork", {"encoder": "mit_b2", "pretrained": True}, ("ImageNet-1k",)),
        ("SMPNetwork", {"encoder": "resnet50.fb_ssl_yfcc100m_ft_in1k", "pretrained": True}, ("YFCC-100M", "ImageNet-1k")),
        ("SAM", {"checkpoint": "facebook/sam-vit-huge"}, ("SA-1B",)),
        ("SAM", {"checkpoint": "weights/sam_vit_b_01ec64.pth"}, ("SA-1B",)),
        ("SAM", {"checkpoint": "medsam_vit_b_01ec64.pth"}, (UNKNOWN,)),
        ("SelfPromptSAM", {"encoder_checkpoint": "sam_vit_b_kvasir.pth"}, (UNKNOWN,)),
        ("WrappedNetwork", {"module": "my_package.build"}, (UNKNOWN,)),
        ("my_package.MyNetwork", {}, (UNKNOWN,)),
    ],
)
def test_pretraining(network: str, config: dict[str, Any], sets: tuple[str, ...]) -> None:
    assert pretraining_of(network, config, tag_of=weights_tag) == sets


def test_an_encoder_without_a_tag_is_unknown_where_nobody_tells() -> None:
    assert pretraining_of("MADGNet", {"encoder": "resnest50d", "pretrained": True}) == (UNKNOWN,)


def test_several_weights_of_one_network(monkeypatch: pytest.MonkeyPatch) -> None:
    card = ModelCard(
        name="Many",
        title="",
        weights=(
            Weights(argument="checkpoint", value="hub/med-*", pretraining=("SA-1B", "Kvasir-SEG")),
            Weights(argument="checkpoint", value="hub/*", pretraining=("SA-1B",)),
            Weights(argument="pretrained", encoder="backbone", pretraining=("SA-1B",)),
        ),
    )
    monkeypatch.setattr("madgnet_bench.catalog.models.MODELS", {"Many": card})
    found = {value: pretraining_of("Many", {"checkpoint": value}) for value in ("hub/med-b", "hub/base", "folder", None, "")}
    assert found == {"hub/med-b": ("SA-1B", "Kvasir-SEG"), "hub/base": ("SA-1B",), "folder": (UNKNOWN,), None: (), "": ()}
    # weights of the whole network replace those of its encoder, whether or not the suite knows them
    assert pretraining_of("Many", {"checkpoint": "folder", "pretrained": True, "backbone": "a.in1k"}) == (UNKNOWN,)
    assert pretraining_of("Many", {"pretrained": True, "backbone": "vit.in1k"}) == ("SA-1B", "ImageNet-1k")
    seen = pretraining_contamination(found["hub/med-b"], ["kvasir_seg_256", "busi", "polyp_pranet/kvasir"])
    assert [finding.where for finding in seen] == ["kvasir_seg_256", "polyp_pranet/kvasir"]


def test_what_sam_med2d_has_seen() -> None:
    names = pretraining_of("SAMMed2D", {"checkpoint": "sam-med2d_b.pth"})
    assert names[0] == "SA-1B" and names[-1] == UNKNOWN
    seen = [
        "kvasir_seg",
        "kvasir_seg_256",
        "polyp_pranet/cvc_clinicdb",
        "busi/malignant",
        "isic2017",
        "isic2017_val_400",
        "isic2018",
    ]
    seen += ["acdc", "synapse", "brats2021", "shenzhen_lung_512", "covid19_1"]
    unseen = ["polyp_pranet/etis", "polyp_pranet/cvc_300", "dsb2018", "bbbc039", "stu", "ph2", "covid19_2", "chasedb1"]
    assert [finding.where for finding in pretraining_contamination(names, seen + unseen)] == seen


def test_what_shipped_configurations_start_from_is_known() -> None:
    sets = {}
    paths = (path for family in ("unet*", "attention*", "madgnet*", "smp*") for path in ROOT.glob(f"configs/network/{family}"))
    for path in paths:
        network = yaml.safe_load(path.read_text())["model"]["init_args"]["network"]
        sets[path.stem] = pretraining_of(network["class_path"], network.get("init_args", {}), tag_of=weights_tag)
    assert all(UNKNOWN not in names for names in sets.values()), sets
    assert sets["unet"] == sets["attention_unet"] == sets["unet_plus_plus_deep"] == ()
    imagenet = [name for name, names in sets.items() if names == ("ImageNet-1k",)]
    assert {name for name in sets if name.startswith("smp_")} | {"madgnet", "madgnet_multi_task"} <= set(imagenet)
