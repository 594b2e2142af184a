"""What an operator said that has no effect, or another one than it seems to have: not wrong, but worth a warning."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping

import click

from entrypoint.cli import flags, options
from entrypoint.settings import AUTO

_OF_A_SERVICE = re.compile(
    r"ENTRYPOINT_(.+_)?(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
"""What Kubernetes puts into the environment for a Service of the name `entrypoint`, or `entrypoint-...`."""

_BESIDE_A_STATIC_ONE_TOO = {
    "multus_kubeconfig_file_host",  # says that the kubeconfig is somebody else's: no token of ours is needed
    "wait_timeout",
    "wait_for_readiness_indicator",
}


def remarks(context: click.Context, environ: Mapping[str, str]) -> Iterator[str]:
    """Yield a warning for each thing that was said in vain, on the command line or in the environment."""
    yield from stray_arguments(context)
    yield from unknown_variables(environ)
    yield from _in_vain(context)
    yield from context.meta.get(options.REMARKS, {}).values()


def stray_arguments(context: click.Context) -> Iterator[str]:
    """Warn of each word that belongs to no flag: the peers ignore them, and so does who is called by their names."""
    for word in context.args:
        yield f"the argument {word!r} belongs to no flag and is ignored; the value of a boolean is joined by '='"


def unknown_variables(environ: Mapping[str, str]) -> Iterator[str]:
    """Warn of each variable that looks as if it should set a flag and does not."""
    known = {variable for flag in flags.ALL for variable in flag.variables}
    for name in sorted(environ):
        if name.startswith(options.PREFIX) and name not in known and not _OF_A_SERVICE.fullmatch(name):
            near = difflib.get_close_matches(name, known, n=1)
            advice = f"did you mean {near[0]}?" if near else "`multus-entrypoint --help` lists the flags"
            yield f"the environment variable {name} names no flag and has no effect: {advice}"


def _in_vain(context: click.Context) -> Iterator[str]:
    values = context.params
    static = values["multus_conf_file"]
    if static != AUTO:
        useful = _BESIDE_A_STATIC_ONE_TOO | (
            {"readiness_indicator_file"} if values["wait_for_readiness_indicator"] else set()
        )
        said = [flag for flag in flags.OF_AUTO if values[flag.name] != flag.usual(context)]
        in_vain = [flag.opts[0] for flag in said if flag.name not in useful]
        if in_vain:
            yield (
                f"{', '.join(in_vain)}: no effect beside the static configuration --multus-conf-file={static}; "
                "say it in that file, or set --multus-conf-file=auto"
            )
        return
    if values["global_namespaces"] and not values["namespace_isolation"]:
        yield "--global-namespaces has no effect without --namespace-isolation: without it, pods may use all networks"
    if values["namespace_isolation"] and not values["global_namespaces"]:
        yield (
            "--namespace-isolation: Multus lets every pod use networks of the namespace 'default' all the same; "
            "--global-namespaces=NAMES names other namespaces instead"
        )
    if values["multus_log_file"] and not values["multus_log_level"] and "logLevel" not in values["multus_conf_patch"]:
        yield "--multus-log-file: Multus logs nothing but panics to it until --multus-log-level says more"
    if values["force_cni_version"] and not values["cni_version"]:
        yield "--force-cni-version has no effect without --cni-version, the version to write"
