"""Model cards: what a network of the suite is, and which data sets its initial weights have seen. No torch.

A result on a set that a network met in pretraining is no test; `pretraining_of` names the sets of a run, and
`catalog.audit.pretraining` finds the test sets among them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

__all__ = ["MODELS", "UNKNOWN", "ModelCard", "Weights", "data_sets_of_tag", "pretraining_of"]

UNKNOWN = "unknown"
"""Stands for the data sets of weights of which the suite cannot know where they come from."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Initial values that a network can start from.

    Attributes:
        argument: The network's argument that asks for them; it does where it is set: neither missing, None, False nor empty.
        value: Pattern, as of file names, of that argument's value: ``facebook/sam-vit-*`` for one family of weights.
        pretraining: Names of the data sets that they were trained on, in order; `UNKNOWN` where that cannot be known.
        encoder: Name of the argument that holds a timm encoder, where these are timm's weights of it: the sets then follow from
            the tag of the encoder, beside ``pretraining``.
        source: Where the weights come from.
        licence: Their licence, and how well that is known.
    """

    argument: str
    value: str = "*"
    pretraining: tuple[str, ...] = ()
    encoder: str = ""
    source: str = ""
    licence: str = ""


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Everything a reader of a table must know of a network.

    Attributes:
        name: Name of the class, as in configurations.
        title: Title of the paper.
        paper: Authors in short, venue, and arXiv number or DOI; empty where there is none.
        year: Year of the paper; None where there is none.
        licence: Licence of the paper's released code. The suite's own code is written anew and under the suite's licence.
        parameters: Parameters at the arguments' default values and one target; None where there is no default.
        weights: What it can start from: of two that match a configuration, the first counts. Empty: from random values only.
    """

    name: str
    title: str
    paper: str = ""
    year: int | None = None
    licence: str = ""
    parameters: int | None = None
    weights: tuple[Weights, ...] = ()


def _timm_weights(*, licence: str = "the encoder's model card says it; most are Apache-2.0 or MIT") -> tuple[Weights, ...]:
    """Published weights of a timm encoder; of a local file, the suite cannot see whether it holds them."""
    return (
        Weights(argument="encoder_checkpoint", pretraining=(UNKNOWN,), source="a local file", licence=licence),
        Weights(argument="pretrained", encoder="encoder", source="timm", licence=licence),
    )


def _sam_weights(argument: str) -> tuple[Weights, ...]:
    """Published weights of SAM, and others of its shape."""
    source, licence = "facebookresearch/segment-anything, by its files or their copies on the hub", "Apache-2.0"
    hub = [f"facebook/sam-vit-{size}" for size in ("base", "large", "huge")]
    files = ["sam_vit_b_01ec64.pth", "sam_vit_l_0b3195.pth", "sam_vit_h_4b8939.pth"]
    patterns = [*hub, *files, *(f"*/{name}" for name in files)]
    known = tuple(
        Weights(argument=argument, value=value, pretraining=("SA-1B",), source=source, licence=licence) for value in patterns
    )
    return (*known, Weights(argument=argument, pretraining=(UNKNOWN,), source="the user's own"))


_SA_MED2D = (
    *("ACDC", "BraTS2021", "BTCV", "BUSI", "COVID19CTscans", "CVC-ClinicDB", "ISIC2016", "ISIC2017", "ISIC2018"),
    *("Kvasir-SEG", "Shenzhen"),
)

MODELS: Mapping[str, ModelCard] = {
    card.name: card
    for card in (
        ModelCard(
            name="AttentionUNet",
            title="Attention U-Net: Learning Where to Look for the Pancreas",
            paper="Oktay et al., MIDL 2018, arXiv 1804.03999",
            year=2018,
            licence="MIT (ozan-oktay/Attention-Gated-Networks); the 2D code in common use has none",
            parameters=34_878_573,
        ),
        ModelCard(
            name="MADGNet",
            title="Modality-agnostic Domain Generalizable Medical Image Segmentation by Multi-Frequency in Multi-Scale "
            "Attention",
            paper="Nam et al., CVPR 2024, arXiv 2405.06284",
            year=2024,
            licence="see the authors' repository",
            parameters=33_366_372 - 2 * (256 + 128 + 64 + 32 + 4),
            weights=(
                Weights(
                    argument="checkpoint",
                    pretraining=(UNKNOWN,),
                    source="a file of the authors' or the user's; it names no training set",
                ),
                *_timm_weights(),
            ),
        ),
        ModelCard(
            name="SAM",
            title="Segment Anything",
            paper="Kirillov et al., ICCV 2023, arXiv 2304.02643",
            year=2023,
            licence="Apache-2.0 (facebookresearch/segment-anything); transformers: Apache-2.0",
            parameters=93_735_472,
            weights=_sam_weights("checkpoint"),
        ),
        ModelCard(
            name="SAMAutomatic",
            title="SAM-style: the image encoder of Segment Anything and a decoder of our own",
            paper="encoder: Kirillov et al., ICCV 2023, arXiv 2304.02643",
            year=2023,
            licence="Apache-2.0 (facebookresearch/segment-anything); transformers: Apache-2.0",
            parameters=90_042_289,
            weights=_sam_weights("encoder_checkpoint"),
        ),
        ModelCard(
            name="SAMMed2D",
            title="SAM-Med2D",
            paper="Cheng et al., 2023, arXiv 2308.16184",
            year=2023,
            licence="Apache-2.0 (OpenGVLab/SAM-Med2D)",
            parameters=271_241_776,
            weights=(
                Weights(
                    argument="checkpoint",
                    pretraining=("SA-1B", *_SA_MED2D, UNKNOWN),
                    source="the authors' sam-med2d_b.pth: SAM, then 4.6 million images of public and private sets, of which "
                    "these stand in the published part, SA-Med2D-20M (arXiv 2311.11969), and among the data sets here; what "
                    "other files were trained on cannot be known",
                    licence="Apache-2.0",
                ),
            ),
        ),
        ModelCard(
            name="SMPNetwork",
            title="segmentation-models-pytorch",
            paper="P. Iakubovskii, 2019, and the papers of the architectures (docs/networks.md)",
            year=2019,
            licence="MIT; its MiT encoders (mit_b*): NVIDIA Source Code License, non-commercial",
            parameters=24_436_369,
            weights=_timm_weights(
                licence="the encoder's model card says it; most are Apache-2.0 or MIT; mit_b*: NVIDIA, non-commercial"
            ),
        ),
        ModelCard(
            name="SelfPromptSAM",
            title="Self-prompting Large Vision Models for Few-Shot Medical Image Segmentation",
            paper="Wu, Zhang, Elbatel, DART at MICCAI 2023, arXiv 2308.07624",
            year=2023,
            licence="none stated (PeterYYZhang/few-shot-self-prompt-SAM); of SAM: Apache-2.0",
            parameters=93_735_472,
            weights=_sam_weights("encoder_checkpoint"),
        ),
        ModelCard(
            name="UNet",
            title="U-Net: Convolutional Networks for Biomedical Image Segmentation",
            paper="Ronneberger, Fischer, Brox, MICCAI 2015, arXiv 1505.04597",
            year=2015,
            licence="code for Caffe under terms of its own; none of it is used",
            parameters=31_037_633,
        ),
        ModelCard(
            name="UNetPlusPlus",
            title="UNet++: A Nested U-Net Architecture for Medical Image Segmentation",
            paper="Zhou, Siddiquee, Tajbakhsh, Liang, DLMIA 2018, arXiv 1807.10165",
            year=2018,
            licence="non-commercial, academic (MrGiovanni/UNetPlusPlus); MIT (4uiiurz1/pytorch-nested-unet)",
            parameters=9_163_329,
        ),
        ModelCard(
            name="WrappedNetwork",
            title="A third party's network",
            weights=(Weights(argument="module", pretraining=(UNKNOWN,), source="the module's own"),),
        ),
    )
}
"""The card of every network class, by its name."""

_TAGS: Mapping[str, str] = {
    "in1k": "ImageNet-1k",
    "in12k": "ImageNet-12k",
    "in21k": "ImageNet-21k",
    "in22k": "ImageNet-21k",  # the same set, as others count its classes
    "inw21k": "ImageNet-21k",
    "sa1b": "SA-1B",
    "jft": "JFT-300M",
    "ig1b": "Instagram-1B",
    "swag": "Instagram-3.6B",
    "seer": "Instagram-1B",
    "yfcc15m": "YFCC-15M",
    "yfcc100m": "YFCC-100M",
    "cc12m": "CC-12M",
    "openai": "CLIP-400M",
    "laion400m": "LAION-400M",
    "laion2b": "LAION-2B",
    "laiona": "LAION-Aesthetic",
    "datacompxl": "DataComp-1B",
    "datacomp1b": "DataComp-1B",
    "dfn2b": "DFN-2B",
    "dfndr2b": "DFN-2B",
    "dfn5b": "DFN-5B",
    "webli": "WebLI",
    "merged2b": "Merged-2B",
    "m30m": "Merged-30M",
    "m38m": "Merged-38M",
    "lvd142m": "LVD-142M",
    "lvd1689m": "LVD-1689M",
    "sat493m": "SAT-493M",
    "bamboo": "Bamboo",
}
"""Data sets by the words of timm's tags."""


def data_sets_of_tag(tag: str) -> tuple[str, ...]:
    """Name the data sets that a tag of timm tells of; `UNKNOWN` where it tells of none.

    Args:
        tag: What follows the dot in a name of timm's weights, such as ``augreg_in21k_ft_in1k``.

    Examples:
        >>> data_sets_of_tag("augreg_in21k_ft_in1k")
        ('ImageNet-21k', 'ImageNet-1k')
        >>> data_sets_of_tag("mae")
        ('unknown',)
    """
    found = dict.fromkeys(_TAGS[word] for word in re.split("[^a-z0-9]+", tag.lower()) if word in _TAGS)
    return tuple(found) or (UNKNOWN,)


def pretraining_of(
    network_class: str, config: Mapping[str, object], *, tag_of: Callable[[str], str] | None = None
) -> tuple[str, ...]:
    """Name the data sets that a network's initial weights were trained on.

    Args:
        network_class: Name or path of the class.
        config: Its arguments, as resolved: an argument that is missing counts as not set.
        tag_of: Tells the tag of timm's weights for an encoder's name that has none (see `networks.smp.weights_tag`). Without
            it, such an encoder's weights are `UNKNOWN`.

    Returns:
        Names in the order of training; empty where training starts from random values. `UNKNOWN` is among them where the suite
        cannot tell: a user's own network, a local folder of weights, weights of a tag that names no set.

    Examples:
        >>> pretraining_of("UNet", {"widths": [64, 128]})
        ()
        >>> pretraining_of("madgnet_bench.networks.madgnet.MADGNet", {"encoder": "resnest50d.in1k", "pretrained": True})
        ('ImageNet-1k',)
    """
    card = MODELS.get(network_class.rpartition(".")[2])
    if card is None:
        return (UNKNOWN,)
    asked = [weights for weights in card.weights if config.get(weights.argument) not in (None, False, "")]
    if not asked:
        return ()
    first = asked[0].argument
    chosen = next((w for w in asked if w.argument == first and fnmatchcase(str(config[first]), w.value)), None)
    if chosen is None:
        return (UNKNOWN,)
    if not chosen.encoder:
        return chosen.pretraining
    name, _, tag = str(config.get(chosen.encoder, "")).partition(".")
    tag = tag or (tag_of(name) if tag_of else "")
    return tuple(dict.fromkeys((*chosen.pretraining, *data_sets_of_tag(tag))))
