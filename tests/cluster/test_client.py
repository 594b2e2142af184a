"""The client and lists against servers that mean harm, and what room a memory limit leaves for both."""

import fcntl
import gzip
import itertools
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from types import SimpleNamespace

import pytest

from entrypoint.cluster import client
from tests.fake_api import BareCA, FakeCluster, authority, pem, serving
from tests.waiting import until

MIB = 1 << 20
PODS = "/api/v1/pods"
NETWORKS = "/apis/k8s.cni.cncf.io/v1/network-attachment-definitions"


@pytest.fixture
def connect(api):
    """Return a client of that server, or of what is given instead."""

    def connect(served=api, **changes):
        given = {"server": served.url, "token": "good-token", "certificate_authority": pem(authority())}
        return client.Api(client.Access(**{**given, **changes}))

    return connect


def answers(api, monkeypatch, *given):
    """Have the server answer with these, one after the other, and the last one ever again."""
    left = list(given)
    monkeypatch.setattr(api, "answer", lambda *_: left.pop(0) if len(left) > 1 else left[0])


# ---- who answers ----


@pytest.fixture
def strict(monkeypatch):
    """Verify as Python 3.13 does, whatever runs the tests: there urllib3 asks for key identifiers."""
    monkeypatch.setattr("urllib3.util.ssl_.sys", SimpleNamespace(version_info=(3, 13)))


def test_a_ca_without_key_identifiers_is_trusted_as_multus_trusts_it(connect, strict):
    old = BareCA()
    with serving(FakeCluster(), ca=old) as served:
        assert connect(served, certificate_authority=pem(old)).get("/version").ok


def test_the_chain_and_the_host_name_are_verified_all_the_same(connect, strict):
    old, other = BareCA(), BareCA()
    with serving(FakeCluster(), ca=old) as served:
        with pytest.raises(client.UnreachableError, match="its certificate is not trusted"):
            connect(served, certificate_authority=pem(other)).get("/version")
    with serving(FakeCluster(), ca=old, hosts=("10.96.0.1", "other.example")) as served:
        with pytest.raises(client.UnreachableError, match="IP address mismatch"):
            connect(served, certificate_authority=pem(old)).get("/version")


def test_a_ca_with_remarks_in_any_language_is_trusted(connect):
    """Bundles name the authorities between their certificates."""
    assert connect(certificate_authority=f"# Főtanúsítvány\n{pem(authority())}").get("/version").ok


def test_without_a_ca_the_certificate_is_not_verified(connect, recwarn):
    assert connect(certificate_authority=None).get("/version").ok
    assert not recwarn.list


def test_a_server_that_does_not_answer_is_waited_for_no_longer_than_asked(api, connect):
    api.silent.set()  # until this test has ended
    with pytest.raises(client.UnreachableError, match=r"no answer within 0\.3 s"):
        connect().request("GET", "/version", timeout=0.29998)  # what is left of somebody's patience
    assert len(api.requests) == 1


@pytest.mark.filterwarnings("ignore:URLs without a scheme")
@pytest.mark.parametrize(
    "changes",
    [
        *({"server": server} for server in ("https://127.0.0.1:1", "https://127.0.0.1:no", "ftp://x", "", "https://[")),
        {"token": "two\nlines"},
        {"certificate_authority": "nonsense"},
    ],
)
def test_what_leads_nowhere_is_unreachable_and_the_token_is_not_told(connect, changes):
    with pytest.raises(client.UnreachableError) as raised:
        connect(**changes).get("/version")
    assert "good-token" not in str(raised.value)
    assert "lines" not in str(raised.value)


def test_a_proxy_of_the_containers_environment_is_not_used(connect, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    assert connect().get("/version").ok


def test_the_token_is_not_in_the_representation_of_an_access():
    assert "good-token" not in repr(client.Access("https://x", "good-token", None))


# ---- one answer ----


@pytest.mark.parametrize(
    "content",
    [
        b"<html>a proxy's page</html>",
        b"[]",
        b"\xff\xfe",
        b'{"a":' * 200_000,
        b"[" * 200_000,
        b'{"a": %s}' % (b"9" * 5000),
    ],
    ids=["html", "a list", "no UTF-8", "deep objects", "deep lists", "a number"],
)
def test_an_answer_that_is_no_json_object_is_no_answer(api, connect, monkeypatch, content):
    answers(api, monkeypatch, (200, content))
    with pytest.raises(client.UnreachableError, match="no JSON object, or one nested too deeply: is something else"):
        connect().get("/version")


def test_a_refusal_that_is_no_json_is_told_by_its_status(api, connect, monkeypatch):
    answers(api, monkeypatch, (502, b"<html>Bad Gateway</html>"))
    assert connect().get("/version").message == "502"


def test_an_answer_of_any_size_is_read_no_further_than_there_is_room(api, connect, monkeypatch):
    answers(api, monkeypatch, (200, b'"' + b"x" * (client.LARGEST + MIB) + b'"'), (200, b"{}"))
    connected = connect()
    with pytest.raises(client.TooLargeError, match="more than 4096 KiB, for which there is no room"):
        connected.get("/version")
    assert connected.get("/version").ok  # on a connection of its own


def test_an_answer_in_an_encoding_that_was_not_asked_for_is_not_unpacked(api, connect, monkeypatch):
    api.headers["Content-Encoding"] = "gzip"
    asked = []
    packed = gzip.compress(b'{"a": "' + b"x" * (64 * MIB) + b'"}')
    monkeypatch.setattr(api, "answer", lambda *request: asked.append(request[2]["Accept-Encoding"]) or (200, packed))
    with pytest.raises(client.UnreachableError, match="encoding that was not asked for"):
        connect().get("/version")
    assert asked == ["identity"]


@contextmanager
def dripping(beginning):
    """Serve an answer that begins so and then goes on by a byte now and then, for ever."""
    stop = threading.Event()
    ended = threading.Event()
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def drip():
            connection, _ = server.accept()
            with connection, suppress(OSError):
                connection.sendall(beginning)
                while not stop.wait(0.02):
                    connection.sendall(b"x")
            ended.set()

        threading.Thread(target=drip, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", ended
        stop.set()


@pytest.mark.parametrize(
    "beginning",
    [
        b"",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 3,
        b"HTTP/1.1 200 OK\r\nX: ",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n{",
    ],
    ids=["status", "continue", "header", "body", "chunk"],
)
def test_a_server_that_sends_a_byte_now_and_then_is_waited_for_no_longer_than_asked(beginning):
    with dripping(beginning) as (url, ended):
        slow = client.Api(client.Access(url, "t", None))
        with pytest.raises(client.UnreachableError, match=r"no answer within 0\.3 s"):  # else never
            slow.request("GET", "/version", timeout=0.3)
        until(ended.is_set, "the connection to be cut, so that no thread stays for ever")


def test_what_the_server_says_is_quoted_in_part_and_without_control_characters(api, connect, monkeypatch):
    answers(api, monkeypatch, (403, {"message": "no\n\x1b[31m" + "x" * 5000}))
    said = connect().get("/version").message
    assert said.startswith("403 no\\n\\x1b[31mxxx")
    assert len(said) < 350


# ---- lists ----


def names(found):
    return [each["metadata"]["name"] for each in found]


def add_pods(api, count, **more):
    """Add pods; return their names, in order."""
    found = [f"pod-{number:03}" for number in range(count)]
    for name in found:
        api.add_pod(name, **more)
    return found


def listed(get, path=PODS, **more):
    return list(client.objects(get, path, rule="the rule", **more))


@pytest.mark.parametrize("largest", [client.PAGE, client.PAGE // 2])
def test_a_list_of_several_pages_is_taken_to_its_end(api, get, largest):
    """Also one whose server gives smaller pages than it is asked for."""
    api.largest_page = largest
    expected = add_pods(api, 2 * client.PAGE + 7)
    assert names(listed(get)) == expected
    assert len(api.requests) == 2 * client.PAGE // largest + 1
    assert all(f"limit={client.PAGE}" in path for _, path in api.requests)


def test_only_what_the_selector_takes_comes(api, get):
    api.add_pod("here", node="node 1/a")
    api.add_pod("there", node="node-2")
    assert names(listed(get, fieldSelector="spec.nodeName=node 1/a")) == ["here"]


def test_a_page_whose_token_has_expired_begins_the_list_anew(api, get):
    api.largest_page, api.expired_pages = 2, 1
    expected = add_pods(api, 5)
    found = names(listed(get))
    assert set(found) == set(expected)
    assert len(found) == 7  # the first page came twice


def test_a_list_that_expires_again_and_again_is_given_up(api, get):
    api.largest_page, api.expired_pages = 2, 99
    add_pods(api, 5)
    with pytest.raises(client.RefusedError, match="410 The provided continue parameter is too old"):
        listed(get)
    assert len(api.requests) == 8


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_refusal_in_the_middle_is_told(api, get, status):
    api.largest_page = 2
    add_pods(api, 3)
    taken = client.objects(get, PODS, rule="the rule")
    assert next(taken)
    api.failures = [status]
    with pytest.raises(client.RefusedError) as refused:
        list(taken)
    assert (refused.value.answer.status, refused.value.rule) == (status, "the rule")


@pytest.mark.parametrize(
    "document",
    [
        *({}, {"items": None}, {"items": "x", "metadata": None}, {"items": [1, None]}),
        *({"metadata": metadata, "items": []} for metadata in ("x", 5, ["continue"], {"continue": {"a": 1}})),
    ],
)
def test_an_answer_that_is_no_list_or_with_odd_bookkeeping_is_an_empty_one(document):
    given = iter([document, {"items": []}])
    assert listed(lambda path, accept=None: client.Answer(200, next(given))) == []


def test_a_list_from_the_servers_memory_comes_at_once_and_may_be_cut_into_pages_all_the_same(api, get):
    add_pods(api, client.PAGE + 1)
    assert len(listed(get, cached=True)) == client.PAGE + 1
    assert [path for _, path in api.requests] == [f"{PODS}?limit={client.PAGE}&resourceVersion=0"]
    pages = iter([{"metadata": {"continue": "next"}, "items": [{}]}, {"items": [{}]}])
    asked = []

    def paged(path, *, accept=None):
        asked.append(path)
        return client.Answer(200, next(pages))

    assert len(listed(paged, cached=True)) == 2
    assert asked[1] == f"{PODS}?limit={client.PAGE}&continue=next"


def test_who_wrote_which_field_is_dropped_while_a_page_is_read(api, get):
    """Else the metadata of 250 pods would take some 10 MiB more."""
    api.add_pod("a", metadata={"managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {}}}]})
    (pod,) = listed(get)
    assert pod["metadata"]["name"] == "a"
    assert "managedFields" not in pod["metadata"]


def test_pages_that_are_too_large_are_asked_for_again_with_fewer_objects(api, get):
    for number in range(25):
        api.add_network(f"lan-{number:02}", "x" * MIB)
    assert sorted(set(names(listed(get, NETWORKS)))) == [f"lan-{number:02}" for number in range(25)]
    limits = [path.partition("limit=")[2].partition("&")[0] for _, path in api.requests]
    assert limits[:3] == ["100", "20", "4"]


def test_a_list_from_the_servers_memory_that_is_too_large_is_taken_in_pages_from_its_database(api, get):
    expected = add_pods(api, 110, metadata={"annotations": {"x": "y" * (256 << 10)}})
    assert set(names(listed(get, fieldSelector="spec.nodeName=node-1", cached=True))) == set(expected)
    assert "resourceVersion=0" in api.requests[0][1]
    assert not any("resourceVersion" in path for _, path in api.requests[1:])


def test_a_single_object_that_is_too_large_ends_the_list(api, get):
    api.add_network("huge", "x" * (5 * MIB))
    with pytest.raises(client.TooLargeError):
        listed(get, NETWORKS)


@pytest.mark.parametrize(
    ("tokens", "most"),
    [(["a"], 2), (["a", "b"], 3), (range(1000), 60)],
    ids=["the same", "in turn", "without end"],
)
def test_a_list_that_does_not_end_is_given_up(monkeypatch, tokens, most):
    monkeypatch.setattr(client, "_PAGES", 50)
    asked, given = [], itertools.cycle(tokens)

    def get(path, *, accept=None):
        asked.append(path)
        return client.Answer(200, {"metadata": {"continue": str(next(given))}, "items": [{}]})

    with pytest.raises(client.UnreachableError, match=r"the list /api/v1/pods of the API server does not end"):
        listed(get)
    assert len(asked) <= most


# ---- memory ----


def group(directory, **files):
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (directory / name.replace("__", ".")).write_text(f"{content}\n")


def v2(top, limit, used, statistics="", below=""):
    group(top)
    (top / "cgroup.controllers").touch()
    group(top / below, memory__max=limit, memory__current=used, memory__stat=statistics)


def v1(top, limit, used, statistics="", below=""):
    below = f"memory/{below}"
    group(top / below, memory__limit_in_bytes=limit, memory__usage_in_bytes=used, memory__stat=statistics)


PATHS = {v1: "12:memory:{}\n0::/\n", v2: "0::{}\n"}


@pytest.fixture(params=[v1, v2], ids=["v1", "v2"])
def room(request, tmp_path):
    """Return what is found with these figures, for both versions."""

    def found(limit, used, statistics="", below="", own="/"):
        request.param(tmp_path / "cgroup", limit, used, statistics, below)
        (tmp_path / "own").write_text(PATHS[request.param].format(own))
        return client.room(tmp_path / "cgroup", tmp_path / "own")

    found.version = request.param
    return found


@pytest.mark.parametrize("own", ["/", "/kubepods/pod1/abc", "/../../other"])
def test_a_limit_of_the_containers_own_group_leaves_what_is_not_in_use(room, own):
    """Without a control group namespace the path is the host's, and may lead out of the mount: it is at the top."""
    assert room(50 * MIB, 30 * MIB, own=own) == client.Room(50 * MIB, 20 * MIB)


def test_where_the_hosts_groups_can_be_seen_the_own_one_counts(room):
    room(4096 * MIB, 1024 * MIB)
    assert room(80 * MIB, 70 * MIB, below="pod1", own="/pod1") == client.Room(80 * MIB, 10 * MIB)


def test_no_limit_is_no_limit(room, tmp_path):
    assert room("max" if room.version is v2 else (1 << 63) - 4096, 30 * MIB) is None
    assert client.room(tmp_path / "nothing", tmp_path / "nothing") is None


def test_what_the_kernel_takes_back_is_not_in_use(room):
    """Page cache that no process has mapped, and with version 2 the kernel's own caches too."""
    figures = {"inactive_file": 8, "active_file": 20, "file_mapped" if room.version is v2 else "mapped_file": 6}
    prefix = "" if room.version is v2 else "total_"
    statistics = "\n".join(f"{prefix}{name} {size * MIB}" for name, size in figures.items())
    assert room(50 * MIB, 50 * MIB, statistics).available == 22 * MIB
    if room.version is v2:
        assert room(50 * MIB, 50 * MIB, f"{statistics}\nslab_reclaimable {3 * MIB}").available == 25 * MIB


@pytest.mark.parametrize(
    ("found", "largest"),
    [
        (None, client.LARGEST),
        (client.Room(4096 * MIB, 1024 * MIB), client.LARGEST),
        (client.Room(96 * MIB, 16 * MIB), 2 * MIB),
        (client.Room(96 * MIB, -MIB), client.SMALLEST),
    ],
)
def test_less_is_read_of_an_answer_where_less_room_is_left(monkeypatch, found, largest):
    monkeypatch.setattr(client, "room", lambda: found)
    assert client.largest_answer() == largest


def test_a_shortfall_names_the_limit_that_would_do_and_a_loaded_client_needs_no_room(monkeypatch):
    monkeypatch.setattr(client, "room", lambda: client.Room(50 * MIB, 20 * MIB))
    monkeypatch.delitem(sys.modules, "kubernetes.client.api_client", raising=False)
    said = client.load()
    assert "limit of 50 MiB leaves 20 MiB" in said
    assert "set a limit of at least 56 MiB" in said
    assert "kubernetes.client.api_client" not in sys.modules
    monkeypatch.setitem(sys.modules, "kubernetes.client.api_client", client)
    assert client.load() is None


def test_two_processes_that_would_load_the_client_look_for_room_one_after_the_other(monkeypatch):
    """Else `check` and an errand would both see the room that is there for one."""

    def is_free():
        with open(client.__file__, "rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    found = []
    monkeypatch.setattr(client, "room", lambda: found.append(is_free()))
    assert client.load() is None
    assert found == [False]


def test_the_client_takes_no_more_than_we_reckon_with():
    code = (
        "from entrypoint.cluster import client\n"
        "def own(): return int(open('/proc/self/status').read().split('RssAnon:')[1].split()[0])\n"
        "before = own()\n"
        "api = client.Api(client.Access('https://127.0.0.1:1', 't', None))\n"
        "try: api.get('/version')\n"
        "except client.UnreachableError: pass\n"
        "print(own() - before)"
    )
    growth = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout) * 1024
    assert growth < client.CLIENT_SIZE
    assert 1.5 * growth > client.CLIENT_SIZE  # else containers that could hold it would be refused


@pytest.mark.process
def test_pods_with_all_that_their_makers_may_write_do_not_fill_a_small_container(api, limited_group):
    directory, limit_file = limited_group
    limit_file.write_text(str(64 * MIB))
    for number in range(40):
        annotations = {"k8s.v1.cni.cncf.io/networks": "lan", "x": "\N{SNOWMAN}" * (80 << 10)}
        api.add_pod(f"pod-{number:03}", metadata={"annotations": annotations})
    code = (
        "import os, sys\n"
        "open(sys.argv[1] + '/cgroup.procs', 'w').write(str(os.getpid()))\n"
        "from entrypoint.cluster import client, pods\n"
        "api = client.Api(client.Access(sys.argv[2], 'good-token', sys.argv[3]))\n"
        "print(sum(1 for each in pods.find(api.get, 'node-1')))"
    )
    command = [sys.executable, "-c", code, str(directory), api.url, pem(authority())]
    process = subprocess.run(command, capture_output=True, text=True)
    assert (process.returncode, process.stdout) == (0, "40\n"), process.stderr
