#!/usr/bin/env python3
"""SIGKILL in the middle of publishing: of the storage daemon, of the gateway, of the writer itself. What
was acknowledged stays, and what is visible is whole."""

import random
import subprocess
import threading
import time
import unittest

from bucket_case import BucketCase, url_of
from program import PROGRAM
from servers.ceph import Ceph

ceph = Ceph(bluestore=True)
STALL = ("--stall-timeout", "2")


def setUpModule():
    ceph.start()
    ceph.create_bucket("kills")


def tearDownModule():
    ceph.stop()


class Kills(BucketCase):
    server = ceph

    def setUp(self):
        super().setUp()
        self.bucket = url_of(ceph.endpoint, f"kills/{self.id().rpartition('.')[2]}")
        self.ok("init", self.bucket)

    def check(self, acknowledged, folders):
        log = {version["version"]: version["root"] for version in self.json("log", self.bucket)["versions"]}
        for version, root in acknowledged.items():
            self.assertEqual(log[version], root)
        self.assertEqual(self.json("verify", self.bucket, "--data")["problems"], [])
        self.ok("pull", self.bucket, self.work / "replica")
        newest = self.json("show", self.bucket)
        self.assert_same_folders(folders[newest["step"]], self.work / "replica")

    def publish_while(self, stop_server, start_server):
        """Publishes twelve versions; the server is killed, and started again, twice meanwhile."""
        folders = [self.checkpoint(f"step{i}") for i in range(12)]
        acknowledged = {}

        def publish():
            for step, folder in enumerate(folders):
                report = self.json("publish", self.bucket, folder, "--step", step, *STALL)
                acknowledged[report["version"]] = report["root"]

        failures = []
        writer = threading.Thread(target=lambda: self.keep_failure(publish, failures))
        writer.start()
        for after in (3, 8):
            while writer.is_alive() and len(acknowledged) < after:
                time.sleep(0.01)
            time.sleep(self.random.uniform(0, 0.05))
            stop_server()
            time.sleep(0.5)
            start_server()
        writer.join()
        self.assertEqual(failures, [])
        self.assertEqual(len(acknowledged), 12)
        self.check(acknowledged, folders)

    def keep_failure(self, work, failures):
        try:
            work()
        except AssertionError as failure:
            failures.append(failure)

    def test_storage_daemon(self):
        self.publish_while(ceph.kill_osd, ceph.start_osd)

    def test_gateway(self):
        self.publish_while(ceph.kill_gateway, ceph.start_gateway)

    def test_writer(self):
        """Killed at a random moment, again and again; the next publish goes on from what is there."""
        acknowledged, folders = {}, []
        delay = random.Random(7)
        for step in range(25):
            folders.append(self.checkpoint(f"step{step}"))
            writer = subprocess.Popen([PROGRAM, "publish", self.bucket, folders[-1], "--step", str(step), "--json"],
                                      env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                writer.wait(delay.uniform(0.005, 0.15))
            except subprocess.TimeoutExpired:
                writer.kill()
                writer.wait()
        folders.append(self.checkpoint("last"))
        report = self.json("publish", self.bucket, folders[-1], "--step", 25)
        acknowledged[report["version"]] = report["root"]
        self.check(acknowledged, folders)


if __name__ == "__main__":
    unittest.main()
