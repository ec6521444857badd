import math

import pytest

from datamodules.sampler import BLANK, EvalSampler, TrainSampler, derive_seed


def epoch_of(size, epoch, world_size=1, seed=7):
    ranks = []
    for rank in range(world_size):
        sampler = TrainSampler(size, seed=seed, rank=rank, world_size=world_size)
        sampler.set_epoch(epoch)
        ranks.append(list(sampler))
        assert len(sampler) == len(ranks[-1])
    return ranks


def test_an_epoch_is_a_permutation_and_says_its_epoch():
    (order,) = epoch_of(101, 3)
    assert sorted(sample for _, sample in order) == list(range(101))
    assert {epoch for epoch, _ in order} == {3}


def test_order_depends_on_seed_and_epoch_only():
    assert epoch_of(50, 1) == epoch_of(50, 1)
    orders = {
        tuple(sample for _, sample in epoch_of(50, epoch, seed=seed)[0]) for epoch in (0, 1, 2) for seed in (0, 1, 2)
    }
    assert len(orders) == 9


@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_ranks_share_one_permutation_equally(world_size):
    (whole,) = epoch_of(101, 2)
    ranks = epoch_of(101, 2, world_size)
    interleaved = [sample for turn in zip(*ranks, strict=True) for sample in turn]
    assert interleaved == whole[: 101 // world_size * world_size]


@pytest.mark.parametrize("size", [0, 1, 2, 5, 17])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_takes_every_sample_once_in_equally_many_full_batches(size, world_size):
    shares = [list(EvalSampler(size, batch_size=4, rank=rank, world_size=world_size)) for rank in range(world_size)]
    assert sorted(sample for share in shares for _, sample in share if sample != BLANK) == list(range(size))
    # Each process has at most 4 samples a batch, so that these many batches are just enough, and there is at least one.
    batches = max(1, math.ceil(size / (4 * world_size)))
    assert {len(share) for share in shares} == {4 * batches}
    real = [sum(sample != BLANK for _, sample in share) for share in shares]
    assert max(real) - min(real) <= 1


def test_seeds_differ_for_any_change():
    seeds = [derive_seed(a, b, c) for a in range(5) for b in range(20) for c in range(20)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**64 for seed in seeds)
