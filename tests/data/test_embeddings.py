from __future__ import annotations

import logging

import pytest
import torch
from standins import TinyNetwork

from madgnet_bench.data.embeddings import EmbeddingCache
from madgnet_bench.errors import ConfigError
from madgnet_bench.networks.sam_automatic import SAMAutomatic


class Counted(TinyNetwork):
    """Has a frozen encoder, and counts the images that it encodes."""

    encoding = "16px"

    def __init__(self, **options):
        super().__init__(**options)
        self.encoder.requires_grad_(False)
        self.encoded = 0

    @property
    def frozen_encoder(self):
        return self.encoder

    def encode(self, image):
        self.encoded += len(image)
        return self.encoder(image.expand(-1, 3, -1, -1))


@pytest.fixture
def cache(tmp_path):
    return lambda **options: EmbeddingCache(folder=str(tmp_path), **options)


def images(count: int = 3, side: int = 16, seed: int = 0):
    return torch.rand(count, 1, side, side, generator=torch.Generator().manual_seed(seed))


def test_an_image_is_encoded_once_for_all_epochs_batches_and_processes(cache):
    network, image = Counted(), images()
    first = cache().embed(network, image)
    other = cache()
    again = other.embed(network, image[[2, 0]])
    assert network.encoded == 3 and (other.found, other.computed) == (2, 0)
    assert torch.equal(again, first[[2, 0]])
    torch.testing.assert_close(first, network.encode(image))
    assert not first.requires_grad


@pytest.mark.parametrize(
    "change", ["weights", "buffers", "pixel", "shape", "type", "encoding", "class", "precision", "tf32", "version", "package"]
)
def test_what_changes_an_embedding_makes_another_entry(change, cache, monkeypatch, request):
    store, network, image = cache(), Counted(norm=True).eval(), images(1)
    store.embed(network, image)
    if change == "weights":
        with torch.no_grad():
            network.encoder[0].weight[0, 0, 0, 0] += 1e-3
    if change == "buffers":
        network.encoder[1].running_mean += 0.5
    if change == "pixel":
        image[0, 0, 3, 4] += 1e-3
    if change == "shape":
        image = image.view(1, 1, 8, 32)
    if change == "type":
        image, network = image.double(), network.double()
    if change == "encoding":
        network.encoding = "32px"
    if change == "tf32":
        request.addfinalizer(lambda: setattr(torch.backends.cuda.matmul, "fp32_precision", "none"))
        torch.backends.cuda.matmul.fp32_precision = "tf32"
    if change == "class":
        network.__class__ = type("Subclass", (Counted,), {})
    if change == "version":
        monkeypatch.setattr("madgnet_bench.data.embeddings.__version__", "99")
        store = cache()
    if change == "package":
        monkeypatch.setattr("importlib.metadata.version", lambda name: "99")
        store = cache()
    with torch.autocast("cpu", torch.bfloat16, enabled=change == "precision"):
        found = store.embed(network, image)
        assert torch.equal(found, network.encode(image))
    assert store.found == 0 and network.encoded == 3  # twice by the store, once here


def test_the_same_weights_elsewhere_are_the_same(cache):
    one, other = Counted(), Counted()
    other.load_state_dict(one.state_dict())
    store = cache()
    store.embed(one, images())
    store.embed(other, images())
    with torch.no_grad():
        other.head.weight.add_(1)  # is no part of the encoder
    store.embed(other, images())
    assert other.encoded == 0 and store.found == 6


def test_a_damaged_file_is_written_again(cache, caplog):
    network, store = Counted(), cache()
    expected = store.embed(network, images(1))
    (file,) = store.root.rglob("*.pt")
    file.write_bytes(file.read_bytes()[:100])
    assert torch.equal(store.embed(network, images(1)), expected)
    assert "computed again" in caplog.text and store.computed == 2
    assert torch.equal(torch.load(file, weights_only=True), expected)
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_the_limit_ends_the_storing_with_one_message(cache, caplog):
    network, store = Counted(), cache(limit_gb=2e-5)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            torch.testing.assert_close(store.embed(network, images(8)), network.encode(images(8)))
    stored = list(store.root.rglob("*.pt"))
    assert 1 <= len(stored) < 8 and sum(file.stat().st_size for file in stored) <= 2e4
    assert caplog.text.count("limit of 2e-05 GB") == 1


def test_a_folder_that_cannot_be_written(tmp_path, caplog):
    (tmp_path / "embeddings").write_text("a file in its place")
    network, store = Counted(), EmbeddingCache(folder=str(tmp_path))
    with caplog.at_level(logging.WARNING):
        torch.testing.assert_close(store.embed(network, images(2)), network.encode(images(2)))
    assert caplog.text.count("takes no more") == 1


def test_an_encoder_that_learns_is_refused(cache):
    with pytest.raises(ConfigError, match="frozen encoders only, and SAM-style tiny lora has none"):
        cache().embed(SAMAutomatic(size="tiny", image_size=64, train_encoder="lora"), images())
    with pytest.raises(ConfigError, match="TinyNetwork has none"):
        cache().embed(TinyNetwork(), images())


def test_the_folder_is_that_of_all_caches(monkeypatch, tmp_path):
    monkeypatch.setenv("MADGNET_BENCH_CACHE", str(tmp_path))
    assert EmbeddingCache().root == tmp_path / "embeddings"
