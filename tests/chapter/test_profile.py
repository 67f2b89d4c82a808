"""Profiles: sizes by name, seeds that do not depend on one another, devices that exist."""

from dataclasses import dataclass

import pytest
import torch

from reproductions.chapter.profile import begin, resolve_device


@dataclass(frozen=True)
class Sizes:
    n: int


SIZES = {"smoke": Sizes(1), "cpu": Sizes(2), "paper": Sizes(3)}


def test_sizes_belong_to_the_profile():
    assert begin(SIZES, profile="smoke").sizes.n == 1
    assert begin(SIZES, profile="paper").sizes.n == 3


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("profile", "huge", "smoke, cpu, paper; got 'huge'"),
        ("seed", 1.5, "seed must be an integer of at least 0, got 1.5"),
        ("seed", -1, "got -1"),
        ("seed", True, "got True"),
        ("device", "tpu", "auto, cpu, cuda or cuda:N; got 'tpu'"),
        ("device", "cuda:99", "torch sees"),
    ],
)
def test_bad_input_names_argument_value_and_choices(argument, value, message):
    with pytest.raises(ValueError, match=message):
        begin(SIZES, **{argument: value})


def test_auto_is_a_device_that_exists():
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_experiments_draw_their_own_numbers():
    a, b = begin(SIZES, seed=0), begin(SIZES, seed=1)
    draw = lambda run, name: torch.rand(4, generator=run.generator(name)).tolist()  # noqa: E731
    assert draw(a, "x") == draw(a, "x")
    assert draw(a, "x") != draw(a, "y")
    assert draw(a, "x") != draw(b, "x")
    assert a.numpy_generator("x").random() == a.numpy_generator("x").random()
