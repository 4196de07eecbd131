"""The weight-transfer engine that vLLM makes in each worker, for the interfaces of 0.23 and later."""

from __future__ import annotations

import dataclasses

from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)

import siltstone
from siltstone import engine
from siltstone.errors import Mismatch

from . import vllm_cpu


@dataclasses.dataclass
class InitInfo(WeightTransferInitInfo):
    """What `/init_weight_transfer_engine` gets.

    bucket        as for every command; credentials come from the worker's environment
    at            the version that the server's model folder holds, "main@7"
    branch        of which the newest version is staged beside serving; "" stages nothing ahead
    interval      seconds between looks at it
    threads       that stage beside the worker's own
    memory_bytes  bound of what is staged
    """

    bucket: str
    at: str
    branch: str = "main"
    interval: float = 1.0
    threads: int = 1
    memory_bytes: int = engine.GIB


@dataclasses.dataclass
class UpdateInfo(WeightTransferUpdateInfo):
    """What `/update_weights` gets: the version to move to."""

    version: str
    update_kind: str = "dense"  # which 0.23 and 0.24 ask for


class SiltstoneEngine(WeightTransferEngine):
    """Moves this worker's parameters from version to version in place.

    Nothing is received: versions come from the bucket, staged by a thread while the worker generates. An update
    commits what is staged, or stages first if it is asked for another version. Whatever fails before the commit
    leaves the weights at the version they hold.
    """

    init_info_cls = InitInfo
    update_info_cls = UpdateInfo
    supports_draft_weight_update = False

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self._model = named.get("model", arguments[-1] if arguments else None)
        self._replica = None
        self._prefetch = None

    def init_transfer_engine(self, init_info: InitInfo) -> None:
        self.shutdown()
        repository = siltstone.open(init_info.bucket)
        self._replica = engine.attach(
            repository,
            self._model,
            self._model.load_weights,
            init_info.at,
            adjust=lambda slot_map: vllm_cpu.adjust(slot_map, self._model),
            memory_bytes=init_info.memory_bytes,
        )
        if init_info.branch:
            options = {"interval": init_info.interval, "threads": init_info.threads}
            self._prefetch = engine.Prefetch(
                self._replica, init_info.branch, memory_bytes=init_info.memory_bytes, **options
            )

    def start_weight_update(self) -> None:
        """Nothing: parameters are written where they are."""

    def update_weights(self, update_info) -> None:
        if isinstance(update_info, dict):
            update_info = self.parse_update_info(update_info)
        self.receive_weights(update_info)

    def receive_weights(self, update_info: UpdateInfo, load_weights=None) -> None:
        if self._replica is None:
            raise Mismatch("this worker follows no bucket yet: call /init_weight_transfer_engine first")
        if self._prefetch is not None:
            self._prefetch.commit(update_info.version)
        else:
            self._replica.update(update_info.version)

    def finish_weight_update(self) -> None:
        """Nothing: an update is whole when it returns."""

    def shutdown(self) -> None:
        if self._prefetch is not None:
            self._prefetch.close()
        if self._replica is not None:
            self._replica.close()
        self._prefetch = self._replica = None

    @staticmethod
    def trainer_send_weights(*_, **__):
        raise NotImplementedError("the trainer publishes into the bucket; nothing is sent to the server")
