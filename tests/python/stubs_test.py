"""The stubs that type checkers read are those of the module: `python -m nanobind.stubgen` makes them."""

import importlib.metadata
from pathlib import Path

import pytest

import siltstone

stubgen = pytest.importorskip("nanobind.stubgen")


def test_the_stubs_are_those_of_the_module():
    if importlib.metadata.version("nanobind") != "3.1.0":
        pytest.skip("another nanobind writes them otherwise")
    generator = stubgen.StubGen(module=siltstone._core, quiet=True)
    generator.put(siltstone._core)
    stub = Path(siltstone.__file__).with_name("_core.pyi").read_text()
    assert generator.get() == stub


def test_the_package_tells_that_it_has_types():
    assert Path(siltstone.__file__).with_name("py.typed").exists()
