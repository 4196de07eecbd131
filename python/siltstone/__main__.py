"""`python -m siltstone` and the command `siltstone`: the program that comes with the package."""

import os
import sys
from pathlib import Path


def main():
    program = Path(__file__).with_name("bin") / "siltstone"
    os.execv(program, ["siltstone", *sys.argv[1:]])


if __name__ == "__main__":
    main()
