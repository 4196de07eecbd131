"""moto's server, from the Python package index: a mock that answers with AWS's status codes.

A second opinion on those codes, and nothing more: it keeps everything in memory and checks no
signature. It is in .venv (scripts/venv.sh); boto3, which it needs anyway, is there too.
"""

import contextlib
import http.client
import subprocess
import sys
from pathlib import Path

from .s3_request import S3
from .server import Server, ServerError, free_ports

ENVIRONMENT_OF_THE_TESTS = Path(__file__).resolve().parents[2] / ".venv/bin/python"


def python_with_moto():
    """This Python if it has moto, else the one of .venv."""
    for python in (sys.executable, str(ENVIRONMENT_OF_THE_TESTS)):
        # Not in this folder, whose moto.py would be found instead.
        with contextlib.suppress(OSError):
            found = subprocess.run([python, "-c", "import moto.server"], cwd="/",
                                   stdin=subprocess.DEVNULL, capture_output=True)
            if found.returncode == 0:
                return python
    raise ServerError("moto is not installed; scripts/venv.sh puts it into .venv")


class Moto(Server):
    def _launch(self):
        port, = free_ports(1)
        self.endpoint = f"http://127.0.0.1:{port}"
        # It runs as ourselves: .venv may be where nobody else can read, and nothing is written.
        self._daemon("moto", [python_with_moto(), "-m", "moto.server", "-H", "127.0.0.1",
                              "-p", str(port)], as_ordinary_user=False)
        self._wait("moto serves", self._serves)

    def _serves(self):
        with contextlib.suppress(OSError, http.client.HTTPException):
            return S3.of(self, timeout=5).request("GET", "/").status == 200
        return False
