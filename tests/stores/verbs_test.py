#!/usr/bin/env python3
"""The tests of the command line once more, with their bucket in Ceph."""

import importlib.util
import unittest
import uuid

from bucket_case import TESTS, url_of
from servers.ceph import Ceph

# By its path: this file has the same name.
spec = importlib.util.spec_from_file_location("cli_verbs_test", TESTS / "cli/verbs_test.py")
cli = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cli)

ceph = Ceph()


def setUpModule():
    ceph.start()
    ceph.create_bucket("verbs")


def tearDownModule():
    ceph.stop()


class InCeph(cli.Verbs):
    # They change files of the bucket, limit its directory, or look where the base of a publish lies.
    test_exit_statuses = test_inspect = test_permission = test_full_disk = None
    test_trainers_that_rewrite_and_trainers_that_do_not = None

    def setUp(self):
        super().setUp()
        self.env = ceph.environment() | self.env | ceph.settings()
        self.bucket = url_of(ceph.endpoint, f"verbs/{uuid.uuid4().hex}")


if __name__ == "__main__":
    unittest.main()
