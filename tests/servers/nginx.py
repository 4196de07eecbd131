"""nginx, from Debian's package nginx-light, as the static file server in front of a folder.

A process of its own with its own configuration: the system's nginx is neither used nor touched.
"""

from pathlib import Path

from .server import Server, free_ports, listens, program

# One process: with a master, killing it would leave its workers behind.
CONFIGURATION = """\
daemon off;
master_process off;
pid {scratch}/pid;
error_log {scratch}/nginx.log warn;
events {{ worker_connections 256; }}
http {{
  access_log {scratch}/access.log;
  client_body_temp_path {scratch}/temp;
  proxy_temp_path {scratch}/temp;
  fastcgi_temp_path {scratch}/temp;
  uwsgi_temp_path {scratch}/temp;
  scgi_temp_path {scratch}/temp;
  server {{
    listen 127.0.0.1:{port}{tls};
    root "{folder}";
  }}
}}
"""


class Nginx(Server):
    """Serves the files under `folder` for GET and HEAD; what is put there later is served too. It
    runs as we do, so that it can read whatever we can."""

    def __init__(self, folder, tls=False):
        """`tls=True`: behind a certificate for 127.0.0.1 that `certificate` alone vouches for."""
        super().__init__()
        self.served = Path(folder).resolve()
        self.tls = tls
        self.certificate = None

    def settings(self):
        return {"SILTSTONE_TEST_HTTP_ENDPOINT": self.endpoint}

    def requests(self):
        """The lines of the access log so far. A line may come shortly after its reply."""
        return (self.folder / "access.log").read_text().splitlines()

    def _certify(self):
        """Makes the certificate; what the listener needs to show it."""
        self.certificate, key = self.folder / "certificate.pem", self.folder / "key.pem"
        self._once(program("openssl", "openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes",
                   "-days", "2", "-subj", "/CN=siltstone test", "-addext",
                   "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", self.certificate)
        return f" ssl;\n    ssl_certificate {self.certificate};\n    ssl_certificate_key {key}"

    def _launch(self):
        port, = free_ports(1)
        self.endpoint = f"{'https' if self.tls else 'http'}://127.0.0.1:{port}"
        conf = self.folder / "nginx.conf"
        conf.write_text(CONFIGURATION.format(scratch=self.folder, port=port, folder=self.served,
                                             tls=self._certify() if self.tls else ""))
        self._daemon("nginx", [program("nginx", "nginx-light"), "-p", self.folder, "-c", conf, "-e",
                               self.folder / "nginx.log"], as_ordinary_user=False)
        self._wait("nginx serves", lambda: listens(port))
