"""Cutting networks into stacks: all of them, none too large, and the workers done together."""

import itertools

import pytest

from reproductions.papers.super_convergence.sharing import OVERHEAD, even_parts, share_out


def duration(stacks, steps, workers):
    """When the last worker is done if idle workers take the stacks in this order."""
    done = [0.0] * workers
    for stack in stacks:
        done.sort()
        done[0] += steps[stack[0][0]] * (len(stack) + OVERHEAD)
    return max(done)


def groups(*sizes):
    """(steps, networks) of networks that are named by their group and place."""
    return [(n, [(k, i) for i in range(size)]) for k, (n, size) in enumerate(sizes)]


@pytest.mark.parametrize("n_parts", [1, 2, 3, 7])
def test_parts_are_even_and_in_order(n_parts):
    for n in range(n_parts, 20):
        parts = even_parts(range(n), n_parts)
        assert [k for part in parts for k in part] == list(range(n))
        sizes = [len(part) for part in parts]
        assert len(sizes) == n_parts
        assert max(sizes) - min(sizes) <= 1 <= min(sizes)


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("largest", [1, 2, 3, 7])
@pytest.mark.parametrize(
    "sizes", [[(10, 9)], [(80, 3), (10, 9)], [(8, 3), (5, 7), (5, 1), (1, 12)], [(3, 2), (3, 2)]]
)
def test_every_network_is_in_one_stack_of_its_own_kind(sizes, largest, workers):
    given = groups(*sizes)
    stacks = share_out(given, largest=largest, workers=workers)
    assert sorted(itertools.chain(*stacks)) == sorted(m for _, members in given for m in members)
    for stack in stacks:
        assert len({group for group, _ in stack}) == 1
        assert 1 <= len(stack) <= largest
    work = [sizes[stack[0][0]][0] * (len(stack) + OVERHEAD) for stack in stacks]
    assert work == sorted(work, reverse=True)


@pytest.mark.parametrize(
    ("sizes", "workers", "expected"),
    [
        # one worker takes the largest stacks there may be
        ([(10, 9)], 1, [3, 3, 3]),
        # two share what would keep one of them waiting
        ([(10, 9)], 2, [3, 2, 2, 2]),
        ([(10, 3)], 2, [2, 1]),
        ([(10, 1)], 2, [1]),
        # a long run stays whole where the other worker has enough to do meanwhile
        ([(80, 3), (10, 24)], 2, [3] * 9),
        ([(20, 3), (10, 6)], 2, [3, 3, 3]),
        # the control: with less to do it is cut
        ([(80, 3), (10, 3)], 2, [2, 1, 3]),
    ],
)
def test_workers_are_done_together(sizes, workers, expected):
    stacks = share_out(groups(*sizes), largest=3, workers=workers)
    assert [len(stack) for stack in stacks] == expected


def test_no_worse_than_stacks_of_the_largest_size_nor_far_from_the_bound():
    steps_of = [(80, 3), (10, 6), (10, 3), (10, 9), (5, 6), (2, 6), (10, 3)]
    steps = [n for n, _ in steps_of]
    for workers in (2, 3):
        given = groups(*steps_of)
        found = duration(share_out(given, largest=3, workers=workers), steps, workers)
        simple = [
            part
            for _, members in sorted(given, key=lambda group: -group[0])
            for part in even_parts(members, -(-len(members) // 3))
        ]
        assert found <= duration(simple, steps, workers)
        # no plan beats all the work spread evenly, nor the longest network alone
        bound = max(sum(n * size for n, size in steps_of) / workers, max(steps))
        assert bound <= found <= 1.5 * bound
