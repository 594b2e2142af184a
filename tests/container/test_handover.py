"""Two pods of the manifest on one node, as in an update with surge: containers share no processes, and yet agree."""

from __future__ import annotations

import time

from tests.container.test_daemonset import KUBECONFIG, MAIN, PLAIN, ready
from tests.waiting import until


def has_token(node, token):
    return f'token: "{token}"' in node.path(KUBECONFIG).read_text()


def presences(node):
    return [path for path in node.path(KUBECONFIG).parent.iterdir() if path.suffix == ".alive"]


def becomes_ready(pod):
    """Start the pod's container, and wait until its probe succeeds."""
    running = pod.start(MAIN)
    until(lambda: ready(running), running.log)
    return running


def test_whichever_container_is_killed_the_node_has_the_token_of_the_newest_that_lives(new_pod, node):
    older = becomes_ready(new_pod(PLAIN, token="token-older"))
    newer = becomes_ready(new_pod(PLAIN, token="token-newer"))
    assert has_token(node, "token-newer")
    assert ready(older)
    assert len(presences(node)) == 2

    newer.signal("KILL")
    until(lambda: has_token(node, "token-older"), older.log)
    assert ready(older)
    assert "standing by" in older.log() and "at work again" in older.log()

    newest = becomes_ready(new_pod(PLAIN, token="token-newest"))
    older.signal("KILL")
    older.wait()
    time.sleep(0.5)
    assert has_token(node, "token-newest")
    assert "at work again" not in newest.log()
    assert len(presences(node)) == 1
    newest.signal("TERM")
    assert newest.wait() == 0
    assert presences(node) == []
    assert has_token(node, "token-newest")


def test_with_cleanup_an_update_with_surge_takes_nothing_away(new_pod, node):
    def cleaning(daemon_set):
        daemon_set["spec"]["template"]["spec"]["containers"][0]["args"].append("--cleanup-config-on-exit=true")

    conf = node.path("/etc/cni/net.d/00-multus.conf")
    older = becomes_ready(new_pod(PLAIN, token="token-older", change=cleaning))
    newer = becomes_ready(new_pod(PLAIN, token="token-newer", change=cleaning))
    before = conf.stat()
    older.signal("TERM")
    assert older.wait() == 0
    assert "nothing is cleaned up" in older.log()
    assert (conf.stat().st_ino, conf.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    newer.signal("TERM")
    assert newer.wait() == 0
    assert not conf.exists()
