"""`python -m siltstone.integrations.vllm`: keeps a running server at the newest version of a branch."""

import argparse

from siltstone._program import failures_told

from .server import Server
from .update import PAUSE_MODES


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m siltstone.integrations.vllm",
        description="Keep a running vLLM server at the newest version of a branch.",
    )
    parser.add_argument(
        "server", help="http://host:8000 of a server with --weight-transfer-config '{\"backend\": \"siltstone\"}'"
    )
    parser.add_argument("bucket", help="as for every command of siltstone; seen from the server")
    parser.add_argument("at", help="the version that the server's model is, such as main@7")
    parser.add_argument("--branch", default="main")
    parser.add_argument("--pause-mode", default="keep", choices=PAUSE_MODES)
    parser.add_argument("--keep-caches", action="store_true", help="go on with keys and values of older weights")
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between looks at the branch")
    given = parser.parse_args(arguments)

    def tell(version, seconds):
        print(f"{version.name}: paused for {seconds * 1e3:.0f} ms", flush=True)

    with failures_told():
        server = Server(given.server, pause_mode=given.pause_mode, keep_caches=given.keep_caches)
        server.attach(given.bucket, given.at, branch=given.branch, interval=given.interval)
        server.follow(given.bucket, branch=given.branch, interval=given.interval, on_version=tell)


if __name__ == "__main__":
    main()
