"""The Kubernetes API through the official client, as little of it as possible: it is the largest thing we load.

Only short-lived processes load the client: the resident process and its start know nothing of it. Requests and answers
are plain JSON objects; the typed APIs would cost 20 MiB more and drop what they do not know. No answer is trusted: each
ends within a time and a size, and a container's memory limit is looked at before the client is loaded, because the
kernel kills without a word.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from urllib.parse import quote, urlencode

from entrypoint.telling.log import one_line

if TYPE_CHECKING:
    import ssl

CLIENT_SIZE = 26 << 20
"""Bytes of its own that a process grows by when it loads and uses the client: 21 to 23 MiB with kubernetes 37.

What it maps of files, another 10 MiB, the kernel takes back before it kills anyone.
"""
LARGEST, SMALLEST = 4 << 20, 256 << 10
"""The most bytes of one answer, and what is read whatever room there is. No object in etcd has more than 1.5 MiB."""
_GROWTH = 8
"""How many times its own size an answer may take while it is read, at most.

One character beyond the basic plane makes four bytes of each byte of text: the text, and its parts beside it.
"""
PAGE = 100
"""Objects that are asked for in one answer."""
_SHARE = 5
"""A page that is too large is asked for again with this share of its objects: 100, 20, 4, 1."""
_RESTARTS = 3
"""How often a list whose token expires is begun anew in one go."""
_PAGES = 10_000
"""The most pages of a list: a million objects, ten times what Kubernetes is built for."""
_QUOTED = 300
"""How many characters of what somebody else has said are quoted."""
_ELSE = "is something else than an API server at its address?"
"""What to ask oneself about an answer that no API server gives."""

TIMEOUT = 10.0
"""Seconds for one request, where a caller has none of his own."""
JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Access:
    """Where the API server is and how to be let in."""

    server: str
    """URL."""
    token: str = field(repr=False)
    certificate_authority: str | None
    """PEM; None: do not verify the server's certificate."""


class Answer(NamedTuple):
    """What the API server answered."""

    status: int
    """HTTP status code."""
    document: dict[str, Any]
    retry_after: float = 0.0
    """Seconds that the server asks to wait before the next try: an overloaded one does, with 429 or 503."""

    @property
    def ok(self) -> bool:
        """It did what was asked."""
        return 200 <= self.status < 300  # noqa: PLR2004 - HTTP

    @property
    def forbidden(self) -> bool:
        """A right is missing, or an admission webhook or a quota refuses this one object."""
        return self.status == HTTPStatus.FORBIDDEN

    @property
    def message(self) -> str:
        """The status code and what the API server had to say, on one line and not too much of it."""
        said = self.document.get("message")
        return f"{self.status} {quoted(said)}" if isinstance(said, str) else str(self.status)


class UnreachableError(Exception):
    """No answer came that could be used; the message says why."""


class TooLargeError(UnreachableError):
    """The answer is larger than what there is room for."""


class RefusedError(Exception):
    """The API server answered, and not with what was asked for; `rule` is what a role may lack for that."""

    def __init__(self, answer: Answer, rule: str = "") -> None:
        super().__init__(answer.message)
        self.answer, self.rule = answer, rule


def path_to(*segments: str) -> str:
    """Return the path of a resource; each segment is escaped, whatever somebody has called it."""
    return "".join(f"/{quote(each, safe='', errors='replace')}" for each in segments)


def attachment_path(namespace: str, name: str) -> str:
    """Return where the API has a NetworkAttachmentDefinition."""
    return path_to("apis", "k8s.cni.cncf.io", "v1", "namespaces", namespace, "network-attachment-definitions", name)


def quoted(text: str) -> str:
    """Return what somebody else has written as a message may quote it: cut, and without control characters."""
    return one_line(text if len(text) <= _QUOTED else f"{text[:_QUOTED]}…")


def part(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return an object within one; an empty one where there is none."""
    found = document.get(name)
    return found if isinstance(found, dict) else {}


def parts(document: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Return the objects of a list within an object; none where there is no list."""
    found = document.get(name)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


class Api:
    """A connection to an API server, for one request at a time."""

    def __init__(self, access: Access) -> None:
        """Load the client: takes a second and `CLIENT_SIZE` bytes. Raises `UnreachableError`."""
        from kubernetes.client.api_client import ApiClient
        from kubernetes.client.configuration import Configuration

        warnings.simplefilter("ignore")  # urllib3 warns of a certificate that is not to be verified
        verified = access.certificate_authority is not None
        # Python's ssl takes ASCII alone; beside the certificates anything may stand.
        authority = (access.certificate_authority or "").encode("ascii", "replace").decode("ascii")
        configuration = Configuration(
            host=access.server.rstrip("/"),
            api_key={"BearerToken": f"Bearer {access.token}"},
            ca_cert_data=authority or None,
            verify_ssl=verified,
            retries=False,  # callers know better when to try again
            proxy="",  # Multus on the host has no proxy of this container's environment either
            no_proxy="",
        )
        self._host = configuration.host
        self._client = ApiClient(configuration)
        self._client.user_agent = "multus-entrypoint"
        self._connections: list[Any] = []
        pools = self._client.rest_client.pool_manager
        if verified:
            # The client's configuration has no place for it (kubernetes-client/python 2394).
            pools.connection_pool_kw["ssl_context"] = _tls()

    def request(
        self,
        method: str,
        path: str,
        *,
        timeout: float = TIMEOUT,
        body: dict[str, Any] | None = None,
        accept: str = JSON,
    ) -> Answer:
        """Send one request and wait at most `timeout` seconds for the whole answer.

        Any HTTP answer is returned, refusals too. Raises `UnreachableError`, and `TooLargeError`.
        """
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        outcome: Future[Answer] = Future()

        def ask() -> None:
            try:
                outcome.set_result(self._ask(method, path, body, accept, timeout))
            except Exception as error:  # raised again below
                outcome.set_exception(error)

        # A thread, because neither a name server nor a server that sends a byte now and then keeps to a time-out.
        threading.Thread(target=ask, daemon=True).start()
        try:
            return outcome.result(timeout)
        except TimeoutError as error:
            self._break_off()
            raise UnreachableError(f"{self._host}: no answer within {timeout:.3g} s") from error
        except (ApiException, HTTPError, OSError, ValueError) as error:
            raise UnreachableError(f"{self._host}: {_words(error, timeout)}") from error

    def get(self, path: str, *, accept: str = JSON) -> Answer:
        """Ask for a path; as `request`."""
        return self.request("GET", path, accept=accept)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()  # type: ignore[no-untyped-call]

    def _ask(self, method: str, path: str, body: dict[str, Any] | None, accept: str, timeout: float) -> Answer:
        if not self._connections:
            pool = self._client.rest_client.pool_manager.connection_from_url(self._host)
            make = pool.ConnectionCls
            pool.ConnectionCls = lambda *args, **kwargs: self._noted(make(*args, **kwargs))  # type: ignore[assignment]
        content_type = "application/merge-patch+json" if method == "PATCH" else JSON
        headers = {"Accept": accept, "Content-Type": content_type, "Accept-Encoding": "identity"}
        request = self._client.param_serialize(
            method, path, header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        response = self._client.call_api(*request, _request_timeout=timeout).response
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise UnreachableError(f"{self._host}: the answer is in an encoding that was not asked for: {_ELSE}")
        most, content = largest_answer(), bytearray()
        while chunk := response.read1(64 << 10, decode_content=False):
            content += chunk
            if len(content) > most:
                response.close()
                why = f"the answer has more than {most >> 10} KiB, for which there is no room"
                more = f"a larger memory limit of the container allows up to {LARGEST >> 10} KiB"
                raise TooLargeError(f"{self._host}: {why}; {more}")
        response.release_conn()
        text = content.decode("utf-8", "replace")
        del content  # before its parts are there beside it
        return self._answer(response.status, text, response.headers.get("Retry-After") or "")

    def _noted(self, connection: Any) -> Any:
        self._connections.append(connection)
        return connection

    def _break_off(self) -> None:
        """Wake the thread that waits for the rest of an answer; it ends, and nobody listens to it any more."""
        import socket

        for connection in self._connections:
            with suppress(OSError, AttributeError):  # it may have no socket yet, or none any more
                connection.sock.shutdown(socket.SHUT_RDWR)

    def _answer(self, status: int, text: str, retry_after: str) -> Answer:
        """Read an answer. Raises `UnreachableError` where what should have been answered is no JSON object."""
        try:
            document = json.loads(text, object_hook=_without_bookkeeping)
        except (ValueError, RecursionError):
            document = None
        # A date, the header's other form, is none of an API server's answers.
        seconds = float(retry_after) if re.fullmatch(r"[0-9]{1,6}", retry_after) else 0.0
        answer = Answer(status, document if isinstance(document, dict) else {}, seconds)
        if answer.ok and not isinstance(document, dict):
            raise UnreachableError(f"{self._host}: the answer is no JSON object, or one nested too deeply: {_ELSE}")
        return answer  # a proxy's page says no less by its status


def _tls() -> ssl.SSLContext:
    """Return a context that accepts the certificates that Multus accepts, which is written in Go.

    Since Python 3.13 the default asks more of a CA's certificate than Go does: the key identifiers, which EKS and older
    MicroK8s leave out. Chain and host name are verified as before.
    """
    import ssl

    from urllib3.util.ssl_ import create_urllib3_context

    context = create_urllib3_context()
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _without_bookkeeping(parsed: dict[str, Any]) -> dict[str, Any]:
    """Drop who wrote which field: that is the larger part of many objects, and nobody asks for it."""
    parsed.pop("managedFields", None)
    return parsed


def _words(error: BaseException, timeout: float) -> str:
    """Say in a few words what the client wraps in many layers."""
    import ssl  # here, because a process that waits for more memory shall be small

    if isinstance(error, ValueError):
        return "the request could not be made of the server's address and the token"  # whose text may hold the token
    layers = [error]
    while inner := layers[-1].__cause__ or layers[-1].__context__:
        layers.append(inner)
    for layer in reversed(layers):
        if isinstance(layer, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {layer.verify_message}"
        if isinstance(layer, TimeoutError):
            return f"no answer within {timeout:.3g} s"
        if isinstance(layer, OSError) and layer.strerror:
            return layer.strerror
    return quoted(" ".join(str(layers[-1]).split())) or type(layers[-1]).__name__


# ---- lists ----


class Get(Protocol):
    """Asks the API server for a path; `accept` is the media type of the answer."""

    def __call__(self, path: str, *, accept: str = JSON) -> Answer:
        """Return the answer, refusals too. Raises `UnreachableError`, and `TooLargeError`."""


def objects(
    get: Get, path: str, *, rule: str = "", accept: str = JSON, cached: bool = False, **selectors: str
) -> Iterator[dict[str, Any]]:
    """Yield the objects of a list, page by page; with a `fieldSelector` or `labelSelector` only those that it takes.

    A list of the pods of one node is to be `cached`: the API server has an index for that in its memory, and would
    else go through all pods of the cluster in its database. It may lag behind, and comes in one page, whatever limit
    is asked for. Where a page is too large, or the server has forgotten where it ended (410 Gone, after some minutes),
    the list is begun anew, with smaller pages and from the database: an object may come twice.
    Raises `RefusedError`, `UnreachableError`, and `TooLargeError` where a single object is.
    """
    token, restarts, size = "", 0, PAGE
    while True:
        if not token:
            seen: set[int] = set()
        version = "0" if cached and not token else ""  # a server refuses it together with a token
        query = {"limit": str(size), **selectors, "resourceVersion": version, "continue": token}
        asked = urlencode({name: value for name, value in query.items() if value}, errors="replace")
        try:
            answer = get(f"{path}?{asked}", accept=accept)
        except TooLargeError:
            if size == 1 and not cached:
                raise
            token, size, cached = "", size if cached else max(1, size // _SHARE), False
            continue
        if answer.status == HTTPStatus.GONE and token and restarts < _RESTARTS:
            token, restarts = "", restarts + 1
            continue
        if not answer.ok:
            raise RefusedError(answer, rule)
        yield from parts(answer.document, "items")
        token = str(part(answer.document, "metadata").get("continue") or "")
        if not token:
            return
        if hash(token) in seen or len(seen) >= _PAGES:
            raise UnreachableError(f"the list {path} of the API server does not end: {_ELSE}")
        seen.add(hash(token))


# ---- memory ----


class Room(NamedTuple):
    """What a memory limit leaves, in bytes."""

    limit: int
    available: int
    """The limit less what is in use and cannot be taken back. May be negative."""


def load() -> str | None:
    """Load the client; say why the container's memory limit cannot hold it, None when it does.

    One process of this container at a time looks and loads: two at once, `check` and an errand, would both see the room
    that is there for one.
    """
    with Path(__file__).open("rb") as lock:
        with suppress(OSError):  # not every file system has locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        found = room()
        if "kubernetes.client.api_client" in sys.modules or found is None or found.available >= CLIENT_SIZE:
            import kubernetes.client.api_client  # noqa: F401 - for those that come to it now

            return None
    return (
        f"the memory limit of {_mebibytes(found.limit)} MiB leaves {max(0, found.available >> 20)} MiB, and the "
        f"kubernetes client needs {_mebibytes(CLIENT_SIZE)} MiB: set a limit of at least "
        f"{_mebibytes(found.limit + CLIENT_SIZE - found.available)} MiB"
    )


def largest_answer() -> int:
    """Return how many bytes an answer may have that is read now."""
    found = room()
    return LARGEST if found is None else min(LARGEST, max(SMALLEST, found.available // _GROWTH))


_V2 = ("", "memory.max", "memory.current", "", "file_mapped")
_V1 = ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_", "mapped_file")
"""Of each version of control groups: controller, files of the limit and of what is in use, and names in memory.stat."""


def room(control_groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Room | None:
    """Return what the memory limit of this process's control group leaves (v2, then v1); None where there is none.

    Kubernetes sets the limit on the container's own group, so that those above it are not looked at.
    """
    controller, limits, uses, prefix, mapped = _V2 if (control_groups / "cgroup.controllers").exists() else _V1
    group = _own_group(control_groups / controller, own, controller)
    try:
        limit, used = int((group / limits).read_text("ascii")), int((group / uses).read_text("ascii"))
    except (OSError, ValueError):  # `max`
        return None
    if limit >= 1 << 60:  # v1 writes a number near 2**63 for no limit
        return None
    return Room(limit, limit - used + _reclaimable(group, prefix, mapped))


def _own_group(top: Path, own: Path, controller: str) -> Path:
    """Return the directory of this process's group.

    Without a control group namespace its path is the host's; a container sees nothing of it but its own group, mounted
    at the top.
    """
    with suppress(OSError, ValueError):
        for line in own.read_text("utf-8", "surrogateescape").splitlines():
            _, controllers, path = line.split(":", 2)
            group = top / path.strip("/")
            if controller in controllers.split(",") and ".." not in group.parts and os.path.isdir(group):
                return group
    return top


def _reclaimable(group: Path, prefix: str, mapped: str) -> int:
    """Return how many bytes the kernel takes back before it kills anyone.

    That is page cache, the inactive part, as kubelet counts it, and what else no process has mapped: reading the multus
    binary twice makes its 64 MiB active, which would look like a full container. With v2 it is also the kernel's own
    caches of names and inodes: some MiB with a cold cache.
    """
    try:
        lines = (group / "memory.stat").read_text("ascii").splitlines()
        statistics = {name: int(value) for name, _, value in (line.partition(" ") for line in lines)}
    except (OSError, ValueError):
        return 0
    names = ("inactive_file", "active_file", mapped, "slab_reclaimable")
    inactive, active, in_use, slab = (statistics.get(prefix + name, 0) for name in names)
    return max(inactive, inactive + active - in_use) + slab


def _mebibytes(size: int) -> int:
    """Round up: half a MiB too little is too little."""
    return -(-size >> 20)
