"""All methods that code a tensor at a time, by name.

Each has name, title, stands_for, encode(old, new) -> bytes and decode(target, payload) -> new, where
target holds the old words and may be overwritten.
"""

import dense
import sparse

METHODS = {method.name: method for method in sparse.METHODS + dense.METHODS}
