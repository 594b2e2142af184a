"""The Kubernetes API through the official client, as little of it as possible: it is the largest thing we load.

Only short-lived processes import this module's client: the resident process and its start know nothing of it.
Requests and answers are plain JSON objects; the typed APIs would cost 20 MiB more and drop what they do not know.
"""

from __future__ import annotations

import json
import re
import sys
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from entrypoint.cluster import memory

if TYPE_CHECKING:
    import ssl

CLIENT_SIZE = 26 << 20
"""Bytes of its own that a process grows by when it loads and uses the client: 21 to 23 MiB with kubernetes 37.

What it maps of files, another 10 MiB, the kernel takes back before it kills anyone.
"""

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"


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
        """A right is missing; any other refusal is trouble of the server, or of what was asked."""
        return self.status == 403  # noqa: PLR2004 - HTTP

    @property
    def message(self) -> str:
        """The status code and what the API server had to say."""
        said = self.document.get("message")
        return f"{self.status} {said}" if isinstance(said, str) else str(self.status)


class UnreachableError(Exception):
    """No answer came; the message says why."""


def shortfall() -> str | None:
    """Say why the container's memory limit cannot hold the client; None when it can, or holds it already."""
    if "kubernetes.client.api_client" in sys.modules:
        return None
    return memory.shortfall(CLIENT_SIZE, memory.room())


class Api:
    """A connection to an API server."""

    def __init__(self, access: Access) -> None:
        """Load the client: takes a second and `CLIENT_SIZE` bytes. Raises `UnreachableError`."""
        import urllib3
        from kubernetes.client.api_client import ApiClient
        from kubernetes.client.configuration import Configuration

        verified = access.certificate_authority is not None
        if not verified:
            warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
        configuration = Configuration(
            host=access.server.rstrip("/"),
            api_key={"BearerToken": f"Bearer {access.token}"},
            ca_cert_data=access.certificate_authority,
            verify_ssl=verified,
            retries=False,  # callers know better when to try again
            proxy="",  # Multus on the host has no proxy of this container's environment either
            no_proxy="",
        )
        self._client = ApiClient(configuration)
        self._client.user_agent = "multus-entrypoint"
        if verified:
            # The client's configuration has no place for it (kubernetes-client/python 2394).
            self._client.rest_client.pool_manager.connection_pool_kw["ssl_context"] = _tls()

    def request(
        self,
        method: str,
        path: str,
        *,
        timeout: float,
        body: dict[str, Any] | None = None,
        content_type: str = JSON,
        accept: str = JSON,
    ) -> Answer:
        """Send one request and wait at most `timeout` seconds for each part of the answer.

        Any HTTP answer is returned, refusals too. Raises `UnreachableError`.
        """
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        try:
            request = self._client.param_serialize(
                method,
                path,
                header_params={"Accept": accept, "Content-Type": content_type},
                body=body,
                auth_settings=["BearerToken"],
            )
            response = self._client.call_api(*request, _request_timeout=timeout)
            content: bytes = response.read()  # type: ignore[no-untyped-call]
        except (ApiException, HTTPError, OSError, ValueError) as error:
            raise UnreachableError(f"{self._client.configuration.host}: {_reason(error, timeout)}") from error
        retry_after: str | None = response.getheader("Retry-After")  # type: ignore[no-untyped-call]
        return Answer(response.status, _document(content), _seconds(retry_after))

    def close(self) -> None:
        """Close the connection."""
        self._client.close()  # type: ignore[no-untyped-call]


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


def _seconds(retry_after: str | None) -> float:
    """Return what the header says; a date, its other form, is none of an API server's answers."""
    return float(retry_after) if retry_after and re.fullmatch(r"[0-9]{1,6}", retry_after) else 0.0


def _document(content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content, object_hook=_without_bookkeeping)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _without_bookkeeping(parsed: dict[str, Any]) -> dict[str, Any]:
    """Drop who wrote which field: that is the larger part of many objects, and nobody asks for it."""
    parsed.pop("managedFields", None)
    return parsed


def _reason(error: BaseException, timeout: float) -> str:
    """Say in a few words what the client wraps in many layers."""
    import ssl  # here, because a process that waits for more memory shall be small

    from urllib3.exceptions import TimeoutError as ClientTimeoutError

    if isinstance(error, ValueError):
        return "the request could not be made of the server's address and the token"  # whose text may hold the token
    layers = _layers(error)
    for layer in layers:
        if isinstance(layer, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {layer.verify_message}"
    for layer in layers:
        if isinstance(layer, OSError) and layer.strerror:
            return layer.strerror
    if any(isinstance(layer, ClientTimeoutError | TimeoutError) for layer in layers):
        return f"no answer within {timeout:g} s"
    return " ".join(str(layers[-1]).split()) or type(layers[-1]).__name__


def _layers(error: BaseException) -> list[BaseException]:
    """Return the error and all that it was raised for or carries, outermost first."""
    layers: list[BaseException] = []
    pending: list[object] = [error]
    while pending:
        layer = pending.pop(0)
        if isinstance(layer, BaseException) and layer not in layers:
            layers.append(layer)
            pending += [layer.__cause__, layer.__context__, *layer.args]
    return layers
