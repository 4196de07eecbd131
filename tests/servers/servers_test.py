"""Proves that the servers and proxies of this folder do what other tests rely on."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])
from servers import server  # noqa: E402
from servers.ceph import Ceph  # noqa: E402
from servers.moto import Moto  # noqa: E402
from servers.nginx import Nginx  # noqa: E402
from servers.s3_request import S3, keys_of  # noqa: E402
from servers.swift import Swift  # noqa: E402

RUN = Path(__file__).with_name("run.py")


class StoresObjects:
    """What every S3 server does."""

    def check_objects(self, running):
        s3 = S3.of(running)
        running.create_bucket("objects")
        names = ["a/plain", "a/with space+plus", "b/ümlaut"]
        for name in names:
            self.assertEqual(s3.put("objects", name, name.encode()).status, 200)
            self.assertEqual(s3.get("objects", name).body, name.encode())
        part = s3.get("objects", "a/plain", range="bytes=2-4")
        self.assertEqual((part.status, part.body), (206, b"pla"))
        self.assertEqual(keys_of(s3.list("objects", "a/")), names[:2])
        self.assertEqual(len(keys_of(s3.list("objects", max_keys=1))), 1)
        self.assertEqual(s3.delete("objects", "a/plain").status, 204)
        self.assertEqual(s3.get("objects", "a/plain").status, 404)
        return s3

    def check_creates_once(self, s3):
        self.assertEqual(s3.put("objects", "once", b"first", if_none_match="*").status, 200)
        self.assertEqual(s3.put("objects", "once", b"second", if_none_match="*").status, 412)
        self.assertEqual(s3.get("objects", "once").body, b"first")


class CephTest(StoresObjects, unittest.TestCase):
    def test_in_memory(self):
        with Ceph() as ceph:
            s3 = self.check_objects(ceph)
            self.check_creates_once(s3)
            wrong = S3(ceph.endpoint, ceph.access_key, "not the key")
            self.assertEqual(wrong.get("objects", "once").status, 403)
            ceph.kill_gateway()
            with self.assertRaises(ConnectionRefusedError):
                s3.get("objects", "once")
            ceph.start_gateway()
            self.assertEqual(s3.get("objects", "once").body, b"first")

    def test_objects_in_a_file_survive_the_daemon(self):
        with Ceph(bluestore=True) as ceph:
            s3 = S3.of(ceph)
            ceph.create_bucket("kept")
            for i in range(20):
                self.assertEqual(s3.put("kept", f"k{i}", b"%d" % i).status, 200)
            ceph.kill_osd()
            with self.assertRaises(TimeoutError):
                S3.of(ceph, timeout=1).get("kept", "k0")
            ceph.start_osd()
            self.assertEqual([s3.get("kept", f"k{i}").body for i in range(20)],
                             [b"%d" % i for i in range(20)])


class OtherServersTest(StoresObjects, unittest.TestCase):
    def test_swift_refuses_a_conditional_put(self):
        with Swift() as swift:
            s3 = self.check_objects(swift)
            refused = s3.put("objects", "once", b"first", if_none_match="*")
            self.assertEqual((refused.status, b"NotImplemented" in refused.body), (501, True))
            self.assertEqual(s3.get("objects", "once").status, 404)

    def test_moto(self):
        with Moto() as moto:
            self.check_creates_once(self.check_objects(moto))

    def test_nginx(self):
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "a file").write_bytes(b"0123456789")
            with Nginx(folder) as nginx:
                asked = urllib.request.Request(f"{nginx.endpoint}/a%20file",
                                               headers={"Range": "bytes=2-4"})
                with urllib.request.urlopen(asked) as reply:
                    self.assertEqual((reply.status, reply.read()), (206, b"234"))
                with self.assertRaisesRegex(urllib.error.HTTPError, "404"):
                    urllib.request.urlopen(f"{nginx.endpoint}/none")
                wait_until(lambda: len(nginx.requests()) == 2)


class LifeTest(unittest.TestCase):
    """What is left when the program that started a server ends in one way or another."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        os.chmod(self.folder.name, 0o755)
        self.env = os.environ | {"TMPDIR": self.folder.name}

    def started(self):
        """A run of run.py with Ceph that waits, and the processes it started."""
        run = subprocess.Popen([sys.executable, RUN, "ceph"], env=self.env, text=True,
                               stdout=subprocess.PIPE)
        self.addCleanup(run.wait)
        self.addCleanup(run.kill)
        self.addCleanup(run.stdout.close)
        self.assertIn("export SILTSTONE_TEST_S3_ENDPOINT=http://127.0.0.1:", run.stdout.readline())
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        self.assertEqual(len(children), 3, "monitor, storage daemon, gateway")
        return run, children

    def assert_gone(self, processes):
        """They are ended by the kernel, which tells nobody when."""
        wait_until(lambda: not any(is_alive(process) for process in processes))

    def test_sigterm(self):
        run, children = self.started()
        run.terminate()
        self.assertEqual(run.wait(60), -signal.SIGTERM)
        self.assert_gone(children)
        self.assertEqual(os.listdir(self.folder.name), [])

    def test_sigkill(self):
        run, children = self.started()
        run.kill()
        run.wait()
        self.assert_gone(children)

    def test_interrupt_is_the_ordinary_end(self):
        run, children = self.started()
        run.send_signal(signal.SIGINT)
        self.assertEqual(run.wait(60), 0)
        self.assert_gone(children)
        self.assertEqual(os.listdir(self.folder.name), [])

    def test_exception(self):
        with contextlib.suppress(ZeroDivisionError), Nginx(self.folder.name) as nginx:
            process = nginx._daemons[0].process.pid
            1 / 0
        self.assertFalse(is_alive(process))
        self.assertFalse(nginx.folder.exists())

    def test_a_server_that_does_not_come_up_says_why(self):
        class Broken(server.Server):
            def _launch(self):
                self._daemon("broken", ["sh", "-c", "echo no such luck; exit 3"])
                self._wait("it serves", lambda: False)

        broken = Broken()
        why = "(?s)status 3 before it serves.*no such luck"
        with self.assertRaisesRegex(server.ServerError, why):
            broken.start()
        self.assertFalse(broken.folder.exists())

    def test_a_missing_program_names_its_package(self):
        with self.assertRaisesRegex(server.ServerError, "Debian package some-package"):
            server.program("no-such-program", "some-package")

    def test_run_passes_settings_and_status(self):
        """run.py, as a script uses it."""
        script = 'test -n "$AWS_SECRET_ACCESS_KEY" && test -z "$AWS_PROFILE" || exit 1; exit 7'
        done = subprocess.run([sys.executable, RUN, "ceph", "--bucket", "one", "--bucket", "two",
                               "--", "sh", "-c", script], env=self.env | {"AWS_PROFILE": "mine"})
        self.assertEqual(done.returncode, 7)


def wait_until(true, seconds=30):
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s")
        time.sleep(0.02)


def is_alive(process):
    """A process that ended and that nobody has waited for yet counts as ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


if __name__ == "__main__":
    unittest.main()
