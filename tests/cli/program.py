"""The program under test, as a user runs it."""

import json
import os
import subprocess

PROGRAM = os.environ["SILTSTONE"]


class RunsProgram:
    """For test cases that have `env`, the program's environment."""

    def run_it(self, *words, **more):
        return subprocess.run([PROGRAM, *map(str, words)], env=self.env, capture_output=True, text=True, **more)

    def ok(self, *words):
        done = self.run_it(*words)
        self.assertEqual(done.returncode, 0, f"{words}: {done.stderr}")
        return done.stdout

    def json(self, *words):
        return json.loads(self.ok(*words, "--json"))
