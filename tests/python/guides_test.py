"""Every program of the guides runs, and stays short enough to read."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
GUIDES = sorted((Path(__file__).parents[2] / "docs" / "guides").glob("*.py"))


@pytest.mark.parametrize("program", GUIDES, ids=lambda path: path.stem)
def test_the_program_runs(program, tmp_path):
    done = subprocess.run([sys.executable, program, tmp_path / "bucket"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "main@" in done.stdout
    assert len(program.read_text().splitlines()) < 60
    assert (program.with_name(program.stem.removesuffix("_example") + ".md")).read_text().count(program.name) > 0
