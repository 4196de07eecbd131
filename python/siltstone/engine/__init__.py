"""A running engine's weights as a replica: recorded with its own loader, proven by value, moved in place.

    replica = engine.attach(repository, model, model.load_weights, "main@7")
    staged = replica.stage("main@8")     # while the engine serves
    staged.commit()                      # while it is paused: writes the words that differ

torch is imported here, by whoever has an engine.
"""

from ..replica import GIB
from .attach import attach
from .places import unproven
from .prefetch import Prefetch
from .rank_replica import RankReplica
from .ranks import Ranks
from .reload import ReloadFailed
from .replica import EngineReplica

__all__ = ["attach", "EngineReplica", "GIB", "Prefetch", "RankReplica", "Ranks", "ReloadFailed", "unproven"]
