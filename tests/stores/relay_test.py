#!/usr/bin/env python3
"""Replicas of a site behind a relay in front of S3: each object crosses once, versions are heard of without
polling the store, and a relay that is gone or lies does no harm."""

import json
import re
import signal
import subprocess
import time
import unittest
import urllib.request
from collections import Counter

from bucket_case import BucketCase, url_of
from program import PROGRAM
from servers.ceph import Ceph
from servers.fault_proxy import FaultProxy

ceph = Ceph()
proxy = None  # in front of it: counts what the relay fetches


def setUpModule():
    global proxy
    ceph.start()
    ceph.create_bucket("site")
    proxy = FaultProxy(ceph).start()


def tearDownModule():
    proxy.stop()
    ceph.stop()


class BehindARelay(BucketCase):
    server = ceph

    def setUp(self):
        super().setUp()
        name = self.id().rpartition(".")[2]
        self.bucket = url_of(ceph.endpoint, f"site/{name}")
        self.ok("init", self.bucket)
        self.folders = [self.checkpoint(f"step{i}") for i in range(3)]
        self.publish_all(self.bucket, self.folders)
        self.first = len(proxy.requests)
        self.relay = subprocess.Popen([PROGRAM, "relay", url_of(proxy.endpoint, f"site/{name}"), "--listen",
                                       "127.0.0.1:0", "--cache", self.work / "relay-cache", "--interval", "0.2",
                                       "--json"], env=self.env, stdout=subprocess.PIPE, text=True)
        self.addCleanup(self.end_relay)
        self.url = json.loads(self.relay.stdout.readline())["url"]

    def end_relay(self):
        self.relay.kill()
        self.relay.wait()
        self.relay.stdout.close()

    def fetched(self):
        """How often the relay fetched each data object from the store, in whole objects or parts of them."""
        return Counter((request.path, request.headers.get("range")) for request in proxy.requests[self.first:]
                       if request.method == "GET" and "/obj/" in request.path)

    def waiting(self):
        """Requests that the relay holds until their version appears."""
        with urllib.request.urlopen(self.url + "/metrics") as reply:
            return int(re.search(r'^siltstone_relay_waiting_requests{for="version"} (\d+)$',
                                 reply.read().decode(), re.M)[1])

    def start_pull(self, *words):
        return subprocess.Popen([PROGRAM, "pull", *map(str, words)], env=self.env, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)

    def test_fetches_each_object_once(self):
        pulls = [self.start_pull(self.url, self.work / f"replica{i}") for i in range(12)]
        pulls += [self.start_pull(self.bucket, self.work / f"through{i}", "--relay", self.url) for i in range(12)]
        for pull in pulls:
            self.assertEqual((pull.communicate()[1], pull.returncode), ("", 0))
        fetched = self.fetched()
        self.assertGreater(len(fetched), 0)
        self.assertEqual(set(fetched.values()), {1}, fetched)
        for replica in (self.work / "replica3", self.work / "through7"):
            self.assert_same_folders(self.folders[2], replica)

    def test_followers_hear_of_versions_without_polling_the_store(self):
        followers = [self.start_pull(self.url, self.work / f"replica{i}", "--follow", "--interval", "3600",
                                     "--until", "4") for i in range(6)]
        end = time.monotonic() + 120
        while self.waiting() < len(followers) and time.monotonic() < end:
            time.sleep(0.05)
        self.assertEqual(self.waiting(), len(followers))
        more = [self.checkpoint(f"more{i}") for i in range(2)]
        for folder in more:
            self.ok("publish", self.bucket, folder)
        for follower in followers:
            self.assertEqual((follower.communicate()[1], follower.returncode), ("", 0))
        self.assert_same_folders(more[1], self.work / "replica5")
        self.assertEqual(set(self.fetched().values()), {1})

    def test_goes_to_the_store_where_the_relay_is_gone(self):
        self.relay.send_signal(signal.SIGTERM)
        self.relay.wait()
        self.ok("pull", self.bucket, self.work / "replica", "--relay", self.url)
        self.assert_same_folders(self.folders[2], self.work / "replica")
        self.fails(7, "log", self.url, "--timeout", "0.5", says=self.url)

    def test_goes_to_the_store_when_the_relay_dies_under_a_follower(self):
        follower = self.start_pull(self.bucket, self.work / "replica", "--relay", self.url, "--follow", "--interval",
                                   "0.2", "--until", "4", "--json")
        self.assertEqual(json.loads(follower.stdout.readline())["to"], "main@2")
        self.end_relay()
        more = [self.checkpoint(f"more{i}") for i in range(2)]
        for folder in more:
            self.ok("publish", self.bucket, folder)
        self.assertEqual((follower.communicate()[1], follower.returncode), ("", 0))
        self.assert_same_folders(more[1], self.work / "replica")

    def test_a_relay_cannot_be_published_through(self):
        self.fails(6, "publish", self.url, self.folders[0], says="can only be read")
        self.assertEqual(self.json("publish", self.bucket, self.folders[1], "--relay", self.url)["version"], "main@3")


if __name__ == "__main__":
    unittest.main()
