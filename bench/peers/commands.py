"""Command-line tools that make one file out of two. Standard library only."""

import os
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

TWO_GIB = 1 << 31


class Usage(NamedTuple):
    seconds: float
    mebibytes: float
    output: str


def run(command):
    """Runs to success; returns the processor time, the largest resident set and what it printed."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen([str(part) for part in command], stdout=output, stderr=subprocess.PIPE)
        message = process.stderr.read().decode(errors="replace").strip()
        process.stderr.close()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        printed = output.read().decode(errors="replace")
    if process.returncode != 0:
        lines = message.splitlines() or ["no message"]
        raise RuntimeError(f"exit status {process.returncode}: {lines[-1]}")
    return Usage(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, printed)


class ZstdPatch:
    program = "zstd"

    def __init__(self, level):
        self.level = level
        self.name = f"zstd-patch-{level}"
        self.title = f"`zstd -{level} --patch-from --long=27`"
        self.stands_for = "a general tool"
        self.slow = level > 9

    def encode_command(self, old, new, patch):
        return ["zstd", f"-{self.level}", "--single-thread", "--long=27", "-q", "-f",
                f"--patch-from={old}", new, "-o", patch]

    def decode_command(self, old, patch, new):
        return ["zstd", "-d", "--single-thread", "--long=31", "-q", "-f", f"--patch-from={old}",
                patch, "-o", new]


class Xdelta:
    program = "xdelta3"
    name = "xdelta3"
    title = "`xdelta3 -e -B SIZE -s`"
    stands_for = "a general tool (VCDIFF)"
    slow = True

    def window(self, old):
        size = 1 << 19
        while size < min(Path(old).stat().st_size, TWO_GIB):
            size *= 2
        return size

    def encode_command(self, old, new, patch):
        return ["xdelta3", "-e", "-f", "-B", self.window(old), "-s", old, new, patch]

    def decode_command(self, old, patch, new):
        return ["xdelta3", "-d", "-f", "-B", self.window(old), "-s", old, patch, new]


METHODS = {method.name: method for method in (ZstdPatch(3), ZstdPatch(19), Xdelta())}
