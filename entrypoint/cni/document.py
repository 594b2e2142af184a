"""A CNI configuration: JSON as programs in Go read it, what libcni and Multus make of it, whether it can be wrapped.

What they accept is a fact, not an opinion: the rules here follow libcni 1.3.0 and Multus 4.3.0, and the cases in
`tests/data/acceptance.json` were answered by them.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

GENERATED_CONF = "00-multus.conf"
GENERATED_CONFLIST = "00-multus.conflist"
GENERATED = (GENERATED_CONF, GENERATED_CONFLIST)
"""What this program writes around a master: `.conf` below CNI 1.0.0, `.conflist` from then on."""

SUFFIXES = (".conf", ".conflist")
RETIRED_SUFFIX = ".old"
"""What `--rename-conf-file` adds to the name of a master."""


MULTUS_TYPES = frozenset({"multus", "multus-shim"})

MESH_PLUGINS = frozenset({"istio-cni", "linkerd-cni"})
"""What service meshes chain behind a network."""

META_PLUGINS = MESH_PLUGINS | {
    *("loopback", "portmap", "bandwidth", "firewall", "tuning", "sbr", "vrf"),
    *("kuma-cni", "consul-cni", "egress-cni", "coordinator", "route-override"),
}
"""Plugins that only change what another one made: a configuration that begins with one is no network by itself."""

VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
"""Those that Multus and the reference plugins know; they compare them as text."""


class Master(NamedTuple):
    """A configuration that can be wrapped."""

    document: dict[str, Any]
    """As Multus is to be given it: as it stands in the file, but for what Multus would refuse or read otherwise."""
    name: str
    cni_version: str | None
    """The one that libcni reads: of a list, the highest that it knows of `cniVersion` and `cniVersions`."""
    capabilities: tuple[str, ...]
    """Those that any of its plugins enables, in the order of the file."""
    types: tuple[str, ...]
    """The types of its plugins."""
    only_inlined: bool
    """It is a list that wants no further plugins from a directory of its name (`loadOnlyInlinedPlugins`)."""
    no_gc: bool
    """It is a list that must not be garbage collected (`disableGC`)."""

    @property
    def first_plugin(self) -> str:
        """The type of its first plugin."""
        return self.types[0]


class Unusable(NamedTuple):
    """A file that cannot be wrapped, and why."""

    reason: str


class Multus:
    """A file that is itself a Multus configuration: wrapped once more it would loop (upstream issue 1108)."""


class NoFile(NamedTuple):
    """What stands there under a candidate's name is no regular file: nobody will write it to its end."""

    reason: str
    link: bool = False
    """It is a link that leads nowhere in this container; on the host it may lead to the default network."""


class Unread(NamedTuple):
    """The look at the file failed: nothing is known of its content."""

    reason: str


Verdict = Master | Unusable | Multus | NoFile | Unread


def version_key(version: str) -> tuple[int, int, int]:
    """Return a CNI version as numbers to compare, as libcni does: none is 0.1.0, missing parts count as 0.

    Raises ValueError for what is no version.
    """
    if not re.fullmatch(r"([+-]?[0-9]{1,18}(\.[+-]?[0-9]{1,18}){0,2})?", version, re.ASCII):
        raise ValueError(f"{version!r} is not a CNI version such as 0.3.1 or 1.0.0")
    major, minor, patch = [*map(int, (version or "0.1.0").split(".")), 0, 0][:3]
    return major, minor, patch


def is_candidate_name(name: str) -> bool:
    """Say whether a file of this name may be a master configuration: what we generate never is."""
    return name.endswith(SUFFIXES) and name not in GENERATED


def examine(content: bytes, name: str = "", *, any_version: bool = False) -> Verdict:
    """Judge the content of a candidate.

    Cilium once wrote a single plugin into `05-cilium.conflist`, so the content decides what it is. Its `name` decides
    only where it could be both, with a `type` beside `plugins`, as it does for libcni. With `any_version`, which is
    for `--force-cni-version`, its version may be none that Multus knows.
    """
    if oversize := size_fault(len(content)):
        return Unusable(oversize)
    try:
        document = parse(content)
    except InvalidJsonError as error:
        return Unusable(str(error))
    if not isinstance(document, dict):
        return Unusable(f"expected a JSON object, found {kind(document)}")
    plugins = document.get("plugins")
    members = [each for each in plugins if isinstance(each, dict)] if isinstance(plugins, list) else []
    types = [decoded(each.items(), {"type": str}).get("type") for each in (document, *members)]
    if any(isinstance(each, str) and each in MULTUS_TYPES for each in types):
        return Multus()
    if why := depth_fault(document) or size_fault(len(json.dumps(document))):
        return Unusable(why)
    ways = [as_list, as_single] if name.endswith(".conflist") or not name else [as_single, as_list]
    if "plugins" not in document:
        ways = [as_single]
    elif not is_text(types[0]):
        ways = [as_list]
    faults = []
    for way in ways:
        try:
            master = way(document, any_version=any_version)
        except UnusableError as error:
            faults.append(str(error))
        else:
            if way is as_list and master.name == name and not master.only_inlined:
                return Unusable(f"its 'name' is {name!r}, like the file: libcni looks for a directory of that name")
            return master
    return Unusable(faults[0])


# ---- what libcni and Multus decode ----

PLUGIN: Fields = {
    "cniVersion": str,
    "name": str,
    "type": str,
    "capabilities": {"*": bool},
    "ipam": {"type": str},
    "dns": {"nameservers": [str], "domain": str, "search": [str], "options": [str]},
    "prevResult": {},
    "cni.dev/valid-attachments": [{"containerID": str, "ifname": str}],
}
"""Both decode these of every plugin (libcni's `PluginConf`), and Multus of its delegate, list or not."""

_LIST: Fields = {**PLUGIN, "disableCheck": bool, "disableGC": bool, "plugins": [PLUGIN]}
"""What Multus decodes of a delegate that is a list."""

MULTUS: Fields = {
    **PLUGIN,
    **dict.fromkeys(("confDir", "cniDir", "binDir", "clusterNetwork", "kubeconfig", "logFile", "logLevel"), str),
    **dict.fromkeys(("readinessindicatorfile", "globalNamespaces", "auxiliaryCNIChainName", "multusNamespace"), str),
    **dict.fromkeys(("logToStderr", "namespaceIsolation", "retryDeleteOnError"), bool),
    "defaultNetworks": [str],
    "systemNamespaces": [str],
    "delegates": [{}],
    "logOptions": {"maxAge": int, "maxSize": int, "maxBackups": int, "compress": bool},
    "runtimeConfig": {
        "portMappings": [{"hostPort": int, "containerPort": int, "protocol": str, "hostIP": str}],
        "bandwidth": dict.fromkeys(("ingressRate", "ingressBurst", "egressRate", "egressBurst"), int),
        "ips": [str],
        **dict.fromkeys(("mac", "infinibandGUID", "deviceID", "CNIDeviceInfoFile"), str),
    },
}
"""What Multus decodes of its own part (`NetConf`)."""

Kind = type | list[Any] | dict[str, Any]
"""A type, a list of one kind, or an object by its fields; `*` stands for any other key."""
Fields = dict[str, Any]
Items = Callable[[dict[str, Any]], Iterable[tuple[str, Any]]]

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*", re.ASCII)
_LONGEST_NAME = 185
"""libcni keeps its record of an attachment in a file NAME-CONTAINER-eth0: 255 bytes less 64 and 6."""
_LONGEST_TYPE = 255
_MORE_SINCE = ((0, 4, 0), (1, 1, 0))
"""From these versions on a runtime calls CHECK, and STATUS and GC."""


class UnusableError(ValueError):
    """libcni or Multus refuses the configuration; the message says why, and which of them."""


def field(fields: Fields, key: str) -> str | None:
    """Return which field Go takes a key for: it folds the case of letters, and takes U+017F for s and U+212A for k."""
    return next((name for name in fields if _folded(name) == _folded(key)), None)


def _folded(key: str) -> str:
    return key.replace("\u017f", "s").lower()


def misfit(value: Any, expected: Kind | None, where: str = "", items: Items = dict.items) -> str | None:
    """Say which value is not of the kind that Go decodes there; None when all are. null always is."""
    parts: list[tuple[str, Any, Kind | None]] = []
    if value is None or expected is None:
        return None
    if isinstance(expected, list) and isinstance(value, list):
        parts = [(f"{where}[{index}]", each, expected[0]) for index, each in enumerate(value)]
    elif isinstance(expected, dict) and isinstance(value, dict):
        within = f"{where}." if where else ""
        parts = [(within + key, each, expected.get(field(expected, key) or "*")) for key, each in items(value)]
    elif type(value) is not expected and not (expected is int and _is_whole(value)):
        names: dict[Any, str] = {str: "a string", bool: "true or false", int: "a whole number"}
        wanted = names.get(expected) if isinstance(expected, type) else kind(expected)
        return f"{where!r} is {value if isinstance(value, float) else kind(value)}, expected {wanted}"
    return next(filter(None, (misfit(each, fit, place, items) for place, each, fit in parts)), None)


def _is_whole(value: object) -> bool:
    """Say whether Go reads a number as an integer, once it went through a double as everything does here."""
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.5
    return number.is_integer() and -(2.0**63) <= number < 2.0**63


def decoded(items: Iterable[tuple[str, Any]], fields: Fields) -> dict[str, Any]:
    """Return what Go decodes: the last value of a field counts, objects are merged, null empties only an object."""
    found: dict[str, Any] = {}
    for key, value in items:
        name = field(fields, key)
        before = found.get(name) if name else None
        if name and (value is not None or isinstance(before, dict)):
            found[name] = {**before, **value} if isinstance(before, dict) and isinstance(value, dict) else value
    return found


def with_field(document: dict[str, Any], name: str, value: object) -> dict[str, Any]:
    """Return a document of which Go decodes this value, once its keys are sorted, as they are on their way to Multus.

    A new key comes first; the same one in other letters goes only if it would win.
    """
    changed = {**document, name: value} if name in document else {name: value, **document}
    if decoded(sorted(changed.items()), PLUGIN).get(name) == value:
        return changed
    return {key: each for key, each in changed.items() if key == name or _folded(key) != _folded(name)}


def as_single(document: dict[str, Any], *, any_version: bool = False) -> Master:
    """Read a single plugin: libcni takes name and version as the file has them, all else with its keys sorted.

    Raises `UnusableError`.
    """
    if wrong := misfit(document, PLUGIN, items=_pairs):
        raise UnusableError(f"{wrong}: libcni does not load it")
    here, later = decoded(_pairs(document), PLUGIN), decoded(sorted(document.items()), PLUGIN)
    copy = document
    for key in ("name", "cniVersion"):
        if here.get(key) != later.get(key):
            copy = with_field(copy, key, here[key])
    if not is_text(here.get("type")):
        raise UnusableError("has neither a 'type' nor a list of 'plugins'")
    return _master(copy, here.get("name"), here.get("cniVersion", ""), [document], any_version=any_version)


def as_list(document: dict[str, Any], *, any_version: bool = False) -> Master:
    """Read a list: libcni takes its own keys as they are spelled, Multus decodes more of them, in any letters.

    What Multus alone decodes is left out where it is no harmless value. Raises `UnusableError`.
    """
    plugins, switches = document.get("plugins"), {}
    if not isinstance(plugins, list) or not plugins:
        raise UnusableError("its 'plugins' is no list with a plugin in it: libcni does not load it")
    if wrong := misfit(plugins, [PLUGIN], "plugins"):
        raise UnusableError(f"{wrong}: libcni does not load it")
    for key in _SWITCHES:
        if key in document:
            text = str(document[key]).lower()
            if not isinstance(document[key], bool | str) or text not in {"true", "false"}:
                found = json.dumps(document[key])[:40]
                raise UnusableError(f"its {key!r} is {found}, expected true or false: libcni does not load it")
            switches[key] = text == "true"
    copy = {key: value for key, value in document.items() if key in _OF_A_LIST or _harmless(key, value)}
    copy.update({key: switches[key] for key in _SWITCHES[:2] if key in switches})
    version, plugins = _version(document), [each or {} for each in plugins]
    # Of a plugin's version in other letters, the ones that would win over what it is given.
    copy["plugins"] = [
        {key: value for key, value in each.items() if key <= "cniVersion" or field(PLUGIN, key) != "cniVersion"}
        for each in plugins
    ]
    master = _master(copy, document.get("name"), version, plugins, any_version=any_version)
    inlined, no_gc = (switches.get(key, False) for key in ("loadOnlyInlinedPlugins", "disableGC"))
    return master._replace(only_inlined=inlined, no_gc=no_gc)


_SWITCHES = ("disableCheck", "disableGC", "loadOnlyInlinedPlugins")
_OF_A_LIST = {"cniVersion", "name", "plugins", *_SWITCHES}


def _harmless(key: str, value: object) -> bool:
    match field(_LIST, key):
        case None:
            return True
        case "plugins":
            return False
        case "type":
            return value in ("", None)
        case "cniVersion":
            return is_text(value)
        case name:
            return misfit(value, _LIST[name]) is None


def _version(document: dict[str, Any]) -> str:
    """Return the version that libcni chooses for a list: the highest that it knows, of equal ones the first."""
    given, more = document.get("cniVersion", ""), document.get("cniVersions", [])
    if wrong := misfit({"cniVersion": given, "cniVersions": more}, {"cniVersion": str, "cniVersions": [str]}):
        raise UnusableError(f"{wrong}: libcni does not load it")
    if given is None or more is None or None in more:
        raise UnusableError("its 'cniVersion' or 'cniVersions' is null, expected a version: libcni does not load it")
    try:
        known = [each for each in (*more, *filter(None, [given])) if version_key(each) <= version_key(VERSIONS[-1])]
    except ValueError as error:
        if "cniVersions" not in document:
            return str(given)
        raise UnusableError(f"its 'cniVersions': {error}: libcni does not load it") from None
    return max(known, key=version_key, default=str(given))


def _master(
    document: dict[str, Any], name: object, version: str, plugins: Sequence[dict[str, Any]], *, any_version: bool
) -> Master:
    if not isinstance(name, str) or not name:
        raise UnusableError("has no 'name'")
    if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
        allowed = f"at most {_LONGEST_NAME} letters, digits, '_', '.' and '-', the first no sign"
        raise UnusableError(f"its 'name' {name[:40]!r} is not {allowed}: libcni sets up no pod")
    read = [decoded(sorted(plugin.items()), PLUGIN) for plugin in plugins]
    for number, plugin in enumerate(read, 1):
        program = plugin.get("type")
        if not isinstance(program, str) or not program:
            raise UnusableError(f"plugin {number} of its 'plugins' has no 'type'")
        if {"/", "\0"}.intersection(program) or program in {".", ".."} or len(program.encode()) > _LONGEST_TYPE:
            raise UnusableError(f"the 'type' {program[:40]!r} is not the name of a program: libcni finds none")
    # In other letters it may win over what libcni gives the plugin.
    given = [decoded(sorted({**plugin, "cniVersion": version}.items()), PLUGIN)["cniVersion"] for plugin in plugins]
    for each in () if any_version else dict.fromkeys((version, *given)):
        if each and each not in VERSIONS:
            known = ", ".join(VERSIONS)
            raise UnusableError(f"its 'cniVersion' {each!r} is none of {known}: Multus and the plugins refuse it")
        if any(version_key(version) >= since > version_key(each) for since in _MORE_SINCE):
            raise UnusableError(f"a plugin has the 'cniVersion' {each!r}, and {version!r} asks more of it")
    enabled = [key for plugin in read for key, on in (plugin.get("capabilities") or {}).items() if on]
    types = tuple(plugin["type"] for plugin in read)
    return Master(
        document, name, version or None, tuple(dict.fromkeys(enabled)), types, only_inlined=False, no_gc=False
    )


def is_text(value: object) -> bool:
    """Say whether a value of JSON is a string that says something."""
    return isinstance(value, str) and value != ""


def plugin_types(document: Any) -> list[str]:
    """Return every plugin type that a CNI configuration names, each once: delegates and IPAM too."""
    types: dict[str, None] = {}
    pending = deque([document])
    while pending:
        plugin = pending.popleft()
        if isinstance(plugin, list):
            pending += plugin
        elif isinstance(plugin, dict):
            if isinstance(plugin.get("type"), str):
                types[plugin["type"]] = None
            pending += [plugin.get(key) for key in ("plugins", "delegates", "ipam", "delegate")]
    return list(types)


# ---- JSON as in Go ----

MAX_CONFIGURATION = 256 << 10
"""The most that a configuration may have, in bytes, as a file and as compact JSON. Real ones have some kilobytes."""
MAX_DEPTH = 400
"""How deep objects and lists may nest: far more than any configuration does, and well inside what json can write."""
_SHOWN_DIGITS = 40


class InvalidJsonError(ValueError):
    """The bytes are not the JSON that a CNI runtime would read; the message says where."""


class _Doubled(dict[str, Any]):
    """An object in which a key stands twice: the last one counts, but Go looks at the type of each."""

    pairs: Sequence[tuple[str, Any]] = ()


def _pairs(document: dict[str, Any]) -> Iterable[tuple[str, Any]]:
    return document.pairs if isinstance(document, _Doubled) else document.items()


def _object(items: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(items)
    if len(found) < len(items):
        found = _Doubled(found)
        found.pairs = items
    return found


_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][\da-fA-F]{2}\\u[dD][c-fC-F][\da-fA-F]{2}|(u[dD][89a-fA-F][\da-fA-F]{2})|.)", re.DOTALL
)
"""An escape in a string; by itself, half of a surrogate pair is no character."""
codecs.register_error("as-go-reads", lambda error: ("\ufffd" * (error.end - error.start), error.end))  # type: ignore[attr-defined]


def size_fault(size: int) -> str | None:
    """Say that this is too much for a configuration; None when it is not."""
    return f"has {size} bytes, and {MAX_CONFIGURATION} are the most that is read" if size > MAX_CONFIGURATION else None


def parse(content: bytes) -> Any:
    """Read JSON as a CNI runtime does: no NaN, no numbers beyond a double's range, U+FFFD for what is not UTF-8.

    Raises `InvalidJsonError` with line and column where the parser knows them.
    """
    if not content.strip():
        raise InvalidJsonError("the file is empty")
    text = _without_halves(content.decode("utf-8", "as-go-reads"))
    try:
        return json.loads(
            text, parse_constant=_refuse_constant, parse_float=_finite, parse_int=_whole, object_pairs_hook=_object
        )
    except json.JSONDecodeError as error:
        raise InvalidJsonError(f"not JSON: {error.msg} at line {error.lineno} column {error.colno}") from None
    except _NumberError as error:
        where = json.JSONDecodeError("", text, max(0, text.find(error.literal)))
        raise InvalidJsonError(f"{error} at line {where.lineno} column {where.colno}") from None
    except RecursionError:
        raise InvalidJsonError("nested too deeply") from None


def depth_fault(document: dict[str, Any]) -> str | None:
    """Say that objects and lists nest too deeply to be written; None when they do not."""
    level: list[Any] = [document]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for value in level
            for child in (value.values() if isinstance(value, dict) else value)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return None
    return f"nested more than {MAX_DEPTH} levels deep"


def kind(value: object) -> str:
    """Return what kind of JSON a value is, as messages name it."""
    names = {list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return "an object" if isinstance(value, dict) else names.get(type(value), "a number")


class _NumberError(ValueError):
    def __init__(self, message: str, literal: str) -> None:
        super().__init__(message)
        self.literal = literal


def _refuse_constant(name: str) -> float:
    raise _NumberError(f"not JSON: {name} is no JSON number", name)


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        short = digits if len(digits) <= _SHOWN_DIGITS else f"{digits[:_SHOWN_DIGITS]}…"
        raise _NumberError(f"the number {short} is beyond what a double holds", digits)
    return number


def _whole(digits: str) -> int:
    _finite(digits)  # a runtime written in Go reads every number as a double
    return int(digits)


def equal(one: object, other: object) -> bool:
    """Compare JSON as Go keeps it: all numbers are doubles, lone surrogates are U+FFFD, keys have no order."""
    return _as_in_go(one) == _as_in_go(other)


def _as_in_go(value: object) -> str:
    """Return the one text that stands for all that Go takes for the same."""
    document = json.loads(_without_halves(json.dumps(value)), parse_int=_double, parse_float=_double)
    return json.dumps(document, sort_keys=True)


def _double(digits: str) -> float:
    return float(digits) + 0.0  # -0 is 0


def _without_halves(text: str) -> str:
    """Replace the escapes of surrogates that have no other half."""
    return _ESCAPE.sub(lambda found: r"\ufffd" if found[1] else found[0], text)
