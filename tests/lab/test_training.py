import functools

import numpy as np
import pytest
import torch

from bncore.lab import data, networks, probes, training
from bncore.lab.batches import Batches

SINGLE = torch.finfo(torch.float32).eps
AMPLIFIED = 100 * 64**0.5 * SINGLE
"""The rounding of 64 products of either sign, which some tens of steps amplify a hundredfold."""


@pytest.fixture(scope="module")
def split():
    return data.digits()


def fitted(split, seed=0, normalization="batch", **arguments):
    model = networks.mlp((64, 16, 10), "relu", normalization, seed=seed)
    arguments = {"steps": 60, "batch_size": 32, "learning_rate": 0.2, "seed": seed, **arguments}
    return model, training.train(model, split, **arguments)


@pytest.mark.parametrize("normalization", networks.NORMALIZATIONS)
@pytest.mark.parametrize("seed", range(3))
def test_training_lowers_the_loss_and_finds_the_digits(split, normalization, seed):
    model, history = fitted(split, seed, normalization, steps=200)
    assert history.losses[-20:].mean() < 0.5 * history.losses[0]
    assert probes.test_accuracy(model, split) > 0.85


def test_the_seed_decides_the_run_and_touches_no_other_randomness(split):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    (first, history), (again, same), (_, other) = (fitted(split, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    np.testing.assert_array_equal(history.losses, same.losses)
    assert not np.array_equal(history.losses, other.losses)
    assert all(map(torch.equal, first.parameters(), again.parameters()))


def test_measuring_does_not_change_the_run(split):
    probe = {"p": probes.percentiles("activation1", 0), "accuracy": probes.test_accuracy}
    (plain, history), (probed, same) = fitted(split), fitted(split, record=probe, every=1)
    np.testing.assert_array_equal(history.losses, same.losses)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, probed.state_dict()[name])


def test_records_are_taken_before_the_first_step_and_after_the_last(split):
    taken = []

    def probe(model, split):
        taken.append(model.output.bias.detach().numpy().copy())
        return taken[-1]

    model, history = fitted(split, steps=25, every=10, record={"bias": probe})
    np.testing.assert_array_equal(history.steps, [0, 10, 20, 25])
    np.testing.assert_array_equal(history.records["bias"], taken)
    start = networks.mlp((64, 16, 10), "relu", "batch").output.bias
    np.testing.assert_array_equal(taken[0], start.detach().numpy())
    np.testing.assert_array_equal(taken[-1], model.output.bias.detach().numpy())


def test_one_step_on_the_whole_set_is_gradient_descent(split):
    model, history = fitted(split, normalization=None, steps=1, batch_size=len(split.x_train))
    reference = networks.mlp((64, 16, 10), "relu")
    loss = torch.nn.functional.cross_entropy(reference(split.x_train), split.y_train)
    loss.backward()
    assert history.losses[0] == pytest.approx(loss.item(), rel=64 * SINGLE, abs=0)
    for after, before in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(after, before - 0.2 * before.grad, rtol=0, atol=64 * SINGLE)


def test_training_is_gradient_descent_on_the_batches_in_their_order(split):
    make = functools.partial(networks.mlp, (64, 16, 10), "relu", "batch", dropout=0.3)
    model, reference = make(), make()
    history = training.train(model, split, 50, 32, 0.2, seed=3)
    descent = torch.optim.SGD(reference.parameters(), lr=0.2)
    losses, batches = [], Batches(len(split.x_train), 32, 3)
    torch.manual_seed(3)  # What dropout draws.
    for _ in range(50):
        batch = next(batches)
        loss = torch.nn.functional.cross_entropy(
            reference(split.x_train[batch]), split.y_train[batch]
        )
        descent.zero_grad()
        loss.backward()
        descent.step()
        losses.append(loss.item())
    np.testing.assert_allclose(history.losses, losses, rtol=AMPLIFIED)
    for value, other in zip(
        model.state_dict().values(), reference.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(value, other, rtol=AMPLIFIED, atol=AMPLIFIED)


@pytest.mark.parametrize(
    "kind",
    [
        lambda tensor: tensor.tolist(),
        lambda tensor: tensor.numpy(),
        lambda tensor: tensor.double().numpy() if tensor.is_floating_point() else tensor.int(),
    ],
)
def test_lists_and_arrays_train_as_tensors_do(split, kind):
    record = {
        "accuracy": probes.test_accuracy,
        "loss": probes.loss("test", "batch"),
        "gradients": probes.gradient_norms(examples=50),
        "percentiles": probes.percentiles("activation1", 0),
    }
    small = data.Split(*(tensor[:200] for tensor in split))
    other = data.Split(*(kind(tensor) for tensor in small))
    found, expected = (fitted(s, steps=5, record=record)[1] for s in (other, small))
    np.testing.assert_array_equal(found.losses, expected.losses)
    for name, values in expected.records.items():
        np.testing.assert_array_equal(found.records[name], values)
        probe = record[name]
        model = networks.mlp((64, 16, 10), "relu", "batch")
        np.testing.assert_array_equal(probe(model, other), probe(model, small))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"y_train": torch.zeros(3, dtype=torch.int64)},
            ValueError,
            r"y_train has shape \(3,\), exp",
        ),
        (
            {"y_train": torch.zeros(2000, dtype=torch.int64)},
            ValueError,
            r"y_train has shape \(2000,",
        ),
        ({"y_test": torch.tensor(1)}, ValueError, r"y_test has shape \(\), expected a target for"),
        (
            {"x_train": torch.full((50, 64), torch.nan)},
            ValueError,
            r"x_train\[0, 0\] is nan, expected",
        ),
        (
            {"x_test": torch.full((50, 64), torch.inf)},
            ValueError,
            r"x_test\[0, 0\] is inf, expected",
        ),
        ({"x_train": torch.eye(64).to_sparse()}, TypeError, "x_train is a sparse tensor"),
        ({"x_train": np.full((50, 64), 0.1)}, ValueError, "which float32, the dtype of the model"),
        ({"x_train": np.ma.ones((50, 64))}, TypeError, "x_train is a MaskedArray"),
    ],
)
def test_data_that_cannot_be_learned_from_are_named(split, change, error, message):
    model = networks.mlp((64, 16, 10), "relu", "batch")
    with pytest.raises(error, match=message):
        training.train(model, split._replace(**change), 3, 16)


def test_a_test_set_may_be_empty(split):
    empty = split._replace(x_test=split.x_test[:0], y_test=split.y_test[:0])
    assert len(fitted(empty, steps=3)[1].losses) == 3


def test_another_optimizer_can_be_given(split):
    _, descent = fitted(split)
    _, adam = fitted(split, optimizer=torch.optim.Adam, learning_rate=0.01)
    assert adam.losses[-10:].mean() < adam.losses[0]
    assert not np.array_equal(adam.losses, descent.losses)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"steps": 0}, ValueError, "steps is 0, expected at least 1"),
        ({"every": 2.5}, TypeError, "every is a float, expected an integer"),
        ({"batch_size": 1}, ValueError, "batch_size is 1, expected at least 2 .* at most 1348"),
        ({"batch_size": 2000}, ValueError, "batch_size is 2000, expected at least 2"),
        ({"learning_rate": 0}, ValueError, "learning_rate is 0, expected a finite number above 0"),
        ({"checkpoint_every": 0}, ValueError, "checkpoint_every is 0, expected at least 1"),
        ({"loss": "mse"}, TypeError, r"loss is a str, expected a function of \(outputs, targets\)"),
        ({"device": "tpu"}, ValueError, "device is 'tpu', expected 'cpu' or 'cuda'"),
        ({"device": "meta"}, ValueError, "device is 'meta', expected 'cpu' or 'cuda'"),
        ({"device": 3.5}, ValueError, "device is 3.5, expected 'cpu' or 'cuda'"),
        (
            {"loss": lambda outputs, targets: outputs},
            ValueError,
            r"loss returned a tensor of shape \(64, 10\), expected a scalar",
        ),
        (
            {"loss": lambda outputs, targets: 1.0},
            TypeError,
            "loss returned a float, expected a scalar tensor",
        ),
        ({"record": {"loss": 3}}, TypeError, r"record\['loss'\] is a int, expected a function"),
    ],
)
def test_bad_arguments_are_named_before_a_weight_is_changed(split, arguments, error, message):
    model = networks.mlp((64, 16, 10), "relu", "batch")
    before = {name: value.clone() for name, value in model.named_parameters()}
    with pytest.raises(error, match=message):
        training.train(model, split, **{"steps": 5, **arguments})
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_an_absent_device_is_named(split):
    message = "device is 'cuda', but torch finds no CUDA device here; use 'cpu'"
    with pytest.raises(ValueError, match=message):
        fitted(split, device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_run_on_cuda_begins_as_on_the_cpu_and_resumes(split, tmp_path):
    arguments = {"steps": 20, "record": {"accuracy": probes.test_accuracy}}
    _, cpu = fitted(split, **arguments)
    model, cuda = fitted(split, device="cuda", **arguments, checkpoint=tmp_path / "run.pt")
    assert next(model.parameters()).is_cuda
    np.testing.assert_allclose(cuda.losses[:5], cpu.losses[:5], rtol=AMPLIFIED)
    _, again = fitted(split, device="cuda", **arguments, checkpoint=tmp_path / "run.pt")
    np.testing.assert_array_equal(cuda.losses, again.losses)


def test_the_cpu_can_be_asked_for_by_name(split):
    (_, named), (_, default) = fitted(split, device="cpu"), fitted(split)
    np.testing.assert_array_equal(named.losses, default.losses)


def test_full_batch_descent_on_squares_follows_its_closed_form():
    split = data.gaussian_regression(400, 5, 2, seed=3)
    model = networks.deep_linear(5, 2, depth=1, seed=1)
    weight = model.output.weight.detach().double().numpy().T
    bias = model.output.bias.detach().double().numpy()
    x, y = split.x_train.double().numpy(), split.y_train.double().numpy()
    history = training.train(
        model, split, 30, len(x), 0.2, loss=torch.nn.functional.mse_loss, record={}
    )
    expected = []
    for _ in range(30):
        error = x @ weight + bias - y
        expected.append((error**2).mean())
        weight = weight - 0.2 * 2 * x.T @ error / error.size
        bias = bias - 0.2 * 2 * error.sum(0) / error.size
    rounding = 30 * 8 * SINGLE  # In each step some eight operations on numbers near 1.
    np.testing.assert_allclose(history.losses, expected, rtol=rounding)
    found = model.output.weight.detach().numpy().T
    np.testing.assert_allclose(found, weight, rtol=0, atol=rounding)


def test_real_targets_need_a_loss():
    split = data.gaussian_regression(100, 5, 2)
    with pytest.raises(ValueError, match="loss is None, which means cross-entropy on labels, but"):
        training.train(networks.deep_linear(5, 2), split, 3, 10)


def test_a_probe_cannot_change_the_random_numbers_of_a_run(split):
    def restless(model, split):
        torch.rand(5)
        return model(split.x_train[:8]).sum().item()

    def losses(record):
        model = networks.mlp((64, 16, 10), "relu", dropout=0.5)
        return training.train(model, split, 20, record=record, every=3).losses

    np.testing.assert_array_equal(losses({}), losses({"restless": restless}))
