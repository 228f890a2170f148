"""What the literature says about the mistakes of the patients."""

from functools import cache

from bncore.chapters.practice.diagnosis import full_size
from bncore.lab import recorded
from bncore.lab.studies import difference
from bncore.page.claims import at_least, at_most, claim, otherwise, under


@cache
def _patients():
    return recorded.load(full_size.PATH)["full"]["patients"]


def _accuracy(patient, course, when="end"):
    return _patients()[when].sel(patient=patient, course=course, drop=True)


@claim("pytorch, Setting requires_grad", "depends")
def freezing():
    """To freeze parts of a model, it is enough to apply ``.requires_grad_(False)`` to the parameters
    that shall not be updated.
    """
    seeds = _patients().sizes["seed"]
    kept, moved = (
        [_accuracy("frozen", course, when) for when in ("begin", "end")]
        for course in ("twin", "sick")
    )
    yield under("the frozen part holds no batch norm, or only such as are in evaluation mode")
    yield at_most(
        0,
        float(abs(kept[1] - kept[0]).max()),
        f"largest change of the accuracy of the frozen part with its own head, over {seeds} seeds",
    )
    yield otherwise("it holds batch norms in training mode: their statistics move on")
    lost = difference(*moved, looked_at=10)
    yield at_most(0, lost.low, f"lower end of what the accuracy loses, over {seeds} seeds")


@claim("wu2021, Section 5.2", "holds")
def shared_layer():
    """A layer that is applied to several inputs and normalises each by its own statistics in training
    does worse with one set of population statistics for all than with one for each.
    """
    patients = _patients()
    gained = difference(_accuracy("reused", "twin"), _accuracy("reused", "sick"), looked_at=10)
    yield at_least(
        0,
        gained.low,
        "lower end of what the accuracy gains with statistics for each of two places, over "
        f"{patients.sizes['seed']} seeds",
    )
