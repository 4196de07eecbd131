#!/usr/bin/env python3
"""Buckets behind servers that only serve files: what can be read, resumed, and not be done."""

import http.server
import subprocess
import sys
import threading
import unittest
import urllib.error
import urllib.request

from bucket_case import STALL, BucketCase
from servers.fault_proxy import FaultProxy
from servers.nginx import Nginx
from servers.server import free_ports, listens

class OverHttp(BucketCase):
    def setUp(self):
        super().setUp()
        self.directory = self.work / "bucket"
        self.ok("init", self.directory)
        self.folders = [self.checkpoint(f"step{i}") for i in range(3)]
        self.roots = self.publish_all(self.directory, self.folders)
        self.nginx = Nginx(self.directory)
        self.addCleanup(self.nginx.stop)
        self.nginx.start()

    def test_reads_everything_but_lists(self):
        url = self.nginx.endpoint
        self.assertEqual([version["root"] for version in self.json("log", url)["versions"]], self.roots[::-1])
        self.ok("checkout", url, "main@1", self.work / "out")
        self.assert_same_folders(self.folders[1], self.work / "out")
        self.ok("pull", url, self.work / "replica", "--to", "main@1")
        self.ok("pull", url, self.work / "replica")
        self.assert_same_folders(self.folders[2], self.work / "replica")
        self.fails(1, "tag", url, says="cannot be listed")
        self.assertEqual(self.json("verify", url, "main@2", "--data")["problems"], [])

    def test_cannot_write(self):
        url = self.nginx.endpoint
        self.fails(6, "publish", url, self.folders[0], says="can only be read")
        self.fails(6, "tag", url, "best", says="can only be read")
        self.fails(6, "init", url + "/elsewhere", says="can only be read")

    def test_resumes_where_a_connection_broke(self):
        with FaultProxy(self.nginx) as proxy:
            for fault in ("truncate", "stall_body"):
                with self.subTest(fault=fault):
                    armed = proxy.arm(fault, method="GET", path_contains="/obj/", seconds=30)
                    first = len(proxy.requests)
                    out = self.work / f"out-{fault}"
                    self.ok("checkout", proxy.endpoint, "main@2", out, *STALL)
                    proxy.disarm()
                    self.assertEqual(armed.fired, 1)
                    self.assert_same_folders(self.folders[2], out)
                    whole, rest = [request.headers["range"].removeprefix("bytes=").split("-")
                                   for request in proxy.requests[first:]
                                   if request.method == "GET" and "/obj/" in request.path][:2]
                    self.assertEqual(whole[1], rest[1])
                    self.assertGreater(int(rest[0]), int(whole[0]))

    def test_takes_servers_without_ranges(self):
        port, = free_ports(1)
        server = subprocess.Popen([sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1",
                                   "--directory", self.directory], stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        self.nginx._wait("http.server serves", lambda: listens(port))
        self.ok("pull", f"http://127.0.0.1:{port}", self.work / "replica")
        self.assert_same_folders(self.folders[2], self.work / "replica")

    def test_trusts_the_authorities_that_it_is_told(self):
        variables = ("AWS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
        for variable in variables:
            self.env.pop(variable, None)
        with Nginx(self.directory, tls=True) as server:
            told = self.fails(6, "log", server.endpoint, says=("is not trusted", "SSL_CERT_FILE"))
            self.assertIn(server.endpoint, told)
            for variable in variables:
                self.env[variable] = str(server.certificate)
                self.ok("log", server.endpoint)
                del self.env[variable]

    def test_goes_through_the_proxy_of_the_environment(self):
        seen = []

        class Forward(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                seen.append(self.path)
                try:
                    with urllib.request.urlopen(self.path) as reply:
                        status, content = 200, reply.read()
                except urllib.error.HTTPError as refused:
                    status, content = refused.code, b""
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Forward) as proxy:
            threading.Thread(target=proxy.serve_forever, daemon=True).start()
            self.env["http_proxy"] = f"http://127.0.0.1:{proxy.server_port}"
            self.ok("show", self.nginx.endpoint, "main@1")
            proxy.shutdown()
        self.assertIn(self.nginx.endpoint + "/repo.json", seen)

    def test_says_what_is_wrong(self):
        self.fails(3, "log", self.nginx.endpoint + "/nothing", says="holds no repository")
        self.fails(7, "log", "http://127.0.0.1:1/x", "--timeout", "0.5", says="127.0.0.1")
        self.fails(2, "log", "http://user:secret@127.0.0.1/x", says="takes no password")
        self.fails(2, "log", "http:///x", says="expected http://host/path")
        with FaultProxy(self.nginx) as proxy:
            proxy.arm("corrupt", times=None, path_contains="/obj/")
            self.fails(4, "checkout", proxy.endpoint, "main@2", self.work / "out", says="SHA-256")
            self.assertFalse((self.work / "out").exists())


if __name__ == "__main__":
    unittest.main()
