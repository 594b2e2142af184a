"""The kubeconfig: made of the service account's token and CA, which kubelet rotates."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from entrypoint.cni import wrap
from entrypoint.disk.looks import MAX_BYTES, Absent, File, Look, holds, leads_away, output, read
from entrypoint.node.part import Before, Fault, Interest, Leaving, Wish, missing, told
from entrypoint.node.steps import Remove, Step, Write
from entrypoint.settings import Settings, is_token


class Seen(NamedTuple):
    """What the kubeconfig is made of, and the one that stands there."""

    directory: bool
    """`--cni-conf-dir` is there."""
    token: Look
    authority: Look
    kubeconfig: Look
    leads_away: str | None = None
    """Why nobody can say from here what the host has in the place of our directory."""


class Kubeconfig:
    """`multus.d/multus.kubeconfig` in the configuration directory."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def follows(self) -> Iterable[Interest]:
        """Return the three files."""
        return self._settings.token_file, self._settings.ca_file, self._settings.kubeconfig_file

    def look(self) -> Seen:
        """Read the three files."""
        settings = self._settings
        return Seen(
            directory=os.path.isdir(settings.cni_conf_dir),
            token=read(settings.token_file),
            authority=read(settings.ca_file),
            kubeconfig=told(output(settings.kubeconfig_file), settings.kubeconfig_file, at_start=True),
            leads_away=leads_away(settings.kubeconfig_file.parent),
        )

    def wish(self, seen: Seen, before: Before) -> Wish:
        """Say how to write it; what is there stays while no new one can be made."""
        settings = self._settings
        if not seen.directory:
            return Wish(faults=(missing("--cni-conf-dir", settings.cni_conf_dir),))
        if seen.leads_away:
            found = f"{settings.kubeconfig_file.parent} {seen.leads_away}"
            fault = Fault("kubeconfig.path", found, "remove the link: a directory is made in its place", at_start=True)
            return Wish(faults=(fault,), in_use=False)
        if isinstance(seen.token, Absent) and seen.token.missing:
            return self._without_token(seen)
        faults = tuple(self._faults(seen))
        if faults or settings.api_server is None or not isinstance(seen.token, File):
            return Wish(faults=faults)
        verified = isinstance(seen.authority, File) and not settings.skip_tls_verify
        content = wrap.kubeconfig(
            settings.api_server,
            seen.token.content.decode("ascii").strip(),
            seen.authority.content if verified and isinstance(seen.authority, File) else None,
        )
        if len(content) > MAX_BYTES:
            found = f"the CA certificate at {settings.ca_file} has {len(seen.authority.content)} bytes"  # type: ignore[union-attr]
            todo = f"a kubeconfig with it would exceed the {MAX_BYTES} bytes that are read back"
            return Wish(faults=(Fault("kubeconfig.current", found, todo, at_start=True),))
        if holds(seen.kubeconfig, content, settings.kubeconfig_mode):
            return Wish(stands=(settings.kubeconfig_file,))
        return Wish((Write(settings.kubeconfig_file, content, settings.kubeconfig_mode),))

    def leave(self, seen: Seen, before: Before, why: Leaving) -> Iterator[Step]:
        """Leave it, as running pods need it to be torn down, unless a preStop hook removed it."""
        path = self._settings.kubeconfig_file
        if path in why.hooked and not (isinstance(seen.kubeconfig, Absent) and seen.kubeconfig.missing):
            yield Remove(path, why.because(path))

    def _without_token(self, seen: Seen) -> Wish:
        settings = self._settings
        message = f"no service account token at {settings.token_file}"
        if isinstance(seen.kubeconfig, File):
            stays = f"{message}: {settings.kubeconfig_file} stays as it is"
            return Wish(warnings=(stays,), stands=(settings.kubeconfig_file,))
        if not settings.kubeconfig_path_given:
            advice = "set automountServiceAccountToken and a serviceAccountName, or --multus-kubeconfig-file-host"
            return Wish(faults=(Fault("kubeconfig.current", message, advice, at_start=True),))
        # Whether it is there can be said of the path that this program writes, and of no other.
        if settings.kubeconfig_is_ours:
            return Wish(
                faults=(Fault("kubeconfig.current", f"{message}, and no {settings.kubeconfig_file} as it says"),)
            )
        return Wish(warnings=(f"{message}: Multus will use {settings.kubeconfig_path_on_host} as it finds it",))

    def _faults(self, seen: Seen) -> Iterator[Fault]:
        settings = self._settings
        looks = [(settings.token_file, "service account token", seen.token)]
        if not settings.skip_tls_verify:
            looks.append((settings.ca_file, "CA certificate", seen.authority))
        for path, what, look in looks:
            if isinstance(look, Absent):
                yield Fault("kubeconfig.current", f"the {what} at {path} {look.why}", at_start=True)
            elif not look.content.strip():
                yield Fault("kubeconfig.current", f"the {what} at {path} is empty", at_start=True)
        if isinstance(seen.token, File) and not is_token(seen.token.content):
            found = f"the service account token at {settings.token_file} is no token"
            yield Fault("kubeconfig.current", found, "it is not one printable word", at_start=True)
        if settings.api_server is None:
            found = "KUBERNETES_SERVICE_HOST or KUBERNETES_SERVICE_PORT is not set"
            yield Fault("kubeconfig.current", found, "does this run in a pod?", at_start=True)
