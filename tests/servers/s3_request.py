"""S3 requests signed by hand, from AWS's description of Signature Version 4.

Independent of the signer in src/store, so that a test has a second opinion; the signature's parts
are functions because the rules proxy checks the signatures of others with them.
"""

import hashlib
import hmac
import http.client
import time
import urllib.parse
import xml.etree.ElementTree as xml
from dataclasses import dataclass

UNSIGNED = "UNSIGNED-PAYLOAD"


def encoded(text, keep=""):
    return urllib.parse.quote(text, safe="-_.~" + keep)


def canonical_query(pairs):
    return "&".join(sorted(f"{encoded(name)}={encoded(value)}" for name, value in pairs))


def signature(secret, scope, method, path, query, headers, amz_date, payload_hash):
    """The signature in hex. `path` is encoded as sent; `query` is a list of plain pairs; `headers`
    holds the signed ones, names in lower case; `scope` is date/region/service/aws4_request."""
    names = sorted(headers)
    canonical = "\n".join([
        method, path, canonical_query(query),
        *(f"{name}:{' '.join(headers[name].split())}" for name in names), "",
        ";".join(names), payload_hash])
    to_sign = "\n".join(["AWS4-HMAC-SHA256", amz_date, scope,
                         hashlib.sha256(canonical.encode()).hexdigest()])
    key = ("AWS4" + secret).encode()
    for part in [*scope.split("/"), to_sign]:
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key.hex()


def sign(headers, method, path, query, payload_hash, access_key, secret_key, region):
    """The headers, which must hold `host`, with those that prove who sends them."""
    amz_date = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    scope = f"{amz_date[:8]}/{region}/s3/aws4_request"
    headers = {name.lower(): value for name, value in headers.items()}
    headers |= {"x-amz-date": amz_date, "x-amz-content-sha256": payload_hash}
    proof = signature(secret_key, scope, method, path, query, headers, amz_date, payload_hash)
    return headers | {"authorization": f"AWS4-HMAC-SHA256 Credential={access_key}/{scope},"
                                       f"SignedHeaders={';'.join(sorted(headers))},"
                                       f"Signature={proof}"}


@dataclass
class Reply:
    status: int
    headers: http.client.HTTPMessage
    body: bytes


class S3:
    """Signed requests to one endpoint, each on a connection of its own. Nothing is tried twice and
    no redirect is followed. `endpoint` may have a path, which comes before every bucket."""

    def __init__(self, endpoint, access_key, secret_key, region="us-east-1", timeout=30):
        parts = urllib.parse.urlsplit(endpoint)
        self.host = parts.netloc
        self.prefix = parts.path.rstrip("/")
        self.keys = (access_key, secret_key, region)
        self.timeout = timeout

    @classmethod
    def of(cls, server, **more):
        """For a server of this folder."""
        return cls(server.endpoint, server.access_key, server.secret_key, server.region, **more)

    def request(self, method, path, query=(), headers=None, body=b""):
        """`path` starts with a slash and is plain: /bucket/key."""
        path = encoded(self.prefix + path, keep="/")
        signed = sign({"host": self.host} | (headers or {}), method, path, query,
                      hashlib.sha256(body).hexdigest(), *self.keys)
        target = path + ("?" + canonical_query(query) if query else "")
        connection = http.client.HTTPConnection(self.host, timeout=self.timeout)
        try:
            connection.request(method, target, body=body if method in ("PUT", "POST") else None,
                               headers=signed)
            reply = connection.getresponse()
            return Reply(reply.status, reply.headers, reply.read())
        finally:
            connection.close()

    def create_bucket(self, bucket):
        return self.request("PUT", f"/{bucket}")

    def put(self, bucket, key, body, **headers):
        """Header names with underscores: put(..., if_none_match="*")."""
        return self.request("PUT", f"/{bucket}/{key}", headers=_header_names(headers), body=body)

    def get(self, bucket, key, **headers):
        return self.request("GET", f"/{bucket}/{key}", headers=_header_names(headers))

    def head(self, bucket, key):
        return self.request("HEAD", f"/{bucket}/{key}")

    def delete(self, bucket, key):
        return self.request("DELETE", f"/{bucket}/{key}")

    def list(self, bucket, prefix="", **query):
        """One page of ListObjectsV2 as it came; `keys_of` reads it."""
        pairs = [("list-type", "2"), ("prefix", prefix)]
        pairs += [(name.replace("_", "-"), str(value)) for name, value in query.items()]
        return self.request("GET", f"/{bucket}", query=pairs)


def keys_of(listing):
    """The keys in a reply to `list`."""
    return [element.text for element in xml.fromstring(listing.body).iter()
            if element.tag.rpartition("}")[2] == "Key"]


def _header_names(headers):
    return {name.replace("_", "-"): value for name, value in headers.items()}
