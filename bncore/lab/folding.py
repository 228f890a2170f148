"""Batch norms of a trained network folded into the layers before them, where its calls allow it.

Source: Ioffe and Szegedy (2015), Algorithm 2, line 11.
"""

import copy

import torch
from torch import nn

from bncore import tensors
from bncore.lab import graphs
from bncore.mechanics import folding

# Each kind of layer, with the axes that its output has in a batch.
LAYERS = {
    nn.Linear: 2,
    nn.Conv1d: 3,
    nn.Conv2d: 4,
    nn.Conv3d: 5,
    nn.ConvTranspose1d: 3,
    nn.ConvTranspose2d: 4,
    nn.ConvTranspose3d: 5,
}
# The axes that inputs of a batch norm may have.
AXES = {
    nn.BatchNorm1d: (2, 3),
    nn.BatchNorm2d: (4,),
    nn.BatchNorm3d: (5,),
    nn.SyncBatchNorm: (2, 3, 4, 5),
}


def folded(
    model: nn.Module, example: tensors.Examples | tuple[torch.Tensor, ...] | None = None
) -> nn.Module:
    """A copy of the model in which each batch norm is folded into the layer before it.

    The copy computes what the model computes in evaluation mode, without batch norms. The model's
    calls are traced, and a batch norm is folded only where each of its inputs is the output of a
    linear layer or a convolution that goes nowhere else. Within an ``nn.Sequential`` batch norms are
    taken out, and the other layers keep their names; elsewhere ``nn.Identity`` takes their place.
    Weights keep their dtype, device and memory format, and what was frozen stays frozen.

    Parameters
    ----------
    model : nn.Module
        It stays as it is.
    example : Float[Tensor, "examples *features"], or a tuple of tensors, optional
        What the model may be applied to. It tells on which axis layers and batch norms act: a linear
        layer acts on the last one and a batch norm on axis 1, which is the same for inputs of two
        axes only. So it is needed for every batch norm but ``BatchNorm2d`` and ``BatchNorm3d`` behind
        convolutions of their dimension, and the copy is right for inputs of as many axes. The copy
        is compared with the model on it.

    Raises
    ------
    TypeError
        If model is no module, or example holds no real numbers.
    ValueError
        If the calls cannot be traced, a batch norm follows something else, acts on another axis or
        keeps no running statistics, a layer or batch norm is of a class of one's own, parametrised,
        or used where it cannot be folded, or the copy differs from the model on the example.

    See Also
    --------
    bncore.mechanics.inference.fold_linear, bncore.mechanics.inference.fold_conv
    """
    if example is None:
        return _folded(model, None)
    graphs.check_model(model)
    arguments = graphs.inputs(example, _evaluating(model))
    axes = _axes(model, arguments)
    exact, arguments = graphs.in_double(model, arguments)
    graphs.check_same(
        _evaluating(exact), _evaluating(_folded(exact, axes)), arguments, "the folded network"
    )
    return _folded(model, axes)


def _folded(model, axes):
    graphs.check_model(model)
    still = _evaluating(model)
    trace = graphs.traced(still)
    norms = graphs.batch_norms(model, trace.graph)
    layers = {}
    for name, calls in norms.items():
        norm = model.get_submodule(name)
        if norm.running_mean is None:
            raise ValueError(f"{name} keeps no running statistics, expected fixed ones to fold")
        if still.get_submodule(name).training:
            raise ValueError(f"{name} stays in training mode, expected model.eval() to fix it")
        for before in dict.fromkeys(_layer_before(model, name, call) for call in calls):
            layer = layers.get(before) or model.get_submodule(before)
            _check_use(trace.graph, before, name, calls)
            _check_axes(before, layer, name, norm, axes)
            layers[before] = _absorbed(before, layer, name, norm)
        for call in calls:
            call.replace_all_uses_with(call.all_input_nodes[0])
            trace.graph.erase_node(call)
    expected = graphs.calls_of(still, norms)
    for cut in (trace.called, ()):
        short = _assembled(model, layers, norms, cut)
        try:
            if graphs.calls_of(_evaluating(short)) == expected:
                return short
        except ValueError:
            pass
    raise ValueError("the model's calls change with its modules, expected them to stay as they are")


def _assembled(model, layers, norms, cut):
    """The model with other layers. Its norms are taken out of the named sequences."""
    short = copy.deepcopy(model)
    for name, layer in layers.items():
        graphs.replace(short, name, layer)
    sequences = [
        module
        for name, module in short.named_modules()
        if type(module) is nn.Sequential and name in cut
    ]
    for name in norms:
        graphs.replace(short, name, nn.Identity(), sequences)
    return short


def _evaluating(model):
    return copy.deepcopy(model).eval()


def _axes(model, arguments):
    """How many axes the output of each layer has, by name."""
    found, model = {}, _evaluating(model)

    def keep(name):
        return lambda layer, inputs, output: found.setdefault(name, set()).add(output.ndim)

    for name, layer in model.named_modules():
        if type(layer) in LAYERS:
            layer.register_forward_hook(keep(name))
    with torch.no_grad():
        model(*arguments)
    return found


def _layer_before(model, name, call):
    """The name of the layer on whose output a batch norm is called."""
    source = call.all_input_nodes[0]
    if source.op == "call_module":
        layer = model.get_submodule(source.target)
        graphs.check_plain(source.target, layer)
        if type(layer) in LAYERS:
            return source.target
        found = f"a {type(layer).__name__}"
    elif source.op == "placeholder":
        found = "nothing"
    else:
        found = getattr(source.target, "__name__", source.target)
    raise ValueError(
        f"{name} follows {found}, expected one of torch's linear layers or convolutions to fold it "
        "into"
    )


def _check_use(graph, layer, norm, calls):
    """Refuse a layer whose output or weight is used by anything but the batch norm."""
    for node in graph.nodes:
        if node.op == "get_attr" and node.target.startswith(f"{layer}."):
            raise ValueError(f"{node.target} is used outside {layer} too, expected it nowhere else")
        if node.op == "call_module" and node.target == layer:
            for user in node.users:
                if user not in calls and not graphs.reads_shape(user):
                    found = getattr(user.target, "__name__", user.target)
                    raise ValueError(
                        f"{layer} goes to {found} too, expected it to go to {norm} alone"
                    )


def _check_axes(layer, module, norm, batch_norm, axes):
    """Refuse a batch norm on another axis than that of the layer's features."""
    expected, allowed = LAYERS[type(module)], AXES[type(batch_norm)]
    found = allowed if axes is None else tuple(sorted(axes.get(layer, ())))
    if expected not in allowed or (axes is not None and found != (expected,)):
        raise ValueError(
            f"{norm} normalises axis 1 of the outputs of {layer}, which have "
            f"{' or '.join(map(str, found))} axes, expected {expected}: with others that is not the "
            "axis of its features"
        )
    if axes is None and found != (expected,):
        raise ValueError(
            f"{norm} normalises axis 1 of what {layer} returns, and the shape of the input decides "
            f"whether that is the axis of its features; give an example of an input"
        )


def _absorbed(name, layer, norm_name, norm):
    weight, bias, *fixed = (
        None if tensor is None else tensor.detach().double().numpy(force=True)
        for tensor in (
            layer.weight,
            layer.bias,
            norm.running_mean,
            norm.running_var,
            norm.weight,
            norm.bias,
        )
    )
    try:
        if isinstance(layer, nn.Linear):
            weight, bias = folding.fold_linear(weight, bias, *fixed, norm.eps)
        else:
            kind = {"groups": layer.groups, "transposed": layer.transposed}
            weight, bias = folding.fold_conv(weight, bias, *fixed, norm.eps, **kind)
    except ValueError as error:
        raise ValueError(f"{norm_name} cannot be folded into {name}: {error}") from None
    short = copy.deepcopy(layer)
    shifts = [shift for shift in (layer.bias, norm.bias) if shift is not None]
    for key, value, like, learns in (
        ("weight", weight, layer.weight, layer.weight.requires_grad),
        ("bias", bias, layer.weight.new_empty(len(bias)), any(s.requires_grad for s in shifts)),
    ):
        narrow = torch.empty_like(like, requires_grad=False).copy_(torch.from_numpy(value))
        if not torch.isfinite(narrow).all():
            raise ValueError(
                f"{norm_name} cannot be folded into {name}: the {key} reaches {abs(value).max():.3g}, "
                f"beyond the largest {narrow.dtype}"
            )
        setattr(short, key, nn.Parameter(narrow, requires_grad=learns))
    return short
