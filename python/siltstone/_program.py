"""What the programs of this package (`python -m siltstone.integrations.vllm` and so on) end with."""

import sys
from contextlib import contextmanager

from .errors import Error


@contextmanager
def failures_told(*others):
    """Around a program: what is wrong is one line on stderr and status 1, Ctrl-C is status 130."""
    try:
        yield
    except (Error, *others) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
