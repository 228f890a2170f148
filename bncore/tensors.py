"""What callers hand in where torch computes: the rule of ``bncore.arguments``, for tensors.

- A dense tensor of float16, bfloat16, float32 or float64 is taken as it is, with its graph.
- NumPy arrays, lists and integers become tensors of the main tensor's dtype, or that of the model
  that they are given to. Nothing may be lost on the way, but that Python's own numbers are rounded.
- Booleans, complex numbers, strings and objects are refused, and so are NaN and infinity, sparse
  and quantised tensors, tensors without numbers, and subclasses, each by its name.

Wrong types raise TypeError, wrong values ValueError.
"""

from itertools import chain

import numpy as np
import torch
from jaxtyping import Integer, Real
from torch import nn

from bncore import arguments as check

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

Examples = (
    Real[torch.Tensor, "examples *features"] | Real[np.ndarray, "examples *features"] | check.Listed
)
Labels = Integer[torch.Tensor, "examples"] | Integer[np.ndarray, "examples"] | check.Listed


def tensor(
    name: str,
    value: object,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
    of: str = "the other arguments",
) -> torch.Tensor:
    """The value as a float tensor, of the given dtype and on the given device where they are given.

    Otherwise floats keep their precision, and lists and integers take torch's default. Entries may
    be NaN or infinite: see ``finite``. ``of`` says in errors whose dtype it is.
    """
    if isinstance(value, torch.Tensor):
        _check_kind(name, value)
        if value.dtype.is_floating_point:
            found = value if dtype is None else _exactly(name, value, dtype, of)
            return found.to(device)
        device, value = device or value.device, value.detach().numpy(force=True)
    return _from_array(name, value, dtype, of).to(device)


def examples(name: str, value: object, model: nn.Module | None = None) -> torch.Tensor:
    """The value as finite examples for a model, ``like`` it. Refuse what holds no example."""
    found = like(name, value, model)
    if found.ndim == 0 or found.numel() == 0:
        raise ValueError(f"{name} has shape {tuple(found.shape)}, expected at least one example")
    finite(name, found)
    return found


def like(name: str, value: object, model: nn.Module | None = None) -> torch.Tensor:
    """The value as a tensor in a float dtype and on the device that a model has.

    A model of several dtypes takes a tensor of any of them as it is. Entries may be NaN or infinite.
    """
    dtypes, device = _habits(model)
    dtype = dtypes[0] if dtypes else None
    if isinstance(value, torch.Tensor) and value.dtype in dtypes:
        dtype = value.dtype
    return tensor(name, value, dtype, device, "the model")


def labels(
    name: str, value: object, count: int | None = None, device: torch.device | None = None
) -> torch.Tensor:
    """The value as int64 labels that count from 0, one for each of ``count`` examples if given."""
    found = _whole(name, value)
    if found is None:
        raise TypeError(f"{name} holds floats, expected integers")
    if found.ndim != 1 or (count is not None and len(found) != count):
        expected = "one axis" if count is None else f"({count},): one label for each example"
        raise ValueError(f"{name} has shape {tuple(found.shape)}, expected {expected}")
    if (found < 0).any():
        first = int((found < 0).nonzero()[0, 0])
        raise ValueError(f"{name}[{first}] is {found[first].item()}, expected labels from 0")
    return found.to(device, torch.int64)


def targets(
    name: str,
    value: object,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
) -> torch.Tensor:
    """The value as what a loss compares outputs with: integers stay integers, floats are finite.

    A tensor keeps its dtype; floats of another kind take the given one.
    """
    found = _whole(name, value)
    if found is None:
        kept = isinstance(value, torch.Tensor)
        found = tensor(name, value, None if kept else dtype)
    found = found.to(device)
    finite(name, found)
    return found


def finite(name: str, value: torch.Tensor) -> None:
    """Refuse NaN and infinity, and say where the first one is."""
    bad = ~torch.isfinite(value)
    if bad.any():
        first = tuple(bad.nonzero()[0].tolist())
        raise ValueError(
            f"{name}{_at(first)} is {value[first].item()}, expected finite values only"
        )


def layer_input(
    name: str, value: object, features: int, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """The value as what a layer takes: a tensor with its number of features on axis 1.

    A layer with parameters or statistics of a ``dtype`` takes that one, and in single precision
    half precision too, as torch's batch norms do. Entries may be NaN or infinite.
    """
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name} is a {check.type_name(value)}, expected a tensor")
    shape = tuple(value.shape)
    if value.ndim < 2:
        raise ValueError(f"{name} has shape {shape}, expected (batch, features, *spatial)")
    if shape[1] != features:
        raise ValueError(
            f"{name} has {shape[1]} features on axis 1, expected {features}, those of the layer"
        )
    if dtype is None and value.dtype not in FLOATS:
        raise TypeError(f"{name} has dtype {value.dtype}, expected floats")
    halves = (torch.float16, torch.bfloat16) if dtype == torch.float32 else ()
    if dtype is not None and value.dtype not in (dtype, *halves):
        raise TypeError(f"{name} has dtype {value.dtype}, expected {dtype}, that of the layer")
    return value


def _habits(model):
    """The float dtypes of a model, the first parameter's first, and its device."""
    if model is None:
        return (), None
    held = list(chain(model.parameters(), model.buffers()))
    dtypes = dict.fromkeys(value.dtype for value in held if value.dtype in FLOATS)
    return tuple(dtypes), held[0].device if held else None


def _check_kind(name, value):
    kind = check.type_name(value)
    if type(value) not in (torch.Tensor, nn.Parameter):
        raise TypeError(f"{name} is a {kind}, a subclass of torch.Tensor, expected a plain one")
    if value.is_quantized:
        raise TypeError(f"{name} is quantised, expected plain floats: hand in {name}.dequantize()")
    if value.layout != torch.strided:
        raise TypeError(
            f"{name} is a sparse tensor ({value.layout}), expected a dense one: hand in "
            f"{name}.to_dense()"
        )
    if value.is_meta:
        raise ValueError(f"{name} is on the device 'meta', expected a tensor that holds numbers")
    if value.is_complex() or value.dtype == torch.bool:
        raise TypeError(f"{name} has dtype {_short(value.dtype)}, expected real numbers")


def _from_array(name, value, dtype, of):
    """A float tensor from what ``arguments.array`` takes. Python's own numbers are rounded."""
    main = dtype or torch.get_default_dtype()
    array = check.array(name, value, dtype=None if main == torch.bfloat16 else _short(main))
    found = torch.from_numpy(np.array(array, order="C"))
    kind = np.asarray(value).dtype.kind
    if dtype is None and kind == "f" and not isinstance(value, list | tuple):
        return found
    if isinstance(value, list | tuple) and kind == "f":
        rounded = found.to(main)
        if (rounded.isinf() & found.isfinite()).any():
            raise ValueError(
                f"{name} holds numbers beyond the largest {_short(main)}, "
                f"{torch.finfo(main).max:.3g}"
            )
        return rounded
    return _exactly(name, found, main, of)


def _whole(name, value):
    """An int64 tensor of integers, or None where the value holds others."""
    if isinstance(value, torch.Tensor):
        _check_kind(name, value)
        return None if value.dtype.is_floating_point else value.to(torch.int64)
    check.array(name, value)
    array = np.asarray(value)
    return torch.from_numpy(array.astype(np.int64)) if array.dtype.kind in "iu" else None


def _exactly(name, value, dtype, of):
    if value.dtype == dtype:
        return value
    result = value.to(dtype)
    wide = torch.promote_types(value.dtype, torch.float64)
    lost = (result.to(wide) != value.to(wide)) & ~torch.isnan(value)
    if lost.any():
        first = tuple(lost.nonzero()[0].tolist())
        raise ValueError(
            f"{name}{_at(first)} is {value[first].item()}, which {_short(dtype)}, the dtype of "
            f"{of}, cannot hold exactly; where rounding is meant, hand in a tensor of {dtype}"
        )
    return result


def _short(dtype):
    return str(dtype).removeprefix("torch.")


def _at(index):
    return f"[{', '.join(map(str, index))}]" if index else ""
