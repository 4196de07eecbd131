"""Slots: where each checkpoint element lives inside a running engine.

An engine fuses, stacks, shards and pads what a checkpoint has. Its own weight loader knows how, so that is
what is asked: once, with tensors that carry their place instead of values.

    slot_map = slots.record(model, repository.tensors("main"), model.load_weights)
    slot_map.refused                         # name -> why; `trace` these, or load them as the engine does
    slots.holes(all_ranks)                   # what no rank has: nobody would write it

    binding = slots.bind(slot_map, model)    # after all that moves parameters
    binding.check()                          # before every use: empty, or what has moved
    slots.gather(binding, name).values       # compare with the version: only that proves the map

Everything is counted in elements: source indices are flat and row-major, destination offsets count from the
begin of a storage. A map says what the loader does; whether the engine rearranged parameters afterwards only
their values tell. Generation must be paused during `record` and `trace`, which point the model at scratch.
"""

from .binding import Binding, Derived, Gathered, bind, derived, gather
from .cache import from_json, to_json
from .coverage import Hole
from .recorder import record
from .slotmap import CASTS, Destination, Padding, Slot, SlotMap, Source, holes
from .tiles import RowTable, Tile, invert
from .tracing import trace

__all__ = [
    "bind",
    "Binding",
    "CASTS",
    "derived",
    "Derived",
    "Destination",
    "from_json",
    "gather",
    "Gathered",
    "Hole",
    "holes",
    "invert",
    "Padding",
    "record",
    "RowTable",
    "Slot",
    "SlotMap",
    "Source",
    "Tile",
    "to_json",
    "trace",
]
