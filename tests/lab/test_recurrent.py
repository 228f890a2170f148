"""The recurrence is the formula; what differs between its normalisations is what they remember."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bncore.lab.recurrent import NORMALIZATIONS, Recurrent

EPS64 = torch.finfo(torch.float64).eps
ARMS = [
    (None, "before"),
    ("input", "before"),
    *((name, place) for name in ("shared", "per step") for place in ("before", "after")),
]
FUNCTIONS = {"tanh": torch.tanh, "relu": torch.relu, "sigmoid": torch.sigmoid}


def made(normalization, placement="before", activation="tanh", **options):
    model = Recurrent(
        3, 6, 4, 5, activation, normalization, placement=placement, **options
    ).double()
    if len(model.norms):
        with torch.no_grad():
            model.norms[0].weight.copy_(torch.linspace(0.5, 2, 6))
            model.norms[0].bias.copy_(torch.linspace(-1, 1, 6))
    return model


def images(seed, count=9):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 5, 3, dtype=torch.float64, generator=generator)


def normalized(model, z, axes):
    mean, var = z.mean(axes, keepdim=True), z.var(axes, correction=0, keepdim=True)
    return model.norms[0].weight * (z - mean) / torch.sqrt(var + 1e-5) + model.norms[0].bias


def expected(model, x, function, normalization, placement):
    moves = x @ model.input.weight.T
    if model.input.bias is not None:
        moves = moves + model.input.bias
    if normalization == "input":
        moves = normalized(model, moves, (0, 1))
    state, steps = torch.zeros(len(x), 6, dtype=torch.float64), normalization not in (None, "input")
    for t in range(5):
        z = moves[:, t] + state @ model.recurrence.weight.T
        if steps and placement == "before":
            z = normalized(model, z, 0)
        state = function(z)
        if steps and placement == "after":
            state = normalized(model, state, 0)
    return state @ model.output.weight.T + model.output.bias


@settings(max_examples=10)
@given(st.integers(0, 1000), st.sampled_from(sorted(FUNCTIONS)))
@pytest.mark.parametrize(("normalization", "placement"), ARMS)
def test_it_is_the_formula(normalization, placement, seed, activation):
    # At gain 2, so that no unit is constant, whose variance eps would rule.
    model = made(normalization, placement, activation, gain=2.0, seed=seed)
    x = images(seed)
    wanted = expected(model, x, FUNCTIONS[activation], normalization, placement)
    # Sums of at most 9 terms; five steps, each amplifying rounding at most a thousandfold at worst
    # where a unit is nearly constant.
    tolerance = 1e6 * 9 * EPS64 * max(1, wanted.abs().max().item())
    torch.testing.assert_close(model(x), wanted, rtol=0, atol=tolerance)
    torch.testing.assert_close(model(x.flatten(1)), wanted, rtol=0, atol=tolerance)


@settings(max_examples=10)
@given(st.integers(0, 1000))
@pytest.mark.parametrize("placement", ["before", "after"])
def test_shared_and_per_step_are_one_in_training_and_remember_differently(placement, seed):
    shared, own = (made(name, placement, seed=seed) for name in ("shared", "per step"))
    x = images(seed)
    seen = []
    for norm in own.norms:
        norm.register_forward_hook(lambda _, given, __: seen.append(given[0].detach()))
    scores = [model(x) for model in (shared, own)]
    assert torch.equal(*scores)
    for score in scores:
        score.square().sum().backward()
    slopes = [dict(model.named_parameters()) for model in (shared, own)]
    assert slopes[0].keys() == slopes[1].keys()
    for name in slopes[0]:
        torch.testing.assert_close(slopes[0][name].grad, slopes[1][name].grad)
    running = torch.zeros(6, dtype=torch.float64)
    for norm, z in zip(own.norms, seen, strict=True):
        torch.testing.assert_close(norm.running_mean, 0.1 * z.mean(0))
        running = 0.9 * running + 0.1 * z.mean(0)
    torch.testing.assert_close(shared.norms[0].running_mean, running)


@settings(max_examples=10)
@given(st.integers(0, 1000))
def test_statistics_per_step_of_one_batch_give_its_scores_back_in_use(seed):
    """But for the factor m / (m - 1) of torch's running variance, here of 4000 examples."""
    x = images(seed, 4000)
    own, shared = (made(name, momentum=None, seed=seed) for name in ("per step", "shared"))
    with torch.no_grad():
        scores = own(x), shared(x)
        apart = [(m.eval()(x) - s).abs().max() for m, s in zip((own, shared), scores, strict=True)]
    assert apart[0] < 1e-2 * scores[0].abs().max()
    assert apart[1] > 5 * apart[0]


@settings(max_examples=20)
@given(st.integers(0, 1000), st.sampled_from([None, 0.5, 2.0]))
def test_all_start_from_the_same_weights(seed, gain):
    plain = Recurrent(3, 6, 4, 5, "relu", gain=gain, seed=seed)
    for normalization, placement in ARMS:
        other = Recurrent(
            3, 6, 4, 5, "relu", normalization, placement=placement, gain=gain, seed=seed
        )
        for name in ("input", "recurrence", "output"):
            assert torch.equal(getattr(plain, name).weight, getattr(other, name).weight)
        assert (other.input.bias is None) == (normalization is not None and placement == "before")


def test_all_steps_have_one_scale_and_shift():
    for normalization in NORMALIZATIONS:
        model = Recurrent(3, 6, 4, 5, "relu", normalization)
        learned = [name for name, _ in model.named_parameters() if name.startswith("norms")]
        assert len(learned) == 2 * (normalization is not None)
    assert len(model.norms) == 5


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": 0}, "inputs is 0, expected at least 1"),
        ({"steps": 0}, "steps is 0, expected at least 1"),
        ({"normalization": "batch"}, "normalization is 'batch', expected one of None, 'input'"),
        ({"placement": "inside"}, "placement is 'inside', expected 'before' or 'after'"),
        (
            {"normalization": "input", "placement": "after"},
            "placement is 'after' with the normalization 'input', expected 'before'",
        ),
        ({"activation": "swish"}, "activation is 'swish', expected one of"),
        ({"gain": 0.0}, "gain is 0.0, expected a finite number above 0"),
    ],
)
def test_what_makes_no_network_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Recurrent(**{"inputs": 3, "units": 6, "outputs": 4, "steps": 5, **options})


@pytest.mark.parametrize("shape", [(2, 14), (15,), (2, 5, 4)])
def test_images_of_another_size_are_refused(shape):
    model = Recurrent(3, 6, 4, 5)
    with pytest.raises(
        ValueError, match=r"x has shape .*, expected \(batch, 15\), or the same in 5"
    ):
        model(torch.zeros(shape))
