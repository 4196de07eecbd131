"""What both demos share: how they fail, and the folder that a run has to itself."""

import shutil

MARKER = ".siltstone-demo"  # only a folder with this file is ever removed


class Failure(Exception):
    pass


def make_empty(run):
    """Removes an earlier run. Raises Failure for a folder that is something else."""
    if run.exists():
        if not (run / MARKER).exists() and any(run.iterdir()):
            raise Failure(f"{run} is not the folder of an earlier demo; not removing it")
        shutil.rmtree(run)
    run.mkdir(parents=True)
    (run / MARKER).touch()


def megabytes(size):
    return f"{size / 1e6:.2f} MB"
