"""A running engine's weights as a replica: recorded with its own loader, proven by value, moved in place.

    replica = engine.attach(repository, model, model.load_weights, "main@7")
    staged = replica.stage("main@8")     # while the engine serves
    staged.commit()                      # while it is paused: writes the words that differ

With `attach(..., reload=...)` the engine's loader puts in, layer by layer, what cannot be written in place.
torch is imported here, by whoever has an engine.
"""

from ..replica import GIB
from .attach import attach
from .left_out import SKIPPED
from .places import unproven
from .prefetch import Prefetch
from .rank_replica import RankReplica
from .ranks import Ranks
from .reload import ReloadFailed
from .replica import EngineReplica, EngineReport

__all__ = [
    "attach",
    "EngineReplica",
    "EngineReport",
    "GIB",
    "Prefetch",
    "RankReplica",
    "Ranks",
    "ReloadFailed",
    "SKIPPED",
    "unproven",
]
