"""The weight-transfer engine that vLLM makes in each worker, for the interfaces of 0.23 and later."""

from __future__ import annotations

import dataclasses
import logging
from contextlib import contextmanager
from functools import cached_property, partial
from types import SimpleNamespace

import torch
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)

import siltstone
from siltstone import engine
from siltstone.errors import InvalidArgument, Mismatch, Unsupported

from . import cpu, interface

logger = logging.getLogger("vllm.siltstone")  # below vLLM's own, whose settings it has


@dataclasses.dataclass
class InitInfo(WeightTransferInitInfo):
    """What `/init_weight_transfer_engine` gets.

    bucket        as for every command; credentials come from the worker's environment
    at            the version that the server's model folder holds, "main@7"
    branch        of which the newest version is staged beside serving; "" stages nothing ahead
    interval      seconds between looks at it
    threads       that stage beside the worker's own
    memory_bytes  bound of what is staged
    refused       what happens to tensors that cannot be written in place (quantised, cast, repacked): "refuse" the
                  whole model, with their names and reasons; or "reload" them, in whole layers, with vLLM's layerwise
                  reload, at once and in the pause of every update that changes them
    skipped       patterns of tensors that vLLM's loader may leave out; others must be tied to what it loads
    host_copy     whether the ranks of a host share a copy of the weights: "auto" (where ranks hold parts of tensors),
                  "always" or "never"
    host_folder   where it is mapped from
    """

    bucket: str
    at: str
    branch: str = "main"
    interval: float = 1.0
    threads: int = 1
    memory_bytes: int = engine.GIB
    refused: str = "refuse"
    skipped: list[str] = dataclasses.field(default_factory=lambda: list(engine.SKIPPED))
    host_copy: str = "auto"
    host_folder: str = "/dev/shm"


@dataclasses.dataclass
class UpdateInfo(WeightTransferUpdateInfo):
    """What `/update_weights` gets: the version to move to. `repair`: rebuild everything, whatever the worker holds."""

    version: str
    repair: bool = False


FAILED = SimpleNamespace(update_kind="dense")  # an update that could not be parsed; 0.23 and 0.24 look at its kind


@contextmanager
def _quiet():
    """vLLM warns of every layer that a reload of others leaves alone."""
    log = logging.getLogger("vllm.model_executor.model_loader.reload.layerwise")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _layerwise_reload(model, vllm_config):
    """A loader for a running model: vLLM's own, which quantises, packs and casts as the first load did."""
    try:
        from vllm.config import set_current_vllm_config
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload
    except ImportError as error:
        raise Unsupported(f"this vLLM has no layerwise reload: {error}") from error
    if vllm_config is None:
        raise Unsupported("vLLM tells the backend its configuration, which a reload needs, since 0.25")

    def reload(weights):
        with set_current_vllm_config(vllm_config), _quiet():
            initialize_layerwise_reload(model)
            try:
                model.load_weights(weights)
            finally:  # also after a failure: puts the parameters back that were taken away
                finalize_layerwise_reload(model, vllm_config.model_config)

    return reload


def _ranks(parallel_config):
    """The workers of this engine. Collective, as every worker gets the same calls."""
    if parallel_config.world_size == 1:
        return None
    from vllm.distributed.parallel_state import get_tp_group, get_world_group

    if get_world_group().world_size == parallel_config.world_size:
        return engine.Ranks(get_world_group().cpu_group)
    if parallel_config.pipeline_parallel_size > 1:
        raise Unsupported("data parallelism together with pipeline parallelism is not supported")
    return engine.Ranks(get_tp_group().cpu_group)


class SiltstoneEngine(WeightTransferEngine):
    """Moves this worker's parameters from version to version: in place, or by a reload where the user allows it.

    Nothing is received: versions come from the bucket, staged by a thread while the worker generates. An update
    commits what is staged, or stages first if it is asked for another version. Whatever fails before the commit
    leaves the weights at the version they hold; a reload that fails goes back to it.
    """

    init_info_cls = InitInfo
    update_info_cls = UpdateInfo
    supports_draft_weight_update = False

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        interface.begin_in_place(SiltstoneEngine)
        self._model = named.get("model", arguments[-1] if arguments else None)
        self._replica = None
        self._prefetch = None

    @cached_property
    def _ranks(self):
        return _ranks(self.parallel_config)

    def _told_once(self, call):
        """What all ranks raise, the last one raises.

        vLLM's executor reads the answers of its workers up to the first error, and takes those behind it for
        answers to its next call.
        """
        try:
            return call()
        except Exception:
            if self._ranks is None or self._ranks.rank + 1 == self._ranks.size:
                raise
            logger.exception("rank %d failed, as all do: the last one tells", self._ranks.rank)
            return None

    def parse_init_info(self, init_dict: dict) -> InitInfo | None:
        return self._told_once(lambda: super(SiltstoneEngine, self).parse_init_info(init_dict))

    def parse_update_info(self, update_dict: dict) -> UpdateInfo | SimpleNamespace:
        return self._told_once(lambda: super(SiltstoneEngine, self).parse_update_info(update_dict)) or FAILED

    def init_transfer_engine(self, init_info: InitInfo | None) -> None:
        if init_info is not None:
            self._told_once(lambda: self._init(init_info))

    def _init(self, init_info):
        if init_info.refused not in ("refuse", "reload"):
            raise InvalidArgument(f"refused must be refuse or reload, found {init_info.refused!r}")
        self.shutdown()
        self._replica = self._attach(init_info)
        logger.info("%s: %s", self._replica.version.name, self._replica.summary())
        if init_info.branch:
            options = {"interval": init_info.interval, "threads": init_info.threads}
            self._prefetch = engine.Prefetch(
                self._replica, init_info.branch, memory_bytes=init_info.memory_bytes, **options
            )

    def _attach(self, init_info):
        model, reload = self._model, None
        if init_info.refused == "reload":
            reload = _layerwise_reload(model, getattr(self, "vllm_config", None))
        try:
            return engine.attach(
                (self._ranks or engine.Ranks()).all(lambda: siltstone.open(init_info.bucket)),
                model,
                partial(cpu.load, model),
                init_info.at,
                adjust=lambda slot_map: cpu.adjust(slot_map, model),
                reload=reload,
                unloadable=lambda slot_map: cpu.unloadable(slot_map, model),
                skipped=init_info.skipped,
                ranks=self._ranks,
                host_copy=init_info.host_copy,
                host_folder=init_info.host_folder,
                memory_bytes=init_info.memory_bytes,
            )
        except Unsupported as error:
            if reload is not None:
                raise
            raise Unsupported(f'{error}. With "refused": "reload" vLLM reloads their layers at each update') from error

    def progress(self) -> dict:
        """How far this worker is; plain data.

        held     name of the version that its weights are; None if they are none's, or it was not attached
        staged   name of the version that an update takes at once: one that is ready, or the one it holds
        staging  whether it stages versions ahead
        error    why it could not, last time; None if it could
        """
        version = None if self._replica is None else self._replica.version
        ready = None if self._prefetch is None else self._prefetch.staged
        error = None if self._prefetch is None else self._prefetch.error
        held = None if version is None else version.name
        return {
            "held": held,
            "staged": held if ready is None else ready.name,
            "staging": self._prefetch is not None,
            "error": None if error is None else str(error),
        }

    def start_weight_update(self) -> None:
        """Nothing: parameters are written where they are."""

    def update_weights(self, update_info) -> None:
        if isinstance(update_info, dict):
            update_info = self.parse_update_info(update_info)
        self.receive_weights(update_info)

    def receive_weights(self, update_info: UpdateInfo | SimpleNamespace, load_weights=None) -> None:
        if update_info is not FAILED:
            self._told_once(lambda: self._update(update_info))

    def _update(self, update_info):
        if self._replica is None:
            raise Mismatch("this worker follows no bucket yet: call /init_weight_transfer_engine first")
        move = self._replica.move if self._prefetch is None else self._prefetch.commit
        with torch.device("cpu"):  # 0.23 and 0.24 call this with the worker's device as the one of new tensors
            move(update_info.version, repair=update_info.repair)

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
