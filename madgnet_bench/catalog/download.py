"""Downloading what may be downloaded directly: the archives that cards link to, and the authors' split lists.

A download that breaks off goes on where it stopped, at once or with the next command, where the server can do that. Files are
stored under their name only when they are complete and have the known hash; other bytes are removed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from madgnet_bench.catalog.cards import DataCard, Link
from madgnet_bench.catalog.official import find_data_root
from madgnet_bench.catalog.official_lists import COMMIT, OFFICIAL_LISTS, REPOSITORY, OfficialList
from madgnet_bench.catalog.prepare import Progress, locked
from madgnet_bench.catalog.splits import LISTS_FOLDER, list_file
from madgnet_bench.errors import ConfigError, DataErrors, Problem

if TYPE_CHECKING:
    from requests import Response

__all__ = ["DOWNLOADS_FOLDER", "download_links", "download_lists"]

DOWNLOADS_FOLDER = "downloads"
"""Folder in the data root that holds the downloaded archives."""

_RAW = "https://raw.githubusercontent.com"
_ATTEMPTS = 4  # in a row that bring nothing new
_WAIT = 2.0  # seconds before the second of them, twice that before the third
_TIMEOUT = (15, 60)  # seconds to connect, and between two pieces
_CHUNK = 2**20


def download_links(card: DataCard, *, data_root: str | None, progress: Progress | None = None) -> list[Path]:
    """Download the archives of a data set to ``downloads/<name>`` in the data root; complete ones are not downloaded again.

    Args:
        card: The data set.
        data_root: As in `CatalogDataset`.
        progress: Told what is done.

    Returns:
        The archives, in the order of the card.

    Raises:
        ConfigError: A file cannot be downloaded, or has other bytes than it must have.
    """
    folder = find_data_root(data_root) / DOWNLOADS_FOLDER / card.name
    folder.mkdir(parents=True, exist_ok=True)
    advice = f"Get it at {card.url}, then run `madgnet-bench data prepare {card.name} --source FILE`"
    with locked(folder):
        for link in card.links:
            _retrieve(link, folder / link.file, progress=progress or Progress(), advice=advice)
    return [folder / link.file for link in card.links]


def download_lists(*, data_root: str | None, source: Path | None = None, progress: Progress | None = None) -> list[Path]:
    """Store the authors' split lists in ``splits`` in the data root, each checked by its hash.

    Args:
        data_root: As in `CatalogDataset`.
        source: A checkout of the authors' repository; None downloads the lists.
        progress: Told what is done.

    Returns:
        The files of the lists.

    Raises:
        ConfigError: A list cannot be downloaded.
        DataErrors: The checkout lacks lists or has other ones, or a file of that name with other bytes is in the data root.
    """
    folder = find_data_root(data_root) / LISTS_FOLDER
    items = [item for lists in OFFICIAL_LISTS.values() for item in lists]
    _refuse_others(folder, items)
    missing = [item for item in items if not (folder / list_file(item)).is_file()]
    if source is not None:
        contents = _read_checkout(source, missing)
        for item in missing:
            _store(contents[item], folder / list_file(item))
        return [folder / list_file(item) for item in items]
    advice = f"Or clone {REPOSITORY} at {COMMIT[:10]} and run `madgnet-bench data download splits --source CHECKOUT`"
    with (progress or Progress()).bar("split lists", len(missing), unit="list") as bar:
        for item in missing:
            target = folder / list_file(item)
            target.parent.mkdir(parents=True, exist_ok=True)
            link = Link(url=f"{_RAW}/{item.repository}/{item.commit}/{item.path}", file=target.name, sha256=item.sha256)
            _retrieve(link, target, progress=Progress(), advice=advice)
            bar(1)
    return [folder / list_file(item) for item in items]


def _refuse_others(folder: Path, items: list[OfficialList]) -> None:
    """Refuse to go on where a file has the name of a list, but not its content."""
    paths = [(folder / list_file(item), item) for item in items]
    problems = [
        Problem(str(path), "is not the file that the authors released", "move it away, then download again")
        for path, item in paths
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() != item.sha256
    ]
    if problems:
        raise DataErrors("split lists", problems)


def _read_checkout(source: Path, items: list[OfficialList]) -> dict[OfficialList, bytes]:
    """Read lists from a checkout; all of them, or none."""
    contents: dict[OfficialList, bytes] = {}
    problems: list[Problem] = []
    for item in items:
        path = source / item.path
        if not path.is_file():
            problems.append(Problem(str(path), "the list is missing", f"pass a checkout of {item.repository}"))
            continue
        contents[item] = path.read_bytes()
        if hashlib.sha256(contents[item]).hexdigest() != item.sha256:
            fix = f"check out {item.commit[:10]}, with core.autocrlf false"
            problems.append(Problem(str(path), "is not the file that the authors released", fix))
    if problems:
        raise DataErrors("split lists", problems)
    return contents


def _store(content: bytes, target: Path) -> None:
    """Write a file so that it is there completely or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as stream:
        stream.write(content)
    os.chmod(stream.name, 0o644)
    os.replace(stream.name, target)


def _retrieve(link: Link, target: Path, *, progress: Progress, advice: str) -> None:
    """Download one file, unless it is there.

    Raises:
        ConfigError: It cannot be downloaded, or has other bytes than it must have.
    """
    import pooch

    if target.is_file():
        if link.sha256 and pooch.file_hash(str(target)) != link.sha256:
            raise ConfigError(f"{target} is not the published file (its sha256 differs): move it away, then download again.")
        progress.say(f"Have it: {target}")
        return
    pooch.get_logger().setLevel("ERROR")  # it would tell hashes
    fetch = _Fetch(link, target.with_name(f"{target.name}.part"), progress=progress, advice=advice)
    known = f"sha256:{link.sha256}" if link.sha256 else None
    try:
        pooch.retrieve(link.url, known_hash=known, fname=target.name, path=target.parent, downloader=fetch)
    except ValueError as error:
        raise ConfigError(f"{link.url} gives other bytes than were published; they are removed. {error}. {advice}.") from None
    os.chmod(target, 0o644)  # it was a temporary file
    progress.say(f"Downloaded: {target}")


class _Fetch:
    """A downloader for pooch that goes on with what an earlier attempt left in a partial file.

    Args:
        link: What to download.
        part: The partial file; beside it, in ``.tag``, stands what the server calls the version that it is of.
        progress: Told what is done.
        advice: What to do where nothing helps, a sentence without its full stop.
    """

    def __init__(self, link: Link, part: Path, *, progress: Progress, advice: str) -> None:
        self._link = link
        self._part = part
        self._tag = part.with_name(f"{part.name}.tag")
        self._progress = progress
        self._advice = advice

    def __call__(self, url: str, output_file: str, pooch: Any, check_only: bool = False) -> None:
        """Download to ``output_file``.

        Raises:
            ConfigError: The server has no such file, or breaks off again and again.
        """
        failures, most, problem = 0, self._size(), ""
        while failures < _ATTEMPTS:
            time.sleep(_WAIT * failures)
            complete, problem = self._attempt()
            if complete:
                self._tag.unlink(missing_ok=True)
                os.replace(self._part, output_file)
                return
            here = self._size()
            failures = 0 if here > most else failures + 1
            most = max(here, most)
        raise ConfigError(
            f"{url}: the download broke off again and again ({problem}); {most / 2**20:,.1f} MiB are here. Run the command "
            f"again to go on from there. {self._advice}."
        )

    def _attempt(self) -> tuple[bool, str]:
        """Ask once for what is missing; whether all is here then, and what went wrong.

        Raises:
            ConfigError: To ask again would not help.
        """
        import requests

        have, headers = self._resumable()
        try:
            with requests.get(self._link.url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
                code = response.status_code
                if code == 416:  # there is nothing behind what is here: all of it is here, or it is of another version
                    if response.headers.get("Content-Range") == f"bytes */{have}":
                        return True, ""
                    self._forget()
                    return False, "the file has changed"
                if code == 429 or code >= 500:
                    return False, f"{code} {response.reason}"
                if code >= 400:
                    raise ConfigError(f"{self._link.url}: {code} {response.reason}. {self._advice}.")
                return self._continue(response, have)
        except requests.RequestException as error:
            return False, type(error).__name__

    def _continue(self, response: Response, have: int) -> tuple[bool, str]:
        """Store what a successful request brings."""
        if response.headers.get("Content-Type", "").startswith("text/html"):
            raise ConfigError(f"{self._link.url} gives a web page instead of the file. {self._advice}.")
        if response.status_code != 206:
            have = 0
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            self._forget()
            return False, "the server sent another part"
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        self._check_size(total, have)
        self._receive(response, have=have, total=total)
        return total is None or self._size() == total, "the connection ended too early"

    def _resumable(self) -> tuple[int, dict[str, str]]:
        """How many bytes are here, and the headers of a request for the rest.

        Without a known hash the rest must be of the same version of the file, which only a tag tells.
        """
        headers = {"Accept-Encoding": "identity"}
        have = self._size()
        tag = self._tag.read_text(encoding="utf-8") if self._tag.exists() else ""
        if not have or not (tag or self._link.sha256):
            return 0, headers
        return have, {**headers, "Range": f"bytes={have}-", **({"If-Range": tag} if tag else {})}

    def _check_size(self, total: int | None, have: int) -> None:
        """Refuse a file of another size than was published, and one that the disk has no room for."""
        if total is None:
            return
        if self._link.bytes not in (None, total):
            raise ConfigError(f"{self._link.url} has {total} bytes, published were {self._link.bytes}. {self._advice}.")
        free = shutil.disk_usage(self._part.parent).free
        if total - have > free:
            needed = (total - have) / 2**20
            raise ConfigError(f"{self._part.parent} has room for {free / 2**20:,.0f} MiB, needed are {needed:,.0f} MiB.")

    def _receive(self, response: Response, *, have: int, total: int | None) -> None:
        """Append what comes to the partial file, or begin it anew."""
        tag = response.headers.get("ETag", "")
        tag = response.headers.get("Last-Modified", "") if not tag or tag.startswith("W/") else tag
        if not have:
            self._tag.unlink(missing_ok=True)
        with self._part.open("ab" if have else "wb") as stream:
            if tag:
                self._tag.write_text(tag, encoding="utf-8")
            with self._progress.bar(f"download {self._link.file}", total, unit="B", start=have) as bar:
                for chunk in response.iter_content(_CHUNK):
                    stream.write(chunk)
                    bar(len(chunk))

    def _size(self) -> int:
        """How many bytes are here."""
        return self._part.stat().st_size if self._part.exists() else 0

    def _forget(self) -> None:
        """Remove the partial file."""
        self._part.unlink(missing_ok=True)
        self._tag.unlink(missing_ok=True)
