"""Say what a value is in a text that is the same in every process, and differs if the value does.

Checkpoints and stores of results use it to refuse what belongs to another configuration.
"""

import ast
import functools
import hashlib
import inspect
import re
import sys
import textwrap
import types
from collections.abc import Callable, Mapping
from pathlib import PurePath

import numpy as np
import torch
from torch import nn

from bncore import arguments as check

PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...))


def describe(value: object, name: str = "value") -> str:
    """A text that identifies a value.

    Parameters
    ----------
    value : object
        A number, text, None, path, array, tensor, module, function, class, or a tuple, list, set or
        mapping of those. NumPy's scalars count as Python's. Arrays, tensors and a module's state
        enter by a hash, a module also by what is frozen and in which mode, functions by name, source, defaults and what they close over, but not by
        what else they call; decorated ones by the decorator's code and the function within.
    name : str
        What to call the value in an error.

    Raises
    ------
    TypeError
        If it is, or holds, anything else.
    """
    return _describe(value, name, ())


def digest(text: str) -> str:
    """32 hexadecimal digits that stand for a text."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:32]


def qualified_name(value: Callable) -> str:
    """Module and name of a function or class, also where the module is run as a program."""
    module = value.__module__
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if module == "__main__" and spec is not None:
        module = spec.name
    return f"{module}.{value.__qualname__}"


def folder(function: Callable) -> str:
    """The name of a folder for a function's results: by its own name, and by its fixed arguments.

    Functions whose fixed arguments differ have folders that differ; one whose code has changed has
    the same, so that ``sweep`` can refuse what is in it.

    Raises
    ------
    TypeError
        If it is not callable, or an argument is none of what ``describe`` takes.
    """
    if not callable(function):
        raise TypeError(f"function is a {check.type_name(function)}, expected a callable")
    fixed = []
    while isinstance(function, functools.partial | types.MethodType):
        if isinstance(function, functools.partial):
            fixed.append((function.args, function.keywords))
            function = function.func
        else:
            fixed.append(function.__self__)
            function = function.__func__
    named = function if hasattr(function, "__qualname__") else type(function)
    name = re.sub(r"[^\w.]+", "-", qualified_name(named))  # of characters that every system takes
    return f"{name}-{digest(describe(fixed, 'fixed arguments'))}" if fixed else name


def _describe(value, name, outer):
    if isinstance(value, np.generic):
        value = value.item()
    if type(value) in PLAIN:
        return repr(value)
    if any(value is other for other in outer):
        return "itself"
    outer = (*outer, value)
    if isinstance(value, torch.Tensor | np.ndarray):
        return _array(value, name)
    if isinstance(value, nn.Module):
        state = {
            key: tensor
            for items in (value.named_parameters(), value.named_buffers())
            for key, tensor in items
        }
        trained = [key for key, tensor in value.named_parameters() if tensor.requires_grad]
        kinds = [(key, qualified_name(type(module))) for key, module in value.named_modules()]
        evaluating = [key for key, module in value.named_modules() if not module.training]
        parts = (kinds, trained, state, *([evaluating] if evaluating else []))
        return f"{value!r} {_describe(parts, name, outer)}"
    if isinstance(value, functools.partial):
        parts = (value.func, value.args, value.keywords)
        return f"partial{_describe(parts, name, outer)}"
    if isinstance(value, types.MethodType):
        return f"method{_describe((value.__func__, value.__self__), name, outer)}"
    if isinstance(value, types.BuiltinFunctionType) and not isinstance(
        value.__self__, type | types.ModuleType | None
    ):
        return f"{qualified_name(value)} of {_describe(value.__self__, name, outer)}"
    if isinstance(value, np.ufunc):
        return f"numpy.{value.__name__}"
    if isinstance(value, types.BuiltinFunctionType | type):
        return qualified_name(value)
    if isinstance(value, types.FunctionType):
        return _function(value, name, outer)
    if isinstance(value, Mapping):
        entries = sorted(
            f"{_describe(key, name, outer)}: {_describe(entry, f'{name}[{key!r}]', outer)}"
            for key, entry in value.items()
        )
        return f"{{{', '.join(entries)}}}"
    if isinstance(value, tuple | list | set | frozenset | range):
        entries = [_describe(entry, f"{name}[{i}]", outer) for i, entry in enumerate(value)]
        if isinstance(value, set | frozenset):
            entries = sorted(entries)
        return f"{type(value).__name__}({', '.join(entries)})"
    if isinstance(value, PurePath):
        return f"path {str(value)!r}"
    if isinstance(value, torch.device | torch.dtype | np.dtype):
        return str(value)
    raise TypeError(
        f"{name} is a {check.type_name(value)}, expected something that is the same in every "
        "process: numbers, text, arrays, tensors, modules, functions, or collections of them"
    )


def _array(value, name):
    if isinstance(value, torch.Tensor):
        array = value.detach().cpu().contiguous()
        kind = str(array.dtype)
        data = array.reshape(-1).view(torch.uint8).numpy() if array.numel() else b""
    else:
        if value.dtype.hasobject:
            raise TypeError(f"{name} is an array of objects, expected one of numbers or text")
        array, kind = np.ascontiguousarray(value), str(value.dtype)
        data = array.reshape(-1).view(np.uint8) if array.size else b""
    return f"{kind}{list(array.shape)} {hashlib.sha256(data).hexdigest()[:32]}"


def _function(function, name, outer):
    if hasattr(function, "__wrapped__"):
        # What a decorator holds beside the function may live in this process only.
        around = digest(_bytecode(function.__code__))
        return f"{around} around {_describe(function.__wrapped__, name, outer)}"
    closure = {
        variable: cell.cell_contents
        for variable, cell in zip(
            function.__code__.co_freevars, function.__closure__ or (), strict=True
        )
    }
    around = (function.__defaults__, function.__kwdefaults__, closure)
    named = qualified_name(function)
    return f"{named} {digest(_source(function))} {_describe(around, f'{name}: {named}', outer)}"


def _source(function):
    if function.__name__ == "<lambda>":
        # A line of source may hold several.
        return _bytecode(function.__code__)
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, SyntaxError, TypeError):
        return _bytecode(function.__code__)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def _bytecode(code):
    constants = [
        _bytecode(constant)
        if isinstance(constant, types.CodeType)
        else _describe(constant, "constant", ())
        for constant in code.co_consts
    ]
    return f"{code.co_code.hex()} {code.co_names} {constants}"
