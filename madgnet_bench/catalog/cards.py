"""Data cards: what a data set is, without touching a file of it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DataCard", "Link"]


@dataclass(frozen=True, kw_only=True)
class Link:
    """A file of a data set that its publisher offers without a form or an account.

    Attributes:
        url: Where it is.
        file: Name under which it is stored; it ends as the file's format demands.
        sha256: Hash of its bytes; None where it is not known.
        bytes: Its size; None where it is not known.
    """

    url: str
    file: str
    sha256: str | None = None
    bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class DataCard:
    """Everything a reader of a table must know of a data set.

    Attributes:
        name: Short name, as in commands and tables: lower case, digits and underscores.
        title: Full name.
        modality: Imaging modality: ``dermoscopy``, ``radiology``, ``ultrasound``, ``microscopy``, ``colonoscopy``,
            ``fundus``, ``mri``.
        targets: Names of the target channels, in the order of the mask's channels.
        containment: Pairs (inner, outer) of targets of which the first lies inside the second.
        domains: Names of the domains inside the set that can be chosen by name; empty where it is one domain.
        citation: How the set asks to be cited.
        licence: Its licence, and how well that is known.
        url: Official landing page.
        expected_cases: Number of cases of a complete copy of what the reader reads, or None where it varies.
        layout: The official layout, in one or two sentences.
        split_rule: How cases are split into train, val and test.
        traps: What a careful user must know of it.
        links: The files of a complete copy, where they can be downloaded directly.
        verified: False where the layout could not be confirmed against the official archive.
    """

    name: str
    title: str
    modality: str
    targets: tuple[str, ...]
    containment: tuple[tuple[str, str], ...] = ()
    domains: tuple[str, ...] = ()
    citation: str = ""
    licence: str = ""
    url: str = ""
    expected_cases: int | None = None
    layout: str = ""
    split_rule: str = ""
    traps: tuple[str, ...] = ()
    links: tuple[Link, ...] = ()
    verified: bool = True
