"""Threads that call the core must have ended before the interpreter goes away: they cannot get the GIL then."""

import atexit
import weakref

_owners = weakref.WeakSet()


def ends_at_exit(owner):
    """Registers an object whose `_at_exit()` ends its thread."""
    _owners.add(owner)


@atexit.register
def _end_all():
    for owner in list(_owners):
        owner._at_exit()
