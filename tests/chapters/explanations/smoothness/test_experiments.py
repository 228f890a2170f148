"""The experiments of the chapter on smoothness, against formulas, other libraries and the record."""

import numpy as np
import pytest
import torch
from torch import nn

from bncore.chapters.explanations.smoothness import experiments
from bncore.explanations import landscape, spectrum
from bncore.lab import studies
from bncore.mechanics import projection

EPS, SINGLE = (float(np.finfo(kind).eps) for kind in (np.float64, np.float32))
XTOL = 1e-14  # To which a best angle is found.


@pytest.mark.parametrize("shape", [(12, 3), (6, 3, 2, 2)])
def test_the_whole_is_torchs_batch_norm_and_nothing_is_a_bias(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3 + 1
    theirs = (nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d)(3)
    expected = theirs(x)
    rounding = 24 * SINGLE * expected.abs().max().item()  # means of at most 24 values
    assert torch.allclose(experiments.Partial(3, True, True)(x), expected, rtol=0, atol=rounding)
    nothing = experiments.Partial(3, False, False)
    assert torch.equal(nothing(x), x)
    assert [name for name, _ in nothing.named_parameters()] == ["bias"]


def test_the_halves_do_half_each():
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) * 3 + 1
    centred = experiments.Partial(3, True, False)(x)
    rounding = 50 * SINGLE * x.abs().max().item()
    assert torch.allclose(centred, x - x.mean(0), rtol=0, atol=rounding)
    scaled = experiments.Partial(3, False, True)(x)
    var = x.var(0, unbiased=False)
    found, expected = scaled.var(0, unbiased=False), var / (var + 1e-5)
    assert torch.allclose(found, expected, rtol=50 * SINGLE)
    assert (scaled.mean(0).abs() > 0.1).any()


def test_all_kinds_start_from_the_same_weights():
    states = [experiments.network(kind, 2, 5).state_dict() for kind in experiments.KINDS]
    states_vgg = [experiments.small_vgg(kind, 11, 5).state_dict() for kind in experiments.KINDS[:2]]
    for group in (states, states_vgg):
        for name in (n for n in group[0] if n.endswith("weight") and "norm" not in n):
            for state in group:
                assert torch.equal(state[name], group[0][name]), name


@pytest.mark.parametrize("case", list(experiments.quadratics(5, seed=9)))
def test_quadratics_have_the_gradient_they_say(case):
    z = torch.tensor(case.z, requires_grad=True)
    loss = z @ torch.tensor(case.H) @ z / 2 + torch.tensor(case.b) @ z
    size = np.abs(case.H) @ np.abs(case.z) + np.abs(case.b)
    rounding = 4 * len(case.z) * EPS * size.max()
    gradient = torch.autograd.grad(loss, z)[0].numpy()
    np.testing.assert_allclose(gradient, case.g, rtol=0, atol=rounding)
    rounding *= np.abs(case.z).sum()
    assert float(case.loss(torch.tensor(case.y))) == pytest.approx(loss.item(), abs=rounding)
    h = EPS ** (1 / 3)
    numeric = [
        (case.loss(torch.tensor(case.y + h * e)) - case.loss(torch.tensor(case.y - h * e)))
        / (2 * h)
        for e in np.eye(len(case.y))
    ]
    # Central differences leave h squared times a third derivative, each of 1 / deviation, and the
    # rounding of the loss over h.
    size = np.abs(case.slope()).max() + np.abs(case.g).max() / case.y.std()
    left = 10 * (h / case.y.std()) ** 2 * size + rounding / h
    np.testing.assert_allclose(numeric, case.slope(), rtol=0, atol=left)


def test_convex_quadratics_are_convex():
    for case in experiments.quadratics(20, convex=True):
        values = np.linalg.eigvalsh(case.H)
        assert values[0] > -len(values) * EPS * values[-1]


def test_the_worst_inputs_have_norm_one_and_a_slope_that_grows_like_one_over_t():
    large, small = 1e-2, 1e-4
    plain, normalised = zip(*(experiments.worst_inputs(t) for t in (large, small)), strict=True)
    expected = (large / small) ** 2
    assert normalised[1] / normalised[0] == pytest.approx(expected, rel=10 * large**2, abs=0)
    assert max(plain) <= 1 / 8 * (1 + 16 * EPS)


@pytest.mark.parametrize("bias", [True, False])
def test_the_optimum_of_a_unit_has_no_slope_and_no_better_neighbour(bias):
    rng = np.random.default_rng(0)
    unit = experiments.Unit(rng.normal(size=(12, 2)) + 1, 2 * rng.normal(size=12))
    _, outputs = unit.optimum(bias)
    slopes = unit.X.T @ unit.slopes(outputs)
    rounding = 12 * 4 * EPS * (1 + np.abs(unit.X).max()) * np.abs(outputs).max()
    np.testing.assert_allclose(slopes, 0, atol=rounding)
    if bias:
        assert unit.slopes(outputs).sum() == pytest.approx(0, abs=rounding)
    for _ in range(50):
        move = unit.X @ (0.1 * rng.normal(size=2)) + bias * 0.1 * rng.normal()
        assert unit.losses(outputs + move) >= unit.losses(outputs)


def test_the_best_angles_are_the_lowest_of_a_fine_grid():
    rng = np.random.default_rng(1)
    unit = experiments.Unit(rng.normal(size=(12, 2)) + 1, 2 * rng.normal(size=12))
    found = unit.best_angles(1.3, 0.2)
    grid = np.linspace(-np.pi, np.pi, 20001)
    values = unit.at(grid, 1.3, 0.2)
    assert min(unit.at(a, 1.3, 0.2) for a in found) <= values.min() * (1 + 12 * EPS)
    for angle in found:
        near = unit.at(angle + np.array([-1e-4, 1e-4]), 1.3, 0.2)
        assert (near >= unit.at(angle, 1.3, 0.2)).all()


@pytest.mark.parametrize(
    ("options", "broken"),
    [
        ({}, False),
        ({"matched": False}, True),
        ({"bias": False}, True),
        ({"agreeing": False}, True),
    ],
)
def test_the_initialisation_bound_needs_each_condition(options, broken):
    excess = experiments.initialisation(30, seed=8, **options)
    assert (excess.max() > 0.01) if broken else (np.abs(excess).max() < 100 * XTOL)


@pytest.mark.parametrize("units", [20, 80])
def test_the_mean_direction_is_as_stiff_as_predicted(units):
    whole, centred = experiments.mean_direction(units, m=20000, seed=3)
    rest = 1 / 2 - 1 / (2 * np.pi)
    assert whole == pytest.approx(rest + units / (2 * np.pi), rel=0.03)
    assert rest < centred < 1.3 * rest


def test_removed_shares_are_those_of_the_projection():
    _, x, y = experiments.digits()
    model = experiments.network("batch norm", 2, 0).double()
    seen = {}
    hook = model.norm2.register_forward_hook(
        lambda layer, inputs, out: seen.update(x=inputs[0], out=out)
    )
    loss = nn.functional.cross_entropy(model(x.double()), y)
    hook.remove()
    g = torch.autograd.grad(loss, seen["out"])[0].numpy()
    batch = seen["x"].detach().numpy()
    found = experiments.removed_share(model, x.double(), y)[1]
    alive = (g**2).sum(axis=0) > 0
    surviving = projection.surviving_share(g, batch)[alive]
    rounding = len(g) * EPS
    np.testing.assert_allclose(found[0], 1 - surviving, rtol=0, atol=rounding)
    spread = np.abs(batch).max(axis=0)[alive] / batch.std(axis=0)[alive]
    inverse = 1 / batch.var(axis=0)[alive]
    np.testing.assert_allclose(found[2], inverse, rtol=rounding * spread.max())
    products = (g * (batch - batch.mean(axis=0)))[:, alive]
    tilt = products.sum(axis=0)
    clear = np.abs(tilt) > rounding * np.abs(products).sum(axis=0)
    assert clear.mean() > 0.9
    assert (np.sign(found[1]) == np.sign(tilt))[clear].all()


def test_ends_are_those_of_the_dense_matrix():
    _, x, y = experiments.digits()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(64, 4, bias=False), experiments.Partial(4, True, True), nn.ReLU(),
            nn.Linear(4, 10),
        ).double()  # fmt: skip
    tol = 1e-8
    found = experiments.ends(model, x.double(), y, "relative", tol=tol)
    operator = spectrum.hessian_operator(model, x.double(), y, "relative")
    values, vectors = np.linalg.eigh(operator.matmat(np.eye(operator.shape[0])))
    assert found.smallest == pytest.approx(values[0], abs=10 * tol * values[-1])
    assert (found.largest, found.tenth) == pytest.approx(
        (values[-1], values[-10]), rel=10 * tol, abs=0
    )
    slope = experiments.gradient_of(model, x.double(), y, "relative")
    shares = (vectors.T @ slope) ** 2 / (slope @ slope)
    # Vectors turn by the tolerance over the distance to the next value.
    turned = 10 * tol * values[-1] / (values[-10] - values[-11])
    assert found.concentration == pytest.approx(shares[-10:].sum(), abs=turned)
    rounding = len(values) * EPS * values[-1]
    assert found.along == pytest.approx(shares @ values, abs=rounding)


@pytest.mark.parametrize("depth", [2, 6])
def test_batch_norm_is_recorded_as_smoother_once_training_has_begun(depth):
    for units in experiments.UNITS:
        assert (experiments.ratios(depth, units)[:, 2:] > 1).all()


def test_the_mean_alone_is_recorded_as_smoothest_and_the_deviation_as_roughest_at_the_start():
    depths = experiments.record()["full"]["depths"]
    for depth in (2, 6, 10):
        for measure in experiments.UNITS:
            found = {
                kind: np.median(np.array(depths[f"{kind}, {depth}"][measure])[:, 0])
                for kind in experiments.KINDS
            }
            assert min(found, key=found.get) == "mean only"
            assert max(found, key=found.get) == "variance only"


def test_each_kind_is_recorded_at_a_rate_inside_its_grid():
    chosen = studies.best(experiments.record()["full"]["tuned"]["rates"], "last", smaller=True)
    assert not chosen.at_an_end.any()
    curves = experiments.record()["full"]["tuned"]["curves"]
    assert curves.learning_rate.equals(chosen.learning_rate)
    rates = curves.learning_rate
    for smooth in ("batch norm", "mean only"):
        for rough in ("no batch norm", "variance only"):
            assert (rates.sel(kind=smooth) >= 2 * rates.sel(kind=rough)).all()


@pytest.mark.parametrize("depth", [2, 6, 10])
def test_the_kinds_that_subtract_the_mean_are_recorded_as_far_ahead_after_100_steps(depth):
    for smooth in ("batch norm", "mean only"):
        for rough in ("no batch norm", "variance only"):
            found = experiments.tuned_ratio(smooth, rough, depth, 100)
            assert found.high < 0.55
            assert 1 / 14 < found.mean < 1 / 4
            assert experiments.tuned_ratio(rough, smooth, depth, 100).mean == pytest.approx(
                1 / found.mean, rel=64 * EPS
            )


def test_the_lead_is_recorded_as_lost_in_deeper_networks():
    for depth in (6, 10):
        found = experiments.tuned_ratio("batch norm", "no batch norm", depth, 800)
        assert found.low < 1 < found.high
    assert experiments.tuned_ratio("batch norm", "no batch norm", 2, 800).high < 0.2


def above_one(depth, measure, kinds=experiments.KINDS[:2]):
    return (experiments.ratios(depth, measure, kinds=kinds)[:, 2:] > 1).sum()


def test_the_relative_change_is_recorded_as_smaller_with_batch_norm_in_shallow_networks_only():
    assert [above_one(depth, "change") for depth in (2, 6, 10)] == [35, 30, 17]
    assert (experiments.ratios(6, "change")[:, -1] < 1).sum() == 3


def test_dividing_by_the_deviation_is_recorded_as_smoothing_in_deep_networks_only():
    kinds = ("no batch norm", "variance only")
    for units in experiments.UNITS:
        assert above_one(2, units, kinds) < 35 / 2
        assert min(above_one(depth, units, kinds) for depth in (6, 10)) > 35 / 2
    assert max(above_one(depth, "change", kinds) for depth in (6, 10)) < 35 / 2


def test_the_mean_alone_is_recorded_as_smoother_than_no_batch_norm():
    for depth in (2, 6, 10):
        for measure in (*experiments.UNITS, "change"):
            kinds = ("no batch norm", "mean only")
            assert np.median(experiments.ratios(depth, measure, kinds=kinds)[:, 2:]) > 1.3


def test_the_loss_is_recorded_as_ranging_farther_with_batch_norm_at_the_start_only():
    for depth in (2, 6, 10):
        assert (experiments.ratios(depth, "range")[:, 0] < 1).all()
    assert [above_one(depth, "range") for depth in (2, 6, 10)] == [33, 35, 35]


def test_two_of_three_deep_networks_without_batch_norm_end_in_a_spike():
    losses = np.array(experiments.record()["full"]["depths"]["no batch norm, 6"]["loss"])[:3]
    assert list(losses[:, -1] > 3 * losses[:, -2]) == [False, True, True]


def test_a_vgg_without_batch_norm_is_recorded_as_smoother_but_for_the_relative_change():
    plain, normalised = (experiments.record()["full"]["vgg"][k] for k in experiments.KINDS[:2])
    for units in experiments.UNITS:
        assert np.max(plain[units]) < np.min(normalised[units])
    assert np.min(plain["change"]) > np.max(normalised["change"])
    assert np.min(plain["loss"]) > 2.2


@pytest.mark.parametrize("depth", [2, 10])
@pytest.mark.parametrize("when", ["start", "end"])
def test_recorded_densities_end_where_the_recorded_spectra_end(depth, when):
    for kind in experiments.KINDS[:2]:
        ends = experiments.record()["full"]["depths"][f"{kind}, {depth}"]
        found = experiments.recorded_density(kind, depth, when)
        assert len(found) == 3
        for seed, one in enumerate(found):
            assert one.nodes.shape == one.weights.shape == (2, 40)
            np.testing.assert_allclose(one.weights.sum(axis=1), 1, rtol=40 * EPS)
            span = ends[f"largest at {when}"][seed] - ends[f"smallest at {when}"][seed]
            for name, node in (("largest", one.nodes.max()), ("smallest", one.nodes.min())):
                assert abs(node - ends[f"{name} at {when}"][seed]) < 0.01 * span


def test_eigenvalues_are_counted_on_both_sides():
    assert experiments.parameters(2) == 64 * 50 + 50 * 50 + 50 * 10
    assert (experiments.outside("batch norm", 2, "start", 1e-9).sum(axis=1) == 6200).all()
    high, low = experiments.outside("no batch norm", 2, "end").T
    assert ((high >= 10) & (high <= 12)).all()
    assert (low == 0).all()


def test_a_walk_from_where_nothing_slopes_is_not_a_number():
    _, x, y = experiments.digits()
    model = experiments.network("no batch norm", 2, 0)
    with torch.no_grad():
        model.norm2.bias.fill_(-1e6)
    found = experiments.walk(model, x, y)
    assert found.shape == (2, 5, 5)
    assert np.isnan(found).all()


def test_ratios_at_equal_loss_interpolate_between_records():
    found = experiments.ratios(2, "absolute", at_equal_loss=True)
    plain, normalised = (
        {k: np.array(v) for k, v in experiments.record()["full"]["depths"][f"{kind}, 2"].items()}
        for kind in experiments.KINDS[:2]
    )
    for seed in range(len(found)):
        reached = (normalised["loss"][seed] >= plain["loss"][seed].min()) & (
            normalised["loss"][seed] <= plain["loss"][seed].max()
        )
        np.testing.assert_array_equal(np.isfinite(found[seed]), reached)
        low, high = plain["absolute"][seed].min(), plain["absolute"][seed].max()
        theirs = (found[seed] * normalised["absolute"][seed])[reached]
        assert ((low * 0.999 <= theirs) & (theirs <= high * 1.001)).all()


@pytest.mark.parametrize("kind", ["batch norm", "no batch norm"])
def test_levels_are_those_of_the_identity(kind):
    _, x, y = experiments.digits()
    model = experiments.network(kind, 2, 3).double()
    levels = experiments.level_share(model, x.double(), y)
    slopes = []
    hooks = [
        layer.register_full_backward_hook(lambda layer, into, out: slopes.append(out[0].numpy()))
        for layer in model.modules()
        if isinstance(layer, experiments.Partial)
    ]
    nn.functional.cross_entropy(model(x.double()), y).backward()
    for hook in hooks:
        hook.remove()
    for share, g in zip(levels, slopes[::-1], strict=True):
        flat = np.broadcast_to(g.mean(axis=0), g.shape)
        expected = (flat**2).sum() / (g**2).sum()
        assert share == pytest.approx(expected, abs=len(g) * EPS)
        # The level is a projection: what is left is orthogonal to it.
        assert share < 0.05 or kind == "batch norm"


def test_the_negative_end_is_recorded_as_longer_with_batch_norm_at_the_start():
    full = experiments.record()["full"]["depths"]
    for depth, low, high in ((2, 1.29, 1.42), (6, 1.0, 2.0), (10, 2.0, 7.5)):
        plain, batch = (
            np.array(full[f"{kind}, {depth}"]["smallest at start"])
            for kind in experiments.KINDS[:2]
        )
        assert low < (batch / plain).min() < (batch / plain).max() < high


def test_rows_of_the_walks_are_what_a_walk_finds(kept):
    _, x, y = experiments.digits()
    model = experiments.network("batch norm", 2, 1)
    found = landscape.along_gradient(model, x, y, experiments.MOVES, "relative")
    walks = kept["batch norm"]
    # Losses in float32, of which all others are differences.
    rounding = 1000 * SINGLE
    np.testing.assert_allclose(walks.row("relative", "loss")[1, 0], found.losses, rtol=rounding)
    smoothness = walks.smoothness("relative")[1, 0]
    np.testing.assert_allclose(smoothness, found.smoothness, rtol=10 * rounding)
    change = found.changes / found.slope
    np.testing.assert_allclose(walks.relative_change("relative")[1, 0], change, rtol=10 * rounding)
    absolute = landscape.along_gradient(model, x, y, experiments.RATES)
    losses = np.append(absolute.losses, absolute.loss)
    np.testing.assert_allclose(walks.loss_range()[1, 0], np.ptp(losses), rtol=10 * rounding)
    assert list(walks.steps) == [0, 10, 20]


@pytest.mark.parametrize("training", [True, False])
def test_gradients_are_taken_without_dropout_and_leave_modes_as_they_are(training):
    _, x, y = experiments.digits()
    model = experiments.network("batch norm", 2, 0)
    expected = experiments.gradient_of(model, x, y), experiments.removed_share(model, x, y)
    dropping = nn.Sequential(model, nn.Dropout(0.5)).train(training)
    found = experiments.gradient_of(dropping, x, y), experiments.removed_share(dropping, x, y)
    for ours, theirs in zip([found[0], *found[1]], [expected[0], *expected[1]], strict=True):
        rounding = 64 * SINGLE * np.abs(theirs).max()
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=rounding)
    assert {module.training for module in dropping.modules()} == {training}
