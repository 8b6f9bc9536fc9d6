"""The split lists that the authors of MADGNet released: where they lie, and how their rows name our cases.

Nothing of the lists themselves stands here; they are fetched from the authors' repository at one commit and checked.
What a reader of results must know of them:

- ISIC2018: the column mask_path belongs to other images; only image_path and new_mask_path count.
- BUSI: the released val_frame.csv lies inside the test list and is not used. The rows name one mask per image, while some
  images have several; we unite them all.
- COVID19 divides volumes by slice, and the polyp list divides the sequences of CVC-ClinicDB by frame.
- COVID19 and the polyp pool have no validation list, neither has BUSI.
- DSB2018 has rows that the copy with corrected annotations lacks: it has 664 of the 670 images.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from madgnet_bench.catalog.manifest import Split
from madgnet_bench.catalog.readers.polyp_pranet import polyp_case_id, train_domain
from madgnet_bench.errors import ConfigError, DataErrors, Problem

__all__ = ["COMMIT", "OFFICIAL_LISTS", "REPOSITORY", "OfficialList", "case_ids"]

REPOSITORY = "Inha-CVAI/MADGNet"
"""Owner and name of the authors' repository on GitHub."""

COMMIT = "b8b44420d3324ac724a5e6b7997590bfc31f037e"
"""The commit that the hashes are of."""

_FOLDER = "dataset/BioMedicalDataset"


@dataclass(frozen=True, kw_only=True)
class OfficialList:
    """One CSV file of the authors.

    Attributes:
        path: Its path in the repository.
        rows: Number of its rows, without the header.
        sha256: Hash of its bytes.
        split: The split that it lists.
        domain: The one domain that it lists; empty where it lists the whole set.
        repository: Owner and name of the repository on GitHub.
        commit: The commit that the hash is of.
    """

    path: str
    rows: int
    sha256: str
    split: Split
    domain: str = ""
    repository: str = REPOSITORY
    commit: str = COMMIT


def _list(path: str, rows: int, sha256: str, split: Split, domain: str = "") -> OfficialList:
    return OfficialList(path=f"{_FOLDER}/{path}", rows=rows, sha256=sha256, split=split, domain=domain)


OFFICIAL_LISTS: dict[str, tuple[OfficialList, ...]] = {
    "busi": (
        _list("BUSI/train_frame.csv", 485, "a078a07d21259d4d794e024af597b9cd05252fb73c4c6e667ca765fe572a6ac5", "train"),
        _list("BUSI/test_frame.csv", 162, "d5e6722576ea9d354df0dc8bb14aff12230085eb60a283c856c8cb96447b48ac", "test"),
    ),
    "covid19_1": (
        _list("COVID19/train_frame.csv", 894, "871a1163683b3db5ba5c660d29b02ee30bfc480746a2ca3705e5b77eebb630a2", "train"),
        _list("COVID19/test_frame.csv", 383, "1ebf5ec9e97951930d217c7fe4ad208ce9202cc24544eb9a85906bdb6ea63b74", "test"),
    ),
    "covid19_2": (
        _list("COVID19_2/test_frame.csv", 2534, "a26068fcadee74bfb76c6cc8d5d361294772605c834ce597eceb0c6c97b7a975", "test"),
    ),
    "dsb2018": (
        _list(
            "DSB2018/train_imageid_frame.csv", 536, "6cf950dd13a884f9a3be8fb92b68579685b7659442e55cc92b0d4d1d034f17ff", "train"
        ),
        _list("DSB2018/val_imageid_frame.csv", 67, "f4098f7fc309a03ca8be230b8d20ceb0a04e662925c6ff1ba38250105305b392", "val"),
        _list("DSB2018/test_imageid_frame.csv", 67, "dc9e9d82b29e04ed2a7bb0d826e401116189be143371f756fa62133846e44947", "test"),
    ),
    "isic2018": (
        _list("ISIC2018/train_frame.csv", 2077, "331b5997a25a886b7bf28ef7bc36e8db8079ebb4ede797ce6b82483dbd20259e", "train"),
        _list("ISIC2018/val_frame.csv", 257, "428338114cd08f6bf269ca7259b9f9f729d376d21b22e9859ac8a1d11ce3ca1c", "val"),
        _list("ISIC2018/test_frame.csv", 260, "61c315bcf89b72c8b32f2a89a80d8c923c4b52d69f375d28ae91e4b02817640b", "test"),
    ),
    "monuseg2018_mixture": (
        _list("MonuSeg2018/test_frame.csv", 82, "3ea369c97e8a65357fe32d3bfec291498ecbe4dc9f50e25042c2deb7138541d2", "test"),
    ),
    "ph2": (_list("PH2/test_frame.csv", 200, "1eb1237e466abbfc98e2b1f450e75168082469688b7d212ce8cc63855d792699", "test"),),
    "polyp_pranet": (
        _list(
            "PolypSegData/train_frame.csv", 1450, "6140b8822c0ab232ee88ee3ed266f927908eb929ecdd1d2fc336b6c53502a531", "train"
        ),
        _list(
            "PolypSegData/CVC-300_test_frame.csv",
            60,
            "a5e94771a5b534a0a57fd4d457343c14c85bcc7c2cf5c96ac7f9cdda9f435c40",
            "test",
            "cvc_300",
        ),
        _list(
            "PolypSegData/CVC-ClinicDB_test_frame.csv",
            62,
            "cf1530ce18303817a47bc338764e819d61e3af2948507f9a18124ed1dc3f2c7a",
            "test",
            "cvc_clinicdb",
        ),
        _list(
            "PolypSegData/CVC-ColonDB_test_frame.csv",
            380,
            "460f7ae4922b68f8fb64d1471f945562a9c0d767e0681badeddca35044a77598",
            "test",
            "cvc_colondb",
        ),
        _list(
            "PolypSegData/ETIS-LaribPolypDB_test_frame.csv",
            196,
            "86f2ff10e41a27276b86790d40b5fd743b58ab34527ece0bd4067fc5ed33c887",
            "test",
            "etis",
        ),
        _list(
            "PolypSegData/Kvasir_test_frame.csv",
            100,
            "a9e066a3dfcc3f68ecac6b1ac5395e120357601336a4a588b05ba4c5b990db48",
            "test",
            "kvasir",
        ),
    ),
    "stu": (_list("STU/test_frame.csv", 42, "d6ee09a1b4f88aeabc171d9511c377777022da40cdbbd1006d5c4c8f45ba041d", "test"),),
}
"""The released lists of each data set, by name."""


def case_ids(name: str, split: Split, text: str, *, domain: str = "") -> list[str]:
    """The case_ids that a released list names, in its order.

    Args:
        name: Name of the data set, a key of `OFFICIAL_LISTS`.
        split: The split that the list is of.
        text: The CSV text of the list.
        domain: `OfficialList.domain` of the list.

    Raises:
        ConfigError: There is no such list.
        DataErrors: A column is missing, a row names no case, names another image's mask, or stands twice.

    Example:
        >>> text = "Image_Id,image_path,mask_path" + chr(10) + "0,25.png,25.png"
        >>> case_ids("polyp_pranet", "test", text, domain="etis")
        ['etis_25']
    """
    _check_known(name, split, domain)
    file = f"{name} {split} list"
    column = "ImageId" if name == "dsb2018" else "image_path"
    mask_of = _MASKS.get(name)
    needed = [column] if mask_of is None else [column, _MASK_COLUMNS.get(name, "mask_path")]
    reader = csv.DictReader(io.StringIO(text))
    absent = [wanted for wanted in needed if wanted not in (reader.fieldnames or ())]
    if absent:
        raise DataErrors(file, [Problem(file, f"lacks the column {absent[0]}", "download the list again")])
    found: list[str] = []
    problems: list[Problem] = []
    for line, row in enumerate(reader, start=2):
        where = f"{file}, line {line}"
        stem = PurePosixPath(row[column] or "").stem
        if not stem:
            problems.append(Problem(where, "names no case", "download the list again"))
        elif mask_of is not None and row[needed[1]] != mask_of(row[column]):
            problems.append(Problem(where, f"{row[column]} has the mask {row[needed[1]]}", "download the list again"))
        else:
            found.append(_case_id(name, stem, domain))
    twice = [case_id for case_id, count in Counter(found).items() if count > 1]
    problems += [Problem(file, f"case {case_id} stands twice", "download the list again") for case_id in twice]
    if problems:
        raise DataErrors(file, problems)
    return found


def _case_id(name: str, stem: str, domain: str) -> str:
    """Our case_id of a file's stem: the stem itself, but in the polyp pool, where numbers repeat between domains."""
    if name != "polyp_pranet":
        return stem
    return polyp_case_id(domain or train_domain(stem), stem)


def _check_known(name: str, split: Split, domain: str) -> None:
    """Refuse what was not released."""
    known = [f"{key} {item.split} {item.domain}".strip() for key, items in OFFICIAL_LISTS.items() for item in items]
    wanted = f"{name} {split} {domain}".strip()
    if wanted not in known:
        raise ConfigError(f"the authors released no list {wanted!r}; the lists are: {', '.join(known)}.")


_MASK_COLUMNS: Mapping[str, str] = {"isic2018": "new_mask_path"}
"""The column of the masks, where it is not mask_path."""

_MASKS: Mapping[str, Callable[[str], str]] = {
    "busi": lambda image: f"{PurePosixPath(image).stem}_mask.png",
    "covid19_1": lambda image: f"{PurePosixPath(image).stem}.png",
    "covid19_2": lambda image: image,
    "isic2018": lambda image: f"{PurePosixPath(image).stem}_segmentation.png",
    "monuseg2018_mixture": lambda image: f"{PurePosixPath(image).stem}.png",
    "ph2": lambda image: f"{PurePosixPath(image).stem}_lesion.bmp",
    "polyp_pranet": lambda image: image,
    "stu": lambda image: image.replace("Test_Image_", "mask_"),
}
"""From the file of an image to the file of its mask, as a row must name it; dsb2018 names no masks."""
