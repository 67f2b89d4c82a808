# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,mystnb,name,slideshow
#     formats: ipynb,py:percent
#     notebook_metadata_filter: kernelspec,jupytext,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Super-convergence
#
# *You will see a network learn in an eighth of the usual iterations with a learning rate that ought to wreck it, find out how much of that is the large rate and how much the rival it was raced against, and draw one of the paper's figures without any network at all.*

# %% [markdown]
# ## In one minute
#
# Raise the learning rate in a straight line to a value far beyond what is usual, bring it back down, and stop.
# {cite:t}`smith2017superconvergence` found that a deep residual network trained in this way needs an eighth of the iterations of the customary recipe (a constant rate, then a tenth of it, then a hundredth) and ends up better. They called it *super-convergence*.
# The schedule became a standard tool: PyTorch ships it as `OneCycleLR`.
#
# On a small scale, which a laptop can follow, the headline holds in every seed. At the authors' scale their number for the cycle comes out too, in a run recorded for this book; the 80,000 iterations of the rival have not been run again.
# The most useful idea in the paper holds as well: a large rate regularizes, and other regularization has to step back when the rate goes up.
#
# We looked again at four things.
#
# - The race lacks a runner, the customary recipe with the *same* short time. With the customary rate it stays far behind the cycle, on both scales. With a rate ten times as large it comes within two points, on ours. At the authors' scale the rates of the 80,000 iterations add up to about as much as those of the 10,000 of the cycle.
# - On MNIST, with the authors' network, twelve epochs of the cycle are as good as 85 of the usual schedules, and a little better, by a third or less of what they report. So are twelve epochs of a staircase that begins with steps as long, momentum counted.
# - Two of the paper's baselines stand at chance for long stretches of their test curves, while the network knows its training batch perfectly. Most likely their test accuracy was read through averages that lag behind the weights.
# - A curvature estimate that "asks for" learning rates of 2 to 4 asks for nearly the same when it is fed pure noise.
#
# (In Colab, first run `%pip install -q git+https://github.com/theory-you-can-run/theory-you-can-run` in a cell of its own; on Binder, and after `make book`, the package is there.)

# %% tags=["hide-input"]
import math
import numpy as np
import torch
from reproductions.chapter import figure, recorded
from reproductions.papers import super_convergence as sc

record = recorded("super_convergence")
arms = {"one cycle, up to 3": "cycle-10k", "piecewise constant, 0.35": "constant-10k"}
big = {label: record.of(arm)[0] for label, arm in arms.items()}


# %% tags=["face", "hide-input"]
@figure(
    "ResNet-56 on CIFAR-10, trained for this book on a GPU, one seed. Above the test accuracy, "
    "below the learning rate. One cycle of 10,000 iterations, here the bare triangle of the first "
    "version, ends where the paper says it does; its last seven points come as the rate falls. The "
    "customary schedule, compressed into the same 10,000 with its rate of 0.35, stays ten points "
    "below.",
    alt="Upper panel: two accuracy curves against iterations. The cycle's climbs to 86 percent "
    "while the rate is large and to 93 at the end. The other stays near 79 and rises to 82 when "
    "its rate drops. Lower panel: a triangle up to 3 and a low staircase.",
    data={label: run_["curves"]["estimated"] for label, run_ in big.items()},
    size=(7.4, 4.6),
)
def _(fig, ink):
    upper, lower = fig.subplots(2, 1, sharex=True, height_ratios=(2.2, 1))
    schedules = sc.triangular(10_000, 0.1, 3.0), sc.piecewise_constant(10_000, 0.35)
    for k, (label, run_) in enumerate(big.items()):
        upper.plot(run_["steps"], run_["curves"]["estimated"], color=ink.cycle[k], label=label)
        lower.plot(schedules[k], color=ink.cycle[k])
    for y, words in ((92.4, "paper, cycle"), (91.2, "paper, 80,000 iterations of the other")):
        ink.reference(upper, y=y)
        upper.text(60, y + (0.8 if y > 92 else -2.6), f"{words}: {y}", color=ink.text, size="small")
    upper.set(ylabel="test accuracy (%)", ylim=(40, 98))
    upper.legend(loc="lower right")
    lower.set(xlabel="iteration", ylabel="learning rate", ylim=(0, None))


# %% [markdown]
# ## Scope
#
# There are two papers under one number.
# The first version (August 2017, arXiv:1708.07120v1, also the submission to ICLR 2018) has residual networks on CIFAR only; we had its text, the authors' architecture files and their 43 training logs.
# The third (May 2018; {cite:t}`smith2019superconvergence`) adds MNIST, wide networks, DenseNets and ImageNet, and names the policy *1cycle*. We did not have its text: its numbers are from a transcription of a companion report that prints the same tables {cite:p}`smith2018disciplined`, and are marked.
#
# **Reproduced in part, on a small scale:** the race, the length and the height of the cycle, the range test, regularization by large rates, weight decay, momentum, other optimizers, the curvature estimate. A residual network of eight layers, R8, learns 4000 images of 16 x 16 pixels. What transfers from ResNet-56 is directions and orderings, not percentages, and we claim no more.
#
# **Reproduced at the authors' scale:** some runs of ResNet-56, recorded on a GPU, one seed each ({ref}`sec-sc-scale`), and LeNet on all of MNIST, recorded on two cores of a processor, five seeds each ({ref}`sec-sc-digits`).
#
# **Not run:** CIFAR-100 and ImageNet (no data), batch sizes, dropout, bottleneck networks and ResNeXt, wide networks and DenseNets.
#
# Single runs carry a spread of half a point even at the authors' scale, and the first version reports single runs. Claims below rest on three seeds, compared seed by seed, and on orderings with wide margins; the recorded runs of ResNet-56 are single ones too. All recorded runs are marked as such.

# %% [markdown]
# ## Parameters
#
# `profile` sets the sizes: `smoke` takes seconds, `cpu` is what you read here, `paper` gives R8 all of CIFAR-10 and ten seeds and wants a GPU. The authors' own networks at their own scale are commands, and what they found is on record ({ref}`sec-sc-scale`).

# %% tags=["parameters"]
profile = "cpu"
seed = 0
device = "auto"

# %% tags=["hide-input"]
from functools import partial
from reproductions.chapter import (
    Claims, above, at_most, begin, below, between, datasets, equals, holds,
    measured, near, over_seeds, reported, show_source,
)

run = begin(sc.SIZES, profile=profile, seed=seed, device=device)
sizes = run.sizes
claims = Claims("super_convergence", sc.STATEMENTS)
# medians over seeds: differences of test accuracies, and losses
in_points = partial(over_seeds, statistic="median", unit="points", drift=1.5)
in_nats = partial(over_seeds, statistic="median", unit="nats", drift=0.3)
seeds = [seed * sizes.n_seeds + k for k in range(sizes.n_seeds)]
N = sizes.n_steps
WHY = "CIFAR-10 cannot be had here."
ON = "R8 on CIFAR-10, where nothing else is said."
logged = {name: log.accuracy for name, log in sc.published.LOGS.items()}

# %% [markdown]
# ## One cycle
#
# Gradient descent on a minibatch moves the weights $\theta$ against the gradient $g_t$, by a learning rate $\eta_t$ that may change from step to step.
# Customary {term}`schedules <learning-rate schedule>` only ever go down: constant for a long time, then a tenth, then a hundredth. The paper calls that *piecewise constant*, and so do our figures; we also say *staircase*.
# The *cycle* goes up first.
# Why up? At the start the gradients are large and the weights fit nothing, so that a large rate throws them out; once they have found a good region, it may not. (Hold that thought: a later section tests it.)
#
# Over the first $N_1$ of $N$ steps the rate rises linearly from $\eta_{\min}$ to $\eta_{\max}$ and falls back,
#
# $$ \eta_t = \eta_{\min} + (\eta_{\max} - \eta_{\min})\Bigl(1 - \Bigl|\frac{2t}{N_1} - 1\Bigr|\Bigr), \qquad 0 \le t < N_1 , $$ (eq-sc-cycle)
#
# and over the remaining tenth of the steps it fades to a hundredth of $\eta_{\min}$. The first version of the paper has the triangle alone, $N_1 = N$; the third adds the fading and calls the whole *1cycle*.

# %% tags=["remove-input"]
show_source(sc.triangular)

# %% [markdown]
# The figure has four schedules that will race each other below. (The {term}`warm-up` of the cosine is a short linear rise to its full rate.)
# They are plain vectors, one rate a step: nothing needs to be "stepped", and a schedule that is too short for its run is an error before the run.

# %% tags=["hide-input"]
schedules = {
    "one cycle": sc.one_cycle(N, 0.05, 1.0),
    "triangle": sc.triangular(N, 0.05, 1.0),
    "cosine with warm-up": sc.cosine(N, 1.0),
    "piecewise constant": sc.piecewise_constant(N, 0.35),
}


@figure(
    f"Four schedules over {N} steps. The cycle goes up for almost half of them, down for as many, and "
    "spends the last tenth near zero; the customary one drops to a tenth at 5/8 of the run and to a "
    "hundredth at 7/8.",
    alt="Learning rate against step. A triangle up to 1 with a flat end, the same triangle without "
    "it, a steep rise followed by a slow cosine to zero, and a staircase that starts at 0.35.",
    data=schedules,
    size=(7.4, 2.8),
)
def _(fig, ink):
    ax = fig.subplots()
    styles = ("-", "--", "-.", "-")
    for k, (label, rates) in enumerate(schedules.items()):
        ax.plot(rates, color=ink.cycle[k], ls=styles[k], label=label)
    ax.set(xlabel="step", ylabel="learning rate")
    ax.legend()


# %% [markdown]
# With {term}`momentum` there is a choice that textbooks do not mention, because it does not matter as long as the rate is constant.
# The *velocity* can have the rate inside or outside:
#
# $$ \begin{aligned} \text{Caffe: } & v \leftarrow \mu v - \eta_t g_t, & \theta &\leftarrow \theta + v; \\ \text{PyTorch: } & b \leftarrow \mu b + g_t, & \theta &\leftarrow \theta - \eta_t b . \end{aligned} $$ (eq-sc-momentum)
#
# In Caffe, which the authors used, past gradients keep the rates of their own time; in PyTorch they are all rescaled by today's.
# When a rate of 3 is falling, that is a difference, and {ref}`an exercise <ex-sc-momentum>` measures it. We use Caffe's form throughout. {term}`Weight decay <weight decay>` is $d\,\theta$ added to the gradient, $d = 10^{-4}$, and $\mu = 0.9$. As in the authors' files it spares the biases of convolutions, and biases learn at twice the rate.
#
# ## Data and network
#
# R8 is a residual network {cite:p}`he2016resnet` with one block for each of the widths 16, 32 and 64, batch normalization after each convolution, and 75,530 weights. Its images are the first 4000 of CIFAR-10, averaged down to 16 x 16 pixels, minus their mean image; the first 3000 test images judge it. There is no augmentation, and a batch has 100 images.
# R8 will end near 50 %; chance is 10 %. What to read is differences.
#
# A *recipe* is a name and a schedule, and `sc.train` runs every recipe from every seed, several networks at a time as one program: their channels lie side by side, each with its own group of every convolution, and batch normalization, which works channel by channel, keeps them apart by itself.
#
# The paper's largest rate, 3, belongs to batches of 1000. The noise that a step adds to the weights grows with the rate and shrinks with the batch, $\eta/B$, so the same noise in batches of 100 would be had at 0.3. The best rates here turn out to be 0.5 to 1. (They were found on these very test images, by earlier versions of the experiments, and so was the rival's 0.35.)
#
# (Where CIFAR-10 cannot be had, its cells, which begin by asking for it, run on scikit-learn's digits; figures say which, and claims then keep the verdicts that are stored with the book.)

# %%
numbers = (1, 2, 3, 4, 5, 6, 8, 9, 11, 12, 16, 17)
needing = tuple(f"C{number}" for number in numbers)
cifar = datasets.optional("cifar10", claims=needing, n_train=sizes.n_train)
if cifar is not None:
    parts = cifar.train_images, cifar.train_labels, cifar.test_images, cifar.test_labels
    counts = {"n_train": sizes.n_train, "n_test": sizes.n_test, "pool": sizes.pool}
    task = sc.image_task("CIFAR-10", *parts, device=run.device, **counts)
else:
    table = datasets.load("digits")
    task = sc.stand_in(table.features, table.labels, device=run.device)
small = {"spec": sc.reduced(task), "batch_size": sizes.batch, "stacked": sizes.stacked}
few = min(sizes.n_few, len(task.train_labels) // 2)

# %% [markdown]
# (sec-sc-race)=
# ## The race
#
# The paper's headline {cite:p}`smith2017superconvergence` races one cycle of 10,000 iterations against piecewise constant training with 80,000.
# We take the same ratio: $N = 300$ steps, seven and a half passes over the data (the authors' 10,000 are 200), against $8N$.
# What would refute the claim is a long run that ends above the short one.
#
# And we add the runners that the paper leaves out: piecewise constant training that is given the *same* $N$ steps, once from 0.35 and once from 0.035.
# For each image of a batch the second has the rate of the paper's baseline, $0.35/1000$; the first has ten times as much.
# Without them one cannot tell a fast method from a slow rival.
#
# The long run keeps one core busy for a good while. The other one trains networks of later sections meanwhile: cycles of other lengths and heights, a range test, and the rival with a warm-up.

# %%
datasets.at_hand("cifar10")
looks = {"looks": sizes.looks, "n_test": sizes.n_looked}
# some runners are evaluated in four ways, which a later section needs
kinds = ("caffe 0.95", "caffe 0.999", "torch 0.999", "estimated")
closely, end = sc.Monitor(**looks, statistics=kinds), sc.Monitor()
long, ramp = sizes.longer * N, N // 20
runners = [
    sc.Recipe("one cycle, N", sc.one_cycle(N, 0.05, 1.0), monitor=closely),
    sc.Recipe("piecewise constant, 8N", sc.piecewise_constant(long, 0.35)),
    sc.Recipe("piecewise constant, N", sc.piecewise_constant(N, 0.35), monitor=closely),
    sc.Recipe("from 0.035, N", sc.piecewise_constant(N, 0.035)),
]
gentle = sc.warmed_up(sc.piecewise_constant(N, 0.35), ramp)
gentle = sc.Recipe("gentle", gentle, monitor=sc.Monitor(statistics=kinds[:2]))
# beside the long run, for later sections
lengths, peaks = [N // k for k in sizes.lengths], (0.1, 0.5, 1.0, 3.0)
others = [(n, peak) for n in lengths for peak in (0.1, 1.0)]
others += [(N, peak) for peak in peaks if peak != 1.0]
cycles = [
    sc.Recipe(f"{n} steps to {p}", sc.one_cycle(n, min(0.05, p / 2), p), monitor=end)
    for n, p in others
]
test = sc.Monitor(looks=20, n_test=sizes.n_looked, statistics=kinds[::3][::-1])
test = sc.Recipe("range test", sc.range_test(N, 4.0), monitor=test)
recipes = [*runners, *cycles, test, gentle]
trained = sc.train(task, recipes, seeds, monitor=sc.Monitor(**looks), **small)
race = {runner.label: trained[runner.label] for runner in runners}

# %% tags=["hide-input"]
datasets.at_hand("cifar10")


@figure(
    f"Test accuracy on {task.name} during training, on a logarithmic axis: mean over seeds, and at "
    "the end, where all test images are taken, also their range (bars). The cycle ends above the run "
    "that takes eight times as long (its rate drops at the ticks), a little above the run of equal "
    "length, and far above the one with the customary rate for each image.",
    alt="Four rising curves with bars at their ends. Those of the cycle and of the short staircase "
    "end close together at the end of the short runs, the staircase from 0.035 ends lower; the long "
    "staircase levels off and ends between them.",
    data={label: outcome.curve.mean(0) for label, outcome in race.items()},
    size=(7.4, 3.9),
    drift=3.0,
)
def _(fig, ink):
    ax = fig.subplots()
    for k, (label, outcome) in enumerate(race.items()):
        steps, mean, last = outcome.steps, outcome.curve.mean(0), outcome.percent
        ax.plot(steps, mean, color=ink.cycle[k], label=label)
        ax.plot(steps[-1], mean[-1], "o", ms=6, color=ink.cycle[k])
        ax.plot([steps[-1] * 1.03**k] * 2, [last.min(), last.max()], color=ink.cycle[k], lw=4)
    for drop in (5 / 8, 7 / 8):
        ax.plot([drop * sizes.longer * N] * 2, [47.5, 49.5], color=ink.cycle[1], lw=1)
    ax.set(xscale="log", xlabel="step", ylabel="test accuracy (%)")
    ax.legend(loc="lower right")


# %% [markdown]
# Once its rate has dropped, the long run has a training loss near zero, and nothing is left to learn from: 4000 images are known by heart.
# It seems to lose because it goes on too long. The run of equal length, with the same rate, is above it in the median, and within two points of the cycle.
# The run from 0.035 is not: what a staircase needs is a large rate.
#
# A yardstick for the paper's own runs is the sum of all their learning rates:

# %%
arms_ = {
    "one cycle of 10,000 up to 3": sc.triangular(10_000, 0.1, 3.0),
    "piecewise constant, 80,000 from 0.35": sc.piecewise_constant(80_000, 0.35),
    "piecewise constant, 10,000 from 0.35": sc.piecewise_constant(10_000, 0.35),
    f"R8: one cycle of {N // 4} up to 1": sc.one_cycle(N // 4, 0.05, 1.0),
    f"R8: piecewise constant, {N} from 0.035": sc.piecewise_constant(N, 0.035),
}
for label, rates_ in arms_.items():
    print(f"{label:38}{rates_.sum():8,.0f}")

# %% [markdown]
# Measured in this way the short cycle and the long staircase are nearly equally long, and the staircase of 10,000 iterations, which ends at 82 % in the first figure, is a seventh or an eighth of them.
# Then "an order of magnitude" is little more than the ratio of the mean rates. (This is our interpretation, and no law: the shortest cycle of R8 has five times the sum of its run from 0.035, and we shall see it end far lower; and the long run of R8 overfits. The sum of rates is also what counts for weight decay: times $d/(1-\mu)$ it is the number of times that the weights could have shrunk by a factor $e$.)
#
# Does a shorter cycle do as well? The paper reports 89.7 % after 2,000 iterations where 10,000 give 92.4 %. Here are a quarter and half of $N$.

# %%
datasets.at_hand("cifar10")
cycle = race["one cycle, N"]
by_length = [trained[f"{n} steps to 1.0"].percent for n in lengths] + [cycle.percent]

# %% tags=["hide-input"]
if not datasets.at_hand("cifar10", claims=("C1",)):
    claims.stored("C1", because=WHY)
else:
    other = {label: cycle.percent - outcome.percent for label, outcome in trained.items()}
    far, gain = race["piecewise constant, 8N"], other["piecewise constant, 8N"]
    near_ = race["piecewise constant, N"].percent - far.percent
    claims.settle(
        "C1",
        in_points("gain of the cycle over 8 times as many steps", gain, above(1), paper=1.2),
        measured("ahead in every seed", bool((gain > 0).all()), holds(), n_seeds=len(seeds)),
        over_seeds("one cycle", cycle.percent, reported(), unit="%", paper=92.4, drift=2),
        in_points("equal budget: gain over N steps from 0.35", other["piecewise constant, N"],
                  reported()),
        in_points(f"equal budget: gain over N steps from 0.35 that warm up for {ramp}",
                  other["gentle"], reported()),
        in_points("equal budget, customary rate for an image: gain over N steps from 0.035",
                  other["from 0.035, N"], above(1)),
        in_points("the run of N steps from 0.35 minus the one of 8N", near_, reported()),
        in_nats("end of the long run: training loss", far.train_loss, reported(), drift=0.05),
        in_nats("end of the long run: test loss", far.test_loss, reported(), drift=1),
        measured("published: gain in the authors' logs", logged["clr3SS5kFig1a"] - logged["lr35Fig1a"],
                 reported(), unit="points"),
        *(
            measured(f"ResNet-56, recorded, 10,000 iterations: {label}",
                     run_["accuracy"]["caffe 0.95"], reported(), unit="%", paper=paper)
            for (label, run_), paper in zip(big.items(), (92.4, None), strict=True)
        ),
        qualified="The ordering holds here, and the cycle's number in the recorded run; the rival's "
        "80,000 iterations were not run again. At equal length a staircase from 0.35 comes near.",
        note=f"{ON} Gains: differences of test accuracy within a seed, median and range over seeds.",
    )

# %% tags=["hide-input"]
if not datasets.at_hand("cifar10", claims=("C2",)):
    claims.stored("C2", because=WHY)
else:
    by_n = {row.iterations: row.accuracy for row in sc.published.published("C2")}
    longer_by = zip(lengths, [*lengths, N][1:], by_length, by_length[1:], strict=False)
    claims.settle(
        "C2",
        *(
            in_points(f"gain from {a} to {b} steps", after - before, above(0))
            for a, b, before, after in longer_by
        ),
        measured("published: gain from 2,000 to 10,000 iterations", by_n[10_000] - by_n[2000],
                 reported(), unit="points"),
        note=ON,
        qualified="Accuracy grows with length; that a fifth of the length comes near was not seen: "
        "here a quarter is far behind.",
    )
    claims.show()

# %% [markdown]
# ({doc}`How to read a verdict <../book/reading-a-verdict>` explains these tables.)
#
# ## How far up can the rate go?
#
# The paper's instrument is the {term}`range test`: one short run in which the rate grows linearly from zero, with the accuracy drawn against the rate.
# A curve that stays high far to the right announces that a cycle may go there.
#
# Used as a diagnosis, the test must leave no trace: weights, velocity and the running averages of batch normalization have to be put back afterwards. Finders that forget the last of these hand over a network that evaluates to nonsense. Here a run is an object whose whole state can be kept and restored, and a range test is a training run like any other.

# %%
datasets.at_hand("cifar10")
ranged = trained["range test"]
tested = ranged.recipe.rates[ranged.steps - 1]
smooth = ranged.losses[:, : 20 * (N // 20)].view(len(seeds), 20, -1).mean(-1)

# %% [markdown]
# A range test changes its subject while it measures: at the right end the weights have been through everything on the left.
# The honest version costs more. For each peak one cycle, from the same start:

# %%
datasets.at_hand("cifar10")
heights = {peak: trained.get(f"{N} steps to {peak}", cycle) for peak in peaks}
low = [trained[f"{n} steps to 0.1"] for n in lengths]

# %% tags=["hide-input"]
datasets.at_hand("cifar10")


@figure(
    f"Range test on {task.name}: test accuracy (left) and training loss, averaged over twentieths "
    "of the run (middle; dotted, the loss of guessing), against the rate; the axis on top has the rate "
    "of equal noise in batches of 1000, with the paper's 3 dotted: R8 bears several times that. Right, "
    "final accuracy of whole cycles with different peaks. Lines and dots are seeds.",
    alt="Left and middle, curves that improve up to a rate near 1 and then slowly worsen. Right, "
    "dots that rise from a peak of 0.1 to 0.5 and 1 and fall again at 3.",
    data={"accuracy": ranged.curve.mean(0), "loss": smooth.mean(0),
          "peaks": [heights[peak].percent.mean() for peak in peaks]},
    size=(7.4, 3.1),
    drift=4.0,
)
def _(fig, ink):
    left, middle, right = fig.subplots(1, 3)
    loss_rates = ranged.recipe.rates[: 20 * (N // 20)].view(20, -1).mean(1)
    style = {"color": ink.cycle[0], "lw": 1.1, "alpha": 0.8}
    left.plot(tested, ranged.curve.mT, **style)
    middle.plot(loss_rates, smooth.mT, **style)
    right.plot(peaks, torch.stack([heights[p].percent for p in peaks]), "o-", ms=4, **style)
    ratio = sizes.batch / 1000
    both_ways = (lambda x: x / ratio, lambda x: x * ratio)
    left.secondary_xaxis("top", functions=both_ways).set_xlabel("rate for batches of 1000")
    ink.reference(middle, y=2.3026)
    ink.reference(left, x=3 * ratio)
    for ax, label in ((left, "test accuracy (%)"), (middle, "training loss")):
        ax.set(xlabel="learning rate", ylabel=label)
    right.set(xscale="log", xlabel="peak of the cycle", ylabel="final test accuracy (%)")


# %% [markdown]
# There is no cliff. From 1 to 3 accuracy declines slowly, which is the flat curve of the paper; near 4 the training loss is back at $\ln 10$, that of guessing among ten classes, and still nothing has become infinite.
# A reason is batch normalization {cite:p}`arora2019autorate`: the output of a layer does not depend on the length of its weights, so a step that is too long makes the weights long, and long weights turn by less at the next step.
#
# The accuracy *during* a range test says little about the accuracy at the end of a cycle, though.
# It is low everywhere, because at a large rate the weights jump back and forth across their valley; what counts comes when the rate falls.

# %% tags=["hide-input"]
if not datasets.at_hand("cifar10", claims=("C4",)):
    claims.stored("C4", because=WHY)
else:
    inside = (tested[1:-1] >= 0.5) & (tested[1:-1] <= 3.0)
    levels = {kind: c.double().unfold(1, 3, 1).mean(-1) for kind, c in ranged.curves.items()}
    share = {kind: v[:, inside].min(1).values / v.max(1).values for kind, v in levels.items()}
    claims.settle(
        "C4",
        over_seeds("least accuracy for rates 0.5 to 3, over the best", share["estimated"],
                   above(0.6), statistic="median", drift=0.1),
        over_seeds("the same with averages of 0.95", share["caffe 0.95"], reported(),
                   statistic="median", drift=0.15),
        measured("networks whose loss became infinite", int((ranged.diverged_at >= 0).sum()),
                 equals(0), n_seeds=len(seeds)),
        qualified="The accuracy stays high. It does not announce how far a cycle may go, though: one "
        "with a peak of 3 ends below one with a peak of 0.1 (C6).",
        note=f"{ON} Means over three looks at 500 test images, fresh batch-norm statistics.",
    )

# %% tags=["hide-input"]
if not datasets.at_hand("cifar10", claims=("C6",)):
    claims.stored("C6", because=WHY)
else:
    final = torch.stack([heights[peak].percent for peak in peaks])
    best = torch.maximum(final[1], final[2]) - torch.maximum(final[0], final[-1])
    tops = [row.accuracy for row in sc.published.published("C6")]
    claims.settle(
        "C6",
        in_points("peak 0.5 or 1 over the better of 0.1 and 3", best, above(0)),
        in_points("peak 0.5 minus peak 1", final[1] - final[2], between(-4, 4)),
        *(
            over_seeds(f"peak {peak}", values, reported(), unit="%", drift=2)
            for peak, values in zip(peaks, final, strict=True)
        ),
        measured("published: best minus worst of the peaks from 1 to 3.5", max(tops) - min(tops),
                 reported(), unit="points"),
        note=ON,
    )
    claims.show()

# %% [markdown]
# ## What a large rate does
#
# Why should a larger rate help at all?
# The paper's answer is the part of it that has lasted: a large learning rate is a *regularizer*.
# As long as it is large, it keeps the weights from settling into the training set's every detail. The training loss gets worse by it and the test loss better.
#
# That can be refuted: look at the same cycles with four peaks, and at the gap between the two losses.
# A small gap alone proves little, since a network that has learned nothing has none. So the low cycle also runs for $N/4$ and $N/2$ steps: if stopping early did as well as a high peak, the rate would not be needed.

# %% tags=["hide-input"]
datasets.at_hand("cifar10")
losses = {
    "training loss": torch.stack([heights[p].train_loss for p in peaks]),
    "test loss": torch.stack([heights[p].test_loss for p in peaks]),
}


@figure(
    f"Losses on {task.name} at the end of cycles with four peaks; dots are seeds. The higher the "
    "cycle, the less the network knows its training images by heart; up to a peak of 1 it does "
    "better on new ones. Crosses: the lowest cycle with a quarter and half of the steps, whose test "
    "losses stay above that of a peak of 1.",
    alt="Two curves against the peak of the cycle on a log axis. The test loss falls from 1.8 to "
    "1.5 at a peak of 1 and rises a little to 3, the training loss rises from 0.5 to 1.4.",
    data={label: values.mean(1) for label, values in losses.items()},
    size=(7.4, 3.2),
    drift=0.25,
)
def _(fig, ink):
    ax = fig.subplots()
    for k, (label, values) in enumerate(losses.items()):
        ax.plot(peaks, values.mean(1), color=ink.cycle[k], label=label)
        ax.plot(peaks, values, "o", ms=4, color=ink.cycle[k])
        stopped = [o.test_loss.mean() if k else o.train_loss.mean() for o in low]
        for n, y in zip(lengths, stopped, strict=True):
            place = {"xytext": (8, 5 if k else -10), "textcoords": "offset points"}
            ax.plot(0.1, y, "x", ms=7, color=ink.cycle[k])
            ax.annotate(f"{n} steps", (0.1, y), color=ink.cycle[k], size="small", **place)
    ax.set(xscale="log", xlabel="peak of the cycle", ylabel="cross entropy (nats)", ylim=(0, None))
    ax.legend()


# %% tags=["hide-input"]
if not datasets.at_hand("cifar10", claims=("C5",)):
    claims.stored("C5", because=WHY)
else:
    gaps = torch.stack([heights[peak].gap for peak in peaks])
    best_low = torch.stack([o.test_loss for o in (*low, heights[0.1])]).min(0).values
    claims.settle(
        "C5",
        over_seeds("least fall of the gap from one peak to the next", -gaps.diff(dim=0).max(0).values,
                   above(0), statistic="median", unit="nats", drift=0.2),
        *(
            over_seeds(f"gap at peak {peak}", gap, reported(), unit="nats", drift=0.3)
            for peak, gap in zip(peaks, gaps, strict=True)
        ),
        over_seeds("rise of the training loss, 0.1 to 3", losses["training loss"][[0, -1]].diff(dim=0),
                   above(0), statistic="median", unit="nats", drift=0.3),
        over_seeds("test loss at peak 0.1, the best of N/4, N/2 and N steps, minus that at peak 1",
                   best_low - heights[1.0].test_loss, above(0), statistic="median", unit="nats",
                   drift=0.06),
        *(
            measured(f"ResNet-56, recorded, {label}: test loss; its training loss is below 0.001",
                     run_["test_loss"], reported(), unit="nats")
            for label, run_ in big.items()
        ),
        note=f"{ON} Gap: test loss minus training loss, both with the averages of batch normalization.",
    )
    claims.show()

# %% [markdown]
# The gap closes in every seed, with a margin many times the scatter, and a peak of 1 beats the low cycle even where that is stopped in time.
# Note where loss and accuracy part. At a peak of 3 the test *loss* is lower than at 0.1, and the accuracy is lower too. An overconfident network is punished by the loss and not by the accuracy.
#
# At the authors' scale the picture needs one more stroke. In the recorded runs both networks know the training set by heart at the end, the one of the cycle and the one of the staircase, and still their test losses differ by a factor of three.
# There the large rate does not decide *whether* the network interpolates but *which* interpolation it finds.
#
# ### The balance
#
# If the rate regularizes, then less of everything else is needed.
# The third version of the paper makes this its principle: when the rate goes up, weight decay, dropout and momentum must come down.
# (Not too far: with decays of 1e-5 and 1e-6 the authors' logs end four and five points lower.)
# For weight decay this predicts: the larger the peak, the smaller the largest decay that it can bear.

# %%
datasets.at_hand("cifar10")
low_cycle, high_cycle = (sc.one_cycle(N, 0.05, peak) for peak in (0.1, 1.0))
balance = [
    sc.Recipe("0.1, 0.01", low_cycle, weight_decay=1e-2),
    sc.Recipe("1, 0.001", high_cycle, weight_decay=1e-3),
    sc.Recipe("1, 0.01", high_cycle, weight_decay=1e-2),
]
# beside them, for the paragraph after the figure
momenta = [
    sc.Recipe("0.8", high_cycle, momentum=0.8),
    sc.Recipe("0.95", high_cycle, momentum=0.95),
    sc.Recipe("Nesterov", high_cycle, form="nesterov"),
]
found = sc.train(task, [*balance, *momenta], seeds, **small)
momenta = {recipe.label: found[recipe.label] for recipe in momenta}
by_decay = {
    0.1: {1e-4: heights[0.1].percent, 1e-2: found["0.1, 0.01"].percent},
    1.0: {1e-4: cycle.percent, 1e-3: found["1, 0.001"].percent},
}
by_decay[1.0][1e-2] = found["1, 0.01"].percent

# %% tags=["hide-input"]
datasets.at_hand("cifar10")


@figure(
    f"Final test accuracy on {task.name} for cycles with two peaks, against the weight decay; dots are "
    "seeds. A decay of 0.01 costs little with a small rate and is a disaster with a large one.",
    alt="Two lines against weight decay on a logarithmic axis. That of peak 0.1 is nearly level. That "
    "of peak 1 begins higher, falls a little up to 0.001 and far below the other at 0.01.",
    data={
        f"peak {peak}": [values.mean() for values in row.values()] for peak, row in by_decay.items()
    },
    size=(7.4, 2.8),
    drift=4.0,
)
def _(fig, ink):
    ax = fig.subplots()
    for k, (peak, row) in enumerate(by_decay.items()):
        values = torch.stack(list(row.values()))
        ax.plot(list(row), values.mean(1), color=ink.cycle[k], label=f"peak {peak:g}")
        ax.plot(list(row), values, "o", ms=4, color=ink.cycle[k], alpha=0.8)
    ax.set(xscale="log", xlabel="weight decay", ylabel="test accuracy (%)")
    ax.legend()


# %% [markdown]
# Momentum lengthens steps too, by $1/(1-\mu)$: at 0.95 the same rate moves the weights twice as far as at 0.9. Nesterov's form looks ahead along the velocity and should change little.

# %% tags=["hide-input"]
if not datasets.at_hand("cifar10", claims=("C9",)):
    claims.stored("C9", because=WHY)
else:
    cost = {peak: row[1e-4] - row[1e-2] for peak, row in by_decay.items()}
    claims.settle(
        "C9",
        in_points("cost of a decay of 1e-2 at peak 1", cost[1.0], above(8), drift=5),
        in_points("its cost at peak 0.1", cost[0.1], below(1), drift=1.0),
        in_points("1e-3 instead of 1e-4 at peak 1", by_decay[1.0][1e-3] - cycle.percent, reported(),
                  paper=round(logged["clr3SS5kWD-3Fig11"] - logged["clr3SS5kFig1a"], 1)),
        qualified="The balance is there, the threshold is another: 1e-3, which ends training at the "
        "authors' scale, costs about a point here, and 1e-2 does the harm. The products of peak and "
        "decay that fail are of one order, 3 times 1e-3 there and 1 times 1e-2 here.",
        note=f"{ON} Training without decay was left out.",
    )

# %% tags=["hide-input"]
if not datasets.at_hand("cifar10", claims=("C8", "C12")):
    claims.stored("C8", "C12", because=WHY)
else:
    change = {label: o.percent - cycle.percent for label, o in momenta.items()}
    claims.settle(
        "C8",
        in_points("momentum 0.95 instead of 0.9", change["0.95"], below(-0.8), paper=-1.7, drift=2.5),
        in_points("momentum 0.95 instead of 0.8", change["0.95"] - change["0.8"], below(0),
                  paper=-1.4, drift=2.5),
        in_points("momentum 0.8 instead of 0.9", change["0.8"], reported(), paper=-0.3, drift=3.5),
        note=ON,
    )
    claims.settle(
        "C12",
        in_points("Nesterov instead of ordinary momentum", change["Nesterov"], between(-2, 2),
                  paper=-0.3),
        note=ON,
    )
    claims.show()

# %% [markdown]
# ## What a running average hides
#
# Batch normalization uses the statistics of the batch in training and running averages in evaluation.
# How long an average remembers is a setting: Caffe's `moving_average_fraction` $f$, one minus PyTorch's `momentum`. With $f = 0.999$ it remembers about a thousand steps.
# The authors write that with 0.999 super-convergence could not be seen, and with 0.95 it could. They kept 0.999 for the runs that the cycle is compared with.
#
# That a test accuracy depends on such a number should make one uneasy, because the *weights* do not.
# The networks of the race were evaluated, at the same moments, in four ways: with both fractions; with 0.999 as PyTorch computes it (Caffe divides by the sum of the weights it has given, PyTorch leaves its initial guess in the average); and with statistics estimated afresh from the training set, with the weights as they are.

# %% tags=["hide-input"]
datasets.at_hand("cifar10")
averaged = {label: race[f"{label}, N"] for label in ("one cycle", "piecewise constant")}


@figure(
    f"One and the same networks on {task.name}, evaluated with four kinds of batch-norm statistics; "
    "means over seeds. Fresh statistics and short averages agree once the rate is small. Long averages "
    "lag behind, and as PyTorch keeps them they still contain their first guess after "
    f"{N} steps.",
    alt="Two panels, for a cycle and for a piecewise constant rate. In both, two curves rise "
    "together, one runs clearly below them and one stays near chance.",
    data={
        f"{label}, {kind}": 100 * curve.mean(0)
        for label, outcome in averaged.items()
        for kind, curve in outcome.curves.items()
    },
    size=(7.4, 3.1),
    drift=6.0,
)
def _(fig, ink):
    names = ("0.95", "0.999 (Caffe)", "0.999 (PyTorch)", "estimated afresh")
    axes = fig.subplots(1, 2, sharey=True)
    for ax, (label, outcome) in zip(axes, averaged.items(), strict=True):
        for k, (name, curve) in enumerate(zip(names, outcome.curves.values(), strict=True)):
            style = "--" if k == 3 else "-"
            ax.plot(outcome.steps, 100 * curve.mean(0), style, color=ink.cycle[k], label=name)
        ax.set(title=label, xlabel="step")
    axes[0].set(ylabel="test accuracy (%)")
    axes[0].legend(fontsize="small")


# %% tags=["hide-input"]
datasets.at_hand("cifar10")
ends = [
    {f: 100 * o.curves[f"caffe {f}"][:, -1].double() for f in (0.95, 0.999)}
    for o in (averaged["piecewise constant"], trained["gentle"])
]
crossed = [
    in_points(f"N steps from 0.35: change by a warm-up of {ramp} steps, read with averages of {f}",
              ends[1][f] - ends[0][f], reported(), drift=4)
    for f in ends[0]
]

# %% [markdown]
# So the accuracy that 0.999 "hides" was there all the time. What one measures with it is how far the averages lag behind the weights.
# In our 300 steps they still hold the beginning. At the authors' scale another lag takes over, and the recorded cycle shows it: with 0.999 it reads far too little near its peak, and falls to chance *at the end*, where the weights reach 92.8 %. (That triangle ends at a rate of 0.1, not near zero.)
#
# The likely reason for that lag is weight decay. Once the training loss is near zero, decay is all that acts on weights whose length batch normalization makes irrelevant.
# At the rival's constant rate of 0.35 they shrink by $\eta d/(1-\mu) = 0.00035$ a step, and the variances of their outputs by 0.0007, while an average of 0.999 forgets 0.001 a step: it can barely keep up. The averages stay too large, and the network is evaluated with its signals scaled down.
#
# The two sides of the paper's race differ in a third point: the rival starts at its full rate, without a warm-up. So we cross the averages with that: our staircase of $N$ steps from 0.35, without a warm-up and with one of a twentieth of the run, each read with 0.95 and with 0.999. The difference is a point or two, and three seeds do not tell it from zero, whichever average it is read with (the table below). No cost of the missing warm-up can be seen here.
#
# ### The authors' logs, read again
#
# This has a consequence for another figure of the paper.
# It says that the cycle's advantage grows as the training set shrinks, up to nine points with 10,000 images; and in its baselines the fraction is 0.999.
# The released logs print the accuracy on the training batch, which uses the batch's own statistics, beside the accuracy on the test set, which uses the averages.

# %% tags=["hide-input"]
logs = {n: sc.published.curve(f"lr35Tr{n}kTab1") for n in (10, 20)}


@figure(
    "From the authors' logs of piecewise constant training on 10,000 (left) and 20,000 images, "
    "the stretches that ship with this book. For a long time the network classifies its training batch "
    "perfectly while its test accuracy is at chance. Shortly before the rate drops (line), both "
    "networks blow up and begin to learn anew.",
    alt="Two panels of dots against iterations. The training batch is at 100 percent around 25,000 "
    "(left); on the right it rises to 76 in the first 1,200 and is at 100 until 49,700. Shortly before "
    "50,000 it drops to 62 and 14 percent, and recovers. The test set stays between 6 and 16 percent, "
    "on the left it reaches 26 soon after 50,000; at the end it is at 71 and 62.",
    data={f"{n}k, test": log.accuracy for n, log in logs.items()}
    | {f"{n}k, training batch": log.train_accuracy for n, log in logs.items()},
    size=(7.4, 3.0),
)
def _(fig, ink):
    axes = fig.subplots(1, 2, sharey=True)
    for ax, (n, log) in zip(axes, logs.items(), strict=True):
        k = log.iterations / 1000
        ax.plot(k, log.train_accuracy, "o", ms=4, color=ink.cycle[0], label="training batch")
        ax.plot(k, log.accuracy, "o", ms=4, color=ink.cycle[1], label="test set")
        ax.axvline(50, color=ink.faint, lw=1)
        ax.set(title=f"{n},000 images", xlabel="iteration (thousands)", ylim=(-3, 104))
    axes[0].set(ylabel="accuracy (%)")
    axes[0].legend(loc="center right", frameon=True)


# %% [markdown]
# A network that had learned nothing would not know its training batch. That the averages are to blame is an inference, which {ref}`our own run at that scale <sec-sc-scale>` supports.
# The blow-ups are real, and known: when weights have shrunk too far they no longer stand the rate, and learning begins anew {cite:p}`lobacheva2021periodic,li2020reconciling`. The run on 20,000 images loses everything 200 iterations before its rate drops, and learns the rest at a tenth of the rate. This may be why its log ends at 62 % where the table, which quotes the highest accuracy attained, says 83 (perhaps of another run).
# Two of the four points of the claim thus rest on damaged runs.
#
# What do others find? The next figure adds an independent reproduction of both {cite:p}`kwaugh2018verification`, with another recipe: batches of 256, random crops, twice the weight decay, other drops.
# There the staircase beats the cycle at every size. But its lead, 5.2 points at 50,000 images and 7.8 at 40,000, melts to 1.2 at 10,000, so that the *trend* is roughly the paper's.
# And of the gain itself nothing is left if the paper's own cycle is held against these staircases, which do not break down: at four of the five sizes they are ahead of it.

# %% tags=["hide-input"]
limited = sc.published.limited_data()
images = [row.n_images / 1000 for row in limited]
columns = {
    "cycle, paper": [row.cycle for row in limited],
    "piecewise constant, paper": [row.constant for row in limited],
    "piecewise constant, authors' logs": [row.constant_log for row in limited],
    "cycle, independent": [row.cycle_independent for row in limited],
    "piecewise constant, independent": [row.constant_independent for row in limited],
}


@figure(
    "Published test accuracies of ResNet-56 against the number of training images. In the paper "
    "(filled) the cycle leads, and more so with few images; in the independent runs (open) the "
    "staircase leads. One of the authors' logs ends twenty points below their table.",
    alt="Five series of markers against 10 to 50 thousand images, between 62 and 94 percent. The "
    "paper's cycle lies above its staircase, the independent staircase above its cycle.",
    data=columns,
    size=(7.4, 3.5),
)
def _(fig, ink):
    ax = fig.subplots()
    looks = (("o", 0, 1), ("s", 1, 1), ("^", 1, 1), ("o", 0, 0), ("s", 1, 0))
    for (marker, k, filled), (label, values) in zip(looks, columns.items(), strict=True):
        color = ink.cycle[k]
        face = color if filled else "none"
        shifted = [n + (0 if filled else 0.6) for n in images]
        ax.plot(shifted, values, marker, ms=7, color=color, mfc=face, mew=1.5, label=label)
    ax.set(xlabel="training images (thousands)", ylabel="test accuracy (%)")
    ax.legend(fontsize="small")


# %% [markdown]
# On our scale: the same race with 1000 images instead of 4000.
# The claim would be refuted if the gain did not grow.
# (With 1000 images the long run has $2N$ steps. They are 60 passes over the data, like the $8N$ of the race.)

# %%
datasets.at_hand("cifar10")
longer = sizes.longer_few * N
scarce = sc.train(
    task,
    [
        sc.Recipe("cycle", sc.one_cycle(N, 0.05, 1.0), n_train=few),
        sc.Recipe("longer", sc.piecewise_constant(longer, 0.35), n_train=few),
    ],
    seeds,
    **small,
)

# %% tags=["hide-input"]
if not datasets.at_hand("cifar10", claims=("C3",)):
    claims.stored("C3", because=WHY)
else:
    gain_few = scarce["cycle"].percent - scarce["longer"].percent
    printed = [
        (f"published gain at {row.n_images:,} images, {who}", value)
        for row in (limited[0], limited[-1])
        for who, value in (
            ("paper", row.gain),
            ("independent runs", row.gain_independent),
            ("the paper's cycle over the independent staircase", row.cycle - row.constant_independent),
        )
    ]
    claims.settle(
        "C3",
        in_points(f"gain over the long run with {few} images, minus that with {sizes.n_train}",
                  gain_few - gain, above(0)),
        in_points(f"gain over the long run, {few} images", gain_few, reported()),
        *(measured(label, value, reported(), unit="points") for label, value in printed),
        note=f"{ON} Not on our scale. Of the paper's baselines two were damaged by blow-ups; in the "
        "independent runs, with another recipe, the staircase leads, and by less with few images.",
    )

# %% tags=["hide-input"]
if not datasets.at_hand("cifar10", claims=("C17",)):
    claims.stored("C17", because=WHY)
else:
    cycle_ends = {kind: 100 * v[:, -1].double() for kind, v in cycle.curves.items()}
    flat, drop = averaged["piecewise constant"], sizes.looks * 5 // 8 - 1
    before = {kind: 100 * v[:, drop].double() for kind, v in flat.curves.items()}
    lags = {kind: cycle_ends["caffe 0.95"] - v for kind, v in cycle_ends.items()}
    read = big["one cycle, up to 3"]
    moments = {"at its peak": read["steps"].index(5000), "at its end": -1}
    claims.settle(
        "C17",
        in_points("0.95 minus 0.999, as PyTorch averages", lags["torch 0.999"], above(15), drift=5),
        in_points("0.95 minus 0.999, as Caffe averages", lags["caffe 0.999"], above(1), drift=3),
        in_points("the same before the rate of 0.35 drops",
                  before["caffe 0.95"] - before["caffe 0.999"], reported(), drift=4),
        in_points("control: 0.95 minus statistics estimated afresh", lags["estimated"],
                  between(-2, 2), drift=1),
        *crossed,
        *(
            measured(f"ResNet-56, recorded, the cycle {moment}: {f}", read["curves"][f"caffe {f}"][at],
                     reported(), unit="%")
            for moment, at in moments.items() for f in (0.95, 0.999)
        ),
        qualified="As Caffe averages, which is what the authors used, 0.999 hides a part here, and "
        "all of it in the recorded run of ResNet-56; as PyTorch does, it hides most of it here too.",
        note=f"{ON} The same weights, evaluated in different ways.",
    )
    claims.show()

# %% [markdown]
# On our scale the gain shrinks instead of growing: with 1000 images the short run and the longer one tie.

# %% [markdown]
# (sec-sc-estimate)=
# ## The rate that the weights ask for
#
# Section 4 of the paper's first version estimates from the trajectory of the weights which learning rate would be best, and finds 2 to 4 during the cycle. If true, that would explain everything: the landscape *wants* large rates.
#
# The estimate goes back to Newton's method, by way of {cite:t}`gulcehre2014adasecant`. Along one coordinate the best rate is one over the curvature, and the curvature is the change of the gradient from one point to the next, over the distance.
# Plain gradient descent lets one read the gradients off the weights: with $D_i = \theta_{i+1} - \theta_i$ it is $g_i = -D_i/\eta$, so the curvature is $(g_{i+1} - g_i)/D_i = (D_i - D_{i+1})/(\eta D_i)$, and the best rate $\eta D_i/(D_i - D_{i+1})$.
# To get one rate for all weights $j$, numerator and denominator are summed in absolute value:
#
# $$ \eta^* = \eta\;\frac{\sum_j |D_{i}|_j}{\sum_j |D_i - D_{i+1}|_j} . $$ (eq-sc-estimate)
#
# On a quadratic $\tfrac12 a x^2$ this is exactly $1/a$, whatever rate is in use.
# But training has momentum, and its gradients are mostly noise.
# So feed the formula something with no landscape at all: gradients that are independent random numbers, from step to step.
# With momentum $\mu$ the steps are then correlated by $\mu$ from one to the next, and $D_i - D_{i+1}$ has variance $2(1-\mu)\operatorname{Var} D$. For many weights a sum of absolute values is proportional to the standard deviation, so that
#
# $$ \frac{\eta^*}{\eta} = \frac{1}{\sqrt{2(1-\mu)}} , $$ (eq-sc-null)
#
# a number that depends on the momentum and on nothing else: 0.71 without momentum, 2.24 at 0.9. If the weights are taken every $k$ steps only (a *lag* of $k$), the correlation $\rho_k$ of successive sums takes the place of $\mu$; at 0.9 and ten steps, as in the paper's long run, the factor is 1.03.
# A constant rate of 0.1, read at every step, thus gives 0.22, and a cycle up to 3, read every ten, gives up to 3: the paper's numbers, without a network.

# %% tags=["remove-input"]
show_source(sc.estimate_under_noise)

# %% tags=["hide-input"]
grid_ = torch.linspace(0, 0.98, 99, dtype=torch.float64)
tried = (0.0, 0.5, 0.8, 0.9, 0.95)
noise = {"n_weights": 10_000, "n_steps": 400}
predicted = {lag: sc.estimate_under_noise(grid_, lag) for lag in (1, 10)}
simulated = {
    lag: torch.tensor([
        float(sc.noise_ratio(mu, lag, generator=run.generator(f"noise {mu} {lag}"), **noise))
        for mu in tried
    ])
    for lag in (1, 10)
}


@figure(
    "What the estimate makes of pure noise, as a multiple of the rate in use: formula (lines) and "
    "simulation (dots). With the usual momentum of 0.9 and neighboring steps it is 2.24; nothing "
    "about a loss function has gone in.",
    alt="Two rising curves of a ratio against momentum. For lag 1 it goes from 0.71 through 2.24 at "
    "momentum 0.9 out of the panel at 4; for lag 10 it stays near 0.7, then rises to 2. Dots on both.",
    data={f"lag {lag}": predicted[lag] for lag in predicted}
    | {f"simulated, lag {lag}": simulated[lag] for lag in simulated},
    size=(7.4, 3.0),
    drift=0.02,
)
def _(fig, ink):
    ax = fig.subplots()
    for k, (lag, label) in enumerate({1: "every step", 10: "every 10"}.items()):
        ax.plot(grid_, predicted[lag], color=ink.cycle[k], label=label)
        ax.plot(tried, simulated[lag], "o", ms=6, color=ink.cycle[k])
    ax.set(xlabel="momentum", ylabel="estimate / rate in use", ylim=(0, 4))
    ax.legend(title="weights taken")


# %% [markdown]
# Now real training. If the landscape asked for a certain rate, the estimate would stay where it is when the rate in use is changed; if it is an echo, it follows.
# Four runs of R8: constant rates of 0.1 and 0.35, a cycle from 0.1 to 3, and 0.1 without momentum.

# %%
datasets.at_hand("cifar10")
n_steps = sizes.estimate_steps
constant = {rate: torch.full((n_steps,), rate) for rate in (0.1, 0.35)}
estimated = sc.train(
    task,
    [
        sc.Recipe("constant 0.1", constant[0.1]),
        sc.Recipe("constant 0.35", constant[0.35]),
        sc.Recipe("cycle 0.1 to 3", sc.triangular(n_steps, 0.1, 3.0)),
        sc.Recipe("0.1, no momentum", constant[0.1], momentum=0.0),
    ],
    seeds,
    monitor=sc.Monitor(lags=(1, 10)),
    **small,
)
echo = {label: sc.relative_estimate(o) for label, o in estimated.items()}

# %% tags=["hide-input"]
datasets.at_hand("cifar10")


@figure(
    f"The estimate divided by the rate in use, during training of R8 on {task.name} (solid, median "
    "over seeds), and what noise alone would give (dashed), at lag 1. Constant rates end a little "
    "below the noise, the cycle lies above it, and without momentum it is 0.7 of the rate.",
    alt="Four curves, each beside a dashed line. Those of the constant rates settle near 2.1, that of "
    "the cycle climbs from 1 past 4, and the one without momentum stays near 0.7.",
    data={label: values[1].median(-1).values[::10] for label, values in echo.items()},
    size=(7.4, 3.3),
    drift=0.25,
    drift_rel=0.4,
)
def _(fig, ink):
    ax = fig.subplots()
    for k, (label, outcome) in enumerate(estimated.items()):
        rates_, mu = outcome.recipe.rates, outcome.recipe.momentum
        alone, steps = sc.noise_estimate_curve(rates_, mu, 1), torch.arange(2, n_steps + 1)
        ratio = echo[label][1].median(-1).values
        ax.plot(steps, ratio, color=ink.cycle[k], lw=1.2, label=label)
        ax.plot(steps, alone / rates_[1:], "--", color=ink.cycle[k], lw=1)
    ax.set(xlabel="step", ylabel="estimate / rate in use", ylim=(0, 4.5))
    ax.legend(fontsize="small")


# %% tags=["hide-input"]
datasets.at_hand("cifar10")
settings = sc.board(estimated, lag=1)
settings["runs"] += sc.board(estimated, lag=10, every=1)["runs"]


@figure(
    f"The estimate itself, in the same runs of R8 on {task.name}, is whatever the rate in use makes of "
    "it. On the built page the schedule, "
    "the momentum and the lag can be moved; buttons lead to the runs above.",
    alt="Four curves on a log axis: a hump for the cycle, flat lines near 0.75, 0.2 and 0.07 for the "
    "others, each with a dashed twin from noise.",
    data={label: values[1].median(-1).values[::10] for label, values in echo.items()},
    size=(7.4, 3.3),
    drift=0.25,
    drift_rel=0.4,
    widget="cycle-board",
    config=settings,
)
def _(fig, ink):
    ax = fig.subplots()
    for k, (label, outcome) in enumerate(estimated.items()):
        rates_, mu = outcome.recipe.rates, outcome.recipe.momentum
        alone, steps = sc.noise_estimate_curve(rates_, mu, 1), torch.arange(2, n_steps + 1)
        found = outcome.estimates[1].median(-1).values
        ax.plot(steps, found, color=ink.cycle[k], lw=1.2, label=label)
        ax.plot(steps, alone, "--", color=ink.cycle[k], lw=1)
    ax.set(yscale="log", xlabel="step", ylabel="estimated rate", ylim=(0.01, 12))
    ax.legend(fontsize="small", ncols=2, loc="lower center")


# %% tags=["hide-input"]
checks = [
    measured("on a quadratic of curvature a: estimate times a, minus 1",
             sc.quadratic_error(run.generator("quadratic")), at_most(1e-10)),
    measured("control: the same with momentum 0.9",
             sc.quadratic_error(run.generator("quadratic"), momentum=0.9), above(0.1), drift_rel=0.05),
    *(
        measured(f"pure noise, momentum {mu}, lag {lag}: simulated over predicted", ratio,
                 near(1.0, abs=0.01), drift=1e-3)
        for mu, lag, ratio in sc.noise_checks(run.generator("checks"))
    ),
]
constant_run = record.of("estimate-constant")[0]["estimates"]
cycle_run = record.of("cycle-10k")[0]["estimates"]["10"]
elsewhere = [
    *(
        measured(f"ResNet-56, recorded, constant 0.1, lag {lag}: estimate",
                 np.mean(constant_run[str(lag)][-100 // lag:]), reported(), paper=0.2)
        for lag in (1, 10)
    ),
    measured("ResNet-56, recorded, cycle up to 3, lag 10: largest estimate", max(cycle_run),
             between(2, 4), paper="2 to 4"),
    measured("the same, mean of the last ten", np.mean(cycle_run[-10:]), reported(), paper=0.5),
    *(
        measured(f"noise that sums to zero over {epoch} batches, over the rate: lag {lag}",
                 sc.noise_ratio(0.9, lag, generator=run.generator("zero"), epoch=epoch, **noise),
                 reported(), drift=0.01)
        for epoch, lag in ((50, 1), (50, 10), (40, 1))
    ),
]

# %% tags=["hide-input"]
if not datasets.at_hand("cifar10", claims=("C16",)):
    claims.stored("C16", because=WHY)
else:
    late = {label: values[1][-100:].mean(0) for label, values in echo.items()}
    expected = dict(zip(echo, ((1.9, 2.4), (1.9, 2.4), None, (0.6, 0.75)), strict=True))
    claims.settle(
        "C16",
        *checks,
        *(
            over_seeds(f"estimate over rate, {label}, last 100 steps", late[label], between(*edges),
                       statistic="median", drift=0.05)
            for label, edges in expected.items() if edges
        ),
        *(
            over_seeds(f"cycle 0.1 to 3, lag {lag}: estimate over that of noise, median of the run",
                       sc.over_noise(estimated["cycle 0.1 to 3"], lag).median(0).values, reported(),
                       statistic="median", drift=0.1)
            for lag in (1, 10)
        ),
        *elsewhere,
        qualified="The 2 to 4 come out, and read at every step the 0.2, for another reason: they echo "
        "the rate in use. Noise alone gives the same within a quarter, but for the end of the recorded "
        "cycle, which is half of the paper's. Read every ten steps the 0.2 is halved, as noise has it.",
        note=ON,
    )
    claims.show()

# %% [markdown]
# The estimate is derived for steps without momentum and applied to steps with it. One line mends that: heavy ball reveals its gradients too, $\eta_t g_t = \mu D_{t-1} - D_t$ (`sc.secant_rate`).
# It does not save the idea. The mended estimate is exact on quadratics with momentum, and on noise it is $\eta/\sqrt{2(1-\mu^2)}$, again an echo without a landscape: as long as successive gradients come from different images, their difference is mostly the difference of the images, and the curvature is somewhere underneath.
#
# At constant rates both networks end a little *below* the noise. (In R8's short cycle the estimate is above at lag 1 and about level at lag 10; that we do not explain.) Why below? Batches are drawn without replacement, so that over an epoch their noise sums to zero. With the 50 batches an epoch of ResNet-56 this alone lowers the ratios to 1.9 and 0.8, where the recorded run has 1.8 and 0.9: direction and size are right. For the 40 batches of R8 it is too much: 1.8, where we see 2.1.
# (Curvature lowers it as well: on a quadratic of curvature $a$ the noise gives $1/\sqrt{2(1-\mu) + \eta a}$.)
#
# Not everything is echo. At the very end of the recorded cycle, where the noise dies away with the rate, the estimate stays *above* it ({ref}`below <sec-sc-scale>`), as it does in the paper's figure.
# That is neither noise nor curvature, which would lower it. Successive steps go the same way there, a drift, perhaps that of weight decay alone.

# %% [markdown]
# ## Is it the cycle?
#
# The rate must become large at some point and small at the end. Must it go up and down in straight lines?
# We race the cycle against the bare triangle of the first version, against the staircase with and without a warm-up, and against schedules that warm up and then fall to zero, in a straight line or along a cosine: over a twentieth of the run to 0.5, the cosine also to 1, and the cosine once more to 1 as slowly as the cycle, over almost half of the run. (The peaks of the cycle and the cosine are the best that earlier versions of this experiment found; the line has the cosine's.)
#
# And the paper says that adaptive methods do not find super-convergence: with piecewise constant rates, AdaGrad, AdaDelta and Adam end between 71 and 87 %, and Nesterov momentum at 90 % (in the authors' logs).
# The authors tried one rate for each.
# We give two of them the short run, and rates at which they do well (chosen with other seeds than the ones below); Adam also the customary 0.001.

# %%
datasets.at_hand("cifar10")
shapes = [
    sc.Recipe("triangle, 1", sc.triangular(N, 0.05, 1.0)),
    sc.Recipe("line, 0.5", sc.linear_decay(N, 0.5)),
    sc.Recipe("cosine, 0.5", sc.cosine(N, 0.5)),
    sc.Recipe("cosine, 1", sc.cosine(N, 1.0)),
    sc.Recipe("cosine, 1, slow start", sc.cosine(N, 1.0, warmup=0.45)),
]
rates = {"adam": (1e-3, 1e-2), "adagrad": (0.1,)}
optimizers = [
    sc.Recipe(f"{form} {rate}", sc.piecewise_constant(N, rate), form=form)
    for form, tried_rates in rates.items()
    for rate in tried_rates
]
found = sc.train(task, [*shapes, *optimizers], seeds, **small)
shapes = {recipe.label: found[recipe.label] for recipe in shapes}
optimizers = {recipe.label: found[recipe.label] for recipe in optimizers}

# %% tags=["hide-input"]
datasets.at_hand("cifar10")
everything = {
    "one cycle, 1": cycle, "piecewise constant, 0.35": race["piecewise constant, N"],
    "0.35 with a warm-up": trained["gentle"],
    "piecewise constant, 0.035": race["from 0.035, N"],
    **shapes, **optimizers,
}
ranked = sorted(everything, key=lambda label: float(everything[label].percent.median()))


@figure(
    f"Final test accuracy on {task.name} after {N} steps, for schedules and optimizers with their "
    "largest rates; dots are seeds, the line is the median of the cycle, the second color has the "
    "adaptive methods. What has a large rate lies within a few points, whatever its shape, unless it "
    f"rises to 1 in {ramp} steps; what has a customary one lies far lower.",
    alt="A dot plot with twelve rows. The cycle, the triangle, the line, the cosine to 0.5 or with a "
    "slow start, the staircase from 0.35 with and without a warm-up, AdaGrad at 0.1 and Adam at 0.01 "
    "lie close together on the right, the cosine to 1 is scattered, the staircase from 0.035 and Adam "
    "at 0.001 are on the left.",
    data={label: outcome.percent.mean() for label, outcome in everything.items()},
    size=(7.4, 4.2),
    drift=3.0,
)
def _(fig, ink):
    ax = fig.subplots()
    for row, label in enumerate(ranked):
        color = ink.cycle[1] if label.split()[0] in rates else ink.cycle[0]
        ax.plot(everything[label].percent, [row] * len(seeds), "o", ms=5, color=color, alpha=0.8)
    ax.axvline(cycle.percent.median(), color=ink.faint, lw=1)
    ax.set_yticks(range(len(ranked)), ranked)
    ax.set(xlabel="test accuracy (%)")


# %% tags=["hide-input"]
if not datasets.at_hand("cifar10", claims=("C11",)):
    claims.stored("C11", because=WHY)
else:
    tuned = torch.stack([optimizers[f"{form} {r[-1]}"].percent for form, r in rates.items()])
    usual = optimizers["adam 0.001"].percent
    claims.settle(
        "C11",
        in_points("cycle minus Adam at its customary 0.001", cycle.percent - usual, above(2)),
        in_points("cycle minus the best adaptive method, tuned rates",
                  cycle.percent - tuned.max(0).values, above(2), drift=0.7),
        *(
            over_seeds(f"{label}", outcome.percent, reported(), unit="%", drift=2)
            for label, outcome in optimizers.items()
        ),
        *(
            # the cosine with the fast start is the one that scatters
            in_points(f"for comparison, momentum: cycle minus {label}",
                      cycle.percent - outcome.percent, reported(),
                      drift=4 if label == "cosine, 1" else 1.5)
            for label, outcome in shapes.items()
        ),
        note=f"{ON} True of Adam at its customary rate. With a rate ten times as large it ends within "
        "a few points of the cycle, at equal length: the gap is one of rates, not of methods. AdaDelta "
        "and Nesterov momentum along this schedule were not run.",
    )
    claims.show()

# %% [markdown]
# With a warm-up of 15 steps a peak of 1 scatters the networks, with 135 it does not. The shape of the way down matters little; the slow way *up* lets a network bear twice the rate. That is the case for the cycle.
# Otherwise the shapes end close together, the cycle a little in front, and so do the optimizers once each has a large rate of its own for much of the run, and a small one at the end.
#
# (sec-sc-digits)=
# ## Another data set
#
# Is it CIFAR? For MNIST the third version, by that transcription, has 99.25 % after 12 epochs of the cycle against 99.0 % after 85 of the usual schedules, means of five runs.
# The network is Caffe's LeNet: two convolutions, two linear layers, no batch normalization, 431,080 weights. It is small enough to be trained at its own scale without a GPU, given some hours, so these are recorded runs on all 60,000 digits, in batches of 512.
# (Settings are the companion report's, network and scaling of the images those of Caffe's examples. The lengths of the cycles come from an independent [port](https://github.com/coxy1989/superconv), whose results the table quotes too: five epochs up, five down, two to fade. Where the authors' *step* drops is not printed; ours drops at 5/8 and 7/8, as on CIFAR-10.)
#
# The rival is Caffe's policy `inv`, for an inverse power: $\eta_t = 0.01\,(1 + 10^{-4}t)^{-3/4}$, which in 85 epochs falls by two fifths; momentum is 0.9.
# In the cycle the rate goes from 0.01 to 0.1 and back, *and* momentum from 0.95 to 0.8 and back. A gradient moves the weights by $\eta/(1-\mu)$ times itself, spread over the steps that follow. In this measure the cycle goes from 0.2 to 0.5, and its rival begins at 0.1.
#
# Again a runner is missing: the same short time for everybody. We add the first 12 epochs of `inv`, and two staircases of 12 epochs. One has the usual rate of 0.01; the other, from 0.05, has the $\eta/(1-\mu)$ of the cycle's peak. (It was not tuned.)

# %% tags=["hide-input"]
from reproductions.papers.super_convergence.scale import ARMS, retrace, task_from

lenet_rows = [
    ("Caffe's inv", "inv", 12), ("staircase from 0.01", "step", 12),
    ("staircase from 0.05", "staircase", 12), ("one cycle", "cycle", 12),
    *(("one cycle", "cycle", epochs) for epochs in (25, 50, 85)),
    ("staircase from 0.01", "step", 85), ("Caffe's inv", "inv", 85),
]
table_2018 = {(r.arm, r.epochs): r for r in sc.published.TABLES_2018 if r.data == "MNIST"}
printed_as = {"inv": "inv", "cycle": "1cycle", "step": "step"}
lenet = {
    (kind, epochs): {run_["seed"]: run_ for run_ in record.of(f"mnist-{kind}-{epochs}")}
    for _, kind, epochs in lenet_rows
}
on_digits = {
    key: {n: run_["accuracy"]["none"] for n, run_ in runs.items()} for key, runs in lenet.items()
}


# %% tags=["hide-input"]
@figure(
    "LeNet on MNIST, recorded: final test accuracy against epochs. Dots are seeds; open diamonds are "
    "the means of five runs that the authors print. Twelve epochs of the cycle end a little above 85 "
    "of the usual schedule, and so do twelve of a staircase with a large rate. With the usual rate "
    "twelve epochs end far below, whether it drops or not. Longer cycles end higher. All our cycles "
    "end about a tenth below the authors'.",
    alt="Dots over 12, 25, 50 and 85 epochs. At 12 epochs those of the cycle and of the staircase "
    "from 0.05 lie near 99.1, those of inv and of the staircase from 0.01 between 98.6 and 98.9. The "
    "cycle rises slowly to 99.2 at 85 epochs, where inv and the staircase from 0.01 lie between 98.9 "
    "and 99.2. Diamonds: 99.25 to 99.35 for the cycle, 99.0 for the others.",
    data={f"{kind} {n}": list(found.values()) for (kind, n), found in on_digits.items() if found},
    size=(7.4, 3.6),
)
def _(fig, ink):
    ax = fig.subplots()
    places, colors = {12: 0, 25: 1, 50: 2, 85: 3}, {"inv": 1, "step": 3, "staircase": 2, "cycle": 0}
    labels = set()
    for label, kind, epochs in lenet_rows:
        color, found = ink.cycle[colors[kind]], list(on_digits[kind, epochs].values())
        x = places[epochs] + 0.12 * (("inv", "step", "staircase", "cycle").index(kind) - 1.5)
        once = None if label in labels or not found else label
        ax.plot([x] * len(found), found, "o", ms=5, color=color, alpha=0.8, label=once)
        labels |= {once}
        if (row := table_2018.get((printed_as.get(kind), epochs))) is not None:
            ax.plot(x, row.accuracy, "D", ms=8, mfc="none", color=color)
    ax.plot([], [], "D", ms=8, mfc="none", color=ink.text, label="authors, mean of five")
    ax.set_xticks(range(4), places)
    ax.set(xlabel="epochs", ylabel="test accuracy (%)")
    ax.legend(loc="lower right")


# %% tags=["hide-input"]
runs_ = [run_ for runs in lenet.values() for run_ in runs.values()]
print("\n".join(sorted({f"{r['machine']}, {r['date']}, code {r['code']}" for r in runs_})))
print("test accuracy in percent, mean and standard deviation over seeds; test loss in nats;")
print("sum: of rate / (1 - momentum) over all steps")
print(f"{'':20}{'epochs':>6}{'sum':>7}{'paper':>14}{'port':>7}{'here':>14}{'loss':>8}{'seeds':>6}")
for label, kind, epochs in lenet_rows:
    recipe = ARMS[f"mnist-{kind}-{epochs}"].recipe(label)
    total = float((recipe.rates / (1 - recipe.momenta)).sum())
    row = table_2018.get((printed_as.get(kind), epochs))
    paper = "" if row is None else f"{row.accuracy:.2f} ± {row.spread:.2f}"
    port = "" if row is None or math.isnan(row.independent) else f"{row.independent:.2f}"
    found = np.array(list(on_digits[kind, epochs].values()))
    here, loss = "", ""
    if len(found):
        here = f"{found.mean():.2f}" + (f" ± {found.std(ddof=1):.2f}" if len(found) > 1 else "")
        loss = f"{np.mean([r['test_loss'] for r in lenet[kind, epochs].values()]):.4f}"
    print(f"{label:20}{epochs:>6}{total:>7.0f}{paper:>14}{port:>7}{here:>14}{loss:>8}"
          f"{len(found):>6}")

# %% [markdown]
# Twelve epochs of the cycle end a little ahead of 85 of `inv` on average, by a third of what the table says, and not in every seed. The port finds 0.13.
# (We had asked for nearly half of the table's 0.22 before the first run was over, and so the verdict below says no. But nothing is lost by stopping after a seventh of the time.)
# Over 85 epochs of the usual staircase it is ahead by less still, and again not in every seed.
# Longer cycles end higher, as in the table; the longest, with twice the rates, is the best of all.
# A tenth of a point is ten digits of ten thousand. The test losses tell more, and they too favor the cycle.
#
# But what saves the time is the rate. With the usual one nobody gets there in 12 epochs, with drops or without; and a staircase that begins at the $\eta/(1-\mu)$ of the cycle's peak is level with the cycle.
# Nor is the long run as long as it looks: in the sum of $\eta/(1-\mu)$ the 12 epochs of the cycle are two thirds of the 85 of `inv`.
#
# To run any of these yourself: `reproduce scale super_convergence mnist-cycle-12 mnist-inv-85 --seeds 0,1,2`.
#
# A record is worth what ties it to the code beside it. So the first twelve steps of one of these runs are taken again, here and now; their losses must be the recorded ones, and not those of another seed.

# %%
if (mnist := datasets.optional("mnist", claims=("C18",))) is not None:
    parts = mnist.train_images, mnist.train_labels, mnist.test_images, mnist.test_labels
    digits = task_from("mnist", *parts, device=run.device)
    again = retrace("mnist-cycle-12", 0, digits, n_steps=12)
    apart = {}
    for n, run_ in lenet["cycle", 12].items():
        every, values = run_["losses"].values()
        noted = torch.tensor(values[: 12 // every])
        apart[n] = float((again.view(-1, every).mean(1) - noted).abs().max())

# %% tags=["hide-input"]
if not datasets.at_hand("mnist", claims=("C18",)):
    claims.stored("C18", because="MNIST cannot be had here.")
else:
    twelve = on_digits["cycle", 12]
    behind = {
        key: [twelve[n] - value for n, value in found.items() if n in twelve]
        for key, found in on_digits.items()
    }
    claims.settle(
        "C18",
        *(
            over_seeds(f"LeNet, recorded: 12 epochs of the cycle minus 85 of {kind}",
                       behind[kind, 85], above(0.1), unit="points", paper=gain, drift=0.005)
            for kind, gain in (("inv", 0.22), ("step", 0.25))
        ),
        *(
            over_seeds(f"the cycle in 12 epochs minus {label} in {epochs}", behind[kind, epochs],
                       reported(), unit="points", drift=0.005)
            for label, kind, epochs in lenet_rows
            if (kind, epochs) not in (("cycle", 12), ("inv", 85), ("step", 85))
        ),
        measured("twelve steps again: largest difference from the recorded losses", apart[0],
                 at_most(0.001), unit="nats", drift=5e-4),
        measured("control: the same with another seed, at least", min(d for n, d in apart.items() if n),
                 above(0.001), unit="nats", drift=5e-3),
        note="A third of the table's gain over inv, less over step; nearly half was asked for. The "
        "time is saved, by the large rate: a staircase of 12 epochs with steps as long is level with "
        "the cycle. Paper's values from the companion report.",
    )
    claims.show()

# %% [markdown]
# ## Where it breaks
#
# *The rival.* The order of magnitude in the title is a statement about the rival as much as about the cycle.
# For each image, the paper's baseline has a tenth of the rate at which a staircase does well here. In 10,000 iterations it ends at 82 %, with a training loss near zero; in 80,000, as far as the rates of the cycle carry, it comes near.
# A staircase from a larger rate, with 10,000 iterations of batches of 1000, is the runner that is still missing; it stands ready as the arm `staircase-10k`. On MNIST that runner has run ({ref}`sec-sc-digits`), and is level with the cycle.
# An independent run of the authors' settings found 91.8 % for the cycle and 91.5 % for the 80,000 iterations {cite:p}`pe51k2024`.
#
# *Best against last.* The paper's Table 1 quotes for the baseline the highest accuracy on the way and for the cycle the final one. That favors the baseline, and hides how it ends.
#
# *Three settings at once.* The arms of the headline differ in the schedule, in the fraction of the batch-norm averages, and in that the rival starts at its full rate. What the second alone can do, we have seen. A short warm-up gives the staircase from 0.35 nothing that three seeds can show on our scale, although it starts at ten times the rate for each image; at the authors' scale that is open (`gentle-10k`).
#
# *The estimate.* Derived without momentum and used with it, it returns a multiple of the rate in use. A control without a landscape shows it.
#
# *Errata.* The paper's table gives stride 2 to the first convolution; the authors' files have 1. The blocks that halve the image keep their narrow width, which no figure shows; the network has 808,682 parameters. Test accuracies are averages over two and a half passes of the test set, in which half the images count three times.
#
# What holds after all this is worth having: large rates regularize, regularizers trade against each other, a slow start lets a network bear more, and one should look at the rate at which a network still learns before choosing one that is safe. The records for training on CIFAR-10 are held by schedules that rise and fall within ten epochs {cite:p}`jordan2024airbench`; the largest rate there is about 1.5 for batches of 1024.

# %% [markdown]
# (sec-sc-scale)=
# ## At the paper's scale
#
# ResNet-56, all of CIFAR-10, batches of 1000 that eight GPUs once normalized 125 by 125 ({term}`ghost batches <ghost batch>`), mirrored images: the authors' runs exist as named arms. On one GPU a step takes about 16 milliseconds, evaluation apart (bfloat16, the normalization fused into one kernel, a whole step replayed as one CUDA graph), and a long arm is run in pieces:
#
# ```bash
# reproduce scale super_convergence --list
# reproduce scale super_convergence cycle-10k constant-80k --seeds 0,1,2 --minutes 9
# ```
#
# The second command can be given again and again; it goes on from its checkpoints, and puts finished arms on record. This is the record of ResNet-56 so far.

# %% tags=["hide-input"]
resnet_runs = record.of(*(name for name, arm in ARMS.items() if arm.dataset == "cifar10"))
machines = sorted({f"{r['machine']}, {r['date']}, code {r['code']}" for r in resnet_runs})
print(f"{'; '.join(machines)}; one seed each")
print("test accuracy in percent, with averages of 0.95 and with fresh statistics")
print(f"{'':22}{'iterations':>11}{'paper':>8}{'0.95':>8}{'fresh':>8}{'minutes':>9}")
for run_ in resnet_runs:
    paper = "" if run_["paper"] is None else f"{run_['paper']:.1f}"
    here = [f"{run_['accuracy'][kind]:>8.1f}" for kind in ("caffe 0.95", "estimated")]
    print(f"{run_['arm']:22}{run_['n_steps']:>11,}{paper:>8}", *here,
          f"{run_['seconds'] / 60:>9.1f}", sep="")

# %% [markdown]
# Two of the questions above have an answer at this scale.
# Left, the first 3000 iterations of the authors' baseline on 10,000 images, read in two ways: what their logs show, and what the network could do.
# Right, their estimate over the whole cycle, from weights taken every ten iterations. The dashed curve beside it is the figure that was promised at the start: it takes one line, and no network.

# %%
alone = sc.noise_estimate_curve(sc.triangular(10_000, 0.1, 3.0), momentum=0.9, lag=10)

# %% tags=["hide-input"]
begun, whole = record.of("start-10k-images")[0], record.of("cycle-10k")[0]
ten = torch.tensor(whole["estimates"]["10"])
at = 10 * (torch.arange(len(ten)) + 2)


@figure(
    "ResNet-56, recorded. Left, constant rate 0.35 on 10,000 images: with averages of 0.999 the "
    "test accuracy stays near chance, with fresh statistics it is near 60 %. Right, the curvature "
    "estimate during the cycle (solid) and the one of pure noise (dashed): an echo of the rate in "
    "use, a sixth lower, until the last iterations, where it stays higher.",
    alt="Left, two curves against iterations, one between 10 and 21 percent, one rising to 60. "
    "Right, two triangles up to 2.5 and 3; at the right end the solid one stays at 0.23 where the "
    "dashed one falls to 0.11.",
    data={"estimate": ten, "noise": alone} | begun["curves"],
    size=(7.4, 3.2),
)
def _(fig, ink):
    left, right = fig.subplots(1, 2)
    left.plot(begun["steps"], begun["curves"]["caffe 0.999"], color=ink.cycle[1],
              label="averages of 0.999")
    left.plot(begun["steps"], begun["curves"]["estimated"], "--", color=ink.cycle[3],
              label="fresh statistics")
    right.plot(at, ten, color=ink.cycle[0], label="network")
    right.plot(at, alone, "--", color=ink.cycle[1], label="noise")
    left.set(xlabel="iteration", ylabel="test accuracy (%)", ylim=(0, 70))
    right.set(xlabel="iteration", ylabel="estimated rate")
    left.legend()
    right.legend()


# %% [markdown]
# And the claim on the averages reads at this scale as the authors put it: the weights that reach 92.8 % with averages of 0.95 are at chance with averages of 0.999.
#
# ## Verdicts
#
# Every claim of the paper, what we measured, and what would have counted as agreement.
# {doc}`How to read a verdict <../book/reading-a-verdict>` explains the columns.

# %% tags=["hide-input"]
for id, because in {
    "C7": "A fair test needs equal epochs at every batch size and the authors' scale.",
    "C10": "CIFAR-100 is not among the data sets of this book.",
    "C13": "Depth matters at the authors' scale. The arms of the cycle exist (cycle-resnet20, "
           "-resnet110), their record and the arms of the rival do not.",
    "C14": "Dropout in blocks was left out; the paper reports a small improvement and no number.",
    "C15": "Bottleneck networks and ResNeXt were left out.",
    "C19": "Wide networks and DenseNets take hours on a GPU, and their text was not at hand.",
    "C20": "ImageNet takes data and computing that this book does not have.",
}.items():
    claims.not_run(id, because)
claims.table()

# %% [markdown]
# ## Exercises
#
# ```{exercise} Where the triangle stands (warm-up)
# :label: ex-sc-triangle
#
# Caffe's policy `triangular` has 0.1 and 3 as its ends and 10,000 iterations. What is the rate at iteration 2500 if there is one cycle? Where is it 1.55 again? And at 2500 with two cycles?
# ```
#
# ````{solution} ex-sc-triangle
# :class: dropdown
#
# With one cycle the peak is at 5000 and 2500 is half the way up: $(0.1 + 3)/2 = 1.55$, and again at 7500. With two cycles 2500 is a peak.
# ```python
# assert sc.triangular(10_000, 0.1, 3)[2500] == 1.55
# assert sc.triangular(10_000, 0.1, 3, n_cycles=2)[2500] == 3
# ```
# ````

# %% [markdown]
# ```{exercise} The estimate on quadratics (derivation)
# :label: ex-sc-quadratic
#
# Show that {eq}`eq-sc-estimate` gives $1/a$ for plain gradient descent on $\tfrac12 a x^2$, for every learning rate, and a mean of $1/a_j$ for $\tfrac12\sum_j a_j x_j^2$. Which mean?
# ```
#
# ````{solution} ex-sc-quadratic
# :class: dropdown
#
# $D_i = -\eta a x_i$ and $x_{i+1} = (1 - \eta a)x_i$, so $D_i - D_{i+1} = -\eta a(x_i - x_{i+1}) = -\eta^2 a^2 x_i$. The ratio times $\eta$ is $1/a$.
# With several coordinates it is $\sum_j a_j|x_j| / \sum_j a_j^2|x_j|$: the mean of $1/a_j$ with weights $a_j^2|x_j|$, which lies between $1/a_{\max}$ and $1/a_{\min}$ and is drawn toward the stiff directions.
# ````

# %% [markdown]
# ```{exercise} Noise with a memory (derivation)
# :label: ex-sc-noise
#
# Derive {eq}`eq-sc-null`, and the formula for weights taken every $k$ steps. Assume normal gradients.
# ```
#
# ````{solution} ex-sc-noise
# :class: dropdown
#
# With independent $g_t$ the steps $v_t = \mu v_{t-1} - \eta g_t$ are an autoregressive sequence: $\operatorname{Cov}(v_t, v_{t+h}) = \mu^{h}\operatorname{Var} v$.
# Thus $\operatorname{Var}(D_i - D_{i+1}) = 2(1-\mu)\operatorname{Var}D$, and since the mean of the absolute value of a centered normal number is proportional to its standard deviation, the ratio of the sums tends to $1/\sqrt{2(1-\mu)}$ for many weights.
# For sums of $k$ steps, $V = k + 2\sum_{h=1}^{k-1}(k-h)\mu^h$ is the variance and $C = \mu\bigl(\sum_{h=0}^{k-1}\mu^h\bigr)^2$ the covariance of neighbors, up to the factor $\operatorname{Var} v$; put $\rho_k = C/V$ in the place of $\mu$.
# ````

# %% [markdown]
# ````{exercise} A range test without a past (coding)
# :label: ex-sc-range
#
# A sweep judges a rate with weights that all smaller rates have shaped. Train twelve networks of one seed for $N/8$ steps instead, each with a constant rate of its own, and compare their accuracies with those of the sweep, with the same kind of statistics (`monitor=sc.Monitor(statistics=("estimated",))`). Your networks can share one program (`stacked=12`). Is the difference due to fewer steps, or to the missing warm-up? In the `cpu` profile this check should pass:
# ```python
# assert max(a for rate, a in apart.items() if rate > 2) < 20
# ```
# ````
#
# ````{solution} ex-sc-range
# :class: dropdown
#
# ```python
# candidates = torch.linspace(0.1, 4, 12).tolist()
# recipes = [sc.Recipe(f"{r:.2f}", torch.full((N // 8,), r)) for r in candidates]
# fresh = sc.Monitor(statistics=("estimated",))
# found = sc.train(task, recipes, [0], monitor=fresh, **small | {"stacked": 12})
# apart = {r: float(found[f"{r:.2f}"].percent) for r in candidates}
# print({round(r, 1): round(a) for r, a in apart.items()})
# swept = zip(tested[::2], ranged.curve[0, ::2])
# print({round(float(r), 1): round(float(a)) for r, a in swept})
# ```
# Cold networks at large rates learn nothing. To tell the two reasons apart, give each as many steps as the sweep had taken when it reached its rate, once at a constant rate and once with half of them as a warm-up (`sc.warmed_up`). The first gains little, the second much: a sweep *is* a warm-up, and flatters large rates for everyone who does not warm up.
# ````

# %% [markdown]
# ```{exercise} Two momenta (derivation and coding)
# :label: ex-sc-momentum
#
# Write the step that each form of {eq}`eq-sc-momentum` takes as a sum over past gradients. They agree while the rate is constant. By what factor does a step differ right after the rate has dropped to a tenth? Test it with `sc.momentum_step` on made-up gradients.
# ```
#
# ````{solution} ex-sc-momentum
# :class: dropdown
#
# Caffe: $-\sum_k \mu^{i-k}\eta_k g_k$, PyTorch: $-\eta_i\sum_k\mu^{i-k}g_k$. After a drop to a tenth, Caffe's step still has the old rate in all but its last term: with equal gradients its ratio to PyTorch's is $\bigl(1 + 10\tfrac{\mu}{1-\mu}\bigr)(1-\mu) = 0.1 + 9 = 9.1$ at $\mu = 0.9$.
# ```python
# def last_step(form):
#     theta, v = torch.zeros(1, 1), torch.zeros(1, 1)
#     for t in range(200):
#         rate = 1.0 if t < 199 else 0.1
#         g = torch.ones(1, 1)
#         step = sc.momentum_step(theta, v, g, rate, momentum=0.9, form=form)
#     return float(step)
# assert abs(last_step("caffe") / last_step("torch") - 9.1) < 1e-3
# ```
# It takes some ten steps to forget. Under a triangle the difference is a delay of about $1/(1-\mu)$ steps.
# ````

# %% [markdown]
# ```{exercise} A fair race (open)
# :label: ex-sc-fair
#
# Design the race that decides whether the cycle is better than what it is compared with, at the authors' scale and with a budget of your choice. What must be tuned, for whom, and on which images? What would you give up first?
# ```
#
# ````{solution} ex-sc-fair
# :class: dropdown
#
# Equal numbers of iterations at several budgets; for each schedule the peak rate and the weight decay chosen on held-out training images, from equally many candidates; a warm-up for all; the same averages of batch normalization, or statistics estimated afresh; several seeds, compared pairwise; final accuracies only.
# The arms `staircase-10k` and `gentle-10k` of {ref}`sec-sc-scale` are a beginning: staircases with a warm-up, from 1.5 and from 0.35.
# From what this chapter measures on a small scale, we expect shapes nearly to tie at equal budget, tuned peaks and slow starts, and would be glad to be refuted.
# ````

# %% [markdown]
# ## To go on
#
# - {cite:t}`smith2017clr` is where the triangle and the range test come from.
# - {cite:t}`smith2018disciplined` turns the balance of regularizers into a procedure for choosing all of them.
# - {cite:t}`loshchilov2017sgdr` fall along a cosine and start again; today's cosine schedules descend from it.
# - {cite:t}`schaul2013pesky` estimate learning rates from curvature *and* noise, and treat the noise as what it is.
# - {cite:t}`jordan2024airbench` shows what ten epochs on CIFAR-10 can do when everything is tuned: 94 % in seconds.
