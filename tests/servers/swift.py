"""OpenStack Swift with its S3 interface, from Debian's package python3-swift.

Its role: a store of S3's language that refuses a conditional PUT, with 501. Debian's other packages
of Swift add service units and launchers, which a test must not have on the machine; the four
servers are started from the library instead.
"""

import contextlib
import http.client
import pwd
import os

from .s3_request import S3
from .server import Server, ServerError, free_ports, listens, ordinary_user, program

# Debian's Python, because that is where the package is; /etc/swift is neither read nor needed.
LAUNCHER = """\
import sys
import swift.common.utils
swift.common.utils.SWIFT_CONF_FILE = sys.argv[1]
from swift.common.wsgi import run_wsgi
sys.exit(run_wsgi(sys.argv[2], sys.argv[3], verbose=True))
"""

RINGS = """\
import sys
from swift.common.ring import RingBuilder
folder = sys.argv[1]
for name, port in zip(("account", "container", "object"), sys.argv[2:]):
    builder = RingBuilder(part_power=4, replicas=1, min_part_hours=0)
    builder.add_dev({"id": 0, "region": 1, "zone": 1, "weight": 1, "ip": "127.0.0.1",
                     "port": int(port), "device": "disk"})
    builder.rebalance()
    builder.get_ring().save(f"{folder}/{name}.ring.gz")
"""

SWIFT_CONF = """\
[swift-hash]
swift_hash_path_suffix = test
[storage-policy:0]
name = one
default = yes
"""

# By default half a second without an answer bans a server for a minute, and a second lets a listing
# lag behind: a busy machine would make tests fail.
COMMON = """\
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
fallocate_reserve = 0
disable_fallocate = true
log_level = WARNING
conn_timeout = 30
node_timeout = 60
container_update_timeout = 30
error_suppression_limit = 1000000
"""

STORAGE_SERVER = COMMON + """\
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""

PROXY_SERVER = COMMON + """\
[pipeline:main]
pipeline = catch_errors cache listing_formats bulk s3api tempauth copy slo dlo proxy-server
[app:proxy-server]
use = egg:swift#proxy
allow_account_management = true
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
# Required, though no memcached runs: port 1 refuses, and Swift goes on without.
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:1
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:bulk]
use = egg:swift#bulk
[filter:s3api]
use = egg:swift#s3api
location = {region}
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = {secret} .admin
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
"""


class Swift(Server):
    """Bucket names follow AWS's rules: three characters or more, no capitals."""

    access_key = "test:tester"

    def _launch(self):
        self._python = self._python_with_swift()
        user = ordinary_user().get("user", os.geteuid())
        ports = dict(zip(("account", "container", "object", "proxy"), free_ports(4)))
        self._settings = {"folder": self.folder, "user": pwd.getpwuid(user).pw_name,
                          "region": self.region, "secret": self.secret_key}
        self._subfolder("devices")
        self._subfolder("devices/disk")
        (self.folder / "swift.conf").write_text(SWIFT_CONF)
        (self.folder / "launch").write_text(LAUNCHER)
        self._once(self._python, "-c", RINGS, self.folder,
                   *(ports[kind] for kind in ("account", "container", "object")))
        proxy_port = ports.pop("proxy")
        for kind, port in ports.items():
            self._start_service(kind, port)
        self._wait("Swift's storage servers listen", lambda: all(map(listens, ports.values())))
        self._start_service("proxy", proxy_port)
        self.endpoint = f"http://127.0.0.1:{proxy_port}"
        self._wait("Swift serves", self._serves)

    def _python_with_swift(self):
        python = program("/usr/bin/python3", "python3-swift")
        try:
            self._once(python, "-c", "import swift")
        except ServerError as missing:
            raise ServerError("Swift is not installed; it is in the Debian package python3-swift"
                              " (scripts/setup.sh servers installs it)") from missing
        return python

    def _start_service(self, kind, port):
        template = PROXY_SERVER if kind == "proxy" else STORAGE_SERVER
        conf = self.folder / f"{kind}.conf"
        conf.write_text(template.format(kind=kind, port=port, **self._settings))
        self._daemon(f"swift-{kind}", [self._python, "launch", "swift.conf", conf,
                                       f"{kind}-server"])

    def _serves(self):
        with contextlib.suppress(OSError, http.client.HTTPException):
            return S3.of(self, timeout=5).request("GET", "/").status == 200
        return False
