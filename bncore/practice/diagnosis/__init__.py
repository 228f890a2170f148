"""Find what is wrong in a network with batch norm: measured, with why it matters and what to do.

    print(examine(model, loader))

``examine`` runs a network on batches and changes nothing; ``examine_state`` reads a checkpoint, and so
does ``python -m bncore.practice.diagnosis checkpoint.pt``.
"""

from bncore.practice.diagnosis.codes import CODES, Code
from bncore.practice.diagnosis.examining import examine, examine_state
from bncore.practice.diagnosis.report import Finding, Report

__all__ = ["CODES", "Code", "Finding", "Report", "examine", "examine_state"]
