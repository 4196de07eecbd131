"""One exception class for each code of the library (docs/errors.md).

Each is also the standard exception that code not written for Siltstone would catch.
"""

__all__ = [
    "Cancelled",
    "Conflict",
    "Corrupt",
    "DeviceError",
    "Error",
    "InternalError",
    "InvalidArgument",
    "IOFailure",
    "Mismatch",
    "NotFound",
    "PermissionDenied",
    "Unavailable",
    "Unsupported",
]


class Error(Exception):
    """Base of all. The message says what, where, expected, found."""

    code = 0  # as in docs/errors.md


class InvalidArgument(Error, ValueError):
    """The call is wrong: fix it."""

    code = 1


class NotFound(Error, LookupError):
    """There is no such bucket, version, object or file."""

    code = 2


class Conflict(Error):
    """Somebody committed or created it first: read again, then decide."""

    code = 3


class Corrupt(Error):
    """Bytes do not match what was promised."""

    code = 4


class Mismatch(Error):
    """A replica or a base is not at the state that was assumed."""

    code = 5


class Unsupported(Error):
    """A newer format, or a feature that is missing here."""

    code = 6


class Unavailable(Error, ConnectionError):
    """A passing failure: try again. Whether a write happened is not known."""

    code = 7


class IOFailure(Error, OSError):
    """The operating system refused: disk full, input or output error."""

    code = 8


class DeviceError(Error):
    """An accelerator failed."""

    code = 9


class InternalError(Error):
    """A bug in Siltstone: please report it."""

    code = 10


class PermissionDenied(Error, PermissionError):
    """Credentials or access rights."""

    code = 11


class Cancelled(Error):
    """The caller asked to stop."""

    code = 12


BY_CODE = {
    error.code: error
    for error in (
        InvalidArgument,
        NotFound,
        Conflict,
        Corrupt,
        Mismatch,
        Unsupported,
        Unavailable,
        IOFailure,
        DeviceError,
        InternalError,
        PermissionDenied,
        Cancelled,
    )
}
