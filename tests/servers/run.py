"""Runs a command while one of the servers of the test suite runs:

    python3 tests/servers/run.py ceph --bucket models -- siltstone log s3://models/policy
    python3 tests/servers/run.py nginx --folder published

The command finds the server through SILTSTONE_TEST_S3_ENDPOINT and the AWS_* variables
(SILTSTONE_TEST_HTTP_ENDPOINT for nginx). Its exit status is passed on. Without a command the
settings are printed as lines for a shell, and the server runs until interrupted.
"""

import argparse
import importlib
import shlex
import signal
import subprocess
import sys
from pathlib import Path

# As a package, because a folder on the path that holds a moto.py would hide the real moto.
sys.path[0] = str(Path(__file__).resolve().parents[1])

KINDS = {"ceph": "Ceph", "swift": "Swift", "moto": "Moto", "nginx": "Nginx"}


def arguments(words):
    split = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter,
                                     usage="run.py KIND [option]... [-- COMMAND...]")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--bucket", action="append", default=[], help="create it first; repeatable")
    parser.add_argument("--bluestore", action="store_true",
                        help="ceph: objects in a file instead of memory")
    parser.add_argument("--folder", type=Path, help="nginx: what it serves")
    chosen = parser.parse_args(words[:split])
    if (chosen.folder is not None) != (chosen.kind == "nginx"):
        parser.error("--folder belongs to nginx, which needs it")
    return chosen, words[split + 1:]


def server_for(chosen):
    make = getattr(importlib.import_module(f"servers.{chosen.kind}"), KINDS[chosen.kind])
    if chosen.kind == "nginx":
        return make(chosen.folder)
    return make(bluestore=chosen.bluestore) if chosen.kind == "ceph" else make()


def run(command, server):
    done = subprocess.run(command, env=server.environment())
    return done.returncode if done.returncode >= 0 else 128 - done.returncode


def wait(server):
    lines = [f"export {name}={shlex.quote(value)}" for name, value in server.settings().items()]
    # A shell makes what it starts in the background ignore the interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        print("\n".join(lines), flush=True)
        while True:
            signal.pause()
    except KeyboardInterrupt:
        return 0


def main():
    chosen, command = arguments(sys.argv[1:])
    with server_for(chosen) as server:
        for bucket in chosen.bucket:
            server.create_bucket(bucket)
        return run(command, server) if command else wait(server)


if __name__ == "__main__":
    sys.exit(main())
