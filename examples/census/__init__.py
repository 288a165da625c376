"""A census of Python sources: a CPU-bound pipeline on real files, durable from end to end.

    flows supervise examples.census:registry --begin 'census={}' --drain

counts the standard library of the running Python; `{"root": "src", "limit": 500}` counts
another folder, and `sources.CensusOrder` has the other settings. The result lists packages, the
most complex functions, and near-duplicate functions.

    census    (JSONCodec)     coordinates: lists the files, waits until they are quiet (a durable
      |                       sleep), begins the runs below, waits for their events, reports
      |- measure (MsgspecCodec, 2 processes)  parses a batch of files, one step per file
      `- compare (OrjsonCodec, 2 processes)   finds near-duplicates in one part of the functions

Kill any of the processes at any time: the result is the same.
"""

from __future__ import annotations

from .sources import CensusOrder
from .workflows import registry

__all__ = ["CensusOrder", "registry"]
