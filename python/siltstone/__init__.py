"""Siltstone: exact weight deltas.

Publish the weights of a model after every step - only the bits that changed are written - and move any
number of copies forward in place, bit for bit; keep every version.

    repository = siltstone.open("/data/bucket", create=True)
    with repository.publisher(dtype="bf16") as publisher:
        publisher.publish(model, step=1)

    replica = siltstone.open("/data/bucket").replica(engine_model)
    with replica.follow(on_version=print):
        ...
"""

from . import errors
from ._core import (
    Artifact,
    CheckoutReport,
    CommitReport,
    DiffReport,
    ExportReport,
    FollowStep,
    ImportReport,
    LoadReport,
    PublishReport,
    TensorDiff,
    VerifyReport,
    Version,
)
from .errors import (
    Cancelled,
    Conflict,
    Corrupt,
    DeviceError,
    Error,
    InternalError,
    InvalidArgument,
    IOFailure,
    Mismatch,
    NotFound,
    PermissionDenied,
    Unavailable,
    Unsupported,
)
from .background import BackgroundPublisher
from .publisher import Publisher
from .replica import Follower, Replica, Staged
from .repository import Repository, init, open  # noqa: A004
from .tensors import digest

__all__ = [
    "Artifact",
    "BackgroundPublisher",
    "Cancelled",
    "CheckoutReport",
    "CommitReport",
    "Conflict",
    "Corrupt",
    "DeviceError",
    "DiffReport",
    "digest",
    "Error",
    "errors",
    "ExportReport",
    "Follower",
    "FollowStep",
    "ImportReport",
    "init",
    "InternalError",
    "InvalidArgument",
    "IOFailure",
    "LoadReport",
    "Mismatch",
    "NotFound",
    "open",
    "PermissionDenied",
    "Publisher",
    "PublishReport",
    "Replica",
    "Repository",
    "Staged",
    "TensorDiff",
    "Unavailable",
    "Unsupported",
    "VerifyReport",
    "Version",
]

__version__ = "0.1.0"
