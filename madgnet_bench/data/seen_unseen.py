"""The data module of domain generalization: train on seen domains, test on seen and unseen ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from madgnet_bench.catalog.datasets import SegmentationDataset, check_datasets
from madgnet_bench.catalog.manifest import Case
from madgnet_bench.contracts import SegmentationBatch
from madgnet_bench.data.cache import DecodedCache, cache_root
from madgnet_bench.data.cases import ByteCases, CaseDataset, CaseLoader, JoinedDataset
from madgnet_bench.data.samplers import BatchPlan, PlannedBatchSampler, ShardSampler, ShuffledBatches, side_at_rate
from madgnet_bench.data.transforms import Augmentation
from madgnet_bench.errors import ConfigError
from madgnet_bench.protocol import Protocol

__all__ = ["SeenUnseenDataModule", "TestSet"]


@dataclass(frozen=True)
class TestSet:
    """One named test loader.

    Attributes:
        name: Name of the data set, a column of the tables.
        setting: ``seen`` where other cases of the same set were trained on.
        cases: The test cases.
    """

    __test__ = False  # not a test class, whatever pytest thinks of the name

    name: str
    setting: Literal["seen", "unseen"]
    cases: CaseDataset


class SeenUnseenDataModule(LightningDataModule):
    """Trains and validates on the seen data sets; tests on their test splits and on all cases of the unseen ones.

    Test loaders exist only after ``setup("test")``: no test file is opened during a fit. Building the module touches no
    file at all.

    Args:
        seen: Data sets to train on; each has the splits train, val and test. Several make a mixed-modality training.
        unseen: Data sets that are only tested on; their targets must be among those of the seen sets.
        leave_out: Names, or modalities, of seen sets that are tested as unseen ones instead of being trained on: with the same
            lists, each experiment of a leave-one-out study leaves out another.
        image_size: Side in pixels of the network's input; the protocol's size where it is not given.
        batches: How an epoch is cut into batches; its batch size counts all processes.
        augmentation: Random change of the training cases, or none.
        rates: Multi-scale training: each batch is trained once at each of these sizes relative to ``image_size``, rounded to
            multiples of 32, in this order; each time is an optimiser step. MADGNet's are 0.75, 1 and 1.25.
        eval_batch_size: Cases per batch and process in validation and test; no measure depends on it.
        num_workers: Worker processes per loader.
        cache: Folder in which decoded and resized cases are kept for later epochs and runs (see `data.cache`); None takes the
            environment variable ``MADGNET_BENCH_CACHE``, else ``madgnet_bench`` in the user's folder for caches. No result
            depends on it.
        cache_gb: Gigabytes (1e9 bytes) that all caches in that folder may fill together; 0 keeps nothing there.
        protocol: Text of the protocol.
        seed: Seed of order and augmentation. Splits have their own seed, so that it does not move them.

    Raises:
        ConfigError: Nothing to train on, a name to leave out that no seen set has, two sets of one name, an unseen target that
            no seen set has, a protocol that names no size while ``image_size`` is not given or differs from it, or rates of
            which one is not positive or two give the same size.
    """

    def __init__(
        self,
        seen: list[SegmentationDataset],
        unseen: list[SegmentationDataset] | None = None,
        *,
        leave_out: Sequence[str] = (),
        image_size: int | None = None,
        batches: BatchPlan | None = None,
        augmentation: Augmentation | None = None,
        rates: Sequence[float] = (1.0,),
        eval_batch_size: int = 8,
        num_workers: int = 0,
        cache: str | None = None,
        cache_gb: float = 20.0,
        protocol: str = "madgnet",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.allow_zero_length_dataloader_with_multiple_devices = True  # a small test set may leave a process without cases
        self.seen, left_out = _parted(seen, leave_out)
        self.unseen = [*left_out, *(unseen or [])]
        _check_sets(self.seen, self.unseen)
        self.protocol = Protocol.parse(protocol)
        self.image_size = _image_size(self.protocol, image_size)
        self.targets = tuple(dict.fromkeys(name for source in self.seen for name in source.card.targets))
        self.seed = seed
        self.batch_parts = 1
        self._batches = batches or ShuffledBatches()
        self._augmentation = augmentation
        self._rates = _checked_rates(rates, self.image_size)
        self._eval_batch_size = eval_batch_size
        self._num_workers = num_workers
        self._caches = self._build_caches(cache_root(cache), cache_gb) if cache_gb > 0 else {}
        self._first_epoch = 0
        self._train: JoinedDataset | None = None
        self._val: list[TestSet] = []
        self._test: list[TestSet] = []

    @property
    def num_targets(self) -> int:
        """Number of target channels, which the command line gives to the network."""
        return len(self.targets)

    @property
    def augmentation(self) -> Augmentation | None:
        """Random change of the training cases, or none."""
        return self._augmentation

    @property
    def test_sets(self) -> list[TestSet]:
        """The named test loaders in order: seen, then unseen; empty before ``setup("test")``."""
        return self._test

    @property
    def val_sets(self) -> list[TestSet]:
        """The named validation loaders: one per seen data set that has validation cases."""
        return self._val

    def check_files(self, *, step: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Make sure that every file of every data set can be used, and raise everything wrong with them in one table.

        Files whose cases the cache holds were found in order when they were stored, and have not changed since: they are not
        decoded again. All others are, and are stored.

        Args:
            step: Called with how many of the cases that a cache lacks are done, and how many there are, by data set.

        Raises:
            DataErrors: With one row per problem, over all the sets.
        """
        sources = [*self.seen, *self.unseen]
        in_order = {name for name, cache in self._caches.items() if cache.fill(step=step)}
        check_datasets(source for source in sources if source.name not in in_order)

    def setup(self, stage: str) -> None:
        """List the cases that the stage needs; decoding happens later, case by case.

        Raises:
            DataErrors: A folder is missing or its files do not pair.
            ConfigError: A test case of an unseen set is also trained on, or no seen set has training cases.
        """
        if stage == "fit":
            parts = [
                self._cases(source, source.manifest.rows("train"), domain_index=index, augmentation=self._augmentation)
                for index, source in enumerate(self.seen)
            ]
            self._train = JoinedDataset(parts)
            if not len(self._train):
                raise ConfigError(f"no training cases in {', '.join(s.name for s in self.seen)}; check their splits.")
        if stage in ("fit", "validate"):
            self._val = [
                TestSet(source.name, "seen", self._cases(source, rows, domain_index=index))
                for index, source in enumerate(self.seen)
                if (rows := source.manifest.rows("val"))
            ]
        if stage == "test":
            check_unseen(self.seen, self.unseen)
            seen = [
                TestSet(source.name, "seen", self._cases(source, rows, domain_index=index))
                for index, source in enumerate(self.seen)
                if (rows := source.manifest.rows("test"))
            ]
            unseen = [TestSet(source.name, "unseen", self._cases(source, source.manifest.rows())) for source in self.unseen]
            self._test = [*seen, *unseen]

    def state_dict(self) -> dict[str, Any]:
        """The epoch with which a training resumed from this checkpoint begins."""
        assert self.trainer is not None  # it asks for the state
        return {"epoch": self.trainer.fit_loop.epoch_progress.current.processed}  # type: ignore[attr-defined]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Begin with the epoch of `state_dict`: worker processes draw ahead, before the trainer calls ``set_epoch``."""
        self._first_epoch = state_dict["epoch"]

    def native_mask(self, test_set: int, row: int) -> NDArray[np.uint8]:
        """The reference of a test case at its own size, (K, H, W), for protocols that compare there."""
        return self._test[test_set].cases.native_mask(row)

    def train_dataloader(self) -> DataLoader[SegmentationBatch]:
        """The training batches of this process."""
        if self._train is None:
            raise RuntimeError("training data exist only after setup('fit')")
        rank, world_size = self._process()
        sampler = PlannedBatchSampler(
            self._batches,
            self._train.domains,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
            rates=self._rates,
            parts=self.batch_parts,
        )
        sampler.set_epoch(self._first_epoch)
        return CaseLoader(ByteCases(self._train), batch_sampler=sampler, **self._loading())

    def val_dataloader(self) -> list[DataLoader[SegmentationBatch]]:
        """One loader per seen data set that has validation cases."""
        return self._evaluation(self._val)

    def test_dataloader(self) -> list[DataLoader[SegmentationBatch]]:
        """One loader per test set, in the order of `test_sets`."""
        if not self._test:
            raise RuntimeError("test loaders exist only after setup('test')")
        return self._evaluation(self._test)

    def _cases(
        self,
        source: SegmentationDataset,
        rows: Sequence[int],
        *,
        domain_index: int = -1,
        augmentation: Augmentation | None = None,
    ) -> CaseDataset:
        return CaseDataset(
            source,
            rows,
            size=self.image_size,
            targets=self.targets,
            domain_index=domain_index,
            mask_resampling=self.protocol.mask_resampling,
            augmentation=augmentation,
            seed=self.seed,
            cache=self._caches.get(source.name),
        )

    def _build_caches(self, root: Path, limit_gb: float) -> dict[str, DecodedCache]:
        """The cache of every data set, by its name."""
        return {
            source.name: DecodedCache(
                source, root, size=self.image_size, mask_resampling=self.protocol.mask_resampling, limit_gb=limit_gb
            )
            for source in (*self.seen, *self.unseen)
        }

    def _evaluation(self, test_sets: Sequence[TestSet]) -> list[DataLoader[SegmentationBatch]]:
        """This process's part of every set.

        Raises:
            ConfigError: No set has a case for every process; the trainer skips the whole evaluation in a process without any.
        """
        rank, world_size = self._process()
        largest = max((len(test_set.cases) for test_set in test_sets), default=world_size)
        if largest < world_size:
            raise ConfigError(
                f"the largest evaluation set has {largest} cases for {world_size} processes; use at most {largest} devices."
            )
        return [
            CaseLoader(
                ByteCases(test_set.cases),
                batch_size=self._eval_batch_size,
                sampler=ShardSampler(len(test_set.cases), rank=rank, world_size=world_size),
                **self._loading(),
            )
            for test_set in test_sets
        ]

    def _process(self) -> tuple[int, int]:
        """Rank and number of processes of the trainer, if there is one."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def _loading(self) -> dict[str, Any]:
        return {
            "collate_fn": SegmentationBatch.collate,
            "num_workers": self._num_workers,
            "persistent_workers": self._num_workers > 0,
            "generator": torch.Generator().manual_seed(self.seed),  # else the number of workers would move the global stream
        }


def check_unseen(seen: Sequence[SegmentationDataset], unseen: Sequence[SegmentationDataset]) -> None:
    """Make sure that no case of an unseen set belongs to a seen one, by its file; of what is not made of files, by its card.

    Raises:
        ConfigError: Naming the sets and how many cases they share.
    """
    trained = {_origin(source, case): source.name for source in seen for case in source.manifest}
    for source in unseen:
        shared = [case for case in source.manifest if _origin(source, case) in trained]
        if shared:
            raise ConfigError(
                f"unseen set {source.name} shares {len(shared)} cases with seen set {trained[_origin(source, shared[0])]}, "
                f"first {shared[0].image}; choose other domains, or leave one of them out."
            )


def _origin(source: SegmentationDataset, case: Case) -> tuple[str, str]:
    """What tells an image from all others: its file, wherever a link leads, or card and name."""
    file = source.file(case.image)
    return ("", os.path.realpath(file)) if os.path.isfile(file) else (source.card.name, case.image)


def _parted(
    seen: Sequence[SegmentationDataset], leave_out: Sequence[str]
) -> tuple[list[SegmentationDataset], list[SegmentationDataset]]:
    """The sets that stay seen, and those that are left out."""
    for word in leave_out:
        if not any(word in (source.name, source.card.modality) for source in seen):
            valid = dict.fromkeys(word for source in seen for word in (source.name, source.card.modality))
            raise ConfigError(f"data.leave_out names {word!r}, which no seen set is called; valid: {', '.join(valid)}.")
    left_out = [source for source in seen if {source.name, source.card.modality} & set(leave_out)]
    return [source for source in seen if source not in left_out], left_out


def _check_sets(seen: list[SegmentationDataset], unseen: list[SegmentationDataset]) -> None:
    """Refuse an empty training, two sets of one name and targets that cannot be tested."""
    if not seen:
        raise ConfigError("data.seen is empty; name at least one data set to train on.")
    names = [source.name for source in [*seen, *unseen]]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"data set {twice[0]} is named twice; each set may stand once, under seen or unseen.")
    known = {name for source in seen for name in source.card.targets}
    for source in unseen:
        foreign = [name for name in source.card.targets if name not in known]
        if len(foreign) == len(source.card.targets):
            raise ConfigError(
                f"unseen set {source.name} has targets {foreign}, training has {sorted(known)}; none can be tested."
            )


def _image_size(protocol: Protocol, image_size: int | None) -> int:
    """The side of the network's input under a protocol."""
    if protocol.size == "native":
        if image_size is None:
            raise ConfigError(f"protocol {protocol} compares at native size; set data.image_size for the network's input.")
        return image_size
    if image_size not in (None, protocol.size):
        raise ConfigError(
            f"image_size {image_size} is not the size of protocol {protocol}; "
            f"leave it out, or choose the protocol {protocol.name}[size={image_size}]."
        )
    return protocol.size


def _checked_rates(rates: Sequence[float], image_size: int) -> tuple[float, ...]:
    """Refuse rates that cannot be trained or that would only repeat a step."""
    if not rates or not all(0 < rate < float("inf") for rate in rates):
        raise ConfigError(f"rates are {list(rates)}; give one or more positive numbers, such as [0.75, 1, 1.25].")
    sides = [side_at_rate(image_size, rate) for rate in rates]
    if len(set(sides)) < len(sides):
        raise ConfigError(
            f"rates {list(rates)} of image size {image_size} give sides {sides} (multiples of 32), so that steps would be "
            "repeated; choose a larger size, or other rates."
        )
    return tuple(rates)
