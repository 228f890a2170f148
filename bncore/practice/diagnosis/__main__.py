"""Examine a checkpoint: ``python -m bncore.practice.diagnosis checkpoint.pt``.

Exit status: 0 if nothing but notes was found, 1 for findings, 2 if the file cannot be examined. Only
tensors and plain values are read; no code that a file holds is run.
"""

import argparse
import pickle
import sys
from collections.abc import Mapping, Sequence

import torch

from bncore.practice.diagnosis.examining import examine_state


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report on a checkpoint and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m bncore.practice.diagnosis", description=__doc__
    )
    parser.add_argument("checkpoint", help="a file that torch.save wrote")
    parser.add_argument("--momentum", type=float, default=0.1, help="of the batch norms")
    parser.add_argument("--eps", type=float, default=1e-5, help="of the batch norms")
    parser.add_argument("--json", action="store_true", help="print data instead of text")
    given = parser.parse_args(arguments)
    try:
        state = states(read(given.checkpoint))
        if not state:
            raise ValueError(f"{given.checkpoint} holds no batch norm")
        report = examine_state(state, momentum=given.momentum, eps=given.eps)
    except OSError as error:
        print(f"{given.checkpoint}: {error.strerror or error}", file=sys.stderr)
        return 2
    except (TypeError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    print(report.to_json() if given.json else report)
    return int(any(one.severity != "note" for one in report.findings))


def read(path: str) -> object:
    """What a checkpoint holds, without running code of it.

    Raises
    ------
    OSError
        If there is no such file.
    ValueError
        If it needs code to be read, or is no file of torch's.
    """
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except OSError:
        raise
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} needs code to be read, or is no checkpoint; it was not run. Save "
            "model.state_dict() instead of the model"
        ) from error
    except Exception as error:
        raise ValueError(f"{path} is no file that torch.save wrote") from error


def states(found: object) -> dict[str, torch.Tensor]:
    """All tensors in nested mappings, such as {"model": state}, if a batch norm is among them.

    The names within the first mapping that holds a batch norm are kept as they are.
    """
    if not isinstance(found, Mapping):
        return {}
    names = {key: value for key, value in found.items() if isinstance(key, str)}
    if any(
        key.rpartition(".")[2] == "running_mean" and isinstance(value, torch.Tensor)
        for key, value in names.items()
    ):
        return names
    inside = {key: states(value) for key, value in names.items()}
    held = {key: value for key, value in inside.items() if value}
    if len(held) == 1:
        return next(iter(held.values()))
    return {f"{key}.{name}": value for key, one in held.items() for name, value in one.items()}


if __name__ == "__main__":
    sys.exit(main())
