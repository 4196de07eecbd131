"""Proves each fault of the fault proxy and each rule of the rules proxy, over a real server."""

import http.client
import socket
import sys
import threading
import unittest
import urllib.parse
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])
from servers.ceph import Ceph  # noqa: E402
from servers.fault_proxy import FaultProxy  # noqa: E402
from servers.hf_rules_proxy import HfRulesProxy  # noqa: E402
from servers.s3_request import S3, keys_of, sign  # noqa: E402

BODY = bytes(range(256)) * 1000


def setUpModule():
    global ceph, direct
    ceph = Ceph().start()
    unittest.addModuleCleanup(ceph.stop)
    direct = S3.of(ceph)
    ceph.create_bucket("bucket")


class FaultProxyTest(unittest.TestCase):
    def setUp(self):
        self.proxy = FaultProxy(ceph).start()
        self.addCleanup(self.proxy.stop)
        self.s3 = S3.of(self.proxy, timeout=20)
        self.assertEqual(direct.put("bucket", "k", BODY).status, 200)

    def in_background(self, call):
        """A request in a thread; the list gets what it returned."""
        replies = []
        thread = threading.Thread(target=lambda: replies.append(call()))
        thread.start()
        self.addCleanup(thread.join)
        return thread, replies

    def test_passes_through(self):
        self.assertEqual(self.s3.put("bucket", "dir/a b", BODY).status, 200)
        self.assertEqual(self.s3.get("bucket", "dir/a b").body, BODY)
        part = self.s3.get("bucket", "k", range="bytes=1-3")
        self.assertEqual((part.status, part.body), (206, BODY[1:4]))
        self.assertEqual(int(self.s3.head("bucket", "k").headers["content-length"]), len(BODY))
        self.assertEqual(keys_of(self.s3.list("bucket", "dir/")), ["dir/a b"])
        self.assertEqual(self.s3.put("bucket", "k", b"", if_none_match="*").status, 412)
        self.assertEqual(self.s3.delete("bucket", "dir/a b").status, 204)
        self.assertEqual(self.proxy.count("GET", "/dir/a%20b"), 1)
        self.assertEqual(self.proxy.count(path_contains="/bucket"), 7)
        self.assertIn("AWS4-HMAC-SHA256", self.proxy.requests[0].headers["Authorization"])

    def test_keeps_connections(self):
        connection = http.client.HTTPConnection(self.s3.host)
        self.addCleanup(connection.close)
        sockets = set()
        for method in ("PUT", "GET", "HEAD", "DELETE", "GET"):
            body = b"x" if method == "PUT" else b""
            signed = sign({"host": self.s3.host}, method, "/bucket/kept", [],
                          "UNSIGNED-PAYLOAD", *self.s3.keys)
            connection.request(method, "/bucket/kept", body=body, headers=signed)
            connection.getresponse().read()
            sockets.add(connection.sock)
        self.assertEqual((len(sockets), None in sockets), (1, False))

    def test_large_bodies(self):
        large = BODY * 256
        self.assertEqual(self.s3.put("bucket", "large", large).status, 200)
        self.assertEqual(self.s3.get("bucket", "large").body, large)

    def test_reset(self):
        fault = self.proxy.arm("reset", method="PUT")
        with self.assertRaises(ConnectionResetError):
            self.s3.put("bucket", "reset", BODY)
        self.assertEqual(direct.get("bucket", "reset").status, 404)
        self.assertEqual(self.s3.put("bucket", "reset", BODY).status, 200)
        self.assertEqual((fault.seen, fault.fired), (2, 1))

    def test_reset_after(self):
        self.proxy.arm("reset_after", method="PUT")
        with self.assertRaises(ConnectionResetError):
            self.s3.put("bucket", "lost-reply", BODY, if_none_match="*")
        self.assertEqual(direct.get("bucket", "lost-reply").body, BODY)
        self.assertEqual(self.s3.put("bucket", "lost-reply", BODY, if_none_match="*").status, 412)

    def test_stall_until_released(self):
        self.proxy.arm("stall", method="PUT")
        thread, replies = self.in_background(lambda: self.s3.put("bucket", "stalled", BODY))
        while not self.proxy.count("PUT"):
            thread.join(0.01)
        self.assertEqual(direct.get("bucket", "stalled").status, 404)
        self.proxy.release()
        thread.join()
        self.assertEqual(replies[0].status, 200)
        self.assertEqual(direct.get("bucket", "stalled").body, BODY)

    def test_stall_for_a_time_and_a_client_that_gives_up(self):
        self.proxy.arm("stall", seconds=0.5)
        self.assertEqual(self.s3.get("bucket", "k").body, BODY)
        self.proxy.arm("stall")
        with self.assertRaises(TimeoutError):
            S3.of(self.proxy, timeout=0.2).get("bucket", "k")

    def test_stopping_ends_a_stall(self):
        self.proxy.arm("stall")
        thread, replies = self.in_background(lambda: failure(lambda: self.s3.get("bucket", "k")))
        while not self.proxy.count():
            thread.join(0.01)
        self.proxy.stop()
        thread.join()
        self.assertIsInstance(replies[0], (ConnectionError, http.client.HTTPException))

    def test_truncate(self):
        self.proxy.arm("truncate", method="GET")
        with self.assertRaises(http.client.IncompleteRead) as cut:
            self.s3.get("bucket", "k")
        self.assertEqual(cut.exception.partial, BODY[:len(BODY) // 2])

    def test_stall_body(self):
        self.proxy.arm("stall_body", times=2)
        with self.assertRaises(TimeoutError):
            S3.of(self.proxy, timeout=0.3).get("bucket", "k")
        self.proxy.disarm()
        self.proxy.arm("stall_body", seconds=0.3)
        self.assertEqual(self.s3.get("bucket", "k").body, BODY)

    def test_statuses(self):
        for status in (429, 500, 503):
            self.proxy.arm(status, retry_after=1)
            self.proxy.arm(status)
            patient, plain = (self.s3.put("bucket", "refused", BODY) for _ in range(2))
            self.assertEqual((patient.status, patient.headers["Retry-After"]), (status, "1"))
            self.assertEqual((plain.status, plain.headers["Retry-After"]), (status, None))
        self.assertEqual(direct.get("bucket", "refused").status, 404)

    def test_duplicate(self):
        self.proxy.arm("duplicate")
        twice = self.s3.put("bucket", "twice", BODY, if_none_match="*")
        self.assertEqual(twice.status, 412)
        self.assertEqual(direct.get("bucket", "twice").body, BODY)

    def test_corrupt(self):
        self.proxy.arm("corrupt")
        got = self.s3.get("bucket", "k").body
        flipped = [(a ^ b, i) for i, (a, b) in enumerate(zip(got, BODY, strict=True)) if a != b]
        self.assertEqual(flipped, [(1, len(BODY) // 2)])

    def test_short_length(self):
        self.proxy.arm("short_length")
        short = self.s3.get("bucket", "k")
        self.assertEqual((short.status, short.body), (200, BODY[:len(BODY) // 2]))
        self.assertEqual(short.headers["content-length"], str(len(BODY) // 2))

    def test_chooses_requests(self):
        self.proxy.arm(503, when=2, times=2, method="GET", path_contains="/chosen")
        direct.put("bucket", "chosen", b"c")
        chosen = [self.s3.get("bucket", "chosen").status for _ in range(4)]
        self.assertEqual(chosen, [200, 503, 503, 200])
        self.proxy.arm(500, times=None)
        self.assertEqual([self.s3.get("bucket", "k").status for _ in range(3)], [500] * 3)
        self.proxy.disarm()
        self.assertEqual(self.s3.get("bucket", "k").status, 200)
        with self.assertRaisesRegex(ValueError, "earthquake"):
            self.proxy.arm("earthquake")

    def test_a_dead_server_looks_dead(self):
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            self.proxy.upstream = "127.0.0.1:%d" % nobody.getsockname()[1]
            with self.assertRaises(ConnectionResetError):
                self.s3.get("bucket", "k")


class HfRulesProxyTest(unittest.TestCase):
    def setUp(self):
        self.hub = HfRulesProxy(ceph, namespace="some-org").start()
        self.addCleanup(self.hub.stop)
        self.s3 = S3.of(self.hub)

    def ask_cdn(self, location, **headers):
        """What the link answers, without following it further."""
        parts = urllib.parse.urlsplit(location)
        connection = http.client.HTTPConnection(parts.netloc, timeout=20)
        try:
            connection.request("GET", f"{parts.path}?{parts.query}",
                               headers={name.replace("_", "-"): v for name, v in headers.items()})
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()

    def assert_refused(self, status, rule, call):
        before = len(self.hub.violations)
        self.assertEqual(call().status, status, rule)
        self.assertEqual(len(self.hub.violations), before + 1, rule)
        self.assertRegex(self.hub.violations[-1].rule, rule)

    def test_what_is_allowed(self):
        self.hub.create_bucket("allowed")
        self.assertEqual(self.s3.put("allowed", "dir/a b+c", BODY).status, 200)
        self.assertEqual(self.s3.put("allowed", "dir/a b+c", b"", if_none_match="*").status, 412)
        self.assertEqual(self.s3.head("allowed", "dir/a b+c").status, 200)
        self.assertEqual(keys_of(self.s3.list("allowed", "dir/", delimiter="/")), ["dir/a b+c"])
        self.assertEqual(self.s3.get("allowed", "none").status, 404)
        moved = self.s3.get("allowed", "dir/a b+c")
        self.assertEqual((moved.status, BODY in moved.body), (302, False))
        self.assertEqual(self.ask_cdn(moved.headers["location"]), (200, BODY))
        part = self.ask_cdn(moved.headers["location"], range="bytes=1-3")
        self.assertEqual(part, (206, BODY[1:4]))
        self.assertEqual(self.s3.delete("allowed", "dir/a b+c").status, 204)
        self.assertEqual(self.hub.violations, [])

    def test_links(self):
        direct.put("bucket", "linked", BODY)
        link = self.s3.get("bucket", "linked").headers["location"]
        for name in ("authorization", "x_amz_security_token", "x_amz_content_sha256"):
            self.assertEqual(self.ask_cdn(link, **{name: "x"})[0], 400)
            self.assertIn(name.replace("_", "-"), self.hub.violations[-1].rule)
        self.assertEqual(self.ask_cdn(link.replace("linked", "other"))[0], 403)
        self.assertEqual(len(self.hub.violations), 4)
        self.hub.link_seconds = -2
        self.assertEqual(self.ask_cdn(self.s3.get("bucket", "linked").headers["location"])[0], 403)
        self.assertEqual(len(self.hub.violations), 4, "an old link is no violation")

    def test_clients_that_do_not_follow(self):
        direct.put("bucket", "direct", BODY)
        served = self.s3.get("bucket", "direct", user_agent="Boto3/1.44 Botocore/1.44")
        self.assertEqual((served.status, served.body), (200, BODY))

    def test_faults_on_both_ways(self):
        """Fault proxies before the gateway and before where its links lead."""
        direct.put("bucket", "far", BODY)
        with FaultProxy(self.hub) as gateway, FaultProxy(self.hub.cdn) as cdn:
            self.hub.cdn_through = cdn
            cdn.arm("corrupt")
            link = S3.of(gateway).get("bucket", "far").headers["location"]
            self.assertEqual(self.ask_cdn(link)[0], 200)
            self.assertEqual((gateway.count("GET", "/far"), cdn.count("GET", "/far")), (1, 1))
        self.assertEqual(self.hub.violations, [])

    def test_keys(self):
        for key in ("a//b", "/a", "a/", "./a", "a/../b", "..", "a\\b", "a\0b"):
            self.assert_refused(400, "^a key", lambda: self.s3.put("bucket", key, b""))
        for key in (".a", "a/.b", "a..b", "a/./b"):
            self.assertEqual(self.s3.put("bucket", key, b"").status, 200)

    def test_listings(self):
        def ask(**query):
            return lambda: self.s3.request("GET", "/bucket", list(query.items()))
        self.assert_refused(501, "ListObjectsV2", ask(prefix="a"))
        self.assert_refused(400, "delimiter", ask(**{"list-type": "2", "delimiter": "-"}))
        for name in ("versioning", "versions", "tagging", "lifecycle", "acl", "policy"):
            self.assert_refused(501, name, ask(**{name: ""}))
        self.assert_refused(501, "versionId",
                            lambda: self.s3.request("GET", "/bucket/k", [("versionId", "1")]))

    def test_headers(self):
        def put(query=(), **headers):
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return lambda: self.s3.request("PUT", "/bucket/h", query, named)
        self.assert_refused(400, "x-amz-meta", put(x_amz_meta_owner="me"))
        self.assert_refused(501, "aws-chunked", put(content_encoding="aws-chunked"))
        self.assert_refused(501, "trailing", put(x_amz_trailer="x-amz-checksum-crc32"))
        self.assert_refused(501, "tagging", put(x_amz_tagging="a=b"))
        self.assert_refused(501, "UploadPartCopy", put([("partNumber", "1"), ("uploadId", "u")],
                                                       x_amz_copy_source="/bucket/k"))
        for condition in ({"if_match": "*"}, {"if_none_match": "*"}):
            self.assert_refused(400, "conditions",
                                lambda: self.s3.get("bucket", "k", **condition))
        self.assert_refused(501, "aws-chunked", lambda: self.as_signed(
            "PUT", "STREAMING-UNSIGNED-PAYLOAD-TRAILER", b"0\r\n\r\n"))

    def as_signed(self, method, digest, body=None, **unsigned):
        """A request that says `digest` of its body, and more than it signed."""
        signed = sign({"host": self.s3.host}, method, "/some-org/bucket/h", [], digest,
                      *self.s3.keys)
        connection = http.client.HTTPConnection(self.s3.host)
        try:
            connection.request(method, "/some-org/bucket/h", body=body, headers=signed | {
                name.replace("_", "-"): value for name, value in unsigned.items()})
            reply = connection.getresponse()
            reply.read()
            return reply
        finally:
            connection.close()

    def test_signatures(self):
        def asked(**change):
            s3 = S3.of(self.hub)
            vars(s3).update(change)
            return lambda: s3.head("bucket", "k")
        access, secret, region = self.s3.keys
        self.assert_refused(403, "is right", asked(keys=(access, "wrong", region)))
        self.assert_refused(403, "keys of the namespace",
                            asked(keys=(ceph.access_key, secret, region)))
        self.assert_refused(403, "us-east-1", asked(keys=(access, secret, "eu-west-1")))
        self.assert_refused(404, "/some-org", asked(prefix="/other-org"))
        self.assert_refused(404, "/some-org", asked(prefix=""))
        self.assert_refused(403, "every x-amz", lambda: self.as_signed(
            "GET", "UNSIGNED-PAYLOAD", x_amz_acl="private"))

    def test_a_body_that_is_not_what_was_signed(self):
        """The proxy passes the digest on, and the server checks it."""
        self.assertEqual(self.as_signed("PUT", "0" * 64, b"forged").status, 400)


def failure(call):
    try:
        return call()
    except Exception as error:
        return error


if __name__ == "__main__":
    unittest.main()
