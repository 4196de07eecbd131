"""A proxy in front of an S3 server that enforces the documented rules of Hugging Face's S3 gateway.

It is a proxy with rules, not that gateway: it is stricter where the gateway ignores something
(tags, versions, user metadata, conditions on GET), so that a test notices; and the namespace is
checked, but holds no buckets apart.

    with Ceph() as ceph, HfRulesProxy(ceph, namespace="some-org") as hub:
        hub.create_bucket("models")         # at <hub.endpoint>/models, endpoint .../some-org
        ...
        assert hub.violations == []

GetObject answers 302 to a second port, `hub.cdn`, where the URL itself is the proof; a few clients
known not to follow get the bytes. That listener refuses what a client must not send to a foreign
host: its authorization.
"""

import calendar
import hashlib
import hmac
import re
import time
import urllib.parse
from dataclasses import dataclass

from .proxy import Handler, Listener
from .s3_request import canonical_query, sign, signature

FORWARDED = ("cache-control", "content-length", "content-md5", "content-type", "if-match",
             "if-none-match", "range", "x-amz-copy-source", "x-amz-copy-source-if-match",
             "x-amz-copy-source-if-none-match", "x-amz-metadata-directive")
CONDITIONS = ("if-match", "if-none-match", "if-modified-since", "if-unmodified-since")
QUERY_OF_A_BUCKET = {"list-type", "prefix", "delimiter", "continuation-token", "start-after",
                     "max-keys", "encoding-type", "fetch-owner", "delete"}
QUERY_OF_AN_UPLOAD = {"uploads", "uploadId", "partNumber", "max-parts", "part-number-marker"}
NOT_REDIRECTED = ("aws-cli", "botocore", "aws-sdk-rust")
NOT_FOR_THE_CDN = ("authorization", "x-amz-security-token", "x-amz-content-sha256")
AUTHORIZATION = re.compile(r"AWS4-HMAC-SHA256 Credential=([^/,]+)/(\d{8}/[^/]+/s3/aws4_request),"
                           r"\s*SignedHeaders=([^,]+),\s*Signature=([0-9a-f]{64})")
CLOCK_SECONDS = 15 * 60
EMPTY_SHA256 = hashlib.sha256().hexdigest()


@dataclass(frozen=True)
class Violation:
    """A request that broke a rule, and how it was answered."""

    rule: str
    method: str
    path: str
    status: int


class Refusal(Exception):
    def __init__(self, rule, status=400, code="InvalidRequest"):
        super().__init__(rule)
        self.rule, self.status, self.code = rule, status, code


def check_key(key):
    """The object names that the gateway takes."""
    broken = {
        "a key does not start or end with /": key.startswith("/") or key.endswith("/"),
        "a key holds no //": "//" in key,
        "a key does not start with ./": key.startswith("./"),
        "a key holds no ../ and does not end with ..": "../" in key or key.endswith(".."),
        "a key holds no backslash and no null byte": "\\" in key or "\0" in key,
    }
    for rule, is_broken in broken.items():
        if is_broken:
            raise Refusal(rule, 400, "InvalidArgument")


def check_query(method, key, query):
    for name in query:
        if name not in (QUERY_OF_AN_UPLOAD if key else QUERY_OF_A_BUCKET):
            raise Refusal(f"no subresource {name}", 501, "NotImplemented")
    if method == "GET" and not key:
        if query.get("list-type") != "2":
            raise Refusal("ListObjectsV2 only", 501, "NotImplemented")
        if query.get("delimiter", "/") != "/":
            raise Refusal("the delimiter is /", 400, "InvalidArgument")


def check_headers(method, query, headers):
    payload = headers.get("x-amz-content-sha256", "")
    if "aws-chunked" in headers.get("content-encoding", "") or payload.startswith("STREAMING-"):
        raise Refusal("no aws-chunked", 501, "NotImplemented")
    if "x-amz-trailer" in headers:
        raise Refusal("no trailing checksums", 501, "NotImplemented")
    if any(name.lower().startswith("x-amz-meta-") for name in headers):
        raise Refusal("no x-amz-meta-*")
    if "x-amz-tagging" in headers:
        raise Refusal("no tagging", 501, "NotImplemented")
    if "partNumber" in query and "x-amz-copy-source" in headers:
        raise Refusal("no UploadPartCopy", 501, "NotImplemented")
    if method == "GET" and any(name in headers for name in CONDITIONS):
        raise Refusal("no conditions on GET")


def check_signature(handler, access_key, secret_key, region):
    """The client's own proof, over the path and the query as sent. The body is the server's to
    check, against the digest that this signature covers."""
    headers = handler.headers
    match = AUTHORIZATION.fullmatch(headers.get("authorization", ""))
    if not match or match[1] != access_key:
        raise Refusal("requests are signed with the keys of the namespace", 403,
                      "InvalidAccessKeyId")
    scope, names, amz_date = match[2], match[3].split(";"), headers.get("x-amz-date", "")
    needed = {"host"} | {name.lower() for name in headers if name.lower().startswith("x-amz-")}
    if not needed <= set(names) or "x-amz-content-sha256" not in needed:
        raise Refusal("the signature covers host and every x-amz header", 403, "AccessDenied")
    if scope != f"{amz_date[:8]}/{region}/s3/aws4_request" or not is_now(amz_date):
        raise Refusal(f"signed today, for {region}", 403, "RequestTimeTooSkewed")
    right = signature(secret_key, scope, handler.command, handler.path_only, handler.query,
                      {name: headers.get(name, "") for name in names}, amz_date,
                      headers["x-amz-content-sha256"])
    if not hmac.compare_digest(right, match[4]):
        raise Refusal("the signature is right", 403, "SignatureDoesNotMatch")


def is_now(amz_date):
    try:
        sent = calendar.timegm(time.strptime(amz_date, "%Y%m%dT%H%M%SZ"))
    except ValueError:
        return False
    return abs(sent - time.time()) < CLOCK_SECONDS


class _Checked(Handler):
    """Answers a Refusal and records it; a subclass does the rest in `serve`."""

    def answer(self):
        try:
            self.serve()
        except Refusal as refused:
            violation = Violation(refused.rule, self.command, self.path, refused.status)
            self.proxy.violations.append(violation)
            self.refuse(refused.status, refused.code, refused.rule)

    def ask(self, hub, method, path, query, headers, body=()):
        """Asks the server behind, signed with its own keys; returns the reply."""
        digest = self.headers.get("x-amz-content-sha256", EMPTY_SHA256)
        signed = sign({"host": hub.upstream} | headers, method, path, query, digest,
                      *hub.upstream_keys)
        target = path + ("?" + canonical_query(query) if query else "")
        return self.forward(hub.upstream, target, signed.items(), body, method)


class _GatewayHandler(_Checked):
    def serve(self):
        hub = self.proxy
        check_signature(self, hub.access_key, hub.secret_key, hub.region)
        path = self._path_without_namespace(hub.namespace)
        bucket, _, key = path[1:].partition("/")
        query = dict(self.query)
        if bucket:
            check_key(urllib.parse.unquote(key))
            check_query(self.command, key, query)
        check_headers(self.command, query, self.headers)
        agent = self.headers.get("user-agent", "").lower()
        follows = not any(name in agent for name in NOT_REDIRECTED)
        if self.command == "GET" and key and not query and follows:
            self._redirect(path)
            return
        headers = {name: self.headers[name] for name in FORWARDED if name in self.headers}
        self.relay(self.ask(hub, self.command, path, self.query, headers, self.body()))

    def _path_without_namespace(self, namespace):
        start = f"/{namespace}"
        if self.path_only != start and not self.path_only.startswith(start + "/"):
            raise Refusal(f"paths start with {start}", 404, "NoSuchBucket")
        return self.path_only[len(start):] or "/"

    def _redirect(self, path):
        found = self.ask(self.proxy, "HEAD", path, [], {})
        if found.status != 200:
            self.refuse(found.status, "NoSuchKey" if found.status == 404 else "InternalError",
                        "the object cannot be read")
            return
        self.refuse(302, "TemporaryRedirect", "elsewhere", [("Location", self.proxy.link(path))])


class _CdnHandler(_Checked):
    def serve(self):
        hub, query = self.proxy.hub, dict(self.query)
        for name in NOT_FOR_THE_CDN:
            if name in self.headers:
                raise Refusal(f"{name} is not sent to another host")
        expires = query.get("Expires", "")
        if self.command not in ("GET", "HEAD") or \
           not hmac.compare_digest(hub.link_proof(self.path_only, expires),
                                   query.get("Signature", "")):
            raise Refusal("links are used as they were given", 403, "AccessDenied")
        if time.time() > int(expires):
            self.refuse(403, "AccessDenied", "the link has expired")
            return
        headers = {"range": self.headers["range"]} if "range" in self.headers else {}
        self.relay(self.ask(hub, self.command, self.path_only, [], headers))


class _Cdn(Listener):
    handler = _CdnHandler

    def __init__(self, hub):
        self.hub = hub
        self.violations = hub.violations


class HfRulesProxy(Listener):
    """In front of `upstream`, with keys of its own. `violations` lists what was refused. Links last
    `link_seconds`. `cdn_through`, a FaultProxy in front of `cdn`, puts itself into the links."""

    handler = _GatewayHandler
    access_key = "HFAKTEST"
    secret_key = "hf-rules-proxy-secret"

    def __init__(self, upstream, namespace="some-org"):
        self.upstream = urllib.parse.urlsplit(upstream.endpoint).netloc
        self.upstream_keys = (upstream.access_key, upstream.secret_key, upstream.region)
        self.namespace = namespace
        self.violations = []
        self.link_seconds = 3600
        self.cdn = _Cdn(self)
        self.cdn_through = None

    def start(self):
        self.cdn.start()
        super().start()
        self.endpoint += f"/{self.namespace}"
        return self

    def stop(self):
        super().stop()
        self.cdn.stop()

    def link(self, path):
        """Where the bytes of the object at `path` are: anyone who has the link may read them."""
        expires = str(int(time.time() + self.link_seconds))
        return (f"{(self.cdn_through or self.cdn).endpoint}{path}?Expires={expires}"
                f"&Signature={self.link_proof(path, expires)}")

    def link_proof(self, path, expires):
        return hmac.new(self.secret_key.encode(), f"{path} {expires}".encode(),
                        hashlib.sha256).hexdigest()
