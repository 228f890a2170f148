"""The smoothness chapter's experiments, its recorded run and its figures."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance
from torch import nn

from bncore.chapters.explanations.smoothness import experiments, figures, full_size
from bncore.explanations import smoothness, spectrum
from bncore.lab import data, networks, recorded
from bncore.mechanics import projection


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def kept():
    return {
        kind: experiments.walks(kind, 2, (0, 1), 20, 10)[0] for kind in experiments.KINDS[:2]
    }  # fmt: skip


@pytest.mark.parametrize("shape", [(12, 3), (6, 3, 2, 2)])
def test_the_whole_is_torchs_batch_norm_and_nothing_is_a_bias(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3 + 1
    theirs = (nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d)(3)
    assert torch.allclose(experiments.Partial(3, True, True)(x), theirs(x), atol=1e-6)
    nothing = experiments.Partial(3, False, False)
    assert torch.equal(nothing(x), x)
    assert [name for name, _ in nothing.named_parameters()] == ["bias"]


def test_the_halves_do_half_each():
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) * 3 + 1
    centred = experiments.Partial(3, True, False)(x)
    assert torch.allclose(centred, x - x.mean(0))
    scaled = experiments.Partial(3, False, True)(x)
    assert torch.allclose(scaled.std(0, unbiased=False), torch.ones(3), atol=1e-4)
    assert (scaled.mean(0).abs() > 0.1).any()


def test_all_kinds_start_from_the_same_weights():
    states = [experiments.network(kind, 2, 5).state_dict() for kind in experiments.KINDS]
    states_vgg = [experiments.small_vgg(kind, 11, 5).state_dict() for kind in experiments.KINDS[:2]]
    for group in (states, states_vgg):
        for name in (n for n in group[0] if n.endswith("weight") and "norm" not in n):
            for state in group:
                assert torch.equal(state[name], group[0][name]), name


def test_rows_of_the_walks_are_what_a_walk_finds(kept):
    _, x, y = experiments.digits()
    model = experiments.network("batch norm", 2, 1)
    found = smoothness.along_gradient(model, x, y, experiments.MOVES, "relative")
    walks = kept["batch norm"]
    np.testing.assert_allclose(walks.row("relative", "loss")[1, 0], found.losses, rtol=1e-4)
    np.testing.assert_allclose(walks.smoothness("relative")[1, 0], found.smoothness, rtol=1e-3)
    change = found.changes / found.slope
    np.testing.assert_allclose(walks.relative_change("relative")[1, 0], change, rtol=1e-3)
    absolute = smoothness.along_gradient(model, x, y, experiments.RATES)
    losses = np.append(absolute.losses, absolute.loss)
    np.testing.assert_allclose(walks.loss_range()[1, 0], np.ptp(losses), rtol=1e-3)
    assert list(walks.steps) == [0, 10, 20]


@pytest.mark.parametrize("case", list(experiments.quadratics(5, seed=9)))
def test_quadratics_have_the_gradient_they_say(case):
    z = torch.tensor(case.z, requires_grad=True)
    loss = z @ torch.tensor(case.H) @ z / 2 + torch.tensor(case.b) @ z
    np.testing.assert_allclose(torch.autograd.grad(loss, z)[0].numpy(), case.g, atol=1e-12)
    assert float(case.loss(torch.tensor(case.y))) == pytest.approx(loss.item())
    h = 1e-5
    numeric = [
        (case.loss(torch.tensor(case.y + h * e)) - case.loss(torch.tensor(case.y - h * e)))
        / (2 * h)
        for e in np.eye(len(case.y))
    ]
    size = np.abs(case.slope()).max() + np.abs(case.g).max() / case.y.std()
    np.testing.assert_allclose(numeric, case.slope(), atol=1e-5 * size)


def test_convex_quadratics_are_convex():
    for case in experiments.quadratics(20, convex=True):
        assert np.linalg.eigvalsh(case.H)[0] > -1e-12


def test_the_worst_inputs_have_norm_one_and_a_slope_that_grows_like_one_over_t():
    plain, normalised = zip(*(experiments.worst_inputs(t) for t in (1e-2, 1e-4)), strict=True)
    assert normalised[1] / normalised[0] == pytest.approx(1e4, rel=1e-3)
    assert max(plain) <= 1 / 8


@pytest.mark.parametrize("bias", [True, False])
def test_the_optimum_of_a_unit_has_no_slope_and_no_better_neighbour(bias):
    rng = np.random.default_rng(0)
    unit = experiments.Unit(rng.normal(size=(12, 2)) + 1, 2 * rng.normal(size=12))
    _, outputs = unit.optimum(bias)
    slopes = unit.X.T @ unit.slopes(outputs)
    np.testing.assert_allclose(slopes, 0, atol=1e-10)
    if bias:
        assert unit.slopes(outputs).sum() == pytest.approx(0, abs=1e-10)
    for _ in range(50):
        move = unit.X @ (0.1 * rng.normal(size=2)) + bias * 0.1 * rng.normal()
        assert unit.losses(outputs + move) >= unit.losses(outputs)


def test_the_best_angles_are_the_lowest_of_a_fine_grid():
    rng = np.random.default_rng(1)
    unit = experiments.Unit(rng.normal(size=(12, 2)) + 1, 2 * rng.normal(size=12))
    found = unit.best_angles(1.3, 0.2)
    grid = np.linspace(-np.pi, np.pi, 20001)
    values = unit.at(grid, 1.3, 0.2)
    assert min(unit.at(a, 1.3, 0.2) for a in found) <= values.min() + 1e-12
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
    assert (excess.max() > 0.01) if broken else (np.abs(excess).max() < 1e-9)


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
    np.testing.assert_allclose(found[0], 1 - surviving, atol=1e-9)
    np.testing.assert_allclose(found[2], 1 / batch.var(axis=0)[alive])
    tilt = (g * (batch - batch.mean(axis=0))).sum(axis=0)[alive]
    assert (np.sign(found[1]) == np.sign(tilt)).all()


def test_ends_are_those_of_the_dense_matrix():
    _, x, y = experiments.digits()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(64, 4, bias=False), experiments.Partial(4, True, True), nn.ReLU(),
            nn.Linear(4, 10),
        ).double()  # fmt: skip
    found = experiments.ends(model, x.double(), y, "relative", tol=1e-8)
    operator = spectrum.hessian_operator(model, x.double(), y, "relative")
    values, vectors = np.linalg.eigh(operator.matmat(np.eye(operator.shape[0])))
    assert found.smallest == pytest.approx(values[0], rel=1e-5)
    assert (found.largest, found.tenth) == pytest.approx((values[-1], values[-10]), rel=1e-5)
    slope = experiments.gradient_of(model, x.double(), y, "relative")
    shares = (vectors.T @ slope) ** 2 / (slope @ slope)
    assert found.concentration == pytest.approx(shares[-10:].sum(), abs=1e-6)
    assert found.along == pytest.approx(shares @ values, rel=1e-6)


def test_small_spectra_agree_with_their_quadratures():
    for eigenvalues, runs in experiments.small_spectra(30, width=4, taught=10).values():
        found = figures.quadratures(runs, 30)
        np.testing.assert_allclose(
            found.nodes[:, [0, -1]], np.tile(eigenvalues[[0, -1]], (4, 1)), rtol=1e-4
        )
        for power in (1, 2, 3):
            assert experiments.standard_errors(found, eigenvalues, power) < 4
        apart = wasserstein_distance(found.nodes.ravel(), eigenvalues, found.weights.ravel() / 4)
        assert apart < 0.02 * np.ptp(eigenvalues)


def test_the_recorded_run_repeats_at_its_reduced_size():
    found, stored = full_size.run(full_size.REDUCED), experiments.record()["reduced"]
    assert experiments.record()["configuration"] == full_size.CONFIGURATION
    # Twenty steps in float32: other processors round differently, and training amplifies it.
    for group in ("depths", "rates", "plateau"):
        assert set(found[group]) == set(stored[group])
        for name, theirs in stored[group].items():
            for measure, values in theirs.items():
                np.testing.assert_allclose(
                    np.array(found[group][name][measure], dtype=float),
                    np.array(values, dtype=float),
                    rtol=0.05, atol=0.02, err_msg=f"{name}: {measure}",
                )  # fmt: skip
    assert set(found["densities"]) == set(stored["densities"])
    for name, theirs in stored["densities"].items():
        for when in ("start", "end"):
            ours, kept_nodes = (
                np.array(run[f"nodes at {when}"]) for run in (found["densities"][name], theirs)
            )
            # Nodes inside the bulk are not well determined; the ends of every quadrature are.
            np.testing.assert_allclose(
                ours[..., [0, -1]], kept_nodes[..., [0, -1]], rtol=0.05, atol=0.02
            )


@pytest.mark.parametrize("depth", [2, 6])
def test_batch_norm_is_recorded_as_smoother_once_training_has_begun(depth):
    for units in experiments.UNITS:
        assert (experiments.ratios(depth, units)[:, 2:] > 1).all()


def test_the_mean_alone_is_recorded_as_smoothest_and_the_deviation_as_roughest_at_the_start():
    for depth in (2, 6, 10):
        for measure in experiments.UNITS:
            found = experiments.at_step(0, depth, measure)
            assert min(found, key=found.get) == "mean only"
            assert max(found, key=found.get) == "variance only"


def lowest(step, depth, measure):
    found = experiments.at_step(step, depth, measure)
    return min(found, key=found.get)


def test_the_smoothest_is_recorded_as_not_the_fastest_at_step_100():
    for depth in (2, 6, 10):
        assert lowest(100, depth, "absolute") == lowest(100, depth, "relative") == "mean only"
        assert lowest(100, depth, "loss") == "batch norm"


def test_batch_norm_is_recorded_as_catching_up_with_the_mean_alone_by_the_end():
    assert all(lowest(200, depth, "loss") == "batch norm" for depth in (2, 6, 10))
    assert lowest(200, 2, "relative") == "mean only"
    assert [lowest(200, depth, "relative") for depth in (6, 10)] == ["batch norm"] * 2
    assert lowest(200, 10, "absolute") == "batch norm"


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
            np.testing.assert_allclose(one.weights.sum(axis=1), 1)
            span = ends[f"largest at {when}"][seed] - ends[f"smallest at {when}"][seed]
            for name, node in (("largest", one.nodes.max()), ("smallest", one.nodes.min())):
                assert abs(node - ends[f"{name} at {when}"][seed]) < 0.01 * span


def test_densities_are_those_of_the_networks_that_were_trained():
    _, x, y = experiments.digits()
    steps = {"steps": 3, "density_depths": [2], "lanczos": [12, 3], "spectrum_seeds": [4]}
    found = full_size.densities({**full_size.REDUCED, **steps})["batch norm, 2"]
    _, (model,) = experiments.walks("batch norm", 2, (4,), 3, 3)
    for when, network in (("start", experiments.network("batch norm", 2, 4)), ("end", model)):
        ours = spectrum.lanczos(spectrum.hessian_operator(network, x, y), 12, 3, seed=4)
        np.testing.assert_allclose(found[f"nodes at {when}"], [ours.nodes], rtol=1e-2, atol=1e-3)
        np.testing.assert_allclose(found[f"weights at {when}"], [ours.weights], atol=1e-3)


def test_eigenvalues_are_counted_on_both_sides():
    assert experiments.parameters(2) == 64 * 50 + 50 * 50 + 50 * 10
    assert (experiments.outside("batch norm", 2, "start", 1e-9).sum(axis=1) == 6200).all()
    high, low = experiments.outside("no batch norm", 2, "end").T
    assert ((high >= 10) & (high <= 12)).all()
    assert (low == 0).all()


def test_the_command_for_the_papers_size_walks_in_its_networks(small_images, monkeypatch, tmp_path):
    small = {"width": 2, "hidden": [4], "seeds": [0, 3], "steps": 4, "every": 2, "rates": [0.02]}
    small |= {"batch_size": 8, "walk_on": 16, "device": "cpu"}
    monkeypatch.setattr(full_size, "PAPER", full_size.PAPER | small)
    monkeypatch.setattr(experiments, "RECORDED", tmp_path / "recorded.json")
    full_size.main(["--paper", "--cache", "somewhere"])
    kept = recorded.load(tmp_path / "paper.json")
    assert small_images == [("cifar10", "somewhere")]
    assert kept["configuration"] == full_size.PAPER
    assert set(kept["full"]) == {"no batch norm, 0.02", "batch norm, 0.02"}
    one = kept["full"]["batch norm, 0.02"]
    assert one["steps"] == [0, 2, 4]
    model = experiments.vgg("batch norm", 11, 3, width=2, hidden=[4])
    split = data.openml("cifar10")
    found = smoothness.along_gradient(
        model, split.x_train[:16], split.y_train[:16], experiments.RATES
    )
    assert one["absolute"][1][0] == pytest.approx(found.smoothness, rel=1e-2)
    assert one["loss"][1][0] == pytest.approx(found.loss, rel=1e-3)


def test_the_papers_network_is_a_vgg_of_full_width():
    c = full_size.PAPER
    with torch.device("meta"):
        model = networks.vgg(c["depth"], width=c["width"], hidden=c["hidden"])
    widths = [p.shape[0] for p in smoothness.weights(model).values()]
    assert widths == [64, 128, 256, 256, 512, 512, 512, 512, 512, 10]
    assert set(c["kinds"]) == set(experiments.KINDS[:2])
    assert c["steps"] % c["every"] == 0


def test_a_walk_from_where_nothing_slopes_is_not_a_number():
    _, x, y = experiments.digits()
    model = experiments.network("no batch norm", 2, 0)
    with torch.no_grad():
        model.norm2.bias.fill_(-1e6)
    found = experiments.walk(model, x, y)
    assert found.shape == (2, 5, 5)
    assert np.isnan(found).all()


def test_the_densities_can_be_repeated_alone(monkeypatch, tmp_path):
    path = tmp_path / "recorded.json"
    before = experiments.record()
    recorded.save(path, **{part: before[part] for part in ("configuration", "full", "reduced")})
    monkeypatch.setattr(experiments, "RECORDED", path)
    monkeypatch.setattr(full_size, "densities", lambda configuration: {"new": 1})
    full_size.main(["--densities"])
    after = recorded.load(path)
    for part in ("full", "reduced"):
        assert after[part] == {**before[part], "densities": {"new": 1}}


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


@pytest.mark.parametrize("units", ["learning rate", "share of weights"])
def test_along_draws_every_seed(kept, units):
    fig = figures.along(kept, 10, units)
    below = fig.axes[1]
    drawn = {line.get_label(): line.get_ydata() for line in below.lines}
    unit = "absolute" if units == "learning rate" else "relative"
    for kind, walks in kept.items():
        np.testing.assert_allclose(
            drawn[kind], walks.relative_change(unit)[:, 1].mean(axis=0)
        )  # fmt: skip


def test_removed_draws_the_terms_of_the_identity():
    bars = figures.removed(0.5, 1.0).axes[0].patches
    widths = [bar.get_width() for bar in bars]
    assert widths == pytest.approx([1.0, 0.25, 1.0, 1.0, 4.0])


def test_both_networks_see_the_same_outputs_at_deviation_one():
    fig = figures.bowl_and_fan(1.0)
    assert all(ax.lines[0].get_xydata().shape == (1, 2) for ax in fig.axes)
    lengths = [float(ax.get_title().rsplit(" ", 1)[1]) for ax in fig.axes]
    assert lengths[1] <= lengths[0]
    near = float(figures.bowl_and_fan(0.4).axes[1].get_title().rsplit(" ", 1)[1])
    assert near == pytest.approx(lengths[1] / 0.4, abs=0.2)


def test_figures_of_the_record_are_drawn():
    for depth in (2, 6, 10):
        for units in experiments.UNITS:
            assert len(figures.over_training(depth, units).axes[0].lines) == 4
        for line, kind in zip(
            figures.loss_ranges(depth).axes[0].lines, experiments.KINDS[:2], strict=True
        ):
            kept = experiments.record()["full"]["depths"][f"{kind}, {depth}"]["range"]
            np.testing.assert_allclose(line.get_ydata(), np.mean(kept, axis=0))
    assert len(figures.learning_rates().axes[0].lines) == 3
    assert len(figures.spectrum_ends().axes) == 2


@pytest.mark.parametrize("when", ["start", "end"])
def test_recorded_densities_are_drawn_with_their_counts(when):
    above, below = figures.recorded_densities(2, when).axes
    for line, counted, kind in zip(above.lines, below.lines, experiments.KINDS[:2], strict=True):
        grid, density = line.get_data()
        assert np.trapezoid(density, grid) == pytest.approx(1, rel=0.02)
        found = experiments.recorded_density(kind, 2, when)
        at = len(grid) // 2
        shares = [(one.weights * (one.nodes > grid[at])).sum() / 2 for one in found]
        assert counted.get_ydata()[at] == pytest.approx(6200 * np.mean(shares), abs=1e-6)


def test_the_density_is_that_of_the_first_steps():
    found = experiments.small_spectra(10, probes=2, width=4, taught=2)
    fig = figures.density(found, 5, "batch norm")
    estimate = figures.quadratures(found["batch norm"][1], 5)
    assert estimate.nodes.shape == (2, 5)
    whole = figures.quadratures(found["batch norm"][1], 10)
    for power in range(10):
        np.testing.assert_allclose(estimate.moments(power), whole.moments(power), rtol=1e-8)
    line = fig.axes[0].lines[0]
    width = 0.02 * np.ptp(found["batch norm"][0])
    np.testing.assert_allclose(
        line.get_ydata(), estimate.density(line.get_xdata(), width).mean(axis=0)
    )


def inside(ax):
    """Whether every line and band of a panel is on the paper."""
    low, high = ax.get_ylim()
    drawn = [line.get_ydata() for line in ax.lines]
    drawn += [path.vertices[:, 1] for band in ax.collections for path in band.get_paths()]
    values = np.concatenate([np.asarray(some, dtype=float).ravel() for some in drawn])
    return ((low <= values) & (values <= high)).all()


@pytest.mark.parametrize("depth", [2, 6, 10])
def test_no_recorded_curve_leaves_the_paper(depth):
    for fig in (
        *(figures.over_training(depth, units) for units in experiments.UNITS),
        figures.loss_ranges(depth),
        figures.learning_rates(),
    ):
        assert all(map(inside, fig.axes))
        plt.close(fig)


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
        assert share == pytest.approx((flat**2).sum() / (g**2).sum())
        # The level is a projection: what is left is orthogonal to it.
        assert share < 0.05 or kind == "batch norm"


def test_the_gradient_is_recorded_among_the_largest_eigenvectors_at_high_rates():
    kept = experiments.record()["full"]["rates"]
    for rate, low, high in ((0.1, 0.15, 0.25), (0.2, 0.45, 0.6), (0.4, 0.7, 0.81)):
        shares = kept[f"batch norm, {rate:g}"]["concentration at end"]
        assert low < min(shares) <= max(shares) < high


def test_the_largest_eigenvalue_is_recorded_near_the_edge_at_high_rates_only():
    kept = experiments.record()["full"]["rates"]
    for rate, low, high in ((0.05, 0.3, 0.37), (0.1, 0.45, 0.75), (0.2, 0.5, 1.1), (0.4, 0.6, 1.3)):
        largest = np.array(kept[f"no batch norm, {rate:g}"]["largest at end"]) * rate / 2
        assert low < largest.min() < largest.max() < high
        factor = np.mean(kept[f"no batch norm, {rate:g}"]["largest at end"]) / np.mean(
            kept[f"batch norm, {rate:g}"]["largest at end"]
        )
        assert 8 < factor < 11.5


def test_the_negative_end_is_recorded_as_longer_with_batch_norm_at_the_start():
    full = experiments.record()["full"]["depths"]
    for depth, low, high in ((2, 1.29, 1.42), (6, 1.0, 2.0), (10, 2.0, 7.5)):
        plain, batch = (
            np.array(full[f"{kind}, {depth}"]["smallest at start"])
            for kind in experiments.KINDS[:2]
        )
        assert low < (batch / plain).min() < (batch / plain).max() < high


def test_the_curvature_along_the_gradient_is_recorded_below_a_third_of_the_largest():
    full = experiments.record()["full"]["depths"]
    for depth in (2, 6, 10):
        kept = full[f"batch norm, {depth}"]
        shares = np.array(kept["along at start"]) / np.array(kept["largest at start"])
        assert shares.max() < 1 / 3
