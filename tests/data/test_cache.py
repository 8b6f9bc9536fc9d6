from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import random
import resource
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from standins import Boxes

from madgnet_bench.catalog.datasets import FileProblem
from madgnet_bench.catalog.folder import FolderDataset
from madgnet_bench.catalog.phantoms import PhantomDataset
from madgnet_bench.catalog.single_target import SingleTarget
from madgnet_bench.data import cache as module
from madgnet_bench.data.cache import DecodedCache, cache_root, decode_case

FORK = multiprocessing.get_context("fork")
RULE = {"size": (16, 16), "mask_resampling": "bilinear"}


def write_case(folder, number, *, change=0, channels=None):
    """Image and mask of one case; the same bytes for the same arguments."""
    draw = np.random.default_rng([number, change])
    shape = (20 + number % 5, 30, 3 if channels is None and number % 2 else channels or 1)
    image = draw.integers(0, 256, shape, dtype=np.uint8)
    mask = (draw.random(shape[:2]) > 0.6).astype(np.uint8) * 255
    for name, pixels in (("images", image.squeeze()), ("masks", mask)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name / f"{number:03d}.png")


@pytest.fixture
def source(tmp_path):
    for number in range(6):
        write_case(tmp_path / "set", number)
    return FolderDataset(str(tmp_path / "set"))


@pytest.fixture
def root(tmp_path):
    return tmp_path / "cache"


def is_true(decoded, source, row):
    truth = decode_case(source, source.manifest.cases[row], **RULE)
    arrays = np.array_equal(decoded.image, truth.image) and np.array_equal(decoded.mask, truth.mask)
    return arrays and decoded.original_size == truth.original_size and decoded.image.dtype == decoded.mask.dtype == np.uint8


def never(*arguments):
    raise AssertionError("a file was decoded")


def unreadable(source, monkeypatch):
    """From here on the source must not be read."""
    monkeypatch.setattr(type(source), "read_image", never)
    monkeypatch.setattr(type(source), "read_mask", never)


def test_what_is_stored_is_what_is_decoded(source, root, monkeypatch):
    first = DecodedCache(source, root, size=16)
    assert not root.exists()
    for row in range(6):
        decoded, stored = first.read(row)
        assert stored and is_true(decoded, source, row)
    truth = [decode_case(source, case, **RULE) for case in source.manifest]
    unreadable(source, monkeypatch)
    for again in (first, DecodedCache(source, root, size=16), pickle.loads(pickle.dumps(first))):
        for row in (3, 0, 5, 1, 2, 4, 3):
            decoded, stored = again.read(row)
            assert stored and again.holds(row)
            assert np.array_equal(decoded.image, truth[row].image) and np.array_equal(decoded.mask, truth[row].mask)
            assert decoded.original_size == truth[row].original_size
            decoded.image[:] = 0  # the receiver's own
            decoded.mask[:] = 1
    assert {path.name for path in first.folder.iterdir()} == {"cases.bin", "cache.json"}


def test_only_what_is_asked_for_is_decoded(source, root, monkeypatch):
    wanted = source.manifest.cases[2]
    read = FolderDataset.read_image
    monkeypatch.setattr(FolderDataset, "read_image", lambda self, case: read(self, case) if case == wanted else never())
    cache = DecodedCache(source, root, size=16)
    cache.read(2)
    assert [cache.holds(row) for row in range(6)] == [False, False, True, False, False, False]


def test_several_targets_are_packed_in_their_order(tmp_path, root):
    folder = tmp_path / "fundus"
    for target in range(9):
        for case in range(5):
            path = folder / "masks" / f"t{target}" / f"{case}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((np.random.default_rng([target, case]).random((13, 11)) > 0.5).astype(np.uint8) * 255).save(path)
            (folder / "images").mkdir(exist_ok=True)
            Image.fromarray(np.full((13, 11), case, np.uint8)).save(folder / "images" / f"{case}.png")
    source = FolderDataset(str(folder), targets=tuple(f"t{n}" for n in range(9)))
    for _ in range(2):
        decoded, stored = DecodedCache(source, root, size=7, mask_resampling="nearest").read(4)
        truth = decode_case(source, source.manifest.cases[4], size=(7, 7), mask_resampling="nearest")
        assert stored and decoded.mask.shape == (9, 7, 7) and np.array_equal(decoded.mask, truth.mask)


@pytest.mark.parametrize("name", ["images", "masks"])
def test_a_case_whose_file_changes_is_decoded_anew_and_no_other(source, root, tmp_path, monkeypatch, name):
    cache = DecodedCache(source, root, size=16)
    for row in range(6):
        cache.read(row)
    path = tmp_path / "set" / name / "003.png"
    status = path.stat()
    other = tmp_path / "other"
    write_case(other, 3, change=1)
    shutil.copy(other / name / "003.png", path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # as tools do that keep the time
    later = DecodedCache(source, root, size=16)
    assert [later.holds(row) for row in range(6)] == [True, True, True, False, True, True]
    read = FolderDataset.read_image
    reads = []
    monkeypatch.setattr(FolderDataset, "read_image", lambda self, case: reads.append(case.case_id) or read(self, case))
    for row in range(6):
        assert later.read(row)[1]
    assert reads == ["003"]
    assert is_true(DecodedCache(source, root, size=16).read(3)[0], source, 3)


def test_a_folder_of_masks_is_known_by_all_its_files(source, root, tmp_path, monkeypatch):
    masks = tmp_path / "set" / "many"
    masks.mkdir()
    for n in range(3):
        Image.fromarray(np.eye(4, k=n, dtype=np.uint8) * 255).save(masks / f"{n}.png")
    case = source.manifest.cases[0]
    folder_case = type(case)(case.case_id, case.group_id, case.image, "many/", case.split)
    cache = DecodedCache(source, root, size=16)
    before = cache._stamp(folder_case)
    assert before == cache._stamp(folder_case)
    Image.fromarray(np.ones((4, 4), np.uint8) * 255).save(masks / "1.png")
    after = cache._stamp(folder_case)
    (masks / "2.png").unlink()
    assert len({before, after, cache._stamp(folder_case)}) == 3


def test_another_size_rule_manifest_option_or_place_is_another_cache(source, root, tmp_path):
    shutil.copytree(tmp_path / "set", tmp_path / "copy")
    caches = [
        DecodedCache(source, root, size=16),
        DecodedCache(source, root, size=17),
        DecodedCache(source, root, size=16, mask_resampling="nearest"),
        DecodedCache(FolderDataset(str(tmp_path / "set"), split_seed=1), root, size=16),
        DecodedCache(FolderDataset(str(tmp_path / "copy"), name="set"), root, size=16),
        DecodedCache(FolderDataset(str(tmp_path / "set"), name="with/slash"), root, size=16),
    ]
    folders = [cache.folder for cache in caches]
    assert len(set(folders)) == len(folders) and all(folder.parent == root for folder in folders)
    assert folders[0] == DecodedCache(FolderDataset(str(tmp_path / "set")), root, size=16).folder


def test_other_code_is_another_cache(source, root, monkeypatch):
    folder = DecodedCache(source, root, size=16).folder

    class Darker(FolderDataset):
        pass

    darker = Darker(source.folder)
    assert DecodedCache(darker, root, size=16).folder != folder  # the class lies in another file
    monkeypatch.setattr(module.PIL, "__version__", "0")
    assert DecodedCache(source, root, size=16).folder != folder


def test_a_class_without_a_file_is_not_stored(source, root):
    Loose = type("Loose", (FolderDataset,), {"__module__": "nowhere"})
    cache = DecodedCache(Loose(str(source.folder)), root, size=16)
    assert not cache.read(0)[1] and not cache.fill() and not root.exists()


def test_float_images_become_bytes_before_they_are_stored(source, root, monkeypatch):
    read = FolderDataset.read_image
    monkeypatch.setattr(FolderDataset, "read_image", lambda self, case: (read(self, case) / 255.0).astype(np.float32))
    for _ in range(2):
        decoded, stored = DecodedCache(source, root, size=16).read(1)
        assert stored and is_true(decoded, source, 1)
    monkeypatch.undo()
    assert is_true(decoded, source, 1)


@pytest.mark.parametrize("source", [Boxes(), PhantomDataset("fundus", size=32, cases=5)], ids=["no files", "phantoms"])
def test_what_is_not_made_of_files_is_not_stored(source, root):
    cache = DecodedCache(source, root, size=16)
    assert is_true(cache.read(1)[0], source, 1) and not cache.read(1)[1]
    assert not cache.holds(1) and not cache.fill() and not root.exists()


def test_what_is_not_in_order_is_not_stored(source, root, tmp_path, monkeypatch):
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "set" / "masks" / "000.png")
    (tmp_path / "set" / "images" / "001.png").write_bytes(b"nothing")
    cache = DecodedCache(source, root, size=16)
    decoded, stored = cache.read(0)
    assert not stored and decoded.mask.shape == (1, 16, 16)
    with pytest.raises(FileProblem, match=r"001\.png"):
        cache.read(1)
    assert not cache.fill()
    assert [cache.holds(row) for row in range(6)] == [False, False, True, True, True, True]
    read = FolderDataset.read_image
    monkeypatch.setattr(FolderDataset, "read_image", lambda self, case: read(self, case) * np.float32("nan"))
    os.utime(tmp_path / "set" / "images" / "004.png", ns=(1, 1))
    with np.errstate(invalid="ignore"):
        assert not cache.holds(4) and not DecodedCache(source, root, size=16).read(4)[1]


def test_a_file_that_changes_while_it_is_read_is_not_stored(source, root, tmp_path, monkeypatch):
    read = FolderDataset.read_image

    def read_and_change(self, case):
        image = read(self, case)
        write_case(tmp_path / "set", 2, change=7)
        return image

    cache = DecodedCache(source, root, size=16)
    monkeypatch.setattr(FolderDataset, "read_image", read_and_change)
    assert not cache.read(2)[1]
    monkeypatch.undo()
    decoded, stored = cache.read(2)
    assert stored and is_true(decoded, source, 2)


def test_filling_stores_what_is_missing(source, root, monkeypatch):
    cache = DecodedCache(source, root, size=16)
    cache.read(3)
    steps = []
    assert cache.fill(step=lambda done, total: steps.append((done, total)))
    assert steps == [(n, 5) for n in range(1, 6)]
    unreadable(source, monkeypatch)
    assert DecodedCache(source, root, size=16).fill(step=never)
    assert not DecodedCache(FolderDataset("nowhere"), root, size=16).fill()


def entries(cache):
    """How often every row stands in the file, read by the layout alone."""
    content = (cache.folder / "cases.bin").read_bytes()
    found, position = [], 0
    while position < len(content):
        assert content[position : position + 4] == b"MBC\x01"
        row, channels = np.frombuffer(content, "<u4", 2, position + 4)
        found.append(int(row))
        position += 64 + 16 * 16 * int(channels) + 16 * 16 // 8
    assert position == len(content)
    return sorted(found)


def _read_all(source, root, seed, started):
    started.wait()
    rows = list(range(len(source.manifest)))
    random.Random(seed).shuffle(rows)
    cache = DecodedCache(source, root, size=16)
    os._exit(0 if all(is_true(cache.read(row)[0], source, row) and cache.read(row)[1] for row in rows) else 1)


def test_processes_that_fill_it_at_once_store_every_case_once(tmp_path, root):
    for number in range(40):
        write_case(tmp_path / "set", number)
    source = FolderDataset(str(tmp_path / "set"))
    started = FORK.Barrier(4)
    children = [FORK.Process(target=_read_all, args=(source, root, seed, started)) for seed in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * 4
    cache = DecodedCache(source, root, size=16)
    assert entries(cache) == list(range(40))
    assert all(is_true(cache.read(row)[0], source, row) for row in range(40))


def test_a_forked_process_sees_what_its_parent_stores_and_the_other_way_round(source, root):
    cache = DecodedCache(source, root, size=16)
    cache.read(0)
    pipe, end = FORK.Pipe()

    def work():
        end.recv()
        held = cache.holds(0) and cache.holds(1) and is_true(cache.read(1)[0], source, 1)
        end.send(held and cache.read(2)[1])
        os._exit(0)

    child = FORK.Process(target=work)
    child.start()
    cache.read(1)
    pipe.send(None)
    assert pipe.recv() and cache.holds(2) and is_true(cache.read(2)[0], source, 2)
    child.join()


def _fill_until_killed(source, root):
    cache = DecodedCache(source, root, size=16)
    write = os.pwrite

    def slowly(handle, content, offset):  # in small pieces, so that a kill falls between them, too
        piece = bytes(content[:48])
        time.sleep(1e-4)
        return write(handle, piece, offset)

    os.pwrite = slowly
    for row in range(len(source.manifest)):
        cache.read(row)
    os._exit(0)


def test_a_process_killed_at_any_moment_leaves_no_wrong_case(tmp_path, root):
    for number in range(30):
        write_case(tmp_path / "set", number)
    source = FolderDataset(str(tmp_path / "set"))
    draw = random.Random(0)
    held = []
    while len(held) < 12 or not held[-1]:  # a busy machine may not get far before the first kills
        child = FORK.Process(target=_fill_until_killed, args=(source, root))
        child.start()
        time.sleep(draw.uniform(0.005, 0.06) * (1 + len(held) // 12))
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        cache = DecodedCache(source, root, size=16)
        rows = [row for row in range(30) if cache.holds(row)]
        assert all(cache.read(row)[1] and is_true(cache.read(row)[0], source, row) for row in rows)
        held.append(len(rows))
    assert held == sorted(held)  # nothing is lost either
    assert cache.fill() and entries(cache) == list(range(30))
    assert all(is_true(DecodedCache(source, root, size=16).read(row)[0], source, row) for row in range(30))


@pytest.mark.parametrize("piece", [10, 64, 90, 64 + 16 * 16 + 31])
def test_the_remains_of_an_entry_are_written_over_or_passed_by(source, root, piece):
    cache = DecodedCache(source, root, size=16)
    for row in range(3):
        cache.read(row)
    path = cache.folder / "cases.bin"
    content = path.read_bytes()
    start = content.index(b"MBC\x01" + bytes([2]))
    killed = [bytes(piece), (b"\0" * 64 + content[start + 64 :])[:piece]]
    power_failed = content[start : start + piece]  # the header was saved, what is behind it was not
    for rest in (*killed, power_failed):
        path.write_bytes(content[:start] + rest)
        later = DecodedCache(source, root, size=16)
        assert is_true(later.read(2)[0], source, 2) and later.holds(0)
        again = DecodedCache(source, root, size=16)
        assert all(again.holds(row) and is_true(again.read(row)[0], source, row) for row in range(3))
        assert path.read_bytes() == content or rest is power_failed


def test_damaged_bytes_are_found_and_stored_again(source, root):
    cache = DecodedCache(source, root, size=16)
    for row in range(6):
        cache.read(row)
    path = cache.folder / "cases.bin"
    content = bytearray(path.read_bytes())
    content[200] ^= 1  # in the image of row 0
    path.write_bytes(content)
    later = DecodedCache(source, root, size=16)
    assert is_true(later.read(0)[0], source, 0)
    assert entries(later) == [0, 0, 1, 2, 3, 4, 5]
    assert is_true(DecodedCache(source, root, size=16).read(0)[0], source, 0)


def test_the_folder_can_be_removed_at_any_time(source, root):
    cache, other = (DecodedCache(source, root, size=16) for _ in range(2))
    for row in range(3):
        cache.read(row)
    shutil.rmtree(root)
    for row in (5, 4):
        other.read(row)  # begins it anew, with other rows at the old places
    for row in range(6):
        for reader in (cache, other):
            assert is_true(reader.read(row)[0], source, row)
    assert set(entries(cache)) == {0, 1, 2, 3, 4, 5}
    shutil.rmtree(root)
    fresh = DecodedCache(source, root, size=16)
    assert all(is_true(fresh.read(row)[0], source, row) for row in range(6))


def test_a_full_disk_ends_the_storing_with_one_message(source, root, caplog):
    cache = DecodedCache(source, root, size=16)
    cache.read(0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((cache.folder / "cases.bin").stat().st_size + 100, limits[1]))
    try:
        with caplog.at_level(logging.WARNING, "madgnet_bench"):
            assert [cache.read(row)[1] for row in (0, 1, 2, 3)] == [True, False, False, False]
            assert not cache.fill() and is_true(cache.read(2)[0], source, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    (message,) = [record.getMessage() for record in caplog.records]
    assert "set: File too large" in message and str(root) in message and "cache_gb: 0" in message
    later = DecodedCache(source, root, size=16)  # after space was made
    assert later.fill() and all(is_true(later.read(row)[0], source, row) for row in range(6))


def test_a_folder_that_may_not_be_written_is_said_once(source, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    cache = DecodedCache(source, tmp_path / "file", size=16)
    with caplog.at_level(logging.WARNING, "madgnet_bench"):
        assert not cache.read(0)[1] and not cache.read(1)[1] and not cache.fill()
        assert is_true(cache.read(0)[0], source, 0)
    (message,) = [record.getMessage() for record in caplog.records]
    assert "Not a directory" in message


def test_what_a_read_only_folder_holds_is_used(source, root, monkeypatch, caplog):
    DecodedCache(source, root, size=16).read(0)
    opened = os.open

    def refuse(path, flags, *arguments):
        if str(path).startswith(str(root)) and flags & (os.O_RDWR | os.O_WRONLY | os.O_CREAT):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, flags, *arguments)

    monkeypatch.setattr(os, "open", refuse)  # permissions do not stop root, who may run this
    cache = DecodedCache(source, root, size=16)
    with caplog.at_level(logging.WARNING, "madgnet_bench"):
        assert cache.read(0)[1] and not cache.read(1)[1] and cache.read(0)[1]
    assert ["Permission denied" in record.getMessage() for record in caplog.records] == [True]


def test_without_file_locks_nothing_is_stored(source, root, monkeypatch, caplog):
    monkeypatch.setattr(module, "fcntl", None)
    assert is_true(DecodedCache(source, root, size=16).read(0)[0], source, 0)
    assert "no file locks" in caplog.text and not root.exists()


def test_all_caches_of_a_folder_share_its_limit(source, root, caplog):
    bytes_of_grey = 64 + 16 * 16 + 16 * 16 // 8
    DecodedCache(source, root, size=16).read(0)
    limited = DecodedCache(source, root, size=16, mask_resampling="nearest", limit_gb=3 * bytes_of_grey / 1e9)
    assert [limited.read(row)[1] for row in (0, 2, 4)] == [True, True, False]
    assert is_true(DecodedCache(source, root, size=16, limit_gb=1e-9).read(0)[0], source, 0)
    assert caplog.text.count("raise data.cache_gb") == 1


def test_the_root_is_the_argument_the_variable_or_the_users_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv(module.CACHE_VARIABLE, raising=False)
    assert cache_root() == Path("/home/someone/.cache/madgnet_bench")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache_root() == Path("/caches/madgnet_bench")
    monkeypatch.setenv(module.CACHE_VARIABLE, "~/fast")
    assert cache_root() == Path("/home/someone/fast")
    assert cache_root("/mine") == Path("/mine")


class Windowed(FolderDataset):
    """Has an option of a kind that YAML gives."""

    def __init__(self, path, window):
        super().__init__(str(path))
        self.window = window

    def read_image(self, case):
        return np.clip(super().read_image(case) * self.window[1], 0, 255).astype(np.uint8)


def test_options_that_are_lists_and_those_of_a_wrapped_set_are_part_of_the_name(source, root):
    sets = [Windowed(source.folder, window) for window in ([0, 1.0], [0, 0.5], [0, 1.0])]
    for wrap in (lambda one: one, SingleTarget):
        caches = [DecodedCache(wrap(one), root, size=16) for one in sets]
        assert caches[0].folder == caches[2].folder != caches[1].folder
        for cache in caches:
            decoded, _ = cache.read(1)
            assert np.array_equal(decoded.image, decode_case(cache.source, source.manifest.cases[1], **RULE).image)


def test_a_wrapped_class_without_a_file_is_not_stored(source, root):
    Loose = type("Loose", (FolderDataset,), {"__module__": "nowhere"})
    cache = DecodedCache(SingleTarget(Loose(str(source.folder))), root, size=16)
    assert cache.read(0)[1] is False and not root.exists()


def test_a_thread_that_looks_while_another_appends_loses_nothing(source, root, monkeypatch):
    """One thread is held inside its look at the headers; meanwhile the others store."""
    cache, held, release = DecodedCache(source, root, size=16), threading.Event(), threading.Event()
    cache.read(0)
    read = os.pread

    def slow(*words):
        found = read(*words)
        if threading.current_thread().name == "slow":
            held.set()
            release.wait(0.5)
        return found

    monkeypatch.setattr(os, "pread", slow)
    looking = threading.Thread(target=cache.holds, args=(5,), name="slow")
    looking.start()
    assert held.wait(10)
    others = [threading.Thread(target=cache.read, args=(row,)) for row in (1, 2, 3)]
    for thread in others:
        thread.start()
    for thread in others:
        thread.join(0.2)
    release.set()
    for thread in (looking, *others):
        thread.join()
    assert all(cache.read(row)[1] for row in range(6))
    fresh = DecodedCache(source, root, size=16)
    assert [fresh.holds(row) for row in range(6)] == [True] * 6 and entries(fresh) == list(range(6))
