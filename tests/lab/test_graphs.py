"""What a network calls, as its trace tells it, and what may be put in a call's place."""

import copy

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations

from bncore.lab import graphs, networks

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
LAYERS = {
    "linear": lambda: nn.Linear(3, 3),
    "norm": lambda: nn.BatchNorm1d(3),
    "relu": nn.ReLU,
    "identity": nn.Identity,
    "dropout": nn.Dropout,
}
SEQUENCES = st.lists(st.sampled_from(sorted(LAYERS)), min_size=1, max_size=8)


def targets(graph):
    return [node.target for node in graph.nodes if node.op not in ("placeholder", "output")]


@given(SEQUENCES, st.integers(1, 3))
def test_a_trace_has_the_calls_of_a_sequence_in_their_order_without_identities(kinds, size):
    """Also where layers stand in groups: a group that torch wrote is looked into."""
    layers = [LAYERS[kind]() for kind in kinds]
    grouped = [nn.Sequential(*layers[i : i + size]) for i in range(0, len(layers), size)]
    model = nn.Sequential(*grouped)
    trace = graphs.traced(model)
    names = [f"{i // size}.{i % size}" for i in range(len(kinds))]
    called = [name for name, kind in zip(names, kinds, strict=True) if kind != "identity"]
    assert targets(trace.graph)[: len(called)] == called
    assert trace.called == {"", *names, *(str(i) for i in range(len(grouped)))}
    trace.graph.lint()


class Branching(nn.Module):
    """A norm that is called twice, one that is not, and calls that are no modules'."""

    def __init__(self):
        super().__init__()
        self.layer, self.norm, self.unused = nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3)
        self.dropped = nn.Dropout(0.5)

    def forward(self, x, twice=True):
        h = self.norm(self.layer(x))
        if self.training:
            h = self.dropped(h)
        h = h + x.view(x.shape[0], -1).tanh() + torch.tensor(1.0)
        return self.norm(h) if twice else h


@pytest.mark.parametrize("training", [True, False])
def test_a_trace_is_that_of_the_mode_and_leaves_optional_arguments_out(training):
    model = Branching().train(training)
    trace = graphs.traced(model)
    modules = [node.target for node in trace.graph.nodes if node.op == "call_module"]
    assert modules == ["layer", "norm", *["dropped"] * training, "norm"]
    assert trace.called == {"", "layer", "norm", *["dropped"] * training}


def test_tracing_leaves_the_model_and_the_checks_of_shapes_alone():
    model = Branching()
    before, held = copy.deepcopy(model.state_dict()), set(vars(model))
    graphs.traced(model)
    with pytest.raises(ValueError, match="model cannot be traced"):
        graphs.traced(Refusing())
    assert not jaxtyping.config.jaxtyping_disable
    assert set(vars(model)) == held
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Refusing(nn.Module):
    """Its calls depend on the data."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x):
        return self.norm(x) if x.sum() > 0 else x


class Rectified(nn.Module):
    """Its calls depend on the data, after one that does not; it holds no batch norm."""

    def forward(self, x):
        y = x.tanh()
        return y if y.sum() > 0 else 0 * y


def test_what_cannot_be_traced_is_one_call_unless_it_holds_a_norm():
    model = nn.Sequential(nn.ReLU(), Rectified(), nn.ReLU())
    assert targets(graphs.traced(model).graph) == ["0", "1", "2"]
    message = r"model cannot be traced \(symbolically traced .*; expected calls that do not depend"
    for model in (Refusing(), nn.Sequential(nn.ReLU(), Refusing())):
        with pytest.raises(ValueError, match=message):
            graphs.traced(model)


def test_the_calls_of_each_norm_are_found_by_its_name():
    model = Branching()
    found = graphs.batch_norms(model, graphs.traced(model).graph)
    assert [(name, len(calls)) for name, calls in found.items()] == [("norm", 2)]
    plain = networks.mlp((3, 4, 4, 2), "relu", "batch")
    assert list(graphs.batch_norms(plain, graphs.traced(plain).graph)) == ["norm1", "norm2"]


def test_a_line_for_each_call_names_what_it_is_called_with():
    model = nn.Sequential(nn.Linear(3, 3), nn.Identity(), nn.ReLU())
    lines = graphs.calls_of(model)
    assert [line.split()[:2] for line in lines] == [
        ["placeholder", "input"],
        ["call_module", "0"],
        ["call_module", "2"],
        ["output", "output"],
    ]
    assert [line.count("%") for line in lines] == [0, 1, 1, 1]
    assert [f"%{i - 1}" in line for i, line in enumerate(lines)] == [False, True, True, True]


@given(SEQUENCES, st.data())
def test_calls_without_what_is_gone_are_those_with_identities_in_its_place(kinds, data):
    model = nn.Sequential(*(LAYERS[kind]() for kind in kinds))
    names = [name for name, _ in model.named_children()]
    gone = data.draw(st.sets(st.sampled_from(names)))
    short = copy.deepcopy(model)
    for name in gone:
        graphs.replace(short, name, nn.Identity())
    assert graphs.calls_of(model, gone) == graphs.calls_of(short)
    called = [name for name, kind in zip(names, kinds, strict=True) if kind != "identity"]
    assert (graphs.calls_of(model) == graphs.calls_of(short)) == gone.isdisjoint(called)


class Asking(nn.Module):
    def forward(self, x):
        asked = x.shape, x.ndim, x.dtype, x.device, x.size(0), x.dim()
        return x.view(asked[0][0], -1), x.T, x.tanh(), torch.flatten(x), asked


def test_asking_for_shape_or_kind_is_told_from_reading_values():
    graph = graphs.traced(Asking()).graph
    (x,) = (node for node in graph.nodes if node.op == "placeholder")
    told = {
        node.args[1] if node.target is getattr else node.target: graphs.reads_shape(node)
        for node in x.users
    }
    asked = dict.fromkeys(["shape", "ndim", "dtype", "device", "size", "dim"], True)
    assert told == asked | dict.fromkeys(["view", "T", "tanh", torch.flatten], False)


def shared():
    """One activation under three names, in two sequences."""
    relu = nn.ReLU()
    inner = nn.Sequential(nn.Linear(3, 3), relu)
    return nn.Sequential(inner, relu, nn.Linear(3, 3), relu)


@pytest.mark.parametrize("name", ["0.1", "1", "3"])
def test_a_module_is_replaced_under_all_of_its_names(name):
    model, new = shared(), nn.Tanh()
    layers = model[0][0], model[2]
    graphs.replace(model, name, new)
    assert model[1] is model[3] is model[0][1] is new
    assert layers == (model[0][0], model[2])


def test_where_it_is_cut_a_module_is_removed_and_the_others_move_up():
    model, new = shared(), nn.Tanh()
    layer = model[0][0]
    graphs.replace(model, "1", new, cut=[model[0]])
    assert list(model[0]) == [layer]
    assert model[1] is model[3] is new
    model = shared()
    graphs.replace(model, "1", nn.Tanh(), cut=[model, model[0]])
    assert [type(layer) for layer in model] == [nn.Sequential, nn.Linear]


def hook(kind):
    def change(layer):
        getattr(layer, f"register_{kind}_hook")(lambda *given: None)

    return change


CHANGES = {
    "forward": hook("forward"),
    "before": hook("forward_pre"),
    "backward": hook("full_backward"),
    "before backward": hook("full_backward_pre"),
    "own forward": lambda layer: setattr(layer, "forward", layer.forward),
}


@pytest.mark.parametrize("change", CHANGES)
def test_hooks_of_any_kind_are_refused(change):
    layer = nn.Linear(3, 3)
    graphs.check_plain("layer", layer)
    CHANGES[change](layer)
    with pytest.raises(ValueError, match="layer has hooks or a forward of its own, expected none"):
        graphs.check_plain("layer", layer)


def test_computed_parameters_are_refused():
    layer = parametrizations.weight_norm(nn.Linear(3, 3))
    with pytest.raises(ValueError, match="layer is parametrised, expected plain parameters: call"):
        graphs.check_plain("layer", layer)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_network_and_its_floats_go_to_double_and_the_given_ones_stay(dtype):
    model = nn.Bilinear(2, 2, 3).to(dtype)
    given = torch.ones(4, 2, dtype=dtype), torch.ones(4, 2, dtype=dtype)
    exact, wide = graphs.in_double(model, given)
    assert {p.dtype for p in exact.parameters()} == {torch.float64}
    assert [a.dtype for a in wide] == [torch.float64] * 2
    assert {p.dtype for p in model.parameters()} == {a.dtype for a in given} == {dtype}
    for value, other in zip(exact.parameters(), model.parameters(), strict=True):
        assert torch.equal(value, other.double())


def test_integers_stay_integers_in_double_precision():
    model, x = nn.Embedding(3, 2), torch.tensor([0, 2])
    exact, (same,) = graphs.in_double(model, (x,))
    assert exact.weight.dtype == torch.float64
    assert same is x


class Single(nn.Module):
    """Computes in float32 whatever it is given."""

    def forward(self, x):
        return x.float()


def test_what_cannot_be_applied_in_double_precision_stays_as_it_is():
    model, given = nn.Sequential(Single(), nn.Linear(3, 2)), (torch.ones(4, 3),)
    found, arguments = graphs.in_double(model, given)
    assert found is model
    assert arguments is given


def test_no_buffer_changes_by_going_to_double_precision_or_comparing():
    model, x = nn.Sequential(nn.BatchNorm1d(3)), torch.randn(4, 3)
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    exact, _ = graphs.in_double(model, (x,))
    graphs.check_same(model, model, (x,), "the same")
    graphs.inputs(x, model)
    for changed in (model, exact):
        for name, value in changed.state_dict().items():
            assert torch.equal(value, before[name].to(value.dtype))
    assert torch.equal(torch.get_rng_state(), state)


class Returns(nn.Module):
    """The given outputs, whatever comes in."""

    def __init__(self, *outputs, pack=tuple):
        super().__init__()
        self.outputs = pack(outputs)

    def forward(self, x):
        return self.outputs


def same(first, second, pack=tuple):
    """Whether outputs pass as the same."""
    pair = (Returns(*one, pack=pack) for one in (first, second))
    try:
        graphs.check_same(*pair, (torch.ones(1),), "the other")
    except ValueError as error:
        if not str(error).startswith("the other computes something else on the example"):
            raise
        return False
    return True


@given(st.sampled_from(DTYPES), st.integers(0, 10**6), st.integers(-8, 8))
def test_outputs_may_differ_by_half_of_the_digits_of_their_largest(dtype, seed, power):
    generator = torch.Generator().manual_seed(seed)
    output = torch.rand(3, 4, generator=generator, dtype=torch.float64).to(dtype)
    output[1, 2] = -1  # the largest, in absolute value
    allowed = torch.finfo(dtype).eps ** 0.5
    output, at = output * 2.0**power, seed % 12
    for factor, passes in ((0.8, True), (1.2, False)):
        other = output.clone()
        # By that much, but for the rounding of the sum, of whose units allowed holds eleven or more.
        other.view(-1)[at] += factor * allowed * 2.0**power
        assert same([output], [other]) == passes
        assert same([output.new_ones(2), output], [output.new_ones(2), other]) == passes


@pytest.mark.parametrize("pack", [tuple, list, lambda o: {"a": o[0], "rest": [*o[1:], None]}])
def test_every_tensor_of_an_output_is_compared(pack):
    outputs = [torch.ones(3), torch.arange(3), torch.ones(2, 0)]
    assert same(outputs, [one.clone() for one in outputs], pack)
    for i, other in enumerate([2 * torch.ones(3), torch.arange(3) + 1, torch.ones(3, 0)]):
        assert not same(outputs, [*outputs[:i], other, *outputs[i + 1 :]], pack)
    assert not same([torch.ones(3)], [torch.ones(1, 3)], pack)
    assert not same([torch.ones(3)], [torch.full((3,), torch.nan)], pack)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (torch.tensor([1.0, torch.inf]), "the model's output on the example is not finite"),
        (torch.tensor([torch.nan]), "the model's output on the example is not finite"),
        ("a word", "the model returns no tensor on the example, expected one to compare"),
    ],
)
def test_outputs_that_cannot_be_compared_are_refused(output, message):
    with pytest.raises(ValueError, match=message):
        graphs.check_same(Returns(output), Returns(output), (torch.ones(1),), "the other")


def test_both_networks_draw_the_same_random_numbers():
    graphs.check_same(nn.Dropout(0.5), nn.Dropout(0.5), (torch.ones(99),), "the other")
    with pytest.raises(ValueError, match="the other computes something else on the example"):
        graphs.check_same(nn.Dropout(0.5), nn.Dropout(0.4), (torch.ones(99),), "the other")


@pytest.mark.parametrize("kind", [lambda t: t, lambda t: t.numpy(), lambda t: t.tolist()])
def test_an_example_may_be_a_tensor_an_array_or_a_list(kind):
    x = torch.tensor([[1.0, 2.0, 3.0]])
    (found,) = graphs.inputs(kind(x), nn.Linear(3, 2))
    assert torch.equal(found, x)
    (found,) = graphs.inputs(np.ones((2, 3)), nn.Linear(3, 2).double())
    assert found.dtype == torch.float64


def test_a_tuple_of_tensors_are_several_arguments():
    given = torch.ones(4, 2), torch.ones(4, 3)
    assert graphs.inputs(given, nn.Bilinear(2, 3, 1)) is given
    with pytest.raises(ValueError, match=r"model cannot be applied to the example, of shape \(4,"):
        graphs.inputs(given, nn.Linear(2, 3))


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (torch.ones(2, 4), r"model cannot be applied to the example, of shape \(2, 4\): mat1 and"),
        (torch.tensor([[1.0, torch.nan, 0]]), r"example\[0, 1\] is nan, expected finite values"),
        (torch.ones(0, 3), r"example has shape \(0, 3\), expected at least one example"),
    ],
)
def test_examples_that_do_not_fit_are_refused(example, message):
    with pytest.raises(ValueError, match=message):
        graphs.inputs(example, nn.Linear(3, 2))
