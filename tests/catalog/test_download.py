import hashlib
import shutil
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from told import Told

from madgnet_bench.catalog import download as module
from madgnet_bench.catalog.cards import Link
from madgnet_bench.catalog.download import download_links, download_lists
from madgnet_bench.catalog.official import READERS
from madgnet_bench.catalog.official_lists import OFFICIAL_LISTS, OfficialList
from madgnet_bench.catalog.splits import list_file
from madgnet_bench.errors import ConfigError, DataErrors

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()
CARD = READERS["busi"].card


class Server:
    """Serves files by path, badly where told so; keeps what it was asked."""

    def __init__(self):
        self.files = {"/set.zip": CONTENT}
        self.breaks = 0  # how many answers break off in their middle
        self.ranges = True
        self.etag = '"v1"'
        self.status = 200
        self.type = "application/zip"
        self.asked = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *arguments):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.http.server_port}"

    def answer(self, request):
        wanted = request.headers.get("Range")
        self.asked.append((request.path, wanted))
        if request.path.startswith("/moved"):
            request.send_response(302)
            request.send_header("Location", "/set.zip")
            request.send_header("Content-Length", "0")
            return request.end_headers()
        content, start = self.files.get(request.path), 0
        if content is None or self.status != 200:
            return request.send_error(self.status if content is not None else 404)
        condition = request.headers.get("If-Range")
        if wanted and self.ranges and condition in (None, self.etag):
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                request.send_response(416)
                request.send_header("Content-Range", f"bytes */{len(content)}")
                request.send_header("Content-Length", "0")
                return request.end_headers()
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            request.send_response(200)
        rest = content[start:]
        request.send_header("Content-Type", self.type)
        request.send_header("Content-Length", str(len(rest)))
        if self.etag:
            request.send_header("ETag", self.etag)
        request.end_headers()
        if self.breaks:
            self.breaks -= 1
            rest = rest[: len(rest) // 2]
        request.wfile.write(rest)
        return None


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(module, "_WAIT", 0.0)
    monkeypatch.setattr(module, "_CHUNK", 2**16)
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def get(server, tmp_path):
    def get(path="/set.zip", *, progress=None, **fields):
        link = replace(Link(url=server.url + path, file="set.zip", sha256=SHA256), **fields)
        return download_links(replace(CARD, links=(link,)), data_root=str(tmp_path), progress=progress)

    return get


def folder(tmp_path):
    return {path.name: path.read_bytes() for path in (tmp_path / "downloads" / "busi").iterdir()}


@pytest.mark.parametrize("sha256", [SHA256, None])
@pytest.mark.parametrize("path", ["/set.zip", "/moved"])
def test_a_file_is_downloaded_once_also_behind_a_redirect(server, get, tmp_path, path, sha256):
    told = Told()
    assert get(path, sha256=sha256, progress=told) == [tmp_path / "downloads" / "busi" / "set.zip"]
    assert folder(tmp_path) == {"set.zip": CONTENT}
    assert told.bars == [("download set.zip", len(CONTENT), 0, len(CONTENT))]
    assert told.lines == [f"Downloaded: {tmp_path / 'downloads' / 'busi' / 'set.zip'}"]
    asked = len(server.asked)
    get(path, sha256=sha256, progress=told)
    assert len(server.asked) == asked
    assert told.lines[1].startswith("Have it: ")


def test_a_broken_download_goes_on_where_it_stopped(server, get, tmp_path):
    server.breaks = 2
    told = Told()
    get(progress=told)
    half, quarter = len(CONTENT) // 2, len(CONTENT) // 4
    assert server.asked == [("/set.zip", None), ("/set.zip", f"bytes={half}-"), ("/set.zip", f"bytes={half + quarter}-")]
    assert folder(tmp_path) == {"set.zip": CONTENT}
    assert told.bars[-1] == ("download set.zip", len(CONTENT), half + quarter, quarter)


def test_the_next_command_goes_on_too(server, get, tmp_path):
    server.breaks, server.ranges = 99, False
    with pytest.raises(ConfigError, match=r"broke off again and again .*0\.5 MiB are here\. Run the command again"):
        get()
    assert {name: len(content) for name, content in folder(tmp_path).items()} == {"set.zip.part": 2**19, "set.zip.part.tag": 4}
    server.breaks, server.ranges = 0, True
    server.asked.clear()
    get()
    assert server.asked == [("/set.zip", f"bytes={2**19}-")]
    assert folder(tmp_path) == {"set.zip": CONTENT}


@pytest.mark.parametrize("sha256", [SHA256, None])
def test_a_server_without_ranges_sends_all_of_it_again(server, get, tmp_path, sha256):
    server.breaks, server.ranges = 2, False
    get(sha256=sha256)
    assert folder(tmp_path) == {"set.zip": CONTENT}


def test_without_a_hash_parts_of_two_versions_are_never_joined(server, get, tmp_path):
    server.breaks = 99
    with pytest.raises(ConfigError):
        get(sha256=None)
    server.breaks, server.etag = 0, '"v2"'
    server.files["/set.zip"] = CONTENT[::-1]
    get(sha256=None)
    assert folder(tmp_path) == {"set.zip": CONTENT[::-1]}


def test_without_a_hash_and_a_tag_it_begins_anew(server, get, tmp_path):
    server.breaks, server.etag = 1, ""
    get(sha256=None)
    assert [wanted for _, wanted in server.asked] == [None, None]
    assert folder(tmp_path) == {"set.zip": CONTENT}


def test_a_complete_part_needs_no_byte_and_a_longer_one_goes(get, server, tmp_path):
    place = tmp_path / "downloads" / "busi"
    place.mkdir(parents=True)
    (place / "set.zip.part").write_bytes(CONTENT)
    get()
    assert server.asked == [("/set.zip", f"bytes={len(CONTENT)}-")]
    (place / "set.zip").unlink()
    (place / "set.zip.part").write_bytes(CONTENT + b"more")
    get()
    assert folder(tmp_path) == {"set.zip": CONTENT}


def test_wrong_bytes_are_refused_and_removed(server, get, tmp_path):
    server.files["/set.zip"] = b"wrong" + CONTENT[5:]
    with pytest.raises(ConfigError, match="gives other bytes than were published; they are removed") as caught:
        get()
    assert "Get it at https://scholar.cu.edu.eg" in str(caught.value)
    assert "data prepare busi --source FILE" in str(caught.value)
    assert folder(tmp_path) == {}


def test_a_file_of_ones_own_is_not_replaced(get, tmp_path):
    place = tmp_path / "downloads" / "busi"
    place.mkdir(parents=True)
    (place / "set.zip").write_bytes(b"mine")
    with pytest.raises(ConfigError, match=r"its sha256 differs\): move it away"):
        get()
    assert folder(tmp_path) == {"set.zip": b"mine"}


@pytest.mark.parametrize(("status", "message"), [(404, "404 Not Found. Get it at"), (403, "403 Forbidden. Get it at")])
def test_a_file_that_is_not_offered_is_asked_for_once(server, get, status, message):
    server.status = status
    with pytest.raises(ConfigError, match=message):
        get("/set.zip" if status == 403 else "/other.zip")
    assert len(server.asked) == 1


def test_a_busy_server_is_asked_again_and_the_part_is_kept(server, get, tmp_path):
    place = tmp_path / "downloads" / "busi"
    place.mkdir(parents=True)
    (place / "set.zip.part").write_bytes(CONTENT[:1000])
    server.status = 503
    with pytest.raises(ConfigError, match=r"broke off again and again \(503 Service Unavailable\)"):
        get()
    assert len(server.asked) == 4
    assert (place / "set.zip.part").read_bytes() == CONTENT[:1000]


def test_no_server_at_all(server, get):
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(ConfigError, match=r"broke off again and again \(ConnectionError\); 0\.0 MiB are here"):
        get()


def test_a_web_page_and_another_size_are_refused(server, get, tmp_path):
    with pytest.raises(ConfigError, match="has 1048576 bytes, published were 5"):
        get(bytes=5)
    server.type = "text/html; charset=utf-8"
    with pytest.raises(ConfigError, match="gives a web page instead of the file"):
        get()
    assert folder(tmp_path) == {}


def test_a_full_disk_is_told_before(get, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 10))
    with pytest.raises(ConfigError, match="has room for 0 MiB, needed are 1 MiB"):
        get()


def test_links_of_the_cards_are_plain():
    links = [link for reader in READERS.values() for link in reader.card.links]
    assert len({link.url for link in links}) == len(links)
    for link in links:
        assert link.url.startswith("https://")
        assert link.url.endswith(link.file) and link.file.endswith(".zip")
        assert link.sha256 is None or len(link.sha256) == 64
    with_links = {name for name, reader in READERS.items() if reader.card.links}
    assert {"bbbc039", "busi", "chasedb1", "dsb2018", "isic2017", "isic2018", "kvasir_seg"} == with_links


@pytest.fixture
def lists(server, monkeypatch, tmp_path):
    """Two released lists, on the server and in a checkout."""
    items = []
    for name, text in (("train", "0,1_0.jpg,1_0.png\n"), ("test", "0,1_1.jpg,1_1.png\n0,1_2.jpg,1_2.png\n")):
        content = ("Image_Id,image_path,mask_path\n" + text).encode()
        digest = hashlib.sha256(content).hexdigest()
        item = OfficialList(path=f"dataset/COVID19/{name}_frame.csv", rows=text.count("\n"), sha256=digest, split=name)
        items.append(item)
        server.files[f"/{item.repository}/{item.commit}/{item.path}"] = content
        path = tmp_path / "checkout" / item.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    kept = dict(OFFICIAL_LISTS)
    OFFICIAL_LISTS.clear()
    OFFICIAL_LISTS["covid19_1"] = tuple(items)
    monkeypatch.setattr(module, "_RAW", server.url)
    yield items
    OFFICIAL_LISTS.clear()
    OFFICIAL_LISTS.update(kept)


@pytest.mark.parametrize("checkout", [False, True])
def test_lists_are_stored_from_the_network_or_a_checkout(lists, server, tmp_path, checkout):
    source = tmp_path / "checkout" if checkout else None
    files = download_lists(data_root=str(tmp_path / "root"), source=source)
    assert files == [tmp_path / "root" / "splits" / "COVID19" / f"{name}_frame.csv" for name in ("train", "test")]
    assert [hashlib.sha256(path.read_bytes()).hexdigest() for path in files] == [item.sha256 for item in lists]
    assert sorted(path.name for path in files[0].parent.iterdir()) == ["test_frame.csv", "train_frame.csv"]
    assert len(server.asked) == (0 if checkout else 2)
    assert download_lists(data_root=str(tmp_path / "root")) == files
    assert len(server.asked) == (0 if checkout else 2)


def test_a_checkout_of_another_commit_stores_nothing(lists, tmp_path):
    (tmp_path / "checkout" / lists[0].path).write_text("other\n")
    (tmp_path / "checkout" / lists[1].path).unlink()
    with pytest.raises(DataErrors) as caught:
        download_lists(data_root=str(tmp_path / "root"), source=tmp_path / "checkout")
    found = [(problem.problem, problem.fix) for problem in caught.value.problems]
    assert found[0] == ("is not the file that the authors released", "check out b8b44420d3, with core.autocrlf false")
    assert found[1] == ("the list is missing", "pass a checkout of Inha-CVAI/MADGNet")
    assert not (tmp_path / "root").exists()


def test_a_changed_list_in_the_data_root_is_not_replaced(lists, server, tmp_path):
    download_lists(data_root=str(tmp_path))
    changed = tmp_path / "splits" / list_file(lists[0])
    changed.write_text("mine")
    with pytest.raises(DataErrors, match="move it away, then download again"):
        download_lists(data_root=str(tmp_path))
    assert changed.read_text() == "mine"


def test_lists_that_changed_on_the_server_are_refused(lists, server, tmp_path):
    server.files = dict.fromkeys(server.files, b"changed")
    with pytest.raises(ConfigError, match=r"other bytes than were published.*Or clone Inha-CVAI/MADGNet at b8b44420d3"):
        download_lists(data_root=str(tmp_path))
    assert list((tmp_path / "splits" / "COVID19").iterdir()) == []
