#!/usr/bin/env python3
"""Stores that are not quite S3: one without conditional writes, one with the rules of the Hugging Face
gateway, a mock that answers as Amazon's does."""

import unittest

from bucket_case import BucketCase, url_of
from servers.ceph import Ceph
from servers.hf_rules_proxy import HfRulesProxy
from servers.moto import Moto
from servers.swift import Swift


class InServer(BucketCase):
    """One server, or a proxy in front of one, for a class of tests."""

    @classmethod
    def setUpClass(cls):
        cls.server = cls.start_server()
        cls.server.create_bucket("models")

    @classmethod
    def start_server(cls):
        raise NotImplementedError

    @classmethod
    def started(cls, server):
        cls.addClassCleanup(server.stop)
        return server.start()

    def bucket(self):
        return url_of(self.server.endpoint, f"models/{self.id().rpartition('.')[2]}")


class WithoutConditions(InServer):
    @classmethod
    def start_server(cls):
        return cls.started(Swift())

    def test_is_refused_with_the_reason(self):
        self.fails(1, "init", self.bucket(), says=("If-None-Match", "overwrite each other's versions",
                                                   "--single-writer"))
        self.fails(3, "log", self.bucket(), says="holds no repository")

    def test_is_taken_for_a_single_writer_who_is_told_each_time(self):
        bucket, remark = self.bucket(), "a second writer could overwrite"
        done = self.run_it("init", bucket, "--single-writer")
        self.assertEqual((done.returncode, remark in done.stderr), (0, True), done.stderr)
        done = self.run_it("publish", bucket, self.checkpoint("step0"))
        self.assertEqual((done.returncode, remark in done.stderr), (0, True), done.stderr)
        self.assertTrue(self.json("publish", bucket, self.checkpoint("step1"))["single_writer"])
        self.assertEqual(self.json("verify", bucket, "--data")["problems"], [])

    def test_lives_as_in_a_directory(self):
        self.live(self.bucket(), "--single-writer")


class WithRulesOfHuggingFace(InServer):
    @classmethod
    def start_server(cls):
        return cls.started(HfRulesProxy(cls.started(Ceph()), namespace="some-org"))

    def test_lives_as_in_a_directory(self):
        self.live(self.bucket())
        self.assertEqual(self.server.violations, [])


class AsAmazonAnswers(InServer):
    @classmethod
    def start_server(cls):
        return cls.started(Moto())

    def test_lives_as_in_a_directory(self):
        self.live(self.bucket())

    def test_a_bucket_that_is_not_there(self):
        self.fails(2, "log", url_of(self.server.endpoint, "nowhere/x"), says="NoSuchBucket")


if __name__ == "__main__":
    unittest.main()
