#!/usr/bin/env python3
"""What networks and overloaded servers do to requests, one fault at a time: a publish or a pull either
succeeds or fails with a clear error and nothing lost, and no version is ever published twice."""

import unittest

from bucket_case import STALL, BucketCase, url_of
from servers.ceph import Ceph
from servers.fault_proxy import FaultProxy

ceph = Ceph()
proxy = None  # in front of it

# Faults that another attempt gets over, for requests that write and for those that read.
WRITE_FAULTS = ("reset", "reset_after", "stall", 429, 500, 503, "duplicate")
READ_FAULTS = ("reset", "stall", 500, 503, "truncate", "stall_body")
DECISIVE = ("/obj/", "/log/", "/repo.json")
OTHERS = ("/schema/", "/files/", "/head/", "/probe/")


def setUpModule():
    global proxy
    ceph.start()
    ceph.create_bucket("faults")
    proxy = FaultProxy(ceph).start()


def tearDownModule():
    proxy.stop()
    ceph.stop()


class Faults(BucketCase):
    server = ceph

    def setUp(self):
        super().setUp()
        self.addCleanup(proxy.disarm)
        self.number = 0

    def new_bucket(self):
        self.number += 1
        return url_of(proxy.endpoint, f"faults/{self.id().rpartition('.')[2]}-{self.number}")

    def straight(self, bucket):
        """The same bucket without the proxy."""
        return bucket.replace(proxy.endpoint, ceph.endpoint)

    def test_gets_over_faults_of_writes(self):
        folders = [self.checkpoint(f"step{i}", 500) for i in range(2)]
        roots = None
        for fault in WRITE_FAULTS:
            for path in DECISIVE + (OTHERS if fault in ("reset_after", "duplicate", 503) else ()):
                with self.subTest(fault=fault, path=path):
                    bucket = self.new_bucket()
                    armed = proxy.arm(fault, method="PUT", path_contains=path, seconds=3)
                    self.ok("init", bucket, *STALL)
                    found = [self.json("publish", bucket, folder, "--no-cache", *STALL)["root"] for folder in folders]
                    self.assertEqual(armed.fired, 1)
                    proxy.disarm()
                    roots = roots or found
                    self.assertEqual(found, roots)
                    log = self.json("log", self.straight(bucket))["versions"]
                    self.assertEqual([version["root"] for version in log], roots[::-1])
        self.assertEqual(self.json("verify", self.straight(bucket), "--data")["problems"], [])

    def test_gets_over_faults_of_reads(self):
        bucket = self.new_bucket()
        self.ok("init", bucket)
        folders = [self.checkpoint(f"step{i}") for i in range(3)]
        self.publish_all(bucket, folders)
        for fault in READ_FAULTS:
            for path in DECISIVE:
                with self.subTest(fault=fault, path=path):
                    armed = proxy.arm(fault, method="GET", path_contains=path, seconds=3)
                    out = self.work / f"{fault}{path.replace('/', '-')}"
                    self.ok("checkout", bucket, "main@2", out, *STALL)
                    self.assertEqual(armed.fired, 1)
                    proxy.disarm()
                    self.assert_same_folders(folders[2], out)
        proxy.arm("short_length", method="GET", path_contains="/obj/")
        self.ok("checkout", bucket, "main@2", self.work / "short")
        proxy.arm("short_length", method="GET", path_contains="/schema/")
        self.fails(4, "checkout", bucket, "main@2", self.work / "shorter", says="does not match its name")

    def test_gets_over_many_faults_at_once(self):
        bucket = self.new_bucket()
        for fault in ("reset", 503):
            proxy.arm(fault, when=3, times=4)
        self.ok("init", bucket)
        folders = [self.checkpoint(f"step{i}") for i in range(3)]
        self.publish_all(bucket, folders)
        self.ok("pull", bucket, self.work / "replica")
        self.assert_same_folders(folders[2], self.work / "replica")

    def test_gives_up_with_a_clear_error(self):
        bucket = self.new_bucket()
        self.ok("init", bucket)
        folders = [self.checkpoint(f"step{i}") for i in range(2)]
        self.publish_all(bucket, folders[:1])
        for fault, says in ((503, "SlowDown"), ("reset", "given up after")):
            proxy.arm(fault, times=None, method="PUT", path_contains="/log/")
            self.fails(7, "publish", bucket, folders[1], "--timeout", "1", says=(says, "could not be learnt"))
            proxy.disarm()
        self.assertEqual(len(self.json("log", bucket)["versions"]), 1)
        self.ok("publish", bucket, folders[1])
        self.assertEqual(self.json("verify", bucket, "--data")["problems"], [])

    def test_notices_bytes_that_change_on_the_way(self):
        bucket = self.new_bucket()
        self.ok("init", bucket)
        folders = [self.checkpoint(f"step{i}") for i in range(2)]
        self.publish_all(bucket, folders)
        replica = self.work / "replica"
        self.ok("pull", bucket, replica, "--to", "main@0")
        for path in ("/obj/", "/log/"):
            proxy.arm("corrupt", times=None, method="GET", path_contains=path)
            self.fails(4, "pull", bucket, replica)
            proxy.disarm()
            self.assert_same_folders(folders[0], replica)
        self.ok("pull", bucket, replica)
        self.assert_same_folders(folders[1], replica)


if __name__ == "__main__":
    unittest.main()
