#!/usr/bin/env python3
"""A relay as a site runs it: many replicas, damage, restarts, kills, hostile clients, clean ends."""

import concurrent.futures
import contextlib
import hashlib
import http.client
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import unittest
from pathlib import Path

from program import PROGRAM, RunsProgram

CLIENTS = 200
WORDS = 400_000
INTERVAL = 0.1


class Relay:
    """A running relay of a bucket."""

    def __init__(self, test, bucket, cache, *more):
        words = [PROGRAM, "relay", bucket, "--listen", "127.0.0.1:0", "--cache", cache, "--interval", str(INTERVAL),
                 "--json", *more]
        self.process = subprocess.Popen([str(word) for word in words], env=test.env, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True)
        test.addCleanup(self.kill)
        self.started = json.loads(self.process.stdout.readline() or "{}")
        if "url" in self.started:
            self.address = self.started["url"].removeprefix("http://")

    def connect(self, timeout=60):
        return http.client.HTTPConnection(self.address, timeout=timeout)

    def ask(self, name, headers=None, method="GET", connection=None):
        """Status, headers, body; the connection is the caller's or one for this request."""
        if connection is None:
            with contextlib.closing(self.connect()) as own:
                return self.ask(name, headers, method, own)
        connection.request(method, "/" + name, headers=headers or {})
        with connection.getresponse() as reply:
            return reply.status, reply.headers, reply.read()

    def metrics(self):
        status, headers, body = self.ask("metrics")
        assert status == 200 and headers["Content-Type"].startswith("text/plain; version=0.0.4")
        lines = [line for line in body.decode().splitlines() if not line.startswith("#")]
        return {line.rsplit(" ", 1)[0].removeprefix("siltstone_relay_"): int(line.rsplit(" ", 1)[1]) for line in lines}

    def end(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        status = self.process.wait(timeout=60)
        self.error = self.process.stderr.read()
        self.process.stderr.close()
        self.process.stdout.close()
        return status

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()


class RelayTest(RunsProgram, unittest.TestCase):
    def setUp(self):
        self.work = Path(tempfile.mkdtemp(prefix="siltstone-relay-"))
        self.addCleanup(shutil.rmtree, self.work)
        self.env = dict(os.environ, SILTSTONE_CACHE=str(self.work / "base-cache"))
        self.random = random.Random(5)
        self.words = bytearray(self.random.randbytes(2 * WORDS))
        self.bucket = self.work / "bucket"
        self.cache = self.work / "cache"
        self.steps = 0
        self.ok("init", self.bucket)
        for _ in range(3):
            self.publish()

    def publish(self):
        for _ in range(300):
            self.words[2 * self.random.randrange(WORDS)] ^= 1
        folder = self.work / f"step{self.steps}"
        folder.mkdir()
        header = json.dumps({"w": {"dtype": "BF16", "shape": [WORDS], "data_offsets": [0, 2 * WORDS]}}).encode()
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + self.words)
        (folder / "config.json").write_text(json.dumps({"step": self.steps}))
        self.ok("publish", self.bucket, folder, "--step", self.steps)
        self.steps += 1

    def start(self, *more):
        return Relay(self, self.bucket, self.cache, *more)

    def objects(self, immutable=True):
        names = sorted(str(path.relative_to(self.bucket)) for path in self.bucket.rglob("*")
                       if path.is_file() and ".tmp~" not in path.parts)
        return [name for name in names if not (immutable and name.startswith("head/"))]

    def content(self, name):
        return (self.bucket / name).read_bytes()

    def anchor(self):
        return next(name for name in self.objects() if name.endswith("/a0.safetensors"))

    def assert_serves_all(self, relay):
        for name in self.objects(immutable=False):
            status, headers, body = relay.ask(name)
            self.assertEqual((status, body), (200, self.content(name)), name)
            self.assertEqual(headers["Content-Length"], str(len(body)))

    def commit(self, seq):
        return f"log/main/{seq:020}.json"

    def test_two_hundred_replicas_one_fetch_each(self):
        relay = self.start()
        names = self.objects()
        barrier = threading.Barrier(CLIENTS)

        def replica(number):
            order = random.Random(number).sample(names, len(names))
            connection = relay.connect()
            barrier.wait()
            bodies = {name: relay.ask(name, connection=connection) for name in order}
            connection.close()
            return {name: (status, body) for name, (status, _, body) in bodies.items()}

        expected = {name: (200, self.content(name)) for name in names}
        with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
            for got in pool.map(replica, range(CLIENTS)):
                self.assertEqual(got.keys(), expected.keys())
                self.assertTrue(got == expected)
        metrics = relay.metrics()
        self.assertEqual(metrics["fetched_objects_total"], len(names))
        self.assertEqual(metrics["fetched_bytes_total"], sum(len(self.content(name)) for name in names))
        self.assertEqual(metrics['requests_total{class="2xx"}'], CLIENTS * len(names))
        self.assertGreaterEqual(metrics["served_bytes_total"], CLIENTS * metrics["fetched_bytes_total"])
        self.assertEqual(metrics["cache_objects"], len(names))
        self.assertEqual(metrics["replies_cut_total"], 0)
        self.assertEqual(relay.end(), 0)

    def test_memory_stays_flat(self):
        """Roughly: allocators keep some. bench/stores/relay_soak.py looks closer, for longer."""
        # A sanitizer keeps what was freed, to notice its use.
        self.env["ASAN_OPTIONS"] = self.env.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=1"
        relay = self.start()

        def resident():
            status = Path(f"/proc/{relay.process.pid}/status").read_text()
            return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])

        def round_of_replicas():
            connections = [relay.connect() for _ in range(CLIENTS)]
            for name in self.objects():
                for connection in connections:
                    connection.request("GET", "/" + name)
                for connection in connections:
                    self.assertEqual(len(connection.getresponse().read()), len(self.content(name)))
            for connection in connections:
                connection.close()

        for _ in range(3):
            round_of_replicas()
        before = resident()
        for _ in range(8):
            round_of_replicas()
        # 40 KiB for each connection made: a buffer or a body that is not given back is more.
        self.assertLess(resident() - before, 8 * CLIENTS * 40)

    def test_ranges(self):
        relay = self.start()
        name, content = self.anchor(), self.content(self.anchor())
        size = len(content)
        for _ in range(2):  # arriving, then whole
            for text, begin, end in (("0-0", 0, 1), ("5-9999", 5, 10000), (f"{size - 3}-", size - 3, size),
                                     ("-7", size - 7, size), (f"10-{2 * size}", 10, size)):
                status, headers, body = relay.ask(name, {"Range": f"bytes={text}"})
                self.assertEqual((status, body), (206, content[begin:end]), text)
                self.assertEqual(headers["Content-Range"], f"bytes {begin}-{end - 1}/{size}")
            for text in ("bytes=0-1,5-6", "bytes=x", "bytes=9-2", "lines=1-2"):
                status, headers, body = relay.ask(name, {"Range": text})
                self.assertEqual((status, len(body)), (200, size))
            status, headers, body = relay.ask(name, {"Range": f"bytes={size}-"})
            self.assertEqual((status, headers["Content-Range"], body), (416, f"bytes */{size}", b""))
        status, headers, body = relay.ask(name, method="HEAD")
        self.assertEqual((status, headers["Content-Length"], body), (200, str(size), b""))

    def test_restart_serves_from_the_cache(self):
        relay = self.start()
        self.assert_serves_all(relay)
        self.assertEqual(relay.end(signal.SIGINT), 0)
        relay = self.start()
        self.assert_serves_all(relay)
        metrics = relay.metrics()
        self.assertEqual(metrics["fetched_objects_total"], 1)  # repo.json
        self.assertEqual(metrics['integrity_failures_total{in="cache"}'], 0)
        self.assertEqual([path for path in (self.cache / "arriving").iterdir()], [])

    def test_damaged_cache_files(self):
        relay = self.start()
        self.assert_serves_all(relay)

        def flip(path):
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 4
            path.write_bytes(content)

        damages = (flip, lambda path: os.truncate(path, path.stat().st_size // 2), lambda path: path.write_bytes(b""),
                   Path.unlink)
        for running in (True, False):
            for damage in damages:
                for path in (self.cache / "objects").iterdir():
                    damage(path)
                if not running:
                    self.assertEqual(relay.end(), 0)
                    relay = self.start()
                self.assert_serves_all(relay)
        self.assertEqual(len(list((self.cache / "objects").iterdir())), len(self.objects()))

    def test_kill_and_restart(self):
        for kill in range(20):
            relay = self.start()
            names = self.objects()
            self.random.shuffle(names)
            for name in names[:self.random.randrange(len(names))]:
                relay.ask(name)
            connection = relay.connect()
            connection.request("GET", "/" + names[-1])
            relay.process.kill()
            relay.process.wait()
            connection.close()
            for path in (self.cache / "objects").iterdir():
                if self.random.random() < 0.3:  # as after a power cut
                    os.truncate(path, self.random.randrange(path.stat().st_size + 1))
        relay = self.start()
        self.assert_serves_all(relay)
        self.assertEqual(list((self.cache / "arriving").iterdir()), [])

    def test_damage_in_the_store(self):
        relay = self.start()
        for name in self.objects():
            if name == "repo.json":
                continue
            good = self.content(name)
            bad = bytearray(good)
            bad[len(bad) // 2] ^= 1
            (self.bucket / name).write_bytes(bad)
            try:
                status, headers, body = relay.ask(name)
                self.assertEqual(status, 502, name)
            except http.client.IncompleteRead as cut:
                self.assertLess(len(cut.partial), len(good))
            (self.bucket / name).write_bytes(good)
            self.assertEqual(relay.ask(name)[2], good, name)
        self.assertEqual(relay.metrics()['integrity_failures_total{in="store"}'], len(self.objects()) - 1)

    def test_eviction_keeps_the_bound(self):
        limit = 2_500_000
        relay = self.start("--cache-size", limit)
        names = []
        for i in range(8):
            content = self.random.randbytes(700_000)
            names.append("files/" + hashlib.sha256(content).hexdigest())
            (self.bucket / names[-1]).write_bytes(content)
        for name in names * 2:
            self.assertEqual(relay.ask(name)[2], self.content(name))
            held = sum(path.stat().st_size for path in self.cache.rglob("*") if path.is_file())
            self.assertLessEqual(held, limit)
        metrics = relay.metrics()
        self.assertGreater(metrics["evictions_total"], 8)
        self.assertLessEqual(metrics["cache_bytes"], limit)
        big = self.random.randbytes(3_000_000)
        name = "files/" + hashlib.sha256(big).hexdigest()
        (self.bucket / name).write_bytes(big)
        status, headers, body = relay.ask(name)
        self.assertEqual((status, headers["Retry-After"]), (503, "1"))
        self.assertIn(b"--cache-size", body)
        self.assertEqual(relay.ask(names[0])[0], 200)

    def test_full_disk(self):
        words = f"ulimit -f 512; exec {PROGRAM} relay {self.bucket} --listen 127.0.0.1:0 --cache {self.cache} --json"
        relay = Relay.__new__(Relay)
        relay.process = subprocess.Popen(["bash", "-c", words], env=self.env, stdout=subprocess.PIPE,
                                         stderr=subprocess.PIPE, text=True)
        self.addCleanup(relay.kill)
        relay.address = json.loads(relay.process.stdout.readline())["url"].removeprefix("http://")
        for _ in range(2):
            self.assertEqual(relay.ask(self.anchor())[0], 503)
            self.assertEqual(relay.ask(self.commit(1))[2], self.content(self.commit(1)))
        self.assertEqual(list((self.cache / "arriving").iterdir()), [])

    def test_long_poll(self):
        relay = self.start()
        next_commit = self.commit(3)
        self.assertEqual(relay.ask(next_commit)[0], 404)
        self.assertEqual(relay.ask(next_commit, {"Prefer": "wait=1"})[0], 404)
        with concurrent.futures.ThreadPoolExecutor(50) as pool:
            held = [pool.submit(relay.ask, next_commit, {"Prefer": "wait=60"}) for _ in range(50)]
            while relay.metrics()['waiting_requests{for="version"}'] < 50:
                pass
            self.assertFalse(any(reply.done() for reply in held))
            self.publish()
            for reply in held:
                status, headers, body = reply.result(timeout=60)
                self.assertEqual((status, body), (200, self.content(next_commit)))
                self.assertEqual(headers["Preference-Applied"], "wait")
        self.assertEqual(relay.ask(self.commit(1), {"Prefer": "wait=60"})[0], 200)
        self.assertEqual(relay.ask("tags/none.json", {"Prefer": "wait=60"})[0], 404)

    def test_health(self):
        relay = self.start()
        status, headers, body = relay.ask("healthz")
        self.assertEqual((status, json.loads(body)["status"]), (200, "ok"))
        self.assertEqual(headers["Content-Type"], "application/json")
        self.assertEqual(relay.started["cache_bytes"], 50_000_000_000)

    def test_hostile_requests(self):
        relay = self.start()
        for name in ("../bucket/repo.json", "%2e%2e/repo.json", "log/%2e%2e/repo.json", "repo.json%00", "",
                     "/repo.json", "log//x", "Repo.json", "repo.json/", "a" * 600):
            self.assertIn(relay.ask(name)[0], (400, 404), name)
        for name in ("log/main", "log/", "obj", "lock", "objects/x", ".tmp~/x", "head/main", "side/x", "files/abc",
                     "obj/main/00000000/00000000000000000000." + "a" * 32 + "/0-0.safetensors"):
            self.assertIn(relay.ask(name)[0], (400, 404), name)
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "BREW"):
            status, headers, _ = relay.ask("repo.json", method=method)
            self.assertEqual((status, headers["Allow"]), (405, "GET, HEAD"), method)
        with contextlib.closing(relay.connect()) as connection:
            connection.request("GET", "/repo.json", headers={"Content-Length": "100000"})
            self.assertEqual(connection.getresponse().status, 400)
        try:
            self.assertGreaterEqual(relay.ask("repo.json", {f"X-{i}": "y" * 1000 for i in range(60)})[0], 400)
        except OSError:
            pass  # closed at once
        host, port = relay.address.split(":")
        for garbage in (self.random.randbytes(65536), b"GET " + b"/" * 65536, b"\r\n" * 32768, b"\0" * 65536,
                        b"GET /repo.json HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n"):
            with socket.create_connection((host, int(port)), timeout=120) as raw:
                try:
                    raw.sendall(garbage)
                    while raw.recv(65536):
                        pass
                except OSError:
                    pass
        unfinished = socket.create_connection((host, int(port)))
        self.addCleanup(unfinished.close)
        unfinished.sendall(b"GET / HTTP/1.1\r\na")
        self.assert_serves_all(relay)
        self.assertEqual(relay.end(), 0)

    def test_connections_are_bounded(self):
        relay = self.start("--connections", 16, "--threads", 2)
        idle = [relay.connect() for _ in range(8)]
        for connection in idle:
            self.assertEqual(relay.ask("repo.json", connection=connection)[0], 200)
        with concurrent.futures.ThreadPoolExecutor(40) as pool:
            replies = pool.map(lambda _: relay.ask("repo.json", {"Connection": "close"})[0], range(40))
            self.assertEqual(set(replies), {200})
        for connection in idle:
            connection.close()

    def test_ends_cleanly_with_requests_held(self):
        relay = self.start()
        connection = relay.connect()
        connection.request("GET", "/" + self.commit(3), headers={"Prefer": "wait=60"})
        idle = relay.connect()
        self.assertEqual(relay.ask("repo.json", connection=idle)[0], 200)
        while relay.metrics()['waiting_requests{for="version"}'] < 1:
            pass
        self.assertEqual(relay.end(), 0)
        connection.close()
        idle.close()
        self.assertEqual(list((self.cache / "arriving").iterdir()), [])
        with self.assertRaises(OSError):
            relay.ask("repo.json")

    def test_refusals(self):
        relay = self.start()
        second = Relay(self, self.bucket, self.cache)
        self.assertEqual(second.process.wait(timeout=60), 5)
        self.assertEqual(second.started["error"]["code"], "conflict")
        for listen in ("nonsense", ":80", "127.0.0.1:x", "127.0.0.1:99999", "::1:80"):
            done = self.run_it("relay", self.bucket, "--listen", listen, "--cache", self.work / "other")
            self.assertEqual(done.returncode, 2, listen)
        host, port = relay.address.split(":")
        done = self.run_it("relay", self.bucket, "--listen", relay.address, "--cache", self.work / "other")
        self.assertEqual(done.returncode, 1)
        self.assertIn("in use", done.stderr)
        done = self.run_it("relay", self.work / "nothing", "--listen", "127.0.0.1:0", "--cache", self.work / "other")
        self.assertEqual(done.returncode, 3)
        self.assertIn("holds no repository", done.stderr)
        self.assertIn("whole bucket", self.ok("relay", "--help"))

    def test_access_lines(self):
        relay = self.start("--verbose")
        relay.ask("repo.json")
        relay.ask("nonsense")
        self.assertEqual(relay.end(), 0)
        lines = relay.error.splitlines()
        self.assertEqual(len(lines), 3)  # the last but one may come while it stops
        self.assertRegex(lines[0], r"^127\.0\.0\.1 GET /repo\.json 200 \d+ \d+\.\d+$")
        self.assertRegex("\n".join(lines[1:]), r"127\.0\.0\.1 GET /nonsense 404 ")


if __name__ == "__main__":
    unittest.main()
