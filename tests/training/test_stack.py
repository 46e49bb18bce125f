"""Stacks of trainings: against transformers, torch's optimizers and the CPU's passes, here on the CPU's own tensors."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from darkvocab import Training
from darkvocab.errors import InvalidInput
from darkvocab.training import batched as passes
from darkvocab.training import noise_stream
from darkvocab.training.batched import BATCHED
from darkvocab.training.choices import (
    SGD,
    AdamW,
    Architecture,
    CoupledAdam,
    GaussianNoise,
    NormalStart,
    PointStart,
    SnowballStart,
)
from darkvocab.training.model import Layout, begin
from darkvocab.training.stack import MOST_TRAININGS, WARM_UPS, Stack, captured, stack_size
from darkvocab.training.updates import IN_BATCH, UPDATE_COLUMNS
from examples import inputs_and_labels

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.slow

SMALL = Architecture(layers=1, heads=2, width=16, context=12)
RMS = Architecture(layers=2, heads=2, width=16, context=12, norm="rmsnorm", tied=False)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread():
    """Threads that wait for each other take longer than what is so small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def small(**settings):
    return Training(**{"architecture": SMALL, "batch": 4, "steps": 20, "seed": 7, **settings})


def stacked(*seeds, span=None, **settings):
    return Stack([small(seed=seed, **settings) for seed in seeds], CPU, span=span)


def made(stack, until=20):
    """States and metrics of all steps up to `until`."""
    parts = [stack.read(segment) for segment in stack.segments(until)]
    kinds = [np.concatenate(kind) for kind in zip(*(kinds for kinds, _ in parts), strict=True)]
    return kinds, np.concatenate([metrics for _, metrics in parts])


def state(stack, replica):
    return {name: tensor.float().numpy() for name, tensor in stack.state(replica).items()}


# The passes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("label_shift", [1, 2])
@pytest.mark.parametrize("one_hot", [128, 127])
def test_loss_and_gradient_are_those_of_transformers_model_in_float64(norm, tied, label_shift, one_hot, monkeypatch):
    monkeypatch.setattr(passes, "ONE_HOT", one_hot)
    architecture = Architecture(layers=2, heads=3, width=24, context=12, norm=norm, tied=tied)
    settings = {"architecture": architecture, "batch": 3, "steps": 1, "start": NormalStart()}
    trainings = [Training(**settings, label_shift=label_shift, seed=seed) for seed in (1, 2, 3)]
    models = [begin(torch, training).double() for training in trainings]
    layout = Layout.of(models[0])
    drawn = torch.Generator().manual_seed(0)
    weights = torch.stack([layout.vector(torch, model) for model in models])
    weights += 0.1 * torch.randn(weights.shape, dtype=torch.float64, generator=drawn)
    ours = passes.BatchedPasses(torch, architecture, layout, weights, weights, 3)
    inputs, targets, losses = [], [], []
    for model, training, mine in zip(models, trainings, weights, strict=True):
        for name, parameter in model.named_parameters():
            part, shape = layout.places[name]
            parameter.data = mine[part].view(shape).clone()
        tokens, labels = map(torch.from_numpy, inputs_and_labels(training, 1))
        logits = model(input_ids=tokens).logits[:, :-1].flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten())
        loss.backward()
        losses.append(loss.item())
        inputs.append(tokens.flatten())
        targets.append(labels.roll(-1, 1).flatten())
    assert ours(torch.stack(inputs), torch.stack(targets)).numpy() == pytest.approx(losses, abs=1e-12)
    gradient = torch.empty_like(weights)
    ours.gradient(gradient)
    for replica, model in enumerate(models):
        for name, parameter in model.named_parameters():
            part, shape = layout.places[name]
            assert (gradient[replica, part].view(shape) - parameter.grad).abs().max() < 1e-12, name


# Optimizers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "settings",
    [AdamW(weight_decay=0.1), SGD(), SGD(weight_decay=0.1), SGD(momentum=0.9), SGD(weight_decay=0.1, momentum=0.9)],
)
def test_an_update_is_that_of_torchs_optimizer_bit_for_bit(settings, dtype):
    # Given a learning rate of float32, in which it is kept here, and parts of whole vectors of a CPU: what is left over
    # beside those, torch's sums of bfloat16 round twice.
    layout = Layout(places={"matrix": (slice(640), (20, 32)), "vector": (slice(640, 704), (64,))})
    drawn = torch.Generator().manual_seed(1)
    weights = torch.randn(3, 704, generator=drawn).to(dtype)
    theirs, gradient = weights.clone(), torch.empty_like(weights)
    optimizers = []
    for mine in theirs:
        parts = [mine[part] for part in layout.groups.values()]
        groups = [{"params": [part], "weight_decay": settings.weight_decay * (not n)} for n, part in enumerate(parts)]
        constants = {name: value for name, value in vars(settings).items() if name in ("betas", "eps", "momentum")}
        kind, fused = (torch.optim.AdamW, {"fused": True}) if isinstance(settings, AdamW) else (torch.optim.SGD, {})
        optimizers.append(kind(groups, lr=0.0, **constants, **fused))
    ours = BATCHED[type(settings)](torch, settings, layout, weights, gradient)
    for _ in range(5):
        gradient.copy_(torch.randn(gradient.shape, generator=drawn))
        ours.rate.copy_(torch.rand(1, generator=drawn))
        for replica, one in enumerate(optimizers):
            for group, part in zip(one.param_groups, layout.groups.values(), strict=True):
                group["lr"] = ours.rate.item()
                group["params"][0].grad = gradient[replica, part].clone()
            one.step()
        ours.step()
        assert torch.equal(weights, theirs)


@pytest.mark.parametrize(("precision", "within"), [("float32", 1e-6), ("pure-bf16", 2**-8)])
def test_the_norm_of_a_gradient_is_torchs_of_its_parts(precision, within):
    # To a step of its grid.
    stack = stacked(1, 2, precision=precision)
    stack._gradient.copy_(torch.randn(stack._gradient.shape, generator=torch.Generator().manual_seed(1)))
    for ours, norm in zip(stack._gradient, stack._norms(), strict=True):
        theirs = torch.nn.utils.get_total_norm([ours[part] for part, _ in stack._layout.places.values()])
        assert norm.dtype == theirs.dtype
        assert norm.item() == pytest.approx(theirs.item(), rel=within)


@pytest.mark.parametrize("precision", ["float32", "pure-bf16"])
def test_the_gradient_is_clipped_to_its_norm(precision):
    settings = {"precision": precision, "schedule": "constant", "optimizer": SGD(learning_rate=1.0)}
    stack = stacked(1, 2, clip=1e-2, start=NormalStart(), **settings)
    _, metrics = made(stack, 1)
    assert (metrics[0, :, 1] > 0.5).all()
    assert stack._gradient.double().norm(dim=1).numpy() == pytest.approx(1e-2, rel=1e-2)


# Random numbers -------------------------------------------------------------------------------------------------------


def test_words_are_the_published_ones_of_splitmix64():
    drawn = noise_stream.splitmix64(torch, torch.tensor([0, 1234567]), 3).numpy().view(np.uint64).tolist()
    assert drawn[0] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert drawn[1] == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def keys(seeds, step, purpose):
    ours = torch.from_numpy(np.array([noise_stream.key(seed, purpose) for seed in seeds]))
    return noise_stream.splitmix64(torch, ours, 1, step - 1)[:, 0]


def test_normals_are_normal_and_know_nothing_of_each_other():
    # Of fixed keys; of other ones each bound would fail with a chance of about 1e-6.
    n = 100_001
    drawn = noise_stream.normals(torch, keys((1, 2), 5, 0), n, torch.float32).numpy().astype(np.float64)
    later = noise_stream.normals(torch, keys((1, 2), 6, 0), n, torch.float32).numpy().astype(np.float64)
    for z in (*drawn, *later):
        assert stats.kstest(z, "norm").pvalue > 1e-6
        assert abs((z**4).mean() - 3) < 5 * np.sqrt(96 / n)
    half = (n + 1) // 2
    pairs = [
        (drawn[0], drawn[1]),
        (drawn[0], later[0]),
        (drawn[0][:-1], drawn[0][1:]),
        (drawn[0][: half - 1], drawn[0][half:]),
        (drawn[0][: half - 1] ** 2, drawn[0][half:] ** 2),  # cosine and sine of one angle
    ]
    for one, other in pairs:
        assert abs(np.corrcoef(one, other)[0, 1]) < 5 / np.sqrt(len(one))


def test_bits_are_uniform():
    # Chance of a false alarm with other keys: 4 times 1e-6.
    drawn = noise_stream.bits(torch, keys((1, 2), 5, 1), 200_003).numpy()
    assert drawn.min() >= 0
    assert drawn.max() < 1 << 16
    for ours in drawn:
        for part in (ours >> 8, ours & 255):
            assert stats.chisquare(np.bincount(part, minlength=256)).pvalue > 1e-6


def test_what_is_drawn_does_not_depend_on_who_else_draws():
    all_of_them = noise_stream.normals(torch, keys((1, 2, 3), 5, 0), 101, torch.float32)
    alone = noise_stream.normals(torch, keys((2,), 5, 0), 101, torch.float32)
    assert torch.equal(all_of_them[1:2], alone)
    assert len({int(keys((seed,), step, use)) for seed in (1, 2) for step in (1, 2) for use in (0, 1)}) == 8


# Against the CPU's passes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [NormalStart(), PointStart(), SnowballStart(), SnowballStart(drawn="grid")])
@pytest.mark.parametrize("precision", ["pure-bf16", "bf16-weights", "mixed", "float32"])
def test_the_start_is_the_cpus_bit_for_bit(start, precision):
    stack = stacked(7, 8, start=start, precision=precision)
    for replica, seed in enumerate((7, 8)):
        alone = Stack([small(seed=seed, start=start, precision=precision)])
        assert np.array_equal(stack.rows(replica), alone.rows(0))
        assert torch.equal(stack.state(replica)["weights"], alone.state(0)["weights"])


@pytest.mark.parametrize(
    ("settings", "losses", "weights"),
    [
        # Largest distances over 12 seeds on AVX-512 (3 on AVX2 are alike), mean and standard deviation: of losses
        # 6e-7 +- 1e-7 in float32 and 1.1e-4 +- 4e-5 in bfloat16; of weights, in the order of the cases, 1.1e-6 +- 5e-7,
        # 1.2e-7 +- 4e-8, 2.2e-6 +- 5e-7, 1.3e-6 +- 1.4e-6, 5.9e-3 +- 1.7e-3 (thrice), 1.4e-4 +- 5e-5.
        # float32 sums in another order. Adam divides by the root of what it has seen, so that a weight whose gradient
        # is next to nothing may go another way: a few roundings of the learning rate times the steps.
        ({"precision": "float32"}, 3e-6, 3e-5),
        ({"precision": "float32", "optimizer": SGD(weight_decay=0.1, momentum=0.9, learning_rate=0.1)}, 3e-6, 1e-6),
        ({"precision": "float32", "clip": None, "schedule": "constant", "label_shift": 2}, 3e-6, 3e-5),
        ({"precision": "float32", "architecture": RMS}, 3e-6, 3e-5),
        # Here the products' numbers have 8 bits. Those of both are rounded at the same places, but where sums in
        # another order lie on two sides of a boundary; and scores are scaled before they are rounded, not after. 20
        # steps move no weight by more than the sum of their rates, 0.0105: two may be twice that apart.
        ({"precision": "mixed"}, 2e-3, 0.021),
        ({"precision": "bf16-weights"}, 2e-3, 0.021),
        ({"precision": "pure-bf16"}, 2e-3, 0.021),
        ({"precision": "pure-bf16", "optimizer": SGD(momentum=0.9)}, 2e-3, 2e-3),
    ],
)
def test_steps_are_those_of_the_cpus_passes_to_rounding(settings, losses, weights):
    training = small(start=NormalStart(), **settings)
    alone, stack = Stack([training]), Stack([training], CPU)
    theirs = made(alone)[1][:, 0]
    _, ours = made(stack)
    assert np.abs(ours[:, 0, 0] - theirs[:, 0]).max() < losses
    norms = 2**-6 if training.precision == "pure-bf16" else 4 * losses  # two steps of bfloat16, at most; seen: one
    assert ours[:, 0, 1] == pytest.approx(theirs[:, 1], rel=norms)
    assert ours[:, 0, 2] == pytest.approx(theirs[:, 2], rel=0)
    apart = (stack.state(0)["weights"].float() - alone.state(0)["weights"].float()).abs()
    assert apart.max() < weights
    assert apart.mean() < weights / 5
    assert theirs[0, 0] - theirs[-1, 0] > 0.005  # 0.069 in the last case, more in the others; seen to move by 2e-4


def test_bfloat16_losses_are_as_near_to_float32s_as_the_cpus_passes():
    # Of ten seeds: both are off by roundings of the same law, so that neither's mean distance is twice the other's. The
    # logarithm of their ratio is -0.03 +- 0.08 over 10 such tens, the mean distance 5e-5 +- 1.4e-5; AVX2 has the same.
    apart = np.zeros(2)
    stack, exact = (stacked(*range(10), start=NormalStart(), precision=kept) for kept in ("mixed", "float32"))
    (_, ours), (_, reference) = made(stack, 5), made(exact, 5)
    for replica in range(10):
        alone = Stack([small(seed=replica, start=NormalStart(), precision="mixed", steps=20)])
        theirs = made(alone, 5)[1][:, 0, 0]
        apart += [np.abs(mine - reference[:, replica, 0]).mean() for mine in (ours[:, replica, 0], theirs)]
    assert 0.5 < apart[0] / apart[1] < 2
    assert apart.max() / 10 < 1e-3


SETTINGS = {
    "plain": {},
    "pure": {"precision": "pure-bf16", "noise": GaussianNoise(sigma=1e-3)},
    "stochastic": {"rounding": "stochastic", "optimizer": SGD(momentum=0.9)},
    "kahan": {"rounding": "kahan", "optimizer": CoupledAdam()},
    "mixed": {"precision": "mixed", "noise": GaussianNoise(sigma=1e-3, rows="unseen")},
    "rmsnorm": {"architecture": RMS},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_stack_of_three_is_three_trainings_alone_bit_for_bit(name):
    # On a CPU, whose products of small matrices do not depend on how many there are. A GPU's may.
    stack = stacked(7, 8, 9, **SETTINGS[name])
    (rows,), metrics = made(stack)
    for replica, seed in enumerate((7, 8, 9)):
        alone = stacked(seed, span=3, **SETTINGS[name])
        (ours,), measured = made(alone)
        assert np.array_equal(rows[:, replica], ours[:, 0])
        assert np.array_equal(metrics[:, replica], measured[:, 0])
        for key, value in state(alone, 0).items():
            assert np.array_equal(state(stack, replica)[key], value), key
    assert not np.array_equal(rows[-1, 0], rows[-1, 1])


@pytest.mark.parametrize("name", SETTINGS)
def test_a_state_goes_on_to_the_same_bits(name):
    whole, cut = stacked(7, 8, **SETTINGS[name]), stacked(7, 8, span=4, **SETTINGS[name])
    (rows,), metrics = made(whole)
    made(cut, 13)
    again = stacked(7, 8, span=5, **SETTINGS[name])
    for replica in range(2):
        again.load(replica, cut.state(replica), 13)
    (more,), measured = made(again)
    assert np.array_equal(more, rows[13:])
    assert np.array_equal(measured, metrics[13:])


@pytest.mark.parametrize(("span", "record_every"), [(1, 1), (8, 1), (3, 2), (256, 2), (8, 5), (3, 10)])
def test_rings_hold_what_every_step_left(span, record_every):
    settings = {"record": ("gradients", "moments"), "start": NormalStart(), "precision": "mixed"}
    (rows, *others), metrics = made(stacked(7, 8, span=span, record_every=record_every, **settings))
    stack = stacked(7, 8, span=1, **settings)
    part = stack._layout.places["transformer.wte.weight"][0]
    number = 0
    for step in range(1, 21):
        _, measured = made(stack, step)
        assert np.array_equal(metrics[step - 1], measured[0])
        if step % record_every:
            continue
        for replica in range(2):
            ours = stack.rows(replica).reshape(-1)
            assert np.array_equal(rows[number, replica], ours)
            for kind, name in zip(others[1:], ("exp_avg", "exp_avg_sq"), strict=True):
                moments = stack.state(replica)[f"matrices.{name}"][part].numpy().view(np.uint32)
                assert np.array_equal(kind[number, replica], moments)
            scale = min(1.0, 1 / measured[0, replica, 1])  # it is recorded before clipping
            clipped = others[0][number, replica].view(np.float32) * scale
            assert clipped == pytest.approx(stack._gradient[replica, part].numpy(), rel=1e-5)
        number += 1
    assert number == len(rows) == 20 // record_every


@pytest.mark.parametrize("own_passes", [True, False])
@pytest.mark.parametrize("batch", [4, 64])
def test_the_gradient_of_a_tied_matrix_is_that_of_its_two_paths(own_passes, batch):
    # And an unseen token's, which no batch looks up, is that of the logits alone, bit for bit.
    training = small(record=("gradients", "paths"), precision="float32", batch=batch, steps=3)
    (_, *kinds), _ = made(Stack([training], None if own_passes else CPU), 3)
    gradient, inputs, outputs = (kind.view(np.float32).reshape(3, 128, 16) for kind in kinds)
    assert gradient == pytest.approx(inputs + outputs, rel=1e-5, abs=1e-9)
    unseen = training.corpus.unseen
    assert not inputs[:, unseen].any()
    assert np.array_equal(gradient[:, unseen], outputs[:, unseen])
    assert outputs[:, unseen].any(axis=(1, 2)).all()
    assert all(set(np.flatnonzero(step.any(1))) <= set(training.corpus.ids.tolist()) for step in inputs)
    assert inputs.any(axis=(1, 2)).all()


def test_paths_of_an_untied_matrix_are_refused():
    with pytest.raises(InvalidInput, match="paths are of a tied matrix"):
        small(record=("paths",), architecture=dataclasses.replace(SMALL, tied=False))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-6), (torch.bfloat16, 2**-6)])
def test_coupled_adam_is_adamw_with_the_mean_of_the_second_moments(tied, dtype, within):
    # Against the formula in float64; in bfloat16 within two steps of the grid, as its state is rounded.
    names = ["transformer.wte.weight", "inner", *([] if tied else ["lm_head.weight"])]
    places = {name: (slice(160 * n, 160 * (n + 1)), (20, 8)) for n, name in enumerate(names)}
    layout = Layout(places={**places, "vector": (slice(160 * len(names), 160 * len(names) + 8), (8,))})
    drawn = torch.Generator().manual_seed(3)
    weights = torch.randn(2, 160 * len(names) + 8, generator=drawn).to(dtype)
    expected, gradient = weights.double(), torch.empty_like(weights)
    first, second = torch.zeros_like(expected), torch.zeros_like(expected)
    settings = CoupledAdam(weight_decay=0.1)
    ours = BATCHED[CoupledAdam](torch, settings, layout, weights, gradient)
    decay = torch.zeros(weights.shape[1], dtype=torch.float64)
    decay[layout.groups["matrices"]] = 0.1
    for step in range(1, 6):
        gradient.copy_(torch.randn(gradient.shape, generator=drawn))
        ours.rate.fill_(1e-2)
        first = 0.9 * first + 0.1 * gradient.double()
        second = 0.999 * second + 0.001 * gradient.double() ** 2
        for name in {"transformer.wte.weight", "lm_head.weight"} & set(names):
            part = second[:, places[name][0]].unflatten(1, (20, 8))
            part.copy_(part.mean(1, keepdim=True).expand_as(part))
        scale = (second / (1 - 0.999**step)).sqrt() + 1e-8
        expected = expected * (1 - 1e-2 * decay) - 1e-2 * first / (1 - 0.9**step) / scale
        ours.step()
        assert weights.double() == pytest.approx(expected, rel=within, abs=within)
    rows = ours.moments["exp_avg_sq"][:, places["transformer.wte.weight"][0]].view(2, 20, 8)
    assert torch.equal(rows, rows[:, :1].expand_as(rows))
    apart = ours.moments["exp_avg_sq"][:, places["inner"][0]].view(2, 20, 8)
    assert not torch.equal(apart, apart[:, :1].expand_as(apart))


def test_kahan_rounding_loses_nothing_of_steps_that_rounding_alone_loses():
    # A thousand steps of a thousandth of a grid step: by nearest none arrives, by Kahan their sum does, to a grid step.
    ends = {}
    for rounding in ("nearest", "kahan"):
        stack = stacked(7, rounding=rounding, optimizer=SGD(), clip=None, start=NormalStart())
        stack._passes.gradient = lambda out: None  # the gradient stays as it is below
        weights = stack._master.clone()
        step = torch.from_numpy(np.ldexp(1.0, np.frexp(weights.abs().numpy())[1] - 8)).float()
        stack._gradient.copy_(-step / 1000 * weights.sign())
        stack._rates.fill_(1.0)
        for _ in range(1000):
            stack._step()
        ends[rounding] = (stack._words.float() - weights).abs() / step
        assert torch.equal(stack._words.float(), stack._master)
    moving = weights.abs() > 1e-3
    assert not ends["nearest"][moving].any()
    # Just below a power of two the grid is twice as coarse behind it.
    assert (ends["kahan"][moving] - 1).abs().max() <= 1
    assert (ends["kahan"][moving] - 1).abs().mean() < 0.02


def test_a_kahan_step_is_the_plain_sum_of_three_numbers():
    # The twin by numpy: add what was cut off to the weight, make the step, round, keep the rest in bfloat16.
    stack = stacked(7, 8, rounding="kahan", optimizer=SGD(), start=NormalStart())
    stack._rates.fill_(1e-2)
    words, rest = stack._master.clone(), torch.zeros_like(stack._master)
    for _ in range(10):
        stack._step()
        rate = stack._optimizer.rate.float()
        summed = torch.addcmul(words + rest, stack._gradient, -rate)
        words = summed.bfloat16().float()
        rest = (summed - words).bfloat16().float()
        assert torch.equal(stack._words.float(), words)
        assert torch.equal(stack._rest.float(), rest)
    assert rest.any()


def test_stochastic_rounding_goes_to_a_neighbour_and_is_right_on_average():
    # 400 roundings of every weight a third of a step above its grid: the mean of each of 2 x 3,000 is within 5 standard
    # errors of that third, with a chance of 6e-7 each not to be.
    stack, n = stacked(7, 8, rounding="stochastic"), 3000
    on = torch.linspace(0.5, 2.0, n).to(torch.bfloat16).float()
    step = torch.from_numpy(np.ldexp(1.0, np.frexp(on.numpy())[1] - 8)).float()
    ups = torch.zeros(2, n)
    for number in range(400):
        stack._master[:, :n] = on + step / 3
        stack._round(torch.stack([keys((7, 8), number, use) for use in (0, 1)]))
        up = (stack._master[:, :n] - on) / step
        assert set(up.unique().tolist()) <= {0.0, 1.0}
        assert torch.equal(stack._words[:, :n].float(), stack._master[:, :n])
        ups += up
    assert (ups / 400 - 1 / 3).abs().max() < 5 * np.sqrt(2 / 9 / 400)
    assert not torch.equal(ups[0], ups[1])


@pytest.mark.parametrize("precision", ["pure-bf16", "bf16-weights", "mixed", "float32"])
@pytest.mark.parametrize("rows", ["all", "unseen"])
def test_noise_moves_the_rows_that_it_is_for_and_all_copies_of_them(precision, rows):
    settings = {"noise": GaussianNoise(sigma=0.1, rows=rows), "precision": precision}
    stack = stacked(7, 8, optimizer=SGD(learning_rate=0.0), start=SnowballStart(sigma=1.0), **settings)
    before = stack._embedding.float().clone()
    made(stack, 1)
    moved = (stack._embedding.float() - before).numpy()
    unseen = np.isin(np.arange(128), stack.training.corpus.unseen)
    assert np.array_equal(np.abs(moved).max(axis=(0, 2)) > 0, unseen | (rows == "all"))
    drawn = moved[moved != 0] / 0.1
    assert stats.kstest(drawn, "norm").pvalue > 1e-4 or precision in ("pure-bf16", "bf16-weights")
    assert np.std(drawn) == pytest.approx(1, abs=0.1)
    for copy in (stack._master, stack._shown, stack._words):
        assert torch.equal(copy.float(), stack._words.float())
    assert torch.equal(stack._narrow, stack._words.to(stack._narrow.dtype))


# What a device needs --------------------------------------------------------------------------------------------------


def test_on_a_gpu_a_step_is_captured_once_and_leaves_its_state_as_it_was():
    # A graph that records what was called in its capture, and calls it when it is replayed.
    calls, streams = [], []

    class Context:
        def __init__(self, *of, **how):
            self.of = of, how

        def __enter__(self):
            streams.append(self.of)

        def __exit__(self, *_):
            streams.pop()

        def wait_stream(self, other):
            calls.append("wait")

    class Graph:
        def replay(self):
            step()

    fake = SimpleNamespace(Stream=Context, current_stream=Context, stream=Context, graph=Context, CUDAGraph=Graph)
    result = torch.zeros(2)

    def step():
        calls.append(len(streams))
        result.add_(1)

    play = captured(SimpleNamespace(cuda=fake), torch.device("cuda"), step, [result])
    assert calls == ["wait", *[1] * WARM_UPS, "wait", 1]  # warmed up beside the main stream, then captured
    assert result.tolist() == [0, 0]
    play()
    assert result.tolist() == [1, 1]
    assert captured(torch, CPU, step, [result]) is step


def test_what_a_step_changes_is_all_that_the_next_one_reads():
    # What a warm-up must give back: else the first steps were of another training.
    for settings in (
        {"rounding": "stochastic"},
        {"rounding": "kahan", "optimizer": CoupledAdam()},
        {"precision": "pure-bf16", "optimizer": SGD(momentum=0.9)},
    ):
        stack, other = stacked(7, 8, **settings), stacked(7, 8, **settings)
        before = [tensor.clone() for tensor in other._changing]
        for _ in range(WARM_UPS):
            other._step()
        for tensor, value in zip(other._changing, before, strict=True):
            tensor.copy_(value)
        (rows,), metrics = made(stack)
        (ours,), measured = made(other)
        assert np.array_equal(rows, ours)
        assert np.array_equal(metrics, measured)


def test_a_stack_is_as_large_as_what_is_free(monkeypatch):
    monkeypatch.setattr("darkvocab.training.stack.torch_device", lambda name: torch.device(name))

    def seen(free):
        """A torch whose GPU has so much room."""
        return SimpleNamespace(cuda=SimpleNamespace(mem_get_info=lambda _: (free, free)))

    asked = [stack_size(seen(free << 20), Training(device="cuda:0")) for free in (0, 700, 1000, 80_000)]
    assert asked == sorted(asked)
    assert (asked[0], asked[-1]) == (1, MOST_TRAININGS)
    assert 1 < asked[2] < MOST_TRAININGS


def test_trainings_of_other_settings_do_not_stack():
    with pytest.raises(ValueError, match="nothing but their seeds"):
        Stack([small(), small(batch=5)], CPU)


@pytest.mark.parametrize("optimizer", [AdamW(weight_decay=0.1), SGD(momentum=0.9), SGD()])
@pytest.mark.parametrize("device", [None, CPU])
def test_updates_are_those_that_states_and_moments_show(device, optimizer):
    has_moments = isinstance(optimizer, AdamW)
    record = ("gradients", *["moments"] * has_moments, "updates")
    training = small(precision="pure-bf16", optimizer=optimizer, record=record, clip=None)
    stack = Stack([training], device)
    before = stack.rows(0).copy()
    kinds, _ = made(stack)
    buffer, n_lost = torch.zeros(before.shape, dtype=torch.bfloat16), 0
    for step, (after, pull, *moments, update) in enumerate(zip(*(kind[:, 0] for kind in kinds), strict=True), 1):
        after, pull = after.reshape(before.shape), numbers(pull).reshape(before.shape)
        columns = dict(zip(UPDATE_COLUMNS, update.view(np.float32).reshape(len(before), -1).T, strict=True))
        buffer.mul_(getattr(optimizer, "momentum", 0)).add_(torch.from_numpy(pull))
        momentum = numbers(moments[0]).reshape(before.shape) if has_moments else buffer.float().numpy()
        asked = (momentum != 0) | (has_moments & (numbers(before) != 0))
        seen = np.unique([training.corpus.ids[at : at + SMALL.context] for at in training.starts(step)])
        assert (columns["moved"] == (after != before).sum(1)).all()
        assert (columns["asked"] == asked.sum(1)).all()
        assert (columns["lost"] == (asked & (after == before)).sum(1)).all()
        assert np.flatnonzero(columns["causes"].astype(int) & IN_BATCH).tolist() == seen.tolist()
        np.testing.assert_allclose(columns["gradient_norm"], np.linalg.norm(pull, axis=1), rtol=1e-5)
        before, n_lost = after, n_lost + columns["lost"].sum()
    assert n_lost > 0


def numbers(words):
    """Values of bfloat16 words."""
    return (words.astype(np.uint32) << 16).view(np.float32)
