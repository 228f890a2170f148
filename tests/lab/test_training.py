import numpy as np
import pytest
import torch

from bncore.lab import data, networks, probes, training


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
    assert history.losses[0] == pytest.approx(loss.item(), rel=1e-5)
    for after, before in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(after, before - 0.2 * before.grad)


def test_an_epoch_shows_every_image_at_most_once():
    generator = torch.Generator().manual_seed(0)
    batches = training._batches(10, 3, generator)
    epochs = [[next(batches) for _ in range(3)] for _ in range(4)]
    for epoch in epochs:
        assert all(len(batch) == 3 for batch in epoch)
        assert len(set(torch.cat(epoch).tolist())) == 9


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
        ({"record": {"loss": 3}}, TypeError, r"record\['loss'\] is a int, expected a function"),
    ],
)
def test_bad_arguments_are_named_before_anything_is_trained(split, arguments, error, message):
    model = networks.mlp((64, 16, 10), "relu", "batch")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(error, match=message):
        training.train(model, split, **{"steps": 5, **arguments})
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
