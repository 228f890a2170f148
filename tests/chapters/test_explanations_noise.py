"""The noise chapter's experiments against theory, its recorded run, and its figures."""

import copy

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn
from torch.nn.functional import cross_entropy

from bncore.chapters.explanations.noise import exercises, experiments, figures, full_size
from bncore.explanations import noise, uncertainty, variance_shift
from bncore.explanations.noise import GaussianOutput
from bncore.lab import data, inference, networks, probes, recorded

seeds = st.integers(0, 10**6)


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def full():
    return experiments.record()["full"]


def close(found, kept, path=""):
    """Whether two nested results agree; float32 sums in another order differ by less than 0.02."""
    if isinstance(kept, dict):
        assert set(found) == set(kept), path
        for key in kept:
            close(found[key], kept[key], f"{path}/{key}")
        return
    kept = np.array(kept, dtype=float)
    counts = "/bins" in path  # A single answer may cross into the next bin of the confidence.
    if counts:
        np.testing.assert_allclose(found[2].sum(), kept[2].sum(), err_msg=path)
        assert np.abs(found[2] - kept[2]).sum() <= 0.05 * kept[2].sum(), path
    else:
        np.testing.assert_allclose(found, kept, atol=0.02, rtol=0.02, err_msg=path)


def test_the_reduced_run_is_what_was_recorded():
    close(full_size.run(full_size.REDUCED), recorded.load(experiments.RECORD)["reduced"])


def test_the_record_is_of_the_full_configuration(full):
    assert recorded.load(experiments.RECORD)["configuration"] == full_size.CONFIGURATION
    part, count = full_size.CONFIGURATION["noise"], full_size.CONFIGURATION["seeds"]
    records = part["steps"] // part["every"] + 1
    for runs in full["noise"].values():
        assert set(runs) == set(experiments.arms(part["batch"], part["small"]))
        for values in runs.values():
            assert values.shape == (count, records, 3)


def test_seeds_and_arms_are_paired(full):
    starts = {name: runs[:, 0] for name, runs in full["noise"]["0.0"].items() if "no " not in name}
    first = starts.pop("whole batch")
    for values in starts.values():
        np.testing.assert_array_equal(values, first)


@pytest.mark.parametrize(("z", "m"), [(0, 4), (1, 16), (3, 8)])
def test_companies_follow_the_exact_distribution(z, m):
    assert stats.kstest(experiments.companies(z, m), GaussianOutput(z, m).cdf).pvalue > 1e-3


@pytest.mark.parametrize("name", list(experiments.populations()))
def test_measured_scatter_is_the_exact_one(name):
    sizes = [2, 8, 64, 128]
    measured, exact = experiments.batch_statistics(experiments.populations()[name], sizes)
    for way, values in measured.items():
        expected = exact[way][:, np.array(sizes) - sizes[0]]
        np.testing.assert_allclose(values, expected, rtol=0.2)


@given(st.floats(0.1, 1), st.floats(-2, 2), st.floats(0, 16))
def test_alike_inputs_have_the_formula_of_the_chapter(keep, mean, pull):
    ones = 1 + pull
    expected = ones / ((1 + (1 - keep) * mean**2) / keep + pull)
    assert experiments.alike(keep, mean, pull) == pytest.approx(expected)


@pytest.mark.parametrize(("mean", "pull"), [(0, 0), (1, 4), (2, 4)])
def test_the_measured_shift_is_the_predicted_one(mean, pull):
    found = experiments.measured_shift(0.4, mean, pull)
    expected = (variance_shift.direct(0.4, mean, 1.0), experiments.alike(0.4, mean, pull))
    np.testing.assert_allclose(found, expected, rtol=0.06)


def test_the_loss_of_the_first_examples():
    scores, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    found = experiments.first_examples(scores, labels, 2)
    torch.testing.assert_close(found, cross_entropy(scores[:2], labels[:2]))


def test_pixel_noise_belongs_to_the_data():
    clean, noisy, again = (experiments.digits(3, level) for level in (0.0, 0.3, 0.3))
    apart = noisy.x_train - clean.x_train
    assert apart.std().item() == pytest.approx(0.3, rel=0.02)
    assert torch.equal(noisy.x_test, again.x_test)
    assert torch.equal(noisy.y_train, clean.y_train)
    assert len(clean.x_train) < 0.26 * (len(clean.x_train) + len(clean.x_test))


def test_digits_turned_by_a_right_angle():
    x = experiments.digits(0).x_test[:5]
    expected = torch.rot90(x.reshape(-1, 8, 8), 1, (1, 2)).reshape(-1, 64)
    torch.testing.assert_close(experiments.rotated(x, 90), expected, atol=1e-5, rtol=0)
    assert torch.equal(experiments.rotated(x, 0), x)


def test_images_turned_by_a_right_angle():
    x = torch.randn(4, 3, 6, 6)
    turned = experiments.rotated(x, 90)
    torch.testing.assert_close(turned, torch.rot90(x, 1, (2, 3)), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("make", "inside", "last"),
    [
        (experiments.DEEPER_DIGITS.network, ["activation1", "activation2"], "activation3"),
        (
            lambda norm, seed: networks.vgg(11, norm, width=2, hidden=[4], seed=seed),
            [f"activation{i}" for i in range(1, 9)],
            "activation9",
        ),
        (
            lambda norm, seed: networks.residual(1, 4, norm, stages=2, seed=seed),
            ["activation1", "block1.body.activation1", "block2.body.activation1"],
            "flatten",
        ),
    ],
)
@pytest.mark.parametrize("where", ["before batch norms", "after the last one"])
def test_dropout_stands_where_it_should(make, inside, last, where):
    model, plain = make("batch", 3), make("batch", 3)
    experiments.add_dropout(model, 0.4, where)
    names = [name for name, m in model.named_modules() if not isinstance(m, nn.Dropout)]
    assert names == [name for name, _ in plain.named_modules()]
    # The module before each dropout, in the same chain.
    before = [
        f"{path}.{name}".lstrip(".")
        for path, part in model.named_modules()
        if isinstance(part, nn.Sequential)
        for (name, _), after in zip([*part.named_children()], [*part][1:], strict=False)
        if isinstance(after, nn.Dropout)
    ]
    assert before == (inside if where == "before batch norms" else [last])
    assert {m.p for m in model.modules() if isinstance(m, nn.Dropout)} == {0.4}
    for name, value in plain.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)


def test_fitting_again_is_without_dropout_and_keeps_the_network():
    model, split = experiments.with_dropout(0.5, "before batch norms", steps=5, seed=0, batch=32)
    before = model.norm2.running_var.clone()
    fitted = experiments.refit(model, split.x_train)
    quiet = nn.Sequential(*(m for m in model if not isinstance(m, nn.Dropout)))
    x = split.x_train
    for layer in list(quiet.train())[:4]:
        x = layer(x)
    torch.testing.assert_close(fitted.norm2.running_var, x.var(0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(model.dropout1.p, 0.5)
    assert torch.equal(model.norm2.running_var, before)


def test_fitting_again_to_many_examples_is_in_batches(monkeypatch):
    model, x = networks.residual(1, 4, seed=1), torch.randn(50, 1, 8, 8)
    monkeypatch.setattr(probes, "PIECE", 20)
    found, expected = experiments.refit(model, x), inference.refitted(model, x, 20)
    whole = inference.refitted(model, x)
    for layer in ("norm1", "block1.body.norm2"):
        ours, theirs, other = (m.get_submodule(layer) for m in (found, expected, whole))
        assert torch.equal(ours.running_var, theirs.running_var)
        assert not torch.equal(ours.running_var, other.running_var)
        torch.testing.assert_close(ours.running_var, other.running_var, rtol=0.1, atol=0)


def test_the_command_for_the_papers_size_runs_its_configuration(
    small_images, monkeypatch, tmp_path
):
    small = copy.deepcopy(full_size.PAPER) | {"seeds": 2, "device": "cpu"}
    for part in ("noise", "sampling"):
        small[part]["network"] |= {"width": 2, "hidden": [4]}
    small["dropout"]["network"] |= {"blocks": 1, "width": 2, "stages": 2}
    small["noise"] |= {"steps": 2, "every": 1, "batch": 32, "small": 8}
    small["dropout"] |= {"steps": 2, "batch": 8, "keep": [0.5]}
    small["sampling"] |= {"steps": 2, "batch": 8, "draws": 2, "sizes": [4], "angles": [30]}
    monkeypatch.setattr(full_size, "PAPER", small)
    monkeypatch.setattr(experiments, "RECORD", tmp_path / "recorded.json")
    full_size.main(["--paper", "--cache", "somewhere"])
    assert small_images == [("cifar10", "somewhere")]
    assert not experiments.RECORD.exists()
    kept = recorded.load(tmp_path / "paper.json")
    assert kept["configuration"] == small
    runs = kept["full"]["noise"]["0.0"]
    assert set(runs) == set(experiments.arms(32, 8))
    assert {name.split()[0] for name in experiments.kinds_of_noise(runs)} == {
        "ghost", "borrowed", "injected",
    }  # fmt: skip
    split = data.standard_images("cifar10", "somewhere")
    model = networks.vgg(11, "batch", width=2, hidden=[4], seed=1)
    expected = [
        probes.test_accuracy(model, split),
        probes.loss("test")(model, split),
        probes.loss("train")(model, split),
    ]
    for arm in ("whole batch", "ghost 8", "borrowed 16", "batch of 8"):
        assert np.shape(runs[arm]) == (2, 3, 3)
        np.testing.assert_allclose(runs[arm][1][0], expected, atol=1e-4)
    assert runs["ghost 8"][1][-1] != runs["whole batch"][1][-1]
    assert set(kept["full"]["dropout"]) == {
        "none", "before batch norms, 0.5", "after the last one, 0.5",
    }  # fmt: skip
    assert np.isfinite(kept["full"]["dropout"]["before batch norms, 0.5"]).all()
    numbers = kept["full"]["sampling"]["0.0"]["numbers"]
    assert set(numbers) == {"running", "temperature", "sampled 4"}
    assert np.shape(numbers["sampled 4"]) == (2, 2, 3)
    assert np.sum(kept["full"]["sampling"]["0.0"]["bins"]["running"][2]) == 2 * 12


def test_the_papers_networks_are_of_full_size():
    ours, paper = full_size.CONFIGURATION, full_size.PAPER
    for part in ("noise", "dropout", "sampling"):
        assert paper[part].keys() - ours[part].keys() == {"network", "learning_rate"}
        assert ours[part].keys() < paper[part].keys()
    models = {}
    for part in ("noise", "dropout"):
        task = experiments.on_images("cifar10", device="cuda", **paper[part]["network"])
        assert task.device == "cuda"
        with torch.device("meta"):
            models[part] = task.network("batch", 0)
    kernels = [p for p in models["noise"].parameters() if p.ndim == 4]
    assert [len(p) for p in kernels] == [64, 128, 256, 256, 512, 512, 512, 512]
    assert kernels[0].shape[1] == 3
    body = [name for name, p in models["dropout"].named_parameters() if p.ndim == 4]
    # 18 in blocks, one before them; the paper's count of 20 adds the linear layer.
    assert sum("shortcut" not in name for name in body) == 19


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("digits", "vgg"), "source is 'digits', expected 'mnist' or 'cifar10'"),
        (("cifar10", "mlp"), "kind is 'mlp', expected 'vgg' or 'residual'"),
    ],
)
def test_networks_that_there_are_not_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        experiments.on_images(*arguments)


def test_paired_differences():
    runs = {"a": np.zeros((4, 2, 3)), "whole batch": np.zeros((4, 2, 3))}
    runs["a"][:, -1, 1] = [1.0, 2.0, 3.0, 4.0]
    mean, error = experiments.paired(runs, "a", "test loss")
    assert mean == 2.5
    assert error == pytest.approx(stats.sem([1, 2, 3, 4]))


def test_losses_at_equal_training_loss():
    steps = np.arange(5.0)
    runs = {
        name: np.stack([np.stack([0 * steps, level - speed * steps / 10, np.exp(-speed * steps)], 1)] * 2)
        for name, level, speed in (("fast", 1.1, 2.0), ("whole batch", 1.0, 1.0))
    }  # fmt: skip
    mean, error = experiments.at_training_loss(runs, "fast", np.exp(-2.5))
    assert mean == pytest.approx(0.1)
    assert error == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match=r"loss is 0.001, expected one that whole batch passes"):
        experiments.at_training_loss(runs, "fast", 0.001)


def test_pooled_differences_are_means_by_seed():
    rng = np.random.default_rng(0)
    names = ("whole batch", "ghost 8", "injected 8", "batch of 16")
    runs = {name: rng.normal(size=(5, 2, 3)) for name in names}
    assert experiments.kinds_of_noise(runs) == ["ghost 8", "injected 8"]
    apart = [runs[name][:, -1, 0] - runs["whole batch"][:, -1, 0] for name in names[1:3]]
    mean, error = experiments.pooled(runs, "test accuracy")
    assert mean == pytest.approx(np.mean(apart))
    assert error == pytest.approx(stats.sem((apart[0] + apart[1]) / 2))


def test_what_the_text_says_of_gains(full):
    clean, noisy = full["noise"]["0.0"], full["noise"]["0.3"]
    kinds = experiments.kinds_of_noise(clean)
    assert len(kinds) == 11
    found = [experiments.paired(clean, name, "test accuracy") for name in kinds]
    largest = {
        kind: max(mean for (mean, _), name in zip(found, kinds, strict=True) if kind in name)
        for kind in ("ghost", "borrowed")
    }
    assert round(100 * largest["ghost"], 2) == 0.22
    assert 0.33 <= round(100 * max(mean for mean, _ in found), 3) <= 0.335
    assert max(mean for mean, _ in found) == largest["borrowed"]
    assert 200 * min(error for _, error in found) > 0.09
    assert 200 * max(error for _, error in found) < 0.33
    mean, error = experiments.pooled(clean, "test accuracy")
    assert (round(100 * mean, 2), round(100 * error, 2)) == (0.15, 0.06)
    assert (clean["injected 8"][:, -1, 1] > clean["whole batch"][:, -1, 1]).all()
    costs = {name: experiments.paired(noisy, name, "test accuracy")[0] for name in kinds}
    assert min(costs, key=costs.get) == "ghost 8"
    assert round(100 * costs["ghost 8"], 1) == -2.4


def test_what_the_text_says_of_speed(full):
    runs = full["noise"]["0.3"]

    def kept(name, loss):
        end = experiments.paired(runs, name, "test loss")[0]
        return experiments.at_training_loss(runs, name, loss)[0] / end

    assert 0.8 < kept("ghost 8", 0.006) < 1
    assert kept("ghost 16", 0.006) == pytest.approx(0.5, abs=0.05)
    assert kept("ghost 32", 0.006) < 1 / 3
    assert 0.6 < kept("borrowed 32", 0.006) < 1
    assert 0.6 < kept("borrowed 64", 0.006) < 1
    assert kept("borrowed 16", 0.01) > 1
    assert kept("injected 8", 0.02) < 0
    assert kept("injected 16", 0.01) < 1 / 3
    assert kept("injected 32", 0.006) > 0.6
    for name in ("ghost 16", "ghost 32"):
        mean, error = experiments.at_training_loss(runs, name, 0.1)
        assert mean < -2 * error
    assert (runs["injected 8"][:, :, 2] > 0.01).all()
    for name, loss in (("injected 16", 0.01), ("injected 32", 0.006)):
        mean, error = experiments.at_training_loss(runs, name, loss)
        assert -2 * error < mean < 0
    own, injected = (
        experiments.at_training_loss(runs, f"{kind} 8", 0.02) for kind in ("ghost", "injected")
    )
    assert [round(mean, 3) for mean, _ in (own, injected)] == [0.037, 0.002]
    assert max(error for _, error in (own, injected)) < 0.01


def test_a_network_that_does_not_reach_a_training_loss():
    runs = {"a": np.ones((2, 3, 3))}
    runs["a"][0, 1, 2] = 0.1
    assert not experiments.reaches(runs, "a", 0.5)
    runs["a"][1, 2, 2] = 0.5
    assert experiments.reaches(runs, "a", 0.5)


def test_the_figures_of_trajectories_show_every_end(full):
    for runs in full["noise"].values():
        (ax,) = figures.trajectories(runs).axes
        left, right = ax.get_xlim()
        low, high = ax.get_ylim()
        assert len(ax.lines) == 5
        for line in ax.lines:
            x, y = line.get_xdata()[-1], line.get_ydata()[-1]
            assert left < x < right
            assert low < y < high


def test_the_names_of_values_leave_room_for_the_slider():
    assert set(experiments.populations()) == set(figures.POPULATIONS)
    assert max(map(len, experiments.populations())) <= 11


def test_a_misleading_digit():
    split = experiments.digits(0)
    model, _ = experiments.with_dropout(0.0, "before batch norms", steps=60, seed=0, batch=32)
    views, fixed, drawn = experiments.misleading(model, split, 30, [0, 30], (4, 16), draws=3)
    assert views.shape == (2, 64)
    assert drawn[4].shape == (3, 2, 10)
    np.testing.assert_allclose(drawn[16].sum(-1), 1, rtol=1e-5)
    assert fixed[0].argmax() != fixed[1].argmax()
    assert fixed[1].max() > 0.9


@given(seeds, st.integers(2, 4), st.floats(0.1, 1))
def test_the_exercise_on_ghost_batches_agrees_with_the_layer(seed, size, eps):
    x = np.random.default_rng(seed).normal(size=(3 * size, 2))
    layer = noise.GhostBatchNorm(2, size, eps=eps).double()
    answer = exercises.ghost_batches(x, size, eps)
    np.testing.assert_allclose(answer, layer(torch.tensor(x)).detach(), atol=1e-10)


@given(seeds, st.integers(2, 9), st.floats(1, 9), st.floats(0.1, 1))
def test_the_other_exercises_agree_with_the_package(seed, m, kurtosis, keep):
    assert exercises.variance_of_the_variance(m, 2.0, kurtosis) == pytest.approx(
        noise.variance_variance(m, 2.0, kurtosis)
    )
    rng = np.random.default_rng(seed)
    weight, mean, factor = rng.normal(size=3), rng.normal(size=3), rng.normal(size=(3, 3))
    covariance = factor @ factor.T
    assert exercises.variance_shift(keep, weight, mean, covariance) == pytest.approx(
        variance_shift.behind_weights(keep, weight, mean, covariance)
    )
    rows, labels = rng.dirichlet([1, 1, 1], size=20), rng.integers(3, size=20)
    found = uncertainty.calibration(torch.tensor(rows), torch.tensor(labels), m)
    right = (rows.argmax(1) == labels).astype(float)
    assert exercises.calibration_error(rows.max(1), right, m) == pytest.approx(found.ece)


def test_the_figure_of_a_company_shows_the_exact_density():
    (ax,) = figures.company(1, 8, experiments.companies(1, 8)).axes
    curve = ax.lines[0]
    np.testing.assert_allclose(curve.get_ydata(), GaussianOutput(1, 8).pdf(curve.get_xdata()))


def test_the_figure_of_statistics_shows_measured_and_exact():
    sizes = [2, 8, 256]
    measured, exact = experiments.batch_statistics(experiments.populations()["normal"], sizes)
    above, below = figures.statistics("normal", sizes, measured, exact, 256).axes
    for row, ax in enumerate((above, below)):
        for i, way in enumerate(("independent", "without replacement")):
            np.testing.assert_allclose(ax.lines[2 * i].get_ydata(), exact[way][row])
            np.testing.assert_allclose(ax.lines[2 * i + 1].get_ydata(), measured[way][row])


@pytest.mark.parametrize("measure", ["test loss", "test accuracy"])
def test_the_figure_of_generalisation_shows_paired_differences(full, measure):
    runs = full["noise"]["0.3"]
    (ax,) = figures.generalisation(runs, measure).axes
    scale = 100 if measure == "test accuracy" else 1
    expected = [scale * experiments.paired(runs, f"ghost {m}", measure)[0] for m in (8, 16, 32, 64)]
    np.testing.assert_allclose(ax.containers[0].lines[0].get_ydata(), expected)


@settings(max_examples=4)
@given(st.sampled_from([0, 1, 2]), st.sampled_from([0, 4]))
def test_the_figure_of_the_shift(mean, pull):
    keeps = np.array([0.3, 0.7])
    measured = np.array([experiments.measured_shift(p, mean, pull, draws=500) for p in keeps]).T
    (ax,) = figures.shift(mean, pull, keeps, measured).axes
    np.testing.assert_allclose(ax.lines[3].get_ydata(), measured[0])
    p = ax.lines[1].get_xdata()[10]
    assert ax.lines[1].get_ydata()[10] == pytest.approx(variance_shift.direct(p, mean, 1.0))
    plt.close("all")


def test_the_other_figures_show_the_record(full):
    keeps = full_size.CONFIGURATION["dropout"]["keep"]
    above, below = figures.dropout(full["dropout"], "after the last one", keeps).axes
    apart = [
        (full["dropout"][f"after the last one, {p}"] - full["dropout"]["none"]).mean(0)
        for p in keeps
    ]
    np.testing.assert_allclose(
        above.containers[0].lines[0].get_ydata(), 100 * np.array(apart)[:, 0]
    )
    np.testing.assert_allclose(below.containers[1].lines[0].get_ydata(), np.array(apart)[:, 3])
    (ax,) = figures.trajectories(full["noise"]["0.0"]).axes
    whole = full["noise"]["0.0"]["whole batch"][:, 1:].mean(axis=0)
    np.testing.assert_allclose(ax.lines[1].get_ydata(), whole[:, 1])
    bins = full["sampling"]["0.0"]["bins"]["running"]
    above, _ = figures.reliability(bins, "running").axes
    np.testing.assert_allclose(above.containers[0].lines[0].get_xdata(), bins[0][bins[2] >= 20])


def test_the_figure_of_a_turned_digit():
    model = networks.mlp(experiments.WIDTHS, "relu", "batch")
    pixels = experiments.digits(0).x_test[0]
    draws = np.random.default_rng(0).dirichlet(np.ones(10), size=7)
    with torch.no_grad():
        fixed = model.eval()(pixels[None]).softmax(1)[0].numpy()
    above, ax = figures.turned(pixels.numpy(), 30, fixed, draws, 8, label=6).axes
    assert above.get_title() == "a 6, turned by 30°"
    (mark,) = (line for line in ax.lines if line.get_label() == "right class")
    assert mark.get_xdata() == [6]
    np.testing.assert_allclose(ax.lines[3].get_ydata(), draws[:, 3])
    np.testing.assert_allclose(ax.lines[11].get_ydata(), draws.mean(axis=0))
