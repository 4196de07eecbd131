"""What every server of the test suite shares: scratch folder, ports, child processes, cleaning up.

A server runs for one test program, on 127.0.0.1, from a folder of its own. Its processes are direct
children that the kernel ends when this program dies, however it dies. The folder is removed at the
end, after an exception, and on SIGTERM; only SIGKILL to this program leaves it behind.

Limit: the kernel ties a child to the thread that started it, so start servers in the main thread.
"""

import atexit
import contextlib
import ctypes
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from .s3_request import S3

START_SECONDS = 60
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)
_running = set()


class ServerError(Exception):
    """A server that is not installed, did not come up, or did not do what it was told."""


def _dies_with(parent):
    """What a child does first. It runs after the change of users, which resets this setting."""
    def in_child():
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
    return in_child


def ordinary_user():
    """How to run a program that must not be root: as `nobody` if we are root, else as ourselves."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _give_away(folder):
    """Lets the ordinary user write there."""
    user = ordinary_user()
    if user:
        os.chown(folder, user["user"], user["group"])


def free_ports(count):
    """Ports nobody listens on, below those that the kernel hands to outgoing connections: one that
    a killed server left must still be free when the server starts again."""
    with contextlib.ExitStack() as taken:
        ports = []
        while len(ports) < count:
            probe = taken.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", random.SystemRandom().randrange(15000, 32000)))
                ports.append(probe.getsockname()[1])
        return ports


def listens(port):
    """Whether somebody accepts connections there."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def program(name, package):
    """The path of a server program, or an error that names the Debian package it comes with."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not found:
        raise ServerError(f"{name} is not installed; it is in the Debian package {package}"
                          " (scripts/setup.sh servers installs it)")
    return found


class Daemon:
    """One child process and its log."""

    def __init__(self, name, command, folder, as_ordinary_user=True):
        self.name = name
        self.command = [str(word) for word in command]
        self.folder = folder
        self.log = folder / f"{name}.log"
        self.user = ordinary_user() if as_ordinary_user else {}
        self.process = None

    def start(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                preexec_fn=_dies_with(os.getpid()), start_new_session=True, **self.user)

    def kill(self):
        """SIGKILL; returns when the process is gone."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    @property
    def running(self):
        return self.process is not None and self.process.poll() is None

    @property
    def ended_by_itself(self):
        return self.process is not None and self.process.poll() is not None

    def log_tail(self, lines=25):
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])[-4000:]


class Endpoint:
    """Where a client is sent, and with what keys: a server, or a proxy in front of one."""

    access_key = "siltstone-test"
    secret_key = "siltstone-test-secret"
    region = "us-east-1"
    endpoint = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    def environment(self):
        """For a child that is to find this server: everything else of AWS's is taken out."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        return env | self.settings()

    def settings(self):
        """The variables that `environment` adds."""
        return {
            "SILTSTONE_TEST_S3_ENDPOINT": self.endpoint,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "no_proxy": "127.0.0.1",
        }

    def create_bucket(self, name):
        reply = S3.of(self).create_bucket(name)
        if reply.status not in (200, 201):
            raise ServerError(f"creating bucket {name} answered {reply.status}: {reply.body!r}")


class Server(Endpoint):
    """A context manager around one server; `start` and `stop` serve setUpModule and the like.

    A subclass defines `_launch`, which returns when the server answers, and uses `_daemon`, `_once`
    and `_wait` for it.
    """

    def __init__(self):
        self.folder = None
        self._daemons = []

    def start(self):
        _end_all_on_sigterm()
        self.folder = Path(tempfile.mkdtemp(prefix=f"siltstone-{type(self).__name__.lower()}-"))
        _give_away(self.folder)
        _running.add(self)
        try:
            self._launch()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self):
        """Ends every process and removes the folder; may be called twice."""
        for daemon in self._daemons:
            daemon.kill()
        self._daemons = []
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)
        _running.discard(self)

    def _launch(self):
        raise NotImplementedError

    def _subfolder(self, name):
        folder = self.folder / name
        folder.mkdir()
        _give_away(folder)
        return folder

    def _daemon(self, name, command, as_ordinary_user=True):
        daemon = Daemon(name, command, self.folder, as_ordinary_user)
        daemon.start()
        self._daemons.append(daemon)
        return daemon

    def _once(self, *command):
        """Runs a program that prepares something, as the user the server runs as."""
        words = [str(word) for word in command]
        try:
            done = subprocess.run(words, cwd=self.folder, text=True, stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  timeout=START_SECONDS, preexec_fn=_dies_with(os.getpid()),
                                  **ordinary_user())
        except subprocess.TimeoutExpired as late:
            raise ServerError(f"{' '.join(words)} took longer than {START_SECONDS} s"
                              + self._log_tails()) from late
        if done.returncode != 0:
            raise ServerError(f"{' '.join(words)} failed:\n{done.stdout[-2000:]}"
                              + self._log_tails())
        return done.stdout

    def _wait(self, what, ready, interval=0.05):
        """Polls until `ready()` is true. A daemon that ended or 60 seconds make it an error."""
        end = time.monotonic() + START_SECONDS
        while not ready():
            for daemon in self._daemons:
                if daemon.ended_by_itself:
                    raise ServerError(f"{daemon.name} ended with status "
                                      f"{daemon.process.returncode} before {what}\n"
                                      + daemon.log_tail())
            if time.monotonic() > end:
                raise ServerError(f"{what} did not happen within {START_SECONDS} s"
                                  + self._log_tails())
            time.sleep(interval)

    def _log_tails(self):
        return "".join(f"\n--- {daemon.log}\n{daemon.log_tail()}" for daemon in self._daemons)


def end_all():
    """Ends every server of this program."""
    for server in list(_running):
        server.stop()


def _end_all_on_sigterm():
    """Leaves a handler alone that somebody else set."""
    if threading.current_thread() is not threading.main_thread():
        raise ServerError("servers must be started in the main thread: the kernel ends a child with"
                          " the thread that started it")
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _on_sigterm)


def _on_sigterm(number, _frame):
    end_all()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


atexit.register(end_all)
