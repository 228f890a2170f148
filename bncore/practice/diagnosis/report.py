"""What was found in a network: to read in a terminal, in a notebook, or as data."""

import html
import json
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bncore.practice.diagnosis.codes import CODES, SEVERITIES, Severity

WIDTH = 80
# A finding is a block, so that it is as wide as a phone or a page.
BLOCK = "margin:.2em 0;max-width:45em;overflow-wrap:anywhere"
# Layers of one code that are listed one by one; more are summed up.
LISTED = 3

Number = int | float | str | None


def short(value: float) -> str:
    """A number to two significant digits, as people write it: 260 rather than 2.6e+02."""
    rounded = f"{value:.2g}"
    return f"{float(rounded):.0f}" if 100 <= abs(float(rounded)) < 1e6 else rounded


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes
    ----------
    code : str
        A key of ``CODES``.
    severity : {"error", "warning", "note"}
    layer : str
        Name of the batch norm, "" for the network as a whole.
    measured : str
        A sentence with the number that was measured, and its unit.
    values : dict
        The numbers behind it, by name.
    """

    code: str
    severity: Severity
    layer: str
    measured: str
    values: dict[str, Number] = field(default_factory=dict)

    def __post_init__(self):
        if self.code not in CODES:
            raise ValueError(f"code is {self.code!r}, expected one of {', '.join(CODES)}")
        if self.severity not in SEVERITIES:
            raise ValueError(
                f"severity is {self.severity!r}, expected one of {', '.join(SEVERITIES)}"
            )

    @property
    def why(self) -> str:
        """Why it matters."""
        return CODES[self.code].why

    @property
    def remedy(self) -> str:
        """What to do."""
        return CODES[self.code].remedy

    @property
    def link(self) -> str:
        """Where the book shows it."""
        return CODES[self.code].link

    def to_dict(self) -> dict[str, object]:
        """All of it as data; numbers that are not finite are None."""
        values = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in self.values.items()
        }
        kept = {name: getattr(self, name) for name in ("code", "severity", "layer", "measured")}
        also = {name: getattr(self, name) for name in ("why", "remedy", "link")}
        return {**kept, "values": values, **also}


@dataclass(frozen=True, repr=False)
class Report:
    """All findings, the worst first, then in the order of the network.

    ``str`` writes it for a terminal of 80 columns; a notebook shows a block for each code.

    Attributes
    ----------
    findings : tuple of Finding
    layers : tuple of str
        The batch norms that were examined, in the order of the network.
    batches : int or None
        How many batches were looked at; None for a checkpoint.
    remarks : tuple of str
        What else is worth a sentence, such as batch norms that are never called.
    """

    findings: tuple[Finding, ...]
    layers: tuple[str, ...]
    batches: int | None = None
    remarks: tuple[str, ...] = ()

    def __post_init__(self):
        place = {name: i for i, name in enumerate(self.layers)}
        rank = {code: i for i, code in enumerate(CODES)}
        ordered = sorted(
            self.findings,
            key=lambda one: (
                SEVERITIES.index(one.severity),
                place.get(one.layer, -1),
                rank[one.code],
            ),
        )
        object.__setattr__(self, "findings", tuple(ordered))

    @property
    def codes(self) -> set[str]:
        """The codes of the findings."""
        return {one.code for one in self.findings}

    def __len__(self) -> int:
        return len(self.findings)

    def __bool__(self) -> bool:
        raise TypeError(
            "a report is neither true nor false: ask for report.codes, or len(report) == 0"
        )

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def to_dicts(self) -> list[dict[str, object]]:
        """The findings as dicts of plain values."""
        return [one.to_dict() for one in self.findings]

    def to_json(self, indent: int | None = 2) -> str:
        """The report as JSON: ``layers``, ``batches``, ``remarks`` and ``findings``."""
        whole = {
            "layers": list(self.layers),
            "batches": self.batches,
            "remarks": list(self.remarks),
            "findings": self.to_dicts(),
        }
        return json.dumps(whole, indent=indent, ensure_ascii=False)

    def __str__(self) -> str:
        lines = textwrap.wrap(self._summary(), WIDTH)
        for group in self._groups():
            head = group[0]
            lines += ["", *_hanging(f"{head.severity}: {head.code}", _where(group), WIDTH)]
            lines += _wrapped(_measured(group))
            lines += _wrapped(f"Why: {head.why}")
            lines += _wrapped(f"Do: {head.remedy}")
            lines += _wrapped(f"See {head.link}")
        for remark in self.remarks:
            lines += ["", *textwrap.wrap(remark, WIDTH)]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        colour = {"error": "#d62728", "warning": "#b36b00", "note": "inherit"}
        blocks = [f"<p>{html.escape(one)}</p>" for one in (self._summary(), *self.remarks)]
        for group in self._groups():
            head = group[0]
            title = (
                f"<strong style='color:{colour[head.severity]}'>{head.severity}: "
                f"<code>{head.code}</code></strong>, {html.escape(_where(group))}"
            )
            lines = [
                html.escape(_measured(group)),
                f"<em>Why:</em> {html.escape(head.why)}",
                f"<em>Do:</em> {html.escape(head.remedy)}",
                f"<em>See</em> {html.escape(head.link)}",
            ]
            paragraphs = "".join(f"<p style='{BLOCK}'>{one}</p>" for one in [title, *lines])
            blocks.append(f"<div style='margin:1em 0'>{paragraphs}</div>")
        return "".join(blocks)

    def _groups(self):
        """Findings of one severity and code, the worst first, then causes before what follows."""
        groups = {}
        for one in self.findings:
            rank = SEVERITIES.index(one.severity), list(CODES).index(one.code)
            groups.setdefault(rank, []).append(one)
        return [groups[rank] for rank in sorted(groups)]

    def _summary(self):
        if not self.layers:
            return "No batch norm here: nothing to examine."
        what = _count(len(self.layers), "batch norm")
        where = "in a checkpoint" if self.batches is None else f"on {_batches(self.batches)}"
        if not self.findings:
            return f"{what} examined {where}: nothing found."
        counts = [
            _count(sum(one.severity == severity for one in self.findings), severity)
            for severity in SEVERITIES
            if any(one.severity == severity for one in self.findings)
        ]
        return f"{what} examined {where}: {', '.join(counts)}."


def _count(number, what):
    return f"{number} {what}{'' if number == 1 else 's'}"


def _batches(number):
    return "1 batch" if number == 1 else f"{number} batches"


def _where(group: Sequence[Finding]) -> str:
    names = [one.layer for one in group if one.layer]
    if not names:
        return "the network"
    if len(names) == 1:
        return f"layer {names[0]}"
    if len(names) <= LISTED:
        return f"layers {', '.join(names)}"
    return f"layers {names[0]} … {names[-1]} ({len(names)})"


def _measured(group: Sequence[Finding]) -> str:
    if len({one.measured for one in group}) == 1:
        return group[0].measured
    if len(group) <= LISTED:
        return " ".join(f"{one.layer or 'network'}: {one.measured}" for one in group)
    worst = max(group, key=lambda one: _size(one.values))
    return f"Most at {worst.layer}: {worst.measured}"


def _size(values: Mapping[str, Number]) -> float:
    """A finding's first value says how much of it there is."""
    first = next(iter(values.values()), 0)
    return float(first) if isinstance(first, int | float) and not math.isnan(first) else 0.0


def _hanging(head, tail, width):
    return textwrap.wrap(f"{head}, {tail}", width, subsequent_indent="  ")


def _wrapped(text):
    return textwrap.wrap(
        text, WIDTH, initial_indent="  ", subsequent_indent="  ", break_long_words=False
    )
