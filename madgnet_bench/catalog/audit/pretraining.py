"""Was a network pretrained on a test set? A rule over the names of data sets; no image is compared."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from madgnet_bench.catalog.audit.rules import Finding

__all__ = ["SOURCES", "pretraining_contamination"]

SOURCES: Mapping[str, frozenset[str]] = {
    name: frozenset(sources)
    for name, sources in {
        "bbbc039": ("bbbc039",),
        "covid19_1": ("covid19_1", "covid19ctscans"),  # slices of the twenty volumes of that set, as it is cited
        "dsb2018": ("dsb2018", "bbbc039"),  # 43 images of the assay
        "hyper_kvasir": ("kvasir_seg",),
        "isic2017_val_400": ("isic2017",),
        "isic2018": ("isic2018", "isic2017"),  # the challenges of these years share images
        "kvasir": ("kvasir_seg",),
        "kvasir_seg_256": ("kvasir_seg",),
        "monuseg": ("monuseg2018",),
        "monuseg2018_mixture": ("monuseg2018", "tnbc"),
        "monuseg2018_test": ("monuseg2018",),
        "polyp_pranet": ("kvasir_seg", "cvc_clinicdb", "cvc_300", "cvc_colondb", "etis"),
        "polyp_pranet/kvasir": ("kvasir_seg",),
        "polyp_pranet/cvc_clinicdb": ("cvc_clinicdb",),
        "polyp_pranet/cvc_300": ("cvc_300",),
        "polyp_pranet/cvc_colondb": ("cvc_colondb",),
        "polyp_pranet/etis": ("etis",),
        "shenzhen_lung_512": ("shenzhen",),
        "synapse": ("btcv",),
    }.items()
}
"""The sources whose images a data set holds, where they are others than its own name."""


def pretraining_contamination(pretraining: Sequence[str], test_sets: Sequence[str]) -> list[Finding]:
    """Find the test sets of which a network has seen images in pretraining, by the names of the sets.

    Names compare without case, blanks and punctuation, and by `SOURCES`: a network pretrained on HyperKvasir has seen
    Kvasir-SEG.

    Args:
        pretraining: The data sets that a network was pretrained on, as its model card lists them.
        test_sets: Names of data sets, with or without a domain.

    Returns:
        One finding per test set, which breaks a rule.

    Example:
        >>> [finding.where for finding in pretraining_contamination(["ImageNet-1k", "Kvasir-SEG"], ["kvasir_seg_256", "busi"])]
        ['kvasir_seg_256']
    """
    findings = []
    for test_set in test_sets:
        met = [name for name in dict.fromkeys(pretraining) if _sources(name) & _sources(test_set)]
        if met:
            detail = f"the network was pretrained on {', '.join(met)}"
            fix = "report this set as seen in pretraining, or take weights without it"
            findings.append(Finding("broken", "pretraining holds test data", test_set, detail, fix))
    return findings


def _sources(name: str) -> frozenset[str]:
    """The plain names of the sources of a data set, or of the set that a domain belongs to."""
    for known in (name, name.partition("/")[0]):
        for listed, sources in SOURCES.items():
            if _plain(listed) == _plain(known):
                return frozenset(map(_plain, sources))
    return frozenset({_plain(name.partition("/")[0])})


def _plain(name: str) -> str:
    """Letters and digits alone, in lower case; the slash before a domain stays."""
    return re.sub(r"[^a-z0-9/]", "", name.lower())
