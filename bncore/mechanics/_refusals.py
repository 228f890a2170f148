"""What no conversion may be made of: states that contradict themselves, and what no formula gives."""

import numpy as np


def refuse_contradiction(old, stored, newest, updates, left):
    """Refuse a number of updates that the state gives the lie to."""
    if not isinstance(old.initial, tuple):
        return
    if old.keeps == "sums":
        _refuse_weight(old, stored, newest, updates, left)
        return
    if old.keeps == "both":
        _refuse_hidden(old, stored, updates, left)
    names = {key: old.names[key] for key in ("mean", "var")}
    start = "{:g} and {:g}".format(*old.initial)
    moved = (stored["mean"] != old.initial[0]) | (stored["var"] != old.initial[1])
    if left == 1 and moved.any():
        j = int(moved.argmax())
        raise ValueError(
            f"the initial value weighs 1 after {updates} updates, but {names['mean']}[{j}] is "
            f"{stored['mean'][j]:g} and {names['var']}[{j}] {stored['var'][j]:g}, expected {start}: "
            "there were updates, or momentum is wrong. Old checkpoints have no counter; hand in "
            "updates=, the number of training batches, or leave the counter out of the state where "
            "they were so many that the initial value no longer counts"
        )
    if updates is None and not moved.any():
        raise ValueError(
            f"{names['mean']} and {names['var']} are {start}, as before the first batch, and the "
            "number of updates is not given: hand in updates=, 0 if there were none"
        )
    least = left * (1 - _rounding(stored["var"], updates))
    if (stored["var"] < least * old.initial[1]).any():
        raise ValueError(
            f"{names['var']} is {stored['var'].min():g}, expected at least "
            f"{left * old.initial[1]:g}, the part of the initial value after {updates} updates: "
            "check momentum and updates"
        )


def _refuse_weight(old, stored, newest, updates, left):
    """Refuse a weight of sums that momentum does not allow, and sums of nothing."""
    name, weight = old.names["weight"], float(stored["weight"])
    if weight == 0 and (stored["mean"].any() or stored["var"].any()):
        raise ValueError(f"{name} is 0, expected above 0: there are sums")
    if newest and weight * newest > 1 + _rounding(stored["mean"], round(1 / newest)):
        raise ValueError(
            f"{name} is {weight:g}, expected at most {1 / newest:g}, to which it tends: check "
            f"{old.names['momentum']}"
        )
    tends = None if updates is None else updates if newest is None else (1 - left) / newest
    most = updates if not newest else 1 / newest
    if tends is not None and abs(weight - tends) > most * _rounding(stored["mean"], updates):
        raise ValueError(
            f"{name} is {weight:g}, expected {tends:g} after {updates} updates: check "
            f"{old.names['momentum']} and updates"
        )


def _refuse_hidden(old, stored, updates, left):
    """Refuse hidden averages that are not the visible ones times 1 - left."""
    for key in ("mean", "var"):
        hidden = stored.get(f"hidden_{key}")
        if hidden is None or updates is None:
            continue
        expected = stored[key] * (1 - left)
        slack = 4 * _rounding(hidden, updates) * max(np.abs(stored[key]).max(), 1e-300)
        wrong = np.abs(hidden - expected) > slack
        if wrong.any():
            j = int(wrong.argmax())
            raise ValueError(
                f"{old.names[f'hidden_{key}']}[{j}] is {hidden[j]:g}, expected {expected[j]:g}, "
                f"which is {old.names[key]}[{j}] times 1 - old^t after {updates} updates: check "
                f"{old.names['momentum']} and {old.names['updates']}"
            )


def refuse_impossible(old, new, target, newest, updates, left):
    """Refuse what no formula gives: see each message."""
    if new.initial is None and left == 1:
        raise ValueError(
            f"the initial value weighs 1 after {updates} updates, expected less: {target} keeps no "
            "initial value, and there is nothing else"
        )
    if old.initial == "given" and left > 0:
        raise ValueError(
            f"{old.title}'s initial value is the user's, and weighs {left:g} after {updates} updates: "
            "say what it was, dataclasses.replace(convention, initial=(0.0, 1.0))"
        )
    if new.keeps != "sums":
        return
    if newest is None and updates is None and old.keeps != "sums":
        raise ValueError(
            f"updates is None, expected the number of batches: {target} keeps the sums of a plain "
            "average"
        )
    if newest is not None:
        refuse_other_meaning(old.names["momentum"], old, new, target, newest)


def refuse_other_meaning(setting, old, new, target, weight):
    """Refuse a weight of 0 where its setting stands for the plain average."""
    if weight is not None and new.newest_weight(new.momentum_for(weight)) is None:
        raise ValueError(
            f"{setting} is {old.momentum_for(weight):g}, expected a weight of the newest batch above "
            f"0: {target} would take a plain average"
        )


def _rounding(var, updates):
    """Relative error that a running average in var's dtype may have gathered."""
    return 2 * np.finfo(var.dtype).eps * ((updates or 0) + 1)
