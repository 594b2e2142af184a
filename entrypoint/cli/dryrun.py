"""`--dry-run`: what one pass would do, and the files that it would write, with secrets masked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

from entrypoint.cni.document import MULTUS, InvalidJsonError, parse
from entrypoint.node.decision import Decision, decide_once
from entrypoint.node.steps import Write
from entrypoint.settings import Settings
from entrypoint.telling.log import logger


def run(settings: Settings, say: Callable[[str], None]) -> bool:
    """Say what one pass would do and write; return whether the node would be as it must be then."""
    decision = decide_once(settings)
    fatal = any(fault.fatal or fault.at_start for wish in decision.wishes for fault in wish.faults)
    if decision.able or (any(wish.steps for wish in decision.wishes) and not fatal):
        for line in _would_do(settings, decision):
            say(line)
    for warning in decision.warnings:
        logger.warning("%s", warning)
    for message in (*decision.messages, *([decision.waits] if decision.waits else [])):
        logger.error("%s", message)
    return decision.able


def _would_do(settings: Settings, decision: Decision) -> Iterator[str]:
    """Yield a line for each step, and under a file its content with secrets masked."""
    steps = [step for wish in decision.wishes for step in wish.steps if step.would]
    if not steps:
        yield "nothing to do: the node is as it must be"
    for step in steps:
        yield step.would
        if isinstance(step, Write):
            yield from (f"    {line}" for line in masked(step.content).splitlines())
    if settings.restart_crio and any(step.path in settings.output_files for step in steps):
        yield "would restart crio.service over D-Bus (--restart-crio)"
    if settings.startup_taint is not None:
        yield f"would remove the taint {settings.startup_taint} from node {settings.node_name}, if it has it"
    if settings.repair_pods:
        acts = {"report": "write an Event on each", "delete": "evict those that a controller makes again"}
        yield (
            f"would look for pods of node {settings.node_name} that lack networks they ask for, "
            f"and {acts[settings.repair_pods]} (--repair-pods)"
        )


# ---- what is shown of a file ----

MASK = '"(masked)"'

_KEYS = """
    address addresses allmulti args backend bandwidth bcqueuelen bridge cni CNIDeviceInfoFile cniVersions compress
    conditionsV4 conditionsV6 containerPort daemonSocketPath dataDir device deviceID disableCheck
    disableContainerInterface disableGC domain dst egressBurst egressRate enabledad externalSetMarkChain
    firewalldZone forceAddress fromArg gateway group gw hairpinMode hostIP hostPort hwaddr id infinibandGUID
    ingressBurst ingressPolicy ingressRate interface ip ipMasq ipMasqBackend ipRanges ips iptablesAdminChainName
    isDefaultGateway isGateway kernelpath linkInContainer loadOnlyInlinedPlugins mac macspoofchk markMasqBit masqAll
    master maxAge maxBackups maxID maxSize minID mode mtu multiQueue nameservers option options owner pciBusID
    plugins portIsolation portMappings preserveDefaultVlan priority promisc promiscMode protocol provide rangeEnd
    ranges rangeStart request resolvConf routes search selinuxContext skipDefault snat subnet sysctl table txQLen
    vlan vlanId vlanTrunk vrfname
"""
"""What the CNI specification and its reference plugins define, and Multus in its options' options.

Not `value`, which the dhcp plugin takes and which may be anything.
"""
_SHOWN = frozenset((*_KEYS.split(), *MULTUS))
"""The keys whose values are no secrets: a list of the words for secrets would never be complete."""
_TOKEN = re.compile(r'("(?:[^"\\]|\\.)*")(\s*:)?|-?[0-9][0-9.eE+-]*|[{}\[\]]', re.DOTALL)
_USER_IN_URL = re.compile(r"(?<=://)[^\s,]+(?=@)")
_YAML_TOKEN = re.compile(r'(?m)^( *token: )".*"$')


def masked(content: bytes) -> str:
    """Return a JSON document, or our kubeconfig, as it stands, without the strings and numbers that may be secrets.

    In a document those are shown that stand under a key of `_SHOWN`, without who logs in at a URL.
    """
    text = content.decode("utf-8", "replace")
    try:
        parse(content)
    except InvalidJsonError:
        return _YAML_TOKEN.sub(rf"\1{MASK}", text)
    within = [""]  # the key that the value of each open object or list has

    def shown(found: re.Match[str]) -> str:
        token, string, key = found[0], found[1], found[2]
        if token in {"{", "["}:
            within.append(within[-1])
        elif token in {"}", "]"}:
            within.pop()
        elif key:
            within[-1] = json.loads(string)
        elif within[-1] not in _SHOWN:
            return MASK
        elif string and (login := _USER_IN_URL.sub("(masked)", value := json.loads(string))) != value:
            return json.dumps(login)
        return token

    return _TOKEN.sub(shown, text)
