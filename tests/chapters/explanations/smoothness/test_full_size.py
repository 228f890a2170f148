"""The recorded run of the chapter on smoothness: it repeats, and it says what the chapter says of it."""

import numpy as np
import pytest
import torch

from bncore.chapters.explanations.smoothness import experiments, full_size
from bncore.explanations import landscape, spectrum
from bncore.lab import data, networks, recorded

SINGLE = float(np.finfo(np.float32).eps)
RECORDED = 1e-3 / 2  # Half a unit of the last of four digits, of which the first is at least 1.


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


def test_densities_are_those_of_the_networks_that_were_trained():
    _, x, y = experiments.digits()
    steps = {"steps": 3, "density_depths": [2], "lanczos": [12, 3], "spectrum_seeds": [4]}
    found = full_size.densities({**full_size.REDUCED, **steps})["batch norm, 2"]
    _, (model,) = experiments.walks("batch norm", 2, (4,), 3, 3)
    for when, network in (("start", experiments.network("batch norm", 2, 4)), ("end", model)):
        ours = spectrum.lanczos(spectrum.hessian_operator(network, x, y), 12, 3, seed=4)
        # Lanczos' method in float32 repeats fewer digits than are recorded.
        off = {"rtol": 20 * RECORDED, "atol": 2 * RECORDED}
        np.testing.assert_allclose(found[f"nodes at {when}"], [ours.nodes], **off)
        np.testing.assert_allclose(found[f"weights at {when}"], [ours.weights], **off)


def test_the_command_for_the_papers_size_walks_in_its_networks(small_images, monkeypatch, command):
    small = {"width": 2, "hidden": [4], "seeds": [0, 3], "steps": 4, "every": 2, "rates": [0.02]}
    small |= {"batch_size": 8, "walk_on": 16, "device": "cpu"}
    monkeypatch.setattr(full_size, "PAPER", full_size.PAPER | small)
    kept = command("explanations/smoothness", "--paper", "--cache", "somewhere")
    assert small_images == [("cifar10", "somewhere")]
    assert kept["configuration"] == full_size.PAPER
    assert set(kept["full"]) == {"no batch norm, 0.02", "batch norm, 0.02"}
    one = kept["full"]["batch norm, 0.02"]
    assert one["steps"] == [0, 2, 4]
    model = experiments.vgg("batch norm", 11, 3, width=2, hidden=[4])
    split = data.openml("cifar10")
    found = landscape.along_gradient(
        model, split.x_train[:16], split.y_train[:16], experiments.RATES
    )
    assert one["absolute"][1][0] == pytest.approx(
        found.smoothness, rel=RECORDED + 1e4 * SINGLE, abs=0
    )
    assert one["loss"][1][0] == pytest.approx(found.loss, rel=RECORDED + 64 * SINGLE, abs=0)


def test_the_papers_network_is_a_vgg_of_full_width():
    c = full_size.PAPER
    with torch.device("meta"):
        model = networks.vgg(c["depth"], width=c["width"], hidden=c["hidden"])
    widths = [p.shape[0] for p in landscape.weights(model).values()]
    assert widths == [64, 128, 256, 256, 512, 512, 512, 512, 512, 10]
    assert set(c["kinds"]) == set(experiments.KINDS[:2])
    assert c["steps"] % c["every"] == 0


def test_the_densities_can_be_repeated_alone(monkeypatch, tmp_path, command):
    path = tmp_path / "recorded.json"
    before = experiments.record()
    recorded.save(path, **{part: before[part] for part in ("configuration", "full", "reduced")})
    monkeypatch.setattr(experiments, "RECORDED", path)
    monkeypatch.setattr(full_size, "densities", lambda configuration: {"new": 1})
    command("explanations/smoothness", "--densities")
    after = recorded.load(path)
    for part in ("full", "reduced"):
        assert after[part] == {**before[part], "densities": {"new": 1}}


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


def test_the_curvature_along_the_gradient_is_recorded_below_a_third_of_the_largest():
    full = experiments.record()["full"]["depths"]
    for depth in (2, 6, 10):
        kept = full[f"batch norm, {depth}"]
        shares = np.array(kept["along at start"]) / np.array(kept["largest at start"])
        assert shares.max() < 1 / 3
