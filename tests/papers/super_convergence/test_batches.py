"""The order of the images: permutations, a function of seed and step alone."""

import pytest
import torch

from reproductions.papers.super_convergence import Batches


def epoch(batches, number, per_epoch, replica=0):
    steps = range(number * per_epoch, (number + 1) * per_epoch)
    return torch.cat([batches.at(step)[0][replica] for step in steps])


def test_every_epoch_is_a_permutation_of_its_own():
    batches = Batches([3, 4], [24, 24], 8)
    found = [epoch(batches, k, 3, replica) for k in range(4) for replica in (0, 1)]
    for order in found:
        assert sorted(order.tolist()) == list(range(24))
    assert len({tuple(order.tolist()) for order in found}) == 8


def test_images_that_do_not_fill_a_batch_wait_for_another_epoch():
    batches = Batches([3], [26], 8)
    left_out = set()
    for k in range(30):
        order = epoch(batches, k, 3).tolist()
        assert len(set(order)) == 24
        left_out |= set(range(26)) - set(order)
    # each image is left out with probability 1/13: of 26, about 24 in 30 epochs
    assert len(left_out) > 15


def test_equal_seeds_see_equal_batches_whatever_is_stacked_beside_them():
    stack = Batches([5, 6, 5], [20, 20, 20], 4, flips=True)
    alone = Batches([5], [20], 4, flips=True)
    for step in range(12):
        index, mirrored = stack.at(step)
        assert index.shape == mirrored.shape == (3, 4)
        for k in (0, 2):
            assert torch.equal(index[k], alone.at(step)[0][0])
            assert torch.equal(mirrored[k], alone.at(step)[1][0])
        assert not torch.equal(index[1], index[0])


@pytest.mark.parametrize("other", [1, 2, 335, 4096, 2**20])
def test_different_seeds_see_different_batches(other):
    mine, others = Batches([0], [50], 50), Batches([other], [50], 50)
    for step in range(3):
        assert not torch.equal(mine.at(step)[0], others.at(step)[0])


def test_a_fresh_object_goes_on_where_another_stopped():
    advanced = Batches([5, 7], [20, 33], 4, flips=True)
    for step in range(40):
        found = advanced.at(step)
    fresh = Batches([5, 7], [20, 33], 4, flips=True)
    for a, b in zip(found, fresh.at(39), strict=True):
        assert torch.equal(a, b)
    # and back again
    for a, b in zip(advanced.at(3), fresh.at(3), strict=True):
        assert torch.equal(a, b)


def test_a_replica_with_fewer_images_stays_within_them():
    batches = Batches([5, 5], [9, 40], 4)
    seen = torch.cat([batches.at(step)[0] for step in range(40)], 1)
    assert set(seen[0].tolist()) == set(range(9))
    assert set(seen[1].tolist()) == set(range(40))


def test_about_half_of_the_images_are_mirrored():
    batches = Batches([1], [1000], 500, flips=True)
    flips = torch.cat([batches.at(step)[1][0] for step in range(20)]).double()
    # ten thousand fair coins: five standard deviations
    assert abs(flips.mean().item() - 0.5) < 0.025
    first, again = batches.at(0), batches.at(0)
    assert torch.equal(first[1], again[1])
    # an image is not mirrored in the same way in every epoch
    places = [batches.at(2 * k)[0][0].argsort() for k in range(2)]
    assert not torch.equal(batches.at(0)[1][0][places[0]], batches.at(2)[1][0][places[1]])


def test_the_order_does_not_depend_on_whether_images_are_mirrored():
    plain, flipped = (Batches([1], [30], 10, flips=flips) for flips in (False, True))
    for step in (0, 2, 7):
        assert plain.at(step)[1] is None
        assert torch.equal(plain.at(step)[0], flipped.at(step)[0])


def test_the_order_owes_nothing_to_the_global_generator():
    torch.manual_seed(0)
    first = Batches([1], [30], 10).at(0)[0]
    torch.manual_seed(1)
    assert torch.equal(Batches([1], [30], 10).at(0)[0], first)


@pytest.mark.parametrize(
    ("batch_size", "message"),
    [(11, "batch_size must be at most the number of training images 10, got 11"), (0, "at least")],
)
def test_batches_that_cannot_be_filled_are_refused(batch_size, message):
    with pytest.raises(ValueError, match=message):
        Batches([1, 2], [20, 10], batch_size)
