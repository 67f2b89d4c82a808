"""The arithmetic and the sentences of the figure "attention-board", in node."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mpmath import mp, mpf
from scipy.optimize import linprog

STATIC = Path(__file__).resolve().parents[2] / "book" / "_static"

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None, reason="node is not installed: the page's arithmetic is untested"
)


def in_node(expression: str, data: Any) -> Any:
    modules = (("M", "attention-math.js"), ("W", "attention-words.js"))
    program = "".join(
        f"const {k} = require({json.dumps(str(STATIC / f))});" for k, f in modules
    ) + (
        "const data = JSON.parse(require('fs').readFileSync(0, 'utf8'));"
        f"process.stdout.write(JSON.stringify({expression}));"
    )
    done = subprocess.run(
        ["node", "-e", program], input=json.dumps(data), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def official() -> dict[str, Any]:
    """The second problem in the plane of the official code (visualization2)."""
    draw = torch.Generator().manual_seed(3)
    head = torch.randn(2, generator=draw)
    tokens = 0.5 * torch.randn(2, 5, 2, generator=draw)
    tokens[:, 1:, 0] -= 1
    tokens[:, 0] = torch.tensor([[1.0, 0.5], [1.0, -0.5]])
    queries = torch.randn(2, 2, generator=draw)
    return {
        "tokens": tokens.tolist(),
        "queries": (queries / queries.norm(dim=1, keepdim=True)).tolist(),
        "head": (head / head.norm()).tolist(),
    }


def problems(count: int, grid: float | None) -> list[dict[str, Any]]:
    """Random problems; with a grid, tokens often coincide or lie on one line."""
    draw = np.random.default_rng(5)
    found = []
    for k in range(count):
        tokens = draw.normal(size=(2, 2 + k % 5, 2))
        queries = draw.normal(size=(2, 2))
        if grid:
            tokens = np.round(tokens / grid) * grid
        if k % 4 == 0:
            queries[1] = queries[0] * draw.choice([-1, 2])
        chosen = draw.integers(tokens.shape[1], size=2).tolist()
        found.append(
            {"tokens": tokens.tolist(), "queries": queries.tolist(), "selected": chosen}
            | {"head": draw.normal(size=2).tolist()}
        )
    return found


def constraints(p: dict[str, Any]) -> tuple[np.ndarray, list[tuple[int, int]]]:
    rows, places = [], []
    for i, (tokens, z) in enumerate(zip(p["tokens"], p["queries"], strict=True)):
        for t, x in enumerate(tokens):
            if t != p["selected"][i]:
                rows.append(np.outer(np.subtract(tokens[p["selected"][i]], x), z).ravel())
                places.append((i, t))
    return np.array(rows), places


def feasible(rows: np.ndarray) -> bool:
    size = rows.shape[1]
    free = [(None, None)] * size
    return linprog(np.zeros(size), A_ub=-rows, b_ub=-np.ones(len(rows)), bounds=free).status == 0


@pytest.mark.parametrize("grid", [None, 0.5])
def test_the_matrix_meets_every_condition_of_the_optimum(grid: float | None) -> None:
    """Kuhn and Tucker's conditions prove it; a linear program says where there is none."""
    given = problems(150, grid)
    answers = in_node("data.map((p) => M.attSvm(p.tokens, p.queries, p.selected))", given)
    assert 30 < sum(answer is None for answer in answers) < 120
    for p, got in zip(given, answers, strict=True):
        rows, places = constraints(p)
        assert (got is not None) == feasible(rows)
        if got is None:
            continue
        W = np.array(got["W"])
        duals, margins, support = (
            np.array([got[key][i][t] for i, t in places]) for key in ("duals", "margins", "support")
        )
        assert rows @ W == pytest.approx(margins, abs=1e-8)
        assert margins.min() > 1 - 1e-8
        assert duals.min() >= 0
        assert rows.T @ duals == pytest.approx(W, abs=1e-9 * np.linalg.norm(W))
        assert abs(duals @ (margins - 1)) < 1e-8 * (W @ W)
        assert support.tolist() == (margins < 1 + 1e-6).tolist()
        chosen = [got["support"][i][t] for i, t in enumerate(p["selected"])]
        assert chosen == [False, False]


def test_orthogonal_queries_with_two_tokens_have_a_closed_form() -> None:
    tokens = [[[1, 2], [-1, 0.5]], [[0.3, 0], [0, 1]]]
    queries = [[3, 4], [-4, 3]]
    got = in_node(
        "M.attSvm(data.tokens, data.queries, [0, 1])", {"tokens": tokens, "queries": queries}
    )
    delta = [np.array([2, 1.5]), np.array([-0.3, 1])]
    parts = [np.outer(a, z) / (a @ a) / 25 for a, z in zip(delta, queries, strict=True)]
    assert got["W"] == pytest.approx(sum(parts).ravel(), abs=1e-14)


def test_two_queries_on_one_line_can_contradict_each_other() -> None:
    """Each token is cut off by a line, in opposite directions."""
    tokens = [[[0, 0], [1, 0]]] * 2
    given = [{"tokens": tokens, "queries": [[1, 0], [s, 0]]} for s in (2, -2)]
    same, opposite = in_node("data.map((p) => M.attSvm(p.tokens, p.queries, [0, 1]))", given)
    assert same is None
    assert opposite is not None
    # the longer query asks less of W
    assert opposite["W"] == pytest.approx([-1, 0, 0, 0])
    assert opposite["support"] == [[False, True], [False, False]]


def test_separable_agrees_with_a_linear_program() -> None:
    lists = [p["tokens"][0] for p in problems(150, 0.5)]
    ours = in_node("data.map((list) => M.separable(list, 0))", lists)
    theirs = [feasible(np.array(points[0]) - np.array(points[1:])) for points in lists]
    assert ours == theirs
    assert 20 < sum(ours) < 130


def plain_step(W: np.ndarray, p: dict[str, Any], scores: list[list[float]]) -> np.ndarray:
    """The direction of descent as the equations have it, in double precision."""
    total = np.zeros((2, 2))
    for tokens, z, gamma in zip(p["tokens"], p["queries"], np.array(scores), strict=True):
        logits = np.array(tokens) @ W @ z
        s = np.exp(logits - logits.max())
        s /= s.sum()
        mean = s @ gamma
        total += np.outer((s * (gamma - mean)) @ np.array(tokens), z) / (1 + np.exp(mean))
    return total


def test_descent_follows_a_plain_loop() -> None:
    given = [p | {"start": [0.3 * k, 0, -0.2 * k, 0.1]} for k, p in enumerate(problems(12, None))]
    code = """data.map((p) => M.descend(p.tokens, p.queries, M.scores(p.tokens, p.head),
      { start: p.start, learningRate: 0.1, steps: 60 }))"""
    for p, path in zip(given, in_node(code, given), strict=True):
        scores = [[float(np.dot(x, p["head"])) for x in tokens] for tokens in p["tokens"]]
        W = np.array(p["start"]).reshape(2, 2)
        assert len(path) == 61
        for ours in path:
            assert ours == pytest.approx(W.ravel(), abs=1e-11)
            step = plain_step(W, p, scores)
            W = W + 0.1 * step / np.linalg.norm(step)


def test_direction_is_exact_where_softmax_is_zero_and_one() -> None:
    p = official()
    found = in_node(
        """(() => {
        const scores = M.scores(data.tokens, data.head);
        const { W } = M.attSvm(data.tokens, data.queries, [0, 0]);
        const far = W.map((value) => (3000 * value) / M.norm(W));
        return [scores, far, M.steepest(far, data.tokens, data.queries, scores)];
        })()""",
        p,
    )
    scores, far, ours = found[0], np.array(found[1]).reshape(2, 2), found[2]
    with mp.workdps(2000):
        total = mp.zeros(2, 2)
        for tokens, z, gamma in zip(p["tokens"], p["queries"], scores, strict=True):
            x, z = mp.matrix(tokens), mp.matrix(z)
            logits = x * mp.matrix(far.tolist()) * z
            weights = [mp.exp(a - max(logits)) for a in logits]
            s = [w / sum(weights) for w in weights]
            mean = sum(w * mpf(g) for w, g in zip(s, gamma, strict=True))
            for t, (w, g) in enumerate(zip(s, gamma, strict=True)):
                total += w * (mpf(g) - mean) / (1 + mp.exp(mean)) * x[t, :].T * z.T
        exact = [float(v / mp.norm(total, 2)) for v in total]
    assert np.linalg.norm(exact) == pytest.approx(1)
    assert ours == pytest.approx(exact, abs=1e-12)
    # control: the plain formula is zero there
    assert not plain_step(far, p, scores).any()


def test_where_all_scores_are_equal_descent_rests() -> None:
    p = {"tokens": [[[1, 2], [1, -1], [1, 0]]] * 2, "queries": [[1, 0], [1, 1]]}
    path = in_node(
        """M.descend(data.tokens, data.queries, M.scores(data.tokens, [1, 0]),
        { start: [1, 2, 3, 4], learningRate: 0.1, steps: 3 })""",
        p,
    )
    assert path == [[1, 2, 3, 4]] * 4


def test_attention_does_not_overflow() -> None:
    p = {"tokens": [[[1, 0], [0, 0]], [[0, 0], [0, 1]]], "queries": [[1, 0], [0, 1]]}
    sharp = in_node("M.attention([1e4, 0, 0, 1e4], data.tokens, data.queries)", p)
    assert sharp == [[1, 0], [0, 1]]
    soft = in_node("M.attention([1, 0, 0, -1], data.tokens, data.queries)", p)
    share = 1 / (1 + np.exp(-1))
    assert soft == [pytest.approx([share, 1 - share])] * 2


def test_numbers_of_the_official_problem() -> None:
    """Norm and correlations measured with another program on the same data."""
    norm, *correlations = in_node(
        """(() => {
        const { W } = M.attSvm(data.tokens, data.queries, [0, 0]);
        const path = M.descend(data.tokens, data.queries, M.scores(data.tokens, data.head),
          { start: [0, 0, 0, 0], learningRate: 0.1, steps: 2000 });
        return [M.norm(W), ...[200, 1000, 2000].map((k) => M.correlation(path[k], W))];
        })()""",
        official(),
    )
    assert norm == pytest.approx(1.52636, abs=5e-6)
    assert correlations == pytest.approx([0.9966, 0.99980, 0.99995], abs=5e-5)


# Scores 1, 0 and -0.5; from the other two, b is cut off at c, of a lower score, but c at b.
CORNER = [[1.0, -1.5], [0.0, 1.0], [-0.5, 0.5]]
PLAIN: dict[str, Any] = {
    "tokens": [CORNER, CORNER],
    "queries": [[1, 0], [0, 1]],
    "head": [1, 0],
    "asked": None,
    "far": False,
    "step": 400,
}


def said(**changes: Any) -> tuple[str, str, str]:
    state, first, second = in_node(
        """(() => {
        const result = W.consequences(data, 0.1, 400);
        const { state, text } = W.aboutMachine(data, result);
        return [state, text, W.aboutDescent(data, result)];
        })()""",
        PLAIN | changes,
    )
    return state, first, second.replace("\u00a0", " ")


def test_best_tokens_are_globally_optimal() -> None:
    state, machine, descent = said()
    assert (state, machine) == (
        "best",
        "The highest scores are at tokens a and p. The max-margin W for them has norm 0.57 and "
        "rests on the support tokens c and r. Nothing scores higher: this choice is globally "
        "optimal.",
    )
    assert descent.startswith(
        "After 400 steps of gradient descent from W = 0, attention selects a (over 99 %) and p "
        "(over 99 %), the highest scores. The correlation of W with the max-margin W of these "
        "tokens is 0.99"
    )


def test_a_locally_optimal_choice_keeps_descent_and_another_does_not() -> None:
    state, machine, descent = said(asked=[1, 1], far=True)
    assert (state, machine) == (
        "local",
        "You ask for tokens b and q; the highest scores are at a and p. The max-margin W for b and "
        "q has norm 2.00 and rests on the support tokens c and r. All of these score lower than "
        "the token asked for: the choice is locally optimal.",
    )
    assert descent.startswith("After 400 steps of gradient descent from 10 times this W, ")
    assert "not the highest scores. It stays with the tokens asked for. The corr" in descent
    state, machine, descent = said(asked=[2, 1], far=True)
    assert state == "repelling"
    assert machine.endswith(
        "Since a and b score higher than the token asked for, the choice is not locally optimal."
    )
    assert "It has left the tokens asked for." in descent
    # from zero the way does not depend on what is asked for, nor does what is said about it
    assert said(asked=[2, 1])[2] == said()[2]


def test_words_for_the_way() -> None:
    assert said(step=0)[2] == (
        "After 0 steps of gradient descent from W = 0, all tokens of a sequence have the same "
        "attention."
    )
    early = said(step=1)[2]
    assert early.startswith(
        "After 1 step of gradient descent from W = 0, attention is still spread"
    )
    shares = in_node(
        """M.attention(W.consequences(data, 0.1, 1).path[1], data.tokens, data.queries)
        .map((row) => Math.max(...row))""",
        PLAIN,
    )
    assert f"most of it on a ({shares[0]:.0%}) and p ({shares[1]:.0%})".replace("%", " %") in early


def test_words_where_nothing_separates() -> None:
    inside = [*CORNER, [0.1, 0.1]]
    state, machine, descent = said(tokens=[CORNER, inside], asked=[0, 3], far=True)
    assert (state, machine) == (
        "none",
        "You ask for tokens a and s; the highest scores are at a and p. No W makes attention "
        "select them: no straight line cuts off s from the other tokens of its sequence.",
    )
    assert "from W = 0, for want of a max-margin W, attention selects a" in descent
    both = said(tokens=[inside, inside], asked=[3, 3])[1]
    assert "no straight line cuts off d or s from" in both
    pair = [[0, 0], [1, 0]]
    one_line = said(tokens=[pair, pair], queries=[[1, 0], [2, 0]], asked=[0, 1])[1]
    assert one_line.endswith("with both queries on one line no W does it for both.")
