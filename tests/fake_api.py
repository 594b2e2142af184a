"""An API server for tests: HTTPS with a CA of its own, tokens, refusals in the words of the real one, conflicts."""

from __future__ import annotations

import datetime
import ipaddress
import json
import socket
import ssl
import struct
import threading
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.waiting import BOUND

USER = "system:serviceaccount:kube-system:multus"
NETWORKS = "network-attachment-definitions"


@cache
def authority():
    return trustme.CA()


@cache
def other_authority():
    return trustme.CA()


class BareCA:
    """A CA whose certificate says only that it is one, as clusters have them that are years old.

    Neither it nor what it signs has key identifiers or a key usage. Go accepts that, and so does Python before 3.13.
    """

    def __init__(self):
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")])
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        certificate = _certificate(self._name, self._key.public_key(), self._name, self._key, constraints)
        self.cert_pem = trustme.Blob(certificate.public_bytes(Encoding.PEM))

    def issue_cert(self, *hosts):
        key = ec.generate_private_key(ec.SECP256R1())
        address = [x509.IPAddress(ipaddress.ip_address(host)) for host in hosts if host[0].isdigit()]
        named = [x509.DNSName(host) for host in hosts if not host[0].isdigit()]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kube-apiserver")])
        names = x509.SubjectAlternativeName([*address, *named])
        certificate = _certificate(subject, key.public_key(), self._name, self._key, names)
        private = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        return trustme.LeafCert(private, certificate.public_bytes(Encoding.PEM), [])


def _certificate(subject, public_key, issuer, signing_key, extension):
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(issuer, subject, public_key, x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(
        now + datetime.timedelta(days=1)
    )
    return builder.add_extension(extension, critical=False).sign(signing_key, hashes.SHA256())


def pem(ca):
    return ca.cert_pem.bytes().decode("ascii")


class FakeCluster:
    """What the API server knows, for tests to arrange and to look at."""

    def __init__(self):
        self.tokens = {"good-token"}
        self.nodes = {}
        self.pods = {}
        """By namespace and name."""
        self.networks = {}
        """NetworkAttachmentDefinitions, by namespace and name, as pods are."""
        self.events = {}
        self.evicted = []
        """Namespace and name of each pod, in order."""
        self.refusals = {}
        """Status and message of refusals, one after the other, by "events" or "eviction", namespace and pod."""
        self.after_eviction = self.replace
        """What becomes of an evicted pod: called with its namespace and name."""
        self.largest_page = 500
        self.expired_pages = 0
        """How many of the next continue tokens are too old."""
        self.denied = set()
        """(verb, resource) that RBAC refuses."""
        self.served = True
        """The NetworkAttachmentDefinition resource is installed."""
        self.failures = []
        """Statuses to answer the next requests with; None for an answer in earnest."""
        self.headers = {}
        """Further ones of each answer."""
        self.before_patch = []
        """Called one by one before a patch is looked at: somebody else is faster."""
        self.requests = []
        self.arrived = threading.Condition()
        self.url = ""
        self.silent = threading.Event()
        """While set, connections are accepted and nothing is answered."""
        self.released = threading.Event()

    def add_node(self, name, *taints):
        self.nodes[name] = {
            "kind": "Node",
            "apiVersion": "v1",
            "metadata": {"name": name, "resourceVersion": "1"},
            "spec": {"podCIDR": "10.244.0.0/24", **({"taints": list(taints)} if taints else {})},
        }

    def add_pod(
        self, name, networks=None, status=(), *, namespace="default", owner="ReplicaSet", node="node-1", **more
    ):
        """Add a running pod that asks for networks and got those of `status`; `owner` is the kind of its controller."""
        annotations = {} if networks is None else {"k8s.v1.cni.cncf.io/networks": networks}
        if status is not None:
            got = [{"name": "cbr0", "interface": "eth0", "default": True}, *({"name": each} for each in status)]
            annotations["k8s.v1.cni.cncf.io/network-status"] = json.dumps(got)
        metadata = {"name": name, "namespace": namespace, "uid": f"uid-{name}", "annotations": annotations}
        if owner:
            version = "v1" if owner in {"Node", "ReplicationController"} else "apps/v1"
            version = "batch/v1" if owner == "Job" else version
            uid = more.pop("owner_uid", f"owner-of-{name}")
            metadata["ownerReferences"] = [
                {"apiVersion": version, "kind": owner, "name": "o", "uid": uid, "controller": True}
            ]
        self.pods[namespace, name] = {
            "kind": "Pod",
            "apiVersion": "v1",
            "metadata": {**metadata, **more.pop("metadata", {})},
            "spec": {"nodeName": node, **more.pop("spec", {})},
            "status": {
                "phase": "Running",
                "podIP": "10.244.0.5",
                "conditions": [{"type": "Ready", "status": "True" if more.pop("ready", True) else "False"}],
                **more,
            },
        }

    def replace(self, namespace, name, *, ready=True, node="node-2"):
        """Take a pod away and have its controller make a new one, which has what it asks for."""
        gone = self.pods.pop((namespace, name))
        new = json.loads(json.dumps(gone))
        new["metadata"].pop("deletionTimestamp", None)
        owner = new["metadata"].get("ownerReferences", [{}])[0]
        kept = owner.get("kind") == "StatefulSet"
        new["metadata"] |= {"name": name if kept else f"{name}-again", "uid": f"{gone['metadata']['uid']}-again"}
        asked = new["metadata"]["annotations"].get("k8s.v1.cni.cncf.io/networks", "")
        got = [{"name": "cbr0", "default": True}, *({"name": f"{namespace}/{each}"} for each in asked.split(","))]
        new["metadata"]["annotations"]["k8s.v1.cni.cncf.io/network-status"] = json.dumps(got)
        new["spec"]["nodeName"] = "node-1" if owner.get("kind") == "DaemonSet" else node
        new["status"]["conditions"] = [{"type": "Ready", "status": "True" if ready else "False"}]
        self.pods[namespace, new["metadata"]["name"]] = new

    def add_network(self, name, config=None, namespace="default"):
        self.networks[namespace, name] = {
            "kind": "NetworkAttachmentDefinition",
            "apiVersion": "k8s.cni.cncf.io/v1",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {} if config is None else {"config": config if isinstance(config, str) else json.dumps(config)},
        }

    def change(self, name, taints):
        node = self.nodes[name]
        node["spec"]["taints"] = taints
        self._touch(node)

    def taints(self, name):
        return self.nodes[name]["spec"].get("taints", [])

    def wait_for_requests(self, count):
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.requests) >= count, BOUND), self.requests

    # ---- answering ----

    def admit(self):
        """Say whether a new connection is served; one that is not is reset at once."""
        return True

    def answer(self, method, path, headers, body):
        with self.arrived:
            self.requests.append((method, path))
            self.arrived.notify_all()
        if self.silent.is_set():
            self.released.wait(BOUND)
        status = self.failures.pop(0) if self.failures else None
        if status is not None:
            return status, _status(status, "InternalError", "etcdserver: request timed out")
        token = headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in self.tokens:
            return 401, _status(401, "Unauthorized", "Unauthorized")
        parts = urlsplit(path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        match parts.path.strip("/").split("/"):
            case ["version"]:
                return 200, {"major": "1", "minor": "36", "gitVersion": "v1.36.1"}
            case ["apis", "k8s.cni.cncf.io", *_] if not self.served:
                return 404, _status(404, "NotFound", "the server could not find the requested resource")
            case ["apis", "k8s.cni.cncf.io", "v1"]:
                resources = [{"name": NETWORKS, "kind": "NetworkAttachmentDefinition"}]
                return 200, {"kind": "APIResourceList", "groupVersion": "k8s.cni.cncf.io/v1", "resources": resources}
            case ["api", "v1", *rest] | ["apis", _, "v1", *rest]:
                namespace, rest = (rest[1], rest[2:]) if rest[0] == "namespaces" else (None, rest)
                resource, name, below = (*rest, "", "")[:3]
        resource = f"{resource}/{below}" if below else resource
        verb = {"GET": "get" if name else "list", "POST": "create"}.get(method, method.lower())
        if (verb, resource) in self.denied:
            said = (
                f'{resource} "{name}" is forbidden: User "{USER}" cannot {verb} resource "{resource}" in API group ""'
            )
            return 403, _status(403, "Forbidden", f"{said} at the cluster scope")
        if verb == "create":
            return {"selfsubjectaccessreviews": self._review, "pods/eviction": self._evict, "events": self._event}[
                resource
            ](namespace, name, body)
        objects = {"pods": self.pods, NETWORKS: self.networks, "nodes": self.nodes}[resource]
        if verb == "list":
            there = {key: found for key, found in objects.items() if namespace in {None, key[0]}}
            return self._list(there, query, metadata_only="PartialObjectMetadataList" in headers["Accept"])
        found = objects.get((namespace, name) if namespace else name)
        if found is None:
            return 404, _status(404, "NotFound", f'{resource} "{name}" not found')
        return (200, json.loads(json.dumps(found))) if verb == "get" else self._patch(found, headers, body)

    def _review(self, _namespace, _name, body):
        wanted = body["spec"]["resourceAttributes"]
        resource = wanted["resource"] + ("/" + wanted["subresource"] if wanted.get("subresource") else "")
        return 201, {**body, "status": {"allowed": (wanted["verb"], resource) not in self.denied}}

    def _list(self, objects, query, *, metadata_only):
        """Answer in pages, in the order of the keys, as etcd has them; the token says where to go on."""
        if query.get("continue") and query.get("resourceVersion"):
            return 400, _status(400, "BadRequest", "specifying resource version is not allowed when using continue")
        if query.get("continue") and self.expired_pages:
            self.expired_pages -= 1
            said = "The provided continue parameter is too old to display a consistent list result."
            return 410, _status(410, "Expired", said)
        keys = [
            key
            for key in sorted(objects)
            if _selected(objects[key], query.get("fieldSelector", ""))
            and _labelled(objects[key], query.get("labelSelector", ""))
        ]
        start = next((at for at, key in enumerate(keys) if "/".join(key) > query.get("continue", "")), len(keys))
        limit = min(int(query.get("limit", self.largest_page)), self.largest_page)
        if query.get("resourceVersion") == "0":
            limit = len(keys)  # from the server's memory, whatever the limit is
        page = keys[start : start + limit]
        left = len(keys) - start - len(page)
        items = [json.loads(json.dumps(objects[key])) for key in page]
        metadata = {"resourceVersion": "1", **({"continue": "/".join(page[-1])} if left else {})}
        if metadata_only:
            items = [{**_PARTIAL, "metadata": item["metadata"]} for item in items]
            return 200, {**_PARTIAL, "kind": "PartialObjectMetadataList", "metadata": metadata, "items": items}
        return 200, {"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items}

    def _refused(self, resource, namespace, name):
        """Return what a disruption budget, a webhook or a quota says now; None for nothing."""
        left = self.refusals.get((resource, namespace, name))
        if not left:
            return None
        status, said = left.pop(0)
        return status, _status(status, "Forbidden" if status == 403 else "TooManyRequests", said)

    def _evict(self, namespace, name, body):
        assert (body["apiVersion"], body["kind"], body["metadata"]["name"]) == ("policy/v1", "Eviction", name)
        pod = self.pods.get((namespace, name))
        if pod is None:
            return 404, _status(404, "NotFound", f'pods "{name}" not found')
        if body["deleteOptions"]["preconditions"]["uid"] != pod["metadata"]["uid"]:
            return 409, _status(409, "Conflict", "Precondition failed: UID in precondition")
        if refused := self._refused("eviction", namespace, name):
            return refused
        self.evicted.append((namespace, name))
        self.after_eviction(namespace, name)
        return 201, {"kind": "Status", "apiVersion": "v1", "status": "Success"}

    def _event(self, namespace, _name, body):
        key = namespace, body["metadata"]["name"]
        assert body["metadata"]["namespace"] == body["involvedObject"]["namespace"] == namespace
        if refused := self._refused("events", namespace, body["involvedObject"]["name"]):
            return refused
        if key in self.events:
            return 409, _status(409, "AlreadyExists", f'events "{key[1]}" already exists')
        self.events[key] = body
        return 201, body

    def _patch(self, node, headers, body):
        if headers.get("Content-Type") != "application/merge-patch+json":
            return 415, _status(415, "UnsupportedMediaType", "the body of the request was in an unknown format")
        if self.before_patch:
            self.before_patch.pop(0)()
        if body["metadata"].get("resourceVersion") != node["metadata"]["resourceVersion"]:
            return 409, _status(409, "Conflict", "Operation cannot be fulfilled: the object has been modified")
        node["spec"] = {key: value for key, value in {**node["spec"], **body["spec"]}.items() if value is not None}
        self._touch(node)
        return 200, node

    @staticmethod
    def _touch(node):
        node["metadata"]["resourceVersion"] = str(int(node["metadata"]["resourceVersion"]) + 1)


_PARTIAL = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}


def _selected(document, selector):
    """Say whether a field selector, as of pods, takes an object."""
    for term in filter(None, selector.split(",")):
        path, equal, value = term.partition("!=") if "!=" in term else term.partition("=")
        assert path in {"spec.nodeName", "status.phase", "metadata.name"}, term
        found = document
        for part in path.split("."):
            found = found.get(part, {})
        if (found == value) is (equal == "!="):
            return False
    return True


def _labelled(document, selector):
    labels = document["metadata"].get("labels", {})
    return all(
        labels.get(key) == value for key, _, value in (term.partition("=") for term in selector.split(",")) if key
    )


def _status(code, reason, message):
    about = {"kind": "Status", "apiVersion": "v1", "status": "Failure"}
    return {**about, "code": code, "reason": reason, "message": message}


@contextmanager
def serving(cluster, ca=None, port=0, hosts=("127.0.0.1", "localhost")):
    """Serve the cluster on 127.0.0.1; `cluster.url` is where, and `hosts` is who its certificate says that it is."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # an answer is one packet: a second one would wait for the first to be acknowledged

        def _do(self):
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            status, document = cluster.answer(self.command, self.path, self.headers, body)
            content = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            for name, value in cluster.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _do  # noqa: N815 - http.server's names

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        request_queue_size = 1024  # a whole fleet may come at once

        def finish_request(self, request, client_address):  # in the connection's thread: a bad handshake blocks nobody
            if not cluster.admit():
                request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return  # closed by the caller, which now means reset
            self.RequestHandlerClass(context.wrap_socket(request, server_side=True), client_address, self)

        def handle_error(self, *_):
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    (ca or authority()).issue_cert(*hosts).configure_cert(context)
    server = Server(("127.0.0.1", port), Handler)
    cluster.url = f"https://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield cluster
    finally:
        cluster.released.set()
        server.shutdown()
        server.server_close()
