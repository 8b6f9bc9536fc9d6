"""Which cases form which batch, in which process, and with which random stream."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from madgnet_bench.errors import ConfigError

__all__ = [
    "BalancedBatches",
    "BatchPlan",
    "DomainBatches",
    "Draw",
    "PlannedBatchSampler",
    "ShardSampler",
    "ShuffledBatches",
    "side_at_rate",
]


class Draw(NamedTuple):
    """One draw of a case: what a training data set is indexed with.

    Attributes:
        position: Position of the case in the training data.
        epoch: Epoch of the draw.
        repeat: How often the case was drawn before in this epoch.
        rate: Size at which the case is trained, relative to the experiment's; see `side_at_rate`. It is no part of the
            random stream: under every rate a draw is augmented alike.
    """

    position: int
    epoch: int
    repeat: int = 0
    rate: float = 1.0


def side_at_rate(side: int, rate: float) -> int:
    """Round a side times a rate to a multiple of 32, at least 32; at rate 1 it stays as it is.

    The rule of PraNet's multi-scale training (arXiv 2006.11392), halves to the even multiple included.

    >>> [side_at_rate(352, rate) for rate in (0.75, 1, 1.25)]
    [256, 352, 448]
    """
    return side if rate == 1 else max(1, round(side * rate / 32)) * 32


class BatchPlan(ABC):
    """How an epoch is cut into batches over all processes.

    Attributes:
        batch_size: Cases per optimiser step, over all processes.
    """

    batch_size: int

    @abstractmethod
    def plan(self, domains: Sequence[int], random: np.random.Generator) -> list[list[int]]:
        """Cut one epoch into batches.

        Args:
            domains: Domain of every training case, by position.
            random: The epoch's random stream.

        Returns:
            Positions by batch, each batch of `batch_size` cases.
        """


class ShuffledBatches(BatchPlan):
    """Every case once per epoch in random order; an incomplete last batch is left out, unless it is the only one.

    Args:
        batch_size: Cases per optimiser step, over all processes.
    """

    def __init__(self, batch_size: int = 16) -> None:
        self.batch_size = batch_size

    def plan(self, domains: Sequence[int], random: np.random.Generator) -> list[list[int]]:
        """Cut a permutation into batches."""
        order = random.permutation(len(domains)).tolist()
        size = min(self.batch_size, len(order))
        return [order[start : start + size] for start in range(0, len(order) - size + 1, size)]


class BalancedBatches(BatchPlan):
    """Every domain is drawn equally often, however many cases it has; an epoch has as many batches as the cases fill.

    Domains take turns in random order. A domain that runs out of cases starts over in a new order, so that cases of small
    domains come several times per epoch and not all cases of large ones once.

    Args:
        batch_size: Cases per optimiser step, over all processes.
    """

    def __init__(self, batch_size: int = 16) -> None:
        self.batch_size = batch_size

    def plan(self, domains: Sequence[int], random: np.random.Generator) -> list[list[int]]:
        """Fill batches in turn."""
        members = {domain: [p for p, d in enumerate(domains) if d == domain] for domain in sorted(set(domains))}
        turns = _endless(sorted(members), random)
        streams = {domain: _endless(positions, random) for domain, positions in members.items()}
        size = min(self.batch_size, len(domains))
        return [[next(streams[next(turns)]) for _ in range(size)] for _ in range(len(domains) // size)]


class DomainBatches(BatchPlan):
    """Every batch holds several domains in equal parts and in turn, as penalties over domains need.

    An epoch has as many batches as the cases fill; domains take turns in random order, and a domain that runs out of
    cases starts over in a new order.

    Args:
        domains_per_batch: Different domains in each batch.
        samples_per_domain: Cases of each of them.
    """

    def __init__(self, *, domains_per_batch: int = 2, samples_per_domain: int = 4) -> None:
        self.domains_per_batch = domains_per_batch
        self.samples_per_domain = samples_per_domain
        self.batch_size = domains_per_batch * samples_per_domain

    def plan(self, domains: Sequence[int], random: np.random.Generator) -> list[list[int]]:
        """Fill batches domain by domain.

        Raises:
            ConfigError: There are fewer training domains than a batch asks for.
        """
        members = {domain: [p for p, d in enumerate(domains) if d == domain] for domain in sorted(set(domains))}
        if len(members) < self.domains_per_batch:
            raise ConfigError(f"domains_per_batch is {self.domains_per_batch}, but training has {len(members)} domains.")
        turns = _endless(sorted(members), random)
        streams = {domain: _endless(positions, random) for domain, positions in members.items()}
        batches = []
        for _ in range(max(1, len(domains) // self.batch_size)):
            chosen: list[int] = []
            while len(chosen) < self.domains_per_batch:
                domain = next(turns)
                if domain not in chosen:
                    chosen.append(domain)
            batches.append([next(streams[domain]) for _ in range(self.samples_per_domain) for domain in chosen])
        return batches


def _endless(items: Sequence[int], random: np.random.Generator) -> Iterator[int]:
    """Yield the items in random order, again and again."""
    while True:
        yield from (items[i] for i in random.permutation(len(items)))


class PlannedBatchSampler(Sampler[list[Draw]]):
    """Yields this process's part of each planned batch; every process draws the same plan from (seed, epoch).

    Each planned batch is yielded once per rate, one after the other, and each time is an optimiser step: the length counts
    them all, and so do schedules.

    Args:
        plan: How an epoch is cut into batches.
        domains: Domain of every training case, by position.
        seed: Seed of the experiment.
        rank: This process.
        world_size: Number of processes; must divide the batch size.
        rates: Sizes at which each batch is trained, relative to the experiment's.
        parts: Equal parts in which each batch is yielded, one after the other, for a trainer that accumulates as many.

    Raises:
        ConfigError: The batch does not divide among the processes and parts, or there are fewer cases than processes.
    """

    def __init__(
        self,
        plan: BatchPlan,
        domains: Sequence[int],
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        rates: Sequence[float] = (1.0,),
        parts: int = 1,
    ) -> None:
        if plan.batch_size % world_size:
            raise ConfigError(
                f"batch_size {plan.batch_size} is the batch over all processes and does not divide among {world_size}; "
                "choose a multiple."
            )
        if len(domains) < world_size:
            raise ConfigError(f"{len(domains)} training cases cannot be shared by {world_size} processes; use fewer devices.")
        self._plan, self._domains = plan, list(domains)
        self._seed, self._rank, self._world_size = seed, rank, world_size
        self._rates, self._parts = tuple(rates), parts
        self._epoch = 0
        first = self._batches(0)
        if any(len(batch) // world_size % parts for batch in first[:1]):
            size = len(first[0])
            raise ConfigError(f"a batch of {size} does not divide into {parts} equal parts for {world_size} processes.")
        self._count = len(first) * len(self._rates) * parts

    @property
    def sampler(self) -> PlannedBatchSampler:
        """Where the trainer looks for `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration draws; the trainer calls it, after a resume too."""
        self._epoch = epoch

    def _batches(self, epoch: int) -> list[list[int]]:
        return self._plan.plan(self._domains, np.random.default_rng((self._seed, epoch)))

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[list[Draw]]:
        times: dict[int, int] = {}
        for batch in self._batches(self._epoch):
            draws = []
            for position in batch:
                times[position] = times.get(position, -1) + 1
                draws.append(Draw(position, self._epoch, times[position]))
            start, end = (len(draws) * rank // self._world_size for rank in (self._rank, self._rank + 1))
            bounds = [start + (end - start) * part // self._parts for part in range(self._parts + 1)]
            for rate in self._rates:
                for low, high in itertools.pairwise(bounds):
                    yield [draw._replace(rate=rate) for draw in draws[low:high]]


class ShardSampler(Sampler[int]):
    """Every ``world_size``-th case for evaluation: no case twice, none left out, parts may differ by one.

    Args:
        length: Number of cases.
        rank: This process.
        world_size: Number of processes.
    """

    def __init__(self, length: int, *, rank: int = 0, world_size: int = 1) -> None:
        self._positions = range(rank, length, world_size)

    def __len__(self) -> int:
        return len(self._positions)

    def __iter__(self) -> Iterator[int]:
        return iter(self._positions)
