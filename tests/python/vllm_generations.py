"""Stand-ins for two generations of vLLM's weight transfer: that of 0.23 and 0.24, and that of 0.25 and later."""

import abc
import dataclasses
import importlib
from types import SimpleNamespace

import torch

PARALLEL = SimpleNamespace(world_size=1)
LAYERWISE = []  # models whose parameters a layerwise reload has taken


class Base(abc.ABC):
    def parse_init_info(self, told):
        return self.init_info_cls(**told)

    def parse_update_info(self, told):
        return self.update_info_cls(**told)

    init_transfer_engine = receive_weights = shutdown = trainer_send_weights = abc.abstractmethod(lambda self: None)


class Base23(Base):
    def __init__(self, config, parallel_config, model):
        self.config, self.parallel_config, self.model = config, parallel_config, model


class Base25(Base):
    def __init__(self, config, vllm_config, device, model):
        self.config, self.vllm_config, self.device, self.model = config, vllm_config, device, model
        self.parallel_config = vllm_config.parallel_config

    start_weight_update = finish_weight_update = abc.abstractmethod(lambda self: None)

    def update_weights(self, told):
        raise AssertionError("synchronizes with an accelerator")


@dataclasses.dataclass
class Info:
    pass


@dataclasses.dataclass
class UpdateInfo23:
    _: dataclasses.KW_ONLY
    update_kind: str = "dense"
    num_updates_list: list | None = None


class Factory:
    def __init__(self):
        self._registry = {}

    def register_engine(self, name, where, class_name=None):
        assert name not in self._registry
        self._registry[name] = where if class_name is None else (where, class_name)

    def create_engine(self, name, *arguments):
        found = self._registry[name]
        return (getattr(importlib.import_module(found[0]), found[1]) if isinstance(found, tuple) else found)(*arguments)


class Worker23:
    """The worker has the session, and begins it with a layerwise reload by default."""

    def __init__(self, factory, model):
        self.model, self.active = model, False
        self.weight_transfer_engine = factory.create_engine("siltstone", None, PARALLEL, model)

    def init_weight_transfer_engine(self, told):
        self.weight_transfer_engine.init_transfer_engine(self.weight_transfer_engine.parse_init_info(told))

    def start_weight_update(self, is_checkpoint_format=True):
        if is_checkpoint_format:
            LAYERWISE.append(self.model)
        self.active = True

    def update_weights(self, told):
        engine = self.weight_transfer_engine
        info = engine.parse_update_info(told)
        assert self.active and info.update_kind == "dense"
        with torch.device("meta"):  # where a worker of another device makes its tensors
            engine.receive_weights(info, load_weights=self.model.load_weights)

    def finish_weight_update(self):
        self.active = False


class Worker25:
    """The engine has the session."""

    def __init__(self, factory, model):
        config = SimpleNamespace(parallel_config=PARALLEL)
        self.weight_transfer_engine = factory.create_engine("siltstone", None, config, torch.device("cpu"), model)

    init_weight_transfer_engine = Worker23.init_weight_transfer_engine

    def start_weight_update(self):
        self.weight_transfer_engine.start_weight_update()

    def update_weights(self, told):
        self.weight_transfer_engine.update_weights(told)

    def finish_weight_update(self):
        self.weight_transfer_engine.finish_weight_update()
