"""Ceph's S3 gateway over a cluster of one monitor and one storage daemon, from Debian's packages.

The store of the tests that has what AWS has: conditional writes, ranges, listings, multipart.
Nothing here runs as root, and no file outside the scratch folder is read or written.
"""

import contextlib
import http.client
import os
import uuid

from .s3_request import S3
from .server import Server, ServerError, free_ports, program

CONFIGURATION = """\
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{mon_port},v1:127.0.0.1:{mon_port_v1}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
{modes}
keyring = /dev/null
run dir = {folder}
admin socket =
pid file =
mon data = {folder}/mon
osd data = {folder}/osd
log to stderr = true
err to stderr = true
log file =
mon cluster log file =

osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
mon data avail crit = 1
paxos propose interval = 0.05
paxos min wait = 0.01
osd class load list = *
osd class default list = *
osd objectstore = {objectstore}
memstore device bytes = 4294967296
bluestore block size = 8589934592
bluestore block create = true

[client.rgw.a]
rgw frontends = beast endpoint=127.0.0.1:{gateway_port} tcp_nodelay=1
rgw data = {folder}
rgw run sync thread = false
rgw thread pool size = 64
"""

# Without authentication, which needs keys, the default "secure" is impossible and clients hang.
MODES = "\n".join(f"ms {who} mode = crc" for who in (
    "mon client", "mon service", "mon cluster", "client", "service", "cluster"))


class Ceph(Server):
    """`bluestore=True` keeps objects in a sparse file, so that they survive `kill_osd`; else they
    are in the storage daemon's memory, 4 GB at most."""

    def __init__(self, bluestore=False):
        super().__init__()
        self.bluestore = bluestore

    def kill_osd(self):
        """SIGKILL to the storage daemon: requests then hang, they do not fail."""
        self._osd.kill()

    def start_osd(self):
        """Returns when what was stored is served again, if the gateway runs."""
        if not self.bluestore:
            raise ServerError("the objects were in the storage daemon's memory and died with it:"
                              " use Ceph(bluestore=True)")
        self._osd.start()
        if self._gateway.running:
            self._wait("the gateway reads from the storage daemon again", self._reads)

    def kill_gateway(self):
        """SIGKILL to the gateway: connections break, new ones are refused."""
        self._gateway.kill()

    def start_gateway(self):
        """On the same port; returns when it serves."""
        self._gateway.start()
        self._wait("the gateway serves again", self._reads)

    def _launch(self):
        mon_port, mon_port_v1, self._port = free_ports(3)
        self.endpoint = f"http://127.0.0.1:{self._port}"
        self._fsid = str(uuid.uuid4())
        self._conf = self.folder / "ceph.conf"
        self._conf.write_text(CONFIGURATION.format(
            fsid=self._fsid, mon_port=mon_port, mon_port_v1=mon_port_v1, modes=MODES,
            folder=self.folder, gateway_port=self._port,
            objectstore="bluestore" if self.bluestore else "memstore"))
        os.chmod(self._conf, 0o644)
        self._start_mon(f"[v2:127.0.0.1:{mon_port},v1:127.0.0.1:{mon_port_v1}]")
        self._start_first_osd()
        self._ceph(program("radosgw-admin", "radosgw"), "user", "create", "--uid=test",
                   "--display-name=test", f"--access-key={self.access_key}",
                   f"--secret-key={self.secret_key}")
        self._gateway = self._daemon("radosgw", [
            program("radosgw", "radosgw"), "-f", "-c", self._conf, "-n", "client.rgw.a"])
        self._wait("the gateway serves", self._reads)

    def _start_mon(self, address):
        mon = program("ceph-mon", "ceph-mon")
        self._once(program("monmaptool", "ceph-base"), "--create", "--fsid", self._fsid,
                   "--addv", "a", address, self.folder / "monmap")
        self._ceph(mon, "--mkfs", "-i", "a", "--monmap", self.folder / "monmap")
        self._daemon("ceph-mon", [mon, "-f", "-c", self._conf, "-i", "a"])

    def _start_first_osd(self):
        osd = program("ceph-osd", "ceph-osd")
        cli = program("ceph", "ceph-common")
        identity = str(uuid.uuid4())
        self._subfolder("osd")
        self._ceph(cli, "osd", "new", identity)
        self._ceph(osd, "-i", "0", "--mkfs", "--osd-uuid", identity)
        self._osd = self._daemon("ceph-osd", [osd, "-f", "-c", self._conf, "-i", "0"])
        self._wait("the storage daemon is up",
                   lambda: "1 up" in self._ceph(cli, "osd", "stat"), interval=0.2)

    def _ceph(self, command, *words):
        return self._once(command, "-c", self._conf, *words)

    def _reads(self):
        """Whether a request that needs the storage daemon succeeds: a list of buckets does."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            return S3.of(self, timeout=1).request("GET", "/").status == 200
        return False
