"""A real S3 server, SeaweedFS."""

import datetime
import hashlib
import hmac
import json
import os
import pathlib
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
import xml.etree.ElementTree

from harness import ROOT, free_port, is_free

WEED = pathlib.Path(os.environ.get("PYROGRAPH_WEED", ROOT / ".venv/bin/weed"))
BUCKET, KEY, SECRET = "test", "pyrograph", "pyrograph-secret"


def low_port():
    """A free port; SeaweedFS also listens 10,000 above each of its ports."""
    while not is_free((port := free_port(high=22_000)) + 10_000):
        pass
    return port


class Seaweed:
    """One SeaweedFS on a directory, which outlives its process."""

    def __init__(self, directory):
        self.directory, self.process = directory, None
        self.port = low_port()
        self.filer = low_port()
        self.others = [f"-{name}.port={low_port()}" for name in ("master", "volume", "webdav", "admin")]
        # Unused services would have the same port in each instance.
        self.others += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]
        directory.mkdir()

    def start(self):
        """Starts the process, and waits until it stores and returns objects; it refuses all before the bucket exists."""
        log = open(f"{self.directory}.log", "ab")
        self.process = subprocess.Popen(
            [WEED, "mini", f"-dir={self.directory}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-admin.ui=false"]
            + [f"-bucket={BUCKET}", f"-s3.port={self.port}", f"-filer.port={self.filer}", *self.others],
            env={**os.environ, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET},
            stdout=log,
            stderr=log,
        )
        body, until = os.urandom(16), time.monotonic() + 60
        while True:
            try:
                self.request("PUT", "started", body)
                assert self.request("GET", "started") == body
                return
            except OSError as error:
                if self.process.poll() is not None or time.monotonic() > until:
                    self.stop()
                    said = pathlib.Path(f"{self.directory}.log").read_text(errors="replace")
                    raise RuntimeError(f"SeaweedFS does not serve its bucket: {error}: {said[-3000:]}")
                time.sleep(0.1)

    def request(self, method, key, body=b"", at=None, query=None, bucket=BUCKET):
        """The answer to a request with a signature (version 4) of the time `at`, by default now."""
        at = (at or datetime.datetime.now(datetime.timezone.utc)).strftime("%Y%m%dT%H%M%SZ")
        scope = f"{at[:8]}/us-east-1/s3/aws4_request"
        path, digest = f"/{bucket}/" + urllib.parse.quote(key), hashlib.sha256(body).hexdigest()
        query = urllib.parse.urlencode(sorted((query or {}).items()), quote_via=urllib.parse.quote)
        headers = {"host": f"127.0.0.1:{self.port}", "x-amz-content-sha256": digest, "x-amz-date": at}
        names = ";".join(headers)
        request = "\n".join([method, path, query, *(f"{name}:{value}" for name, value in headers.items()), "", names, digest])
        key_of_scope = f"AWS4{SECRET}".encode()
        for part in scope.split("/"):
            key_of_scope = hmac.digest(key_of_scope, part.encode(), "sha256")
        text = f"AWS4-HMAC-SHA256\n{at}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        signature = hmac.digest(key_of_scope, text.encode(), "sha256").hex()
        headers["authorization"] = f"AWS4-HMAC-SHA256 Credential={KEY}/{scope}, SignedHeaders={names}, Signature={signature}"
        url = f"http://127.0.0.1:{self.port}{path}" + (f"?{query}" if query else "")
        asked = urllib.request.Request(url, data=body or None, headers=headers, method=method)
        with urllib.request.urlopen(asked, timeout=10) as response:
            return response.read()

    def listing(self, tags, marker, **query):
        """Dicts of the tags of each entry of a listing, page by page; `marker` names the tag that continues it."""
        entries, more = [], {}
        while True:
            page = xml.etree.ElementTree.fromstring(self.request("GET", "", query={**query, **more}))
            space = page.tag.removesuffix(page.tag.split("}")[-1])
            text = {tag: page.findtext(space + tag) for tag in ("IsTruncated", *marker.values())}
            for entry in page:
                if entry.tag.removeprefix(space) in tags:
                    values = {child.tag.removeprefix(space): child.text for child in entry}
                    entries.append({**values, "tag": entry.tag.removeprefix(space)})
            if text["IsTruncated"] != "true":
                return entries
            more = {name: text[tag] for name, tag in marker.items() if text[tag]}

    def keys(self, prefix):
        marker = {"continuation-token": "NextContinuationToken"}
        listed = self.listing(["Contents"], marker, **{"list-type": "2", "prefix": prefix})
        return [entry["Key"] for entry in listed]

    def versions(self):
        """All versions and delete markers of the bucket."""
        marker = {"key-marker": "NextKeyMarker", "version-id-marker": "NextVersionIdMarker"}
        return self.listing(["Version", "DeleteMarker"], marker, versions="")

    def read(self, key):
        """None if there is no such object."""
        try:
            return self.request("GET", key)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.wait()

    def keys(self, folder):
        """Every key of the bucket below `folder`, according to the filer."""
        found, folders = [], [folder]
        while folders:
            folder, last = folders.pop(), ""
            while True:
                url = f"http://127.0.0.1:{self.filer}/buckets/{BUCKET}/{folder}/?limit=1000&lastFileName={last}"
                request = urllib.request.Request(url, headers={"Accept": "application/json"})
                try:
                    with urllib.request.urlopen(request, timeout=30) as response:
                        page = json.load(response)
                except urllib.error.HTTPError as error:
                    if error.code == 404:
                        break
                    raise
                for entry in page["Entries"] or []:
                    key = entry["FullPath"].removeprefix(f"/buckets/{BUCKET}/")
                    (folders if entry["Mode"] & 0o20000000000 else found).append(key)
                if not page.get("ShouldDisplayLoadMore"):
                    break
                last = page["LastFileName"]
        return found


def flags(port):
    """The flags of a server that stores its objects in the bucket behind `port`."""
    return (
        "-storage.backend=s3",
        f"-storage.s3.endpoint=127.0.0.1:{port}",
        f"-storage.s3.bucket-name={BUCKET}",
        "-storage.s3.region=us-east-1",
        f"-storage.s3.access-key-id={KEY}",
        f"-storage.s3.secret-access-key={SECRET}",
        "-storage.s3.insecure",
        "-storage.s3.force-path-style",
    )
