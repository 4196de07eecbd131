"""What importing needs, and that the package works where processes fork or are spawned."""

import multiprocessing
import subprocess
import sys

import numpy as np
import pytest

import siltstone
from siltstone import errors


def test_importing_needs_neither_torch_nor_numpy():
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(('torch', 'numpy', 'safetensors', 'transformers')))\n"
        "import siltstone\n"
        "r = siltstone.open('mem://x', create=True)\n"
        "assert r.branches() == {}\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_program_comes_with_the_package():
    for command in ([sys.executable, "-m", "siltstone"], [sys.executable.replace("python", "siltstone")]):
        if command[0].endswith("siltstone") and not __import__("shutil").which(command[0]):
            continue  # the interpreter has another name
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == siltstone.__version__
    missing = subprocess.run([sys.executable, "-m", "siltstone", "log", "/nowhere"], capture_output=True)
    assert missing.returncode == 3


def test_each_code_has_an_exception_class_of_its_own():
    classes = [getattr(errors, name) for name in errors.__all__ if name != "Error"]
    assert {error.code for error in classes} == set(range(1, 13))
    assert errors.BY_CODE == {error.code: error for error in classes}
    assert all(issubclass(error, siltstone.Error) for error in classes)
    assert all(getattr(siltstone, name) is getattr(errors, name) for name in errors.__all__)


def publish_and_read(url):
    repository = siltstone.open(url)
    weights = {"w": np.arange(100_000, dtype=np.float32)}
    with repository.publisher() as publisher:
        publisher.publish(weights)
        weights["w"][::7] += 1
        publisher.publish(weights)
    loaded = {"w": np.zeros(100_000, dtype=np.float32)}
    repository.load("main", loaded)
    assert loaded["w"].tobytes() == weights["w"].tobytes()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_works_in_processes_that_were_forked_or_spawned(tmp_path, method):
    for name in ("here", "there"):
        siltstone.init(tmp_path / name)
    publish_and_read(str(tmp_path / "here"))  # before the fork, so that its state is inherited
    child = multiprocessing.get_context(method).Process(target=publish_and_read, args=(str(tmp_path / "there"),))
    child.start()
    child.join(60)
    assert child.exitcode == 0
