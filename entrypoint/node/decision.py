"""What all parts of the node wish together: the loop does it, `--dry-run` prints it, `check` judges it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from entrypoint.node.binary import Binary
from entrypoint.node.configuration import Configuration
from entrypoint.node.kubeconfig import Kubeconfig
from entrypoint.node.ledger import Book, Ledger
from entrypoint.node.part import Before, Fault, LookFailedError, Part, Wish
from entrypoint.node.steps import Doing, Step
from entrypoint.settings import Settings


def parts(
    settings: Settings, ledger: Ledger, *, patient: bool = True, clock: Callable[[], float] = time.monotonic
) -> list[Part]:
    """Return the parts of the node, in the order in which they are made: what the configuration refers to comes first.

    Who looks only once is not patient: it takes each file for what it is, and not for one that is being written.
    """
    return [
        Kubeconfig(settings),
        Binary(settings),
        Configuration(settings, ledger, patient=patient, clock=clock),
    ]


class Decision(NamedTuple):
    """What all parts wish, in their order."""

    seen: list[Any]
    """What each part has seen; None where its look failed."""
    wishes: list[Wish]
    ledger: Book = Book()

    @property
    def able(self) -> bool:
        """Nothing is in the way of a node that is as it must be, once the steps are done."""
        return not any(wish.waits for wish in self.wishes) and not any(fault.bars for fault in self.faults)

    @property
    def ready(self) -> bool:
        """The runtime uses Multus now, and that works."""
        return all(wish.in_use for wish in self.wishes)

    @property
    def faults(self) -> list[Fault]:
        """Return what is wrong with the node, each thing once."""
        return list(dict.fromkeys(fault for wish in self.wishes for fault in wish.faults))

    @property
    def failed(self) -> list[Fault]:
        """Return those that are looks that failed."""
        return [fault for fault in self.faults if fault.unread]

    @property
    def messages(self) -> list[str]:
        """Return what is wrong with the node, as messages."""
        return list(dict.fromkeys(map(str, self.faults)))

    @property
    def warnings(self) -> list[str]:
        """Return what an operator should hear of."""
        return [each for wish in self.wishes for each in wish.warnings]

    @property
    def waits(self) -> str | None:
        """Return what a first configuration is waited for."""
        return next((wish.waits for wish in self.wishes if wish.waits), None)

    @property
    def steps(self) -> list[Step]:
        """Return what is to be done, and in the end what takes long and can wait."""
        return [step for wish in self.wishes for step in wish.steps] + self.afterwards

    @property
    def afterwards(self) -> list[Step]:
        """Return what takes long and can wait until no part has steps left."""
        return [step for wish in self.wishes for step in wish.afterwards]


def decide(each_part: Sequence[Part], ledger: Ledger, before: Before) -> Decision:
    """Ask each part; one that cannot tell what is there leaves all as it is, and is no news."""
    seen, wishes = list[Any](), list[Wish]()
    try:
        ledger.load()
    except OSError as error:
        return Decision([], [_unread(f"{error.filename} {error.strerror}")])
    before = before._replace(ledger=ledger.says)
    for part in each_part:
        look = None
        try:
            look = part.look()
            wish = part.wish(look, before)
        except LookFailedError as error:
            wish = _unread(str(error), at_start=error.at_start)
        seen.append(look)
        wishes.append(wish)
        before = before._replace(awaited=before.awaited or wish.awaited)
    return Decision(seen, wishes, ledger.says)


def _unread(found: str, *, at_start: bool = False) -> Wish:
    """Wish nothing, because nobody can tell what is there."""
    todo = "may the container read there (user, SELinux type)?"
    return Wish(faults=(Fault("node.directories", found, todo, at_start, unread=True),), in_use=False)


def decide_once(settings: Settings, *, running: bool = False) -> Decision:
    """Decide as the loop would, without patience; compare binaries too. Nothing is written.

    For `--dry-run`, and for `check`, which looks at a node that is configured as far as the ledger knows (`running`).
    """
    ledger = Ledger(settings.ledger_file)
    each_part = parts(settings, ledger, patient=False)
    with contextlib.suppress(OSError):  # `decide` says it
        ledger.load()
    before = Before(configured=running and ledger.says.configuration is not None)
    for step in decide(each_part, ledger, before).afterwards:
        with contextlib.suppress(OSError):
            step.do(Doing(ledger, lambda: False))
    return decide(each_part, ledger, before)
