from __future__ import annotations

import itertools

import pytest

from madgnet_bench.data.samplers import (
    BalancedBatches,
    DomainBatches,
    Draw,
    PlannedBatchSampler,
    ShardSampler,
    ShuffledBatches,
    side_at_rate,
)
from madgnet_bench.errors import ConfigError

DOMAINS = [0] * 17 + [1] * 9 + [2] * 4


def epoch(plan, number, *, domains=DOMAINS, seed=0, **process):
    sampler = PlannedBatchSampler(plan, domains, seed=seed, **process)
    sampler.set_epoch(number)
    return list(sampler)


PLANS = [ShuffledBatches(6), BalancedBatches(6), DomainBatches(domains_per_batch=2, samples_per_domain=3)]


def test_balanced_batches_draw_every_domain_equally_often():
    batches = epoch(BalancedBatches(6), 0)
    assert [len(batch) for batch in batches] == [6] * 5
    drawn = [draw.position for batch in batches for draw in batch]
    counts = [sum(DOMAINS[position] == domain for position in drawn) for domain in range(3)]
    assert counts == [10, 10, 10]
    small = [position for position in drawn if DOMAINS[position] == 2]
    assert all(2 <= small.count(position) <= 3 for position in range(26, 30))
    assert max(draw.repeat for batch in batches for draw in batch) == 2
    assert [len(batch) for batch in epoch(BalancedBatches(16), 0, domains=[0, 1, 1])] == [3]


@pytest.mark.parametrize("plan", PLANS)
def test_an_epoch_is_a_function_of_seed_and_number(plan):
    assert epoch(plan, 3) == epoch(plan, 3)
    assert len({str([[d.position for d in b] for b in epoch(plan, n, seed=s)]) for n in range(3) for s in range(3)}) == 9
    sampler = PlannedBatchSampler(plan, DOMAINS, seed=0)
    for number in range(3):  # undisturbed
        sampler.set_epoch(number)
        last = list(sampler)
    resumed = PlannedBatchSampler(plan, DOMAINS, seed=0)
    resumed.set_epoch(2)
    assert list(resumed) == last
    assert {draw.epoch for batch in last for draw in batch} == {2}
    assert len(sampler) == len(last)


def test_the_trainer_finds_set_epoch():
    sampler = PlannedBatchSampler(ShuffledBatches(6), DOMAINS, seed=0)
    sampler.sampler.set_epoch(4)
    assert next(iter(sampler))[0].epoch == 4


def test_shuffled_batches_hold_every_case_once():
    batches = epoch(ShuffledBatches(6), 0)
    assert [len(batch) for batch in batches] == [6] * 5
    draws = [draw for batch in batches for draw in batch]
    assert sorted(draw.position for draw in draws) == list(range(30))
    assert {draw.repeat for draw in draws} == {0}


def test_an_incomplete_last_batch_is_left_out_unless_it_is_the_only_one():
    batches = epoch(ShuffledBatches(7), 0)
    positions = [draw.position for batch in batches for draw in batch]
    assert [len(batch) for batch in batches] == [7] * 4 and len(set(positions)) == 28
    left_out = {frozenset(range(30)) - {d.position for b in epoch(ShuffledBatches(7), n) for d in b} for n in range(5)}
    assert len(left_out) > 1  # not the same cases in every epoch
    (only,) = epoch(ShuffledBatches(16), 0, domains=[0] * 5)
    assert sorted(draw.position for draw in only) == list(range(5))


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("world_size", [2, 3])
def test_the_processes_together_hold_the_batches_of_one(plan, world_size):
    parts = [epoch(plan, 1, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert {len(batch) for part in parts for batch in part} == {6 // world_size}
    assert [list(itertools.chain(*batch)) for batch in zip(*parts, strict=True)] == epoch(plan, 1)


def test_a_small_batch_is_shared_out_to_every_process():
    plan = ShuffledBatches(16)
    for cases, world_size in ((5, 4), (3, 2), (4, 4)):
        parts = [epoch(plan, 0, domains=[0] * cases, rank=rank, world_size=world_size)[0] for rank in range(world_size)]
        assert min(map(len, parts)) >= 1
        assert list(itertools.chain(*parts)) == epoch(plan, 0, domains=[0] * cases)[0]


def test_what_does_not_divide_is_refused():
    with pytest.raises(ConfigError, match="batch_size 6 is the batch over all processes and does not divide among 4"):
        PlannedBatchSampler(ShuffledBatches(6), DOMAINS, seed=0, world_size=4)
    with pytest.raises(ConfigError, match="2 training cases cannot be shared by 4 processes"):
        PlannedBatchSampler(ShuffledBatches(8), [0, 0], seed=0, world_size=4)
    with pytest.raises(ConfigError, match="domains_per_batch is 4, but training has 3 domains"):
        PlannedBatchSampler(DomainBatches(domains_per_batch=4), DOMAINS, seed=0)


RATES = (0.75, 1.0, 1.25)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_each_batch_comes_once_per_rate_in_order(plan, world_size):
    for rank in range(world_size):
        single, several = (epoch(plan, 2, rank=rank, world_size=world_size, rates=rates) for rates in ((1.0,), RATES))
        assert len(several) == 3 * len(single)
        for step, batch in enumerate(several):
            assert {draw.rate for draw in batch} == {RATES[step % 3]}  # one rate per step, the same in every process
            assert [draw._replace(rate=1.0) for draw in batch] == single[step // 3]


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize(("world_size", "parts"), [(1, 2), (1, 6), (2, 3), (3, 2)])
def test_the_parts_of_a_batch_follow_each_other_at_each_rate(plan, world_size, parts):
    for rank in range(world_size):
        process = {"rank": rank, "world_size": world_size, "rates": RATES}
        whole, cut = epoch(plan, 2, **process), epoch(plan, 2, **process, parts=parts)
        assert len(cut) == parts * len(whole) == len(PlannedBatchSampler(plan, DOMAINS, seed=0, **process, parts=parts))
        assert len({len(part) for part in cut}) == 1
        assert [list(itertools.chain(*cut[i * parts : (i + 1) * parts])) for i in range(len(whole))] == whole


def test_parts_that_would_not_be_equal_are_refused():
    with pytest.raises(ConfigError, match="a batch of 6 does not divide into 4 equal parts for 1 processes"):
        PlannedBatchSampler(ShuffledBatches(6), DOMAINS, seed=0, parts=4)


@pytest.mark.parametrize("plan", PLANS)
def test_the_length_counts_steps_and_a_resumed_epoch_is_the_undisturbed_one(plan):
    sampler = PlannedBatchSampler(plan, DOMAINS, seed=0, rates=RATES)
    for number in range(3):
        sampler.set_epoch(number)
        last = list(sampler)
        assert len(sampler) == len(last) == 3 * len(PlannedBatchSampler(plan, DOMAINS, seed=0))
    assert epoch(plan, 2, rates=RATES) == last


@pytest.mark.parametrize(
    ("side", "rate", "expected"),
    [(352, 0.75, 256), (352, 1.25, 448), (352, 1, 352), (256, 0.75, 192), (256, 1.25, 320), (100, 1, 100), (16, 0.75, 32)],
)
def test_sides_are_multiples_of_32_but_at_rate_1(side, rate, expected):
    assert side_at_rate(side, rate) == expected


@pytest.mark.parametrize(("domains_per_batch", "samples_per_domain"), [(2, 4), (3, 2), (1, 8)])
def test_every_batch_holds_several_domains_in_equal_parts(domains_per_batch, samples_per_domain):
    plan = DomainBatches(domains_per_batch=domains_per_batch, samples_per_domain=samples_per_domain)
    assert plan.batch_size == domains_per_batch * samples_per_domain
    batches = epoch(plan, 0)
    assert len(batches) == max(1, 30 // plan.batch_size)
    for batch in batches:
        found = [DOMAINS[draw.position] for draw in batch]
        assert len(set(found)) == domains_per_batch
        assert {found.count(domain) for domain in set(found)} == {samples_per_domain}
    for batch in epoch(plan, 0, rank=1, world_size=2) if samples_per_domain > 1 else []:
        assert len({DOMAINS[draw.position] for draw in batch}) == domains_per_batch


def test_domains_take_turns_and_small_ones_start_over():
    plan = DomainBatches(domains_per_batch=2, samples_per_domain=3)
    draws = [draw for number in range(6) for batch in epoch(plan, number) for draw in batch]
    times = [sum(DOMAINS[draw.position] == domain for draw in draws) for domain in range(3)]
    assert max(times) < 1.5 * min(times)
    in_epoch = [draw for batch in epoch(plan, 0) for draw in batch]
    assert len(set(in_epoch)) == len(in_epoch)  # a case drawn again counts its repeats
    again = [draw for draw in in_epoch if draw.repeat]
    assert again and {DOMAINS[draw.position] for draw in again} <= {1, 2}
    assert all(Draw(d.position, d.epoch, d.repeat - 1) in in_epoch for d in again)


@pytest.mark.parametrize(("length", "world_size"), [(5, 2), (1, 2), (0, 2), (7, 3), (6, 1)])
def test_shards_hold_every_case_once_without_padding(length, world_size):
    shards = [ShardSampler(length, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert sorted(itertools.chain(*shards)) == list(range(length))
    sizes = [len(shard) for shard in shards]
    assert sizes == [len(list(shard)) for shard in shards] and max(sizes) - min(sizes) <= 1
