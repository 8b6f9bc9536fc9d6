"""Outputs of frozen encoders on disk: an image is encoded once, not once per epoch, run and prompt.

An embedding is kept under the encoder's weights, its network's class and code, what the network says of its encoding (such as
the size of its input) and the versions of this package and of the encoder's (one folder for each), and the pixels of the image,
the type and precision of the computation and the version of torch (one file for each). When one of them changes, the embedding
is computed anew and the old one left alone. A file appears whole or not at all, whichever process writes it; one that cannot be
read is written again. Folders can be removed at any time.

Images are encoded one by one, so that an embedding does not depend on the batch in which an image came first. In a batch,
matrix products may be summed in another order: with and without a store, embeddings agree within 1e-5 relative to their
largest value, not always in the last bit.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import inspect
import io
import logging
import os
import re
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

import madgnet_bench
from madgnet_bench import __version__
from madgnet_bench.contracts import Embeddings, SegmentationNetwork
from madgnet_bench.data.cache import CACHE_VARIABLE, cache_root
from madgnet_bench.errors import ConfigError

__all__ = ["EmbeddingCache"]

_log = logging.getLogger(__name__)


class EmbeddingCache(Embeddings):
    """Embeddings in the folder of all caches, under ``embeddings``.

    Args:
        folder: Folder of all caches; None takes the environment variable ``MADGNET_BENCH_CACHE``, else ``madgnet_bench`` in the
            user's folder for caches.
        limit_gb: Gigabytes (1e9 bytes) that all embeddings there may fill; storing ends there, with one message.
    """

    def __init__(self, *, folder: str | None = None, limit_gb: float = 50.0) -> None:
        self.root = cache_root(folder) / "embeddings"
        self.computed = 0
        self.found = 0
        self._limit = limit_gb * 1e9
        self._used: float | None = None
        self._stopped = False
        self._known: tuple[object, str] = ((), "")

    def embed(self, network: SegmentationNetwork, image: Tensor) -> Tensor:
        """The embedding of images (N, C, H, W), read or computed and stored.

        Raises:
            ConfigError: The network has no frozen encoder.
        """
        encoder = getattr(network, "frozen_encoder", None)
        if not isinstance(encoder, nn.Module):
            raise ConfigError(
                f"embeddings are kept of frozen encoders only, and {network.label} has none; leave out model.embeddings, or "
                "train the decoder alone."
            )
        folder = self.root / self._weights(network, encoder)
        return torch.cat([self._embed_one(network, one, folder) for one in image.split(1)])

    def _embed_one(self, network: SegmentationNetwork, image: Tensor, folder: Path) -> Tensor:
        """Read the embedding of one image, or compute and store it."""
        path = folder / f"{_image_key(image)}.pt"
        try:
            embedding: Tensor = torch.load(path, weights_only=True, map_location=image.device)
            self.found += 1
            return embedding
        except FileNotFoundError:
            pass
        except Exception:  # torch lets through whatever its readers raise of a damaged file
            _log.warning("%s cannot be read; it is computed again.", path)
        with torch.no_grad():
            embedding = network.encode(image)  # type: ignore[operator]
        self.computed += 1
        self._store(path, embedding)
        return embedding

    def _weights(self, network: SegmentationNetwork, encoder: nn.Module) -> str:
        """Name of the folder of an encoder: its network's class, what it says of its encoding, and the hash of values and code.

        The values are read again when torch says that they may have changed.
        """
        tensors = {name: value for name, value in encoder.state_dict(keep_vars=True).items()}
        state = (type(network), network.encoding, *((value.data_ptr(), value._version) for value in tensors.values()))
        if state != self._known[0]:
            digest = hashlib.sha256(f"{type(network)} {network.encoding} {__version__} {_package(encoder)}".encode())
            for code in _code(network):
                digest.update(code)
            for name, value in tensors.items():
                digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
                digest.update(_bytes(value))
            self._known = (state, digest.hexdigest()[:16])
        name = re.sub(r"[^A-Za-z0-9_-]", "_", f"{type(network).__name__}-{network.encoding or 'any'}")
        return f"{name}-{self._known[1]}"

    def _store(self, path: Path, embedding: Tensor) -> None:
        """Write a file, unless storing has ended or ends with it."""
        if self._stopped:
            return
        stream = io.BytesIO()
        torch.save(embedding.cpu(), stream)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if self._used is None:
                self._used = sum(file.stat().st_size for file in self.root.glob("*/*.pt"))
            if self._used + stream.tell() > self._limit:
                self._stop(f"its limit of {self._limit / 1e9:g} GB is reached; raise embeddings.limit_gb")
                return
            descriptor, temporary = tempfile.mkstemp(dir=path.parent)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(stream.getvalue())
                os.chmod(temporary, 0o644)
                os.replace(temporary, path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
            self._used += stream.tell()
        except OSError as error:
            self._stop(error.strerror or str(error))

    def _stop(self, reason: str) -> None:
        """End the storing, and say so once."""
        self._stopped = True
        _log.warning(
            "the cache of embeddings takes no more: %s. All goes on without, slower. Folders in %s that are not needed can be "
            "removed; embeddings.folder or %s names another place.",
            *(reason, self.root, CACHE_VARIABLE),
        )


def _code(network: nn.Module) -> list[bytes]:
    """The files of a network's class, its bases and all our layers; none of a class without a file, as in a notebook."""
    files = set(map(str, (Path(madgnet_bench.__file__).parent / "layers").glob("*.py")))
    for base in type(network).__mro__:
        if base.__module__.partition(".")[0] not in ("builtins", "torch", "abc"):
            with contextlib.suppress(TypeError, OSError):
                files.add(inspect.getfile(base))
    return [Path(file).read_bytes() for file in sorted(files) if Path(file).is_file()]


def _package(encoder: nn.Module) -> str:
    """The package that an encoder's class comes from, with its version."""
    name = type(encoder).__module__.partition(".")[0]
    try:
        return f"{name} {importlib.metadata.version(name)}"
    except importlib.metadata.PackageNotFoundError:
        return name


def _image_key(image: Tensor) -> str:
    """Hash of what an embedding depends on beside the network: pixels, precision and versions."""
    kind = image.device.type
    precision = str(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else "full"
    tf32 = f"{torch.backends.cuda.matmul.fp32_precision} {torch.backends.cudnn.conv.fp32_precision}"  # type: ignore[attr-defined]
    text = f"{tuple(image.shape)} {image.dtype} {kind} {precision} {tf32} {torch.__version__}"
    return hashlib.sha256(text.encode() + _bytes(image)).hexdigest()[:32]


def _bytes(tensor: Tensor) -> bytes:
    """The content of a tensor of any type."""
    return (
        tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if tensor.dim() else repr(tensor.item()).encode()
    )
