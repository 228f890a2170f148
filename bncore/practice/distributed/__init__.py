"""Batch norm over several processes, each of which holds a part of the batch.

Statistics of parts merge into those of the whole (``merge_statistics``), so that processes need not
exchange their values. A network that is converted before ``DistributedDataParallel`` takes it
normalises as one process with the whole batch would::

    convert(model)
    model = DistributedDataParallel(model)

``torchrun --nproc-per-node 4 train.py`` starts four processes. ``messages`` counts what each sends.
"""

from bncore.practice.distributed.converting import Conversion, Converted, convert
from bncore.practice.distributed.merging import merge_statistics
from bncore.practice.distributed.messages import Message, messages
from bncore.practice.distributed.synced import SyncedBatchNorm

__all__ = [
    "Conversion",
    "Converted",
    "Message",
    "SyncedBatchNorm",
    "convert",
    "merge_statistics",
    "messages",
]
