#!/usr/bin/env python3
"""A repository in Ceph's S3 gateway: the whole life of a bucket, racing writers, what users get wrong."""

import subprocess
import unittest

from bucket_case import BucketCase, url_of
from program import PROGRAM
from servers.ceph import Ceph
from servers.s3_request import S3, keys_of

ceph = Ceph()


def setUpModule():
    ceph.start()
    ceph.create_bucket("models")


def tearDownModule():
    ceph.stop()


class InCeph(BucketCase):
    server = ceph

    def bucket(self):
        return url_of(ceph.endpoint, f"models/{self.id().rpartition('.')[2]}")

    def test_lives_as_in_a_directory(self):
        self.live(self.bucket())

    def test_is_a_directory_of_objects_that_can_be_copied(self):
        bucket = self.bucket()
        self.ok("init", bucket)
        roots = self.publish_all(bucket, [self.checkpoint(f"step{i}") for i in range(2)])
        requests, copy, prefix = S3.of(ceph), self.work / "copy", f"{self.id().rpartition('.')[2]}/"
        for key in keys_of(requests.list("models", prefix)):
            to = copy / key.removeprefix(prefix)
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(requests.get("models", key).body)
        self.assertEqual(self.json("verify", copy, "--data")["problems"], [])
        self.assertEqual([version["root"] for version in self.json("log", copy)["versions"]], roots[::-1])

    def test_keeps_racing_writers_apart(self):
        bucket = self.bucket()
        self.ok("init", bucket)
        folders = [self.checkpoint(f"writer{i}") for i in range(8)]
        writers = [subprocess.Popen([PROGRAM, "publish", bucket, folder, "--no-cache"], env=self.env,
                                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                   for folder in folders]
        ends = [writer.communicate() + (writer.returncode,) for writer in writers]
        won = sum(status == 0 for _, _, status in ends)
        self.assertEqual({status for _, _, status in ends} - {0, 5}, set(), ends)
        self.assertGreaterEqual(won, 1)
        self.assertEqual(len(self.json("log", bucket)["versions"]), won)
        self.assertEqual(self.json("verify", bucket, "--data")["problems"], [])

    def test_follows(self):
        bucket = self.bucket()
        self.ok("init", bucket)
        follower = subprocess.Popen([PROGRAM, "pull", bucket, self.work / "replica", "--follow", "--interval", "0.1",
                                     "--until", "3"], env=self.env, stdout=subprocess.PIPE, text=True)
        folders = [self.checkpoint(f"step{i}") for i in range(4)]
        self.publish_all(bucket, folders)
        self.assertEqual((follower.communicate()[0] != "", follower.returncode), (True, 0))
        self.assert_same_folders(folders[3], self.work / "replica")

    def test_says_what_is_wrong(self):
        bucket = self.bucket()
        self.ok("init", bucket)
        self.fails(5, "init", bucket, says="already holds a repository")
        missing = url_of(ceph.endpoint, "nowhere/x")
        self.fails(2, "log", missing, says=("NoSuchBucket", "make the bucket first", "nowhere"))
        self.fails(2, "init", missing, says="NoSuchBucket")
        self.fails(3, "log", url_of(ceph.endpoint, "models/empty"), says="holds no repository")
        self.fails(7, "log", url_of("http://127.0.0.1:1", "models/x"), "--timeout", "0.5", says="127.0.0.1")
        self.fails(7, "log", url_of(ceph.endpoint.replace("http", "https"), "models/x"), "--timeout", "0.5",
                   says="http:// server")
        secret = self.env["AWS_SECRET_ACCESS_KEY"]
        self.env["AWS_SECRET_ACCESS_KEY"] = secret + "x"
        told = self.fails(6, "log", bucket, says=("SignatureDoesNotMatch", "403", bucket))
        self.assertNotIn(secret, told)
        self.env["AWS_ACCESS_KEY_ID"] = "nobody"
        self.fails(6, "publish", bucket, self.checkpoint("step"), says="InvalidAccessKeyId")
        del self.env["AWS_ACCESS_KEY_ID"], self.env["AWS_SECRET_ACCESS_KEY"]
        self.env["HOME"] = str(self.work)
        self.fails(6, "log", bucket, says="AWS_ACCESS_KEY_ID")

    def test_finds_keys_and_endpoint_in_profile_files(self):
        (self.work / ".aws").mkdir()
        (self.work / ".aws/credentials").write_text(
            f"[lab]\naws_access_key_id = {ceph.access_key}\naws_secret_access_key = {ceph.secret_key}\n")
        (self.work / ".aws/config").write_text(f"[profile lab]\nendpoint_url = {ceph.endpoint}\nregion = us-east-1\n")
        self.env = {name: value for name, value in self.env.items() if not name.startswith("AWS_")}
        self.env |= {"HOME": str(self.work), "AWS_PROFILE": "lab"}
        self.ok("init", "s3://models/profile")
        self.fails(3, "log", "s3://models/profile", says="has no versions")

    def test_keeps_no_secret(self):
        bucket = self.bucket()
        self.ok("init", bucket)
        self.publish_all(bucket, [self.checkpoint(f"step{i}") for i in range(2)])
        requests = S3.of(ceph)
        prefix = f"{self.id().rpartition('.')[2]}/"
        for key in keys_of(requests.list("models", prefix)):
            content = requests.get("models", key).body
            self.assertNotIn(ceph.secret_key.encode(), content, key)
            self.assertNotIn(ceph.access_key.encode() + b"/", content, key)


if __name__ == "__main__":
    unittest.main()
