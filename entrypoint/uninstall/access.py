"""A valid kubeconfig for as long as `uninstall` waits: until Multus is off the node, every new pod needs it.

The installer's token ended with its pod. The uninstaller's pod has one of its own, when it has a service account.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from entrypoint import owner
from entrypoint.disk.looks import Absent
from entrypoint.node import needed
from entrypoint.node.host import Host, StepError
from entrypoint.node.values import Memory
from entrypoint.settings import Settings


class Access:
    """The kubeconfig, and what it is made from."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self._settings = settings
        self._host = Host(settings)
        self._say = say
        self._said: set[str] = set()

    def files(self) -> Iterator[Path]:
        """Yield the files whose change is a reason to look again."""
        yield from (self._settings.token_file, self._settings.ca_file, self._settings.kubeconfig_file)

    def listings(self) -> Iterator[tuple[Path, tuple[str, ...]]]:
        """Yield the directory, and the suffix, of the files by which an installer shows that it lives."""
        yield self._settings.kubeconfig_file.parent, (owner.SUFFIX,)

    def keep(self) -> None:
        """Write the kubeconfig anew where it is not made from this pod's service account, unless an installer does."""
        settings = self._settings
        if owner.living(settings.kubeconfig_file.parent):
            return
        seen = self._host.observe(binary=False)
        if isinstance(seen.kubeconfig, Absent):
            return  # Multus, if it is there, uses another one
        if isinstance(seen.token, Absent):
            self._once(
                "while this waits, no new pod can start on this node: the installer's token ended with its pod, and "
                f"there is no service account token at {settings.token_file} to give Multus instead"
            )
            return
        step, problems, _ = needed.kubeconfig(settings, seen, Memory(started=seen.now, first=False))
        for problem in problems:
            self._once(f"while this waits, new pods may not start: {problem.message}")
        if step is None:
            return
        try:
            self._host.apply(step)
        except StepError as error:
            self._once(f"while this waits, new pods may not start: {error}")
        else:
            self._once(f"wrote {step.path} with the token of this pod, so that new pods can start meanwhile")

    def _once(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            self._say(message)
