"""What the manual tells other programs to do: those that have no test among `../clients`."""

from __future__ import annotations

import http.server
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.oegw.socks5.clients import servers
from tests.oegw.socks5.clients.bed import BOB, LEAVING, SERVER, SSH, standing
from tests.support.socks_server import Names, running

SECONDS = 30.0


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        pass


class Web(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6


@contextmanager
def serving(directory: Path) -> Iterator[int]:
    with Web(("::1", 0), partial(Quiet, directory=str(directory))) as web:
        threading.Thread(target=web.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield int(web.server_address[1])
        finally:
            web.shutdown()


def git(*words: str) -> str:
    nobody = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in
              ("NAME", "EMAIL")}  # fmt: skip
    environment = {
        "PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1",
    }  # fmt: skip
    done = subprocess.run(
        ["git", *words], env=environment | nobody, capture_output=True, text=True,
        timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_git_clones_from_the_other_family_by_a_name_that_only_the_server_knows(
    tmp_path: Path,
) -> None:
    work, copy = tmp_path / "work", tmp_path / "copy"
    git("init", "-q", str(work))
    (work / "file").write_text("content\n")
    git("-C", str(work), "add", "file")
    git("-C", str(work), "commit", "-qm", "a commit")
    git("-C", str(work), "update-server-info")
    names = Names(of={"six.test": ("::1",)})
    with serving(work) as port, running(tmp_path, names=names) as server:
        proxy = f"http.proxy=socks5h://127.0.0.1:{server.server.ports[0]}"
        git("-c", proxy, "clone", "-q", f"http://six.test:{port}/.git", str(copy))
    assert (copy / "file").read_text() == "content\n"
    assert "six.test" in names.asked


@pytest.mark.netns
def test_ssh_is_handed_the_connection_itself(tmp_path: Path) -> None:
    """ProxyUseFdpass: the other family's host, and no process of ours in between."""
    pipe = f"{sys.executable} -m oegw socks connect --pass-fd --proxy {SERVER['4']} %h %p"
    with standing(tmp_path) as bed, servers.ours(bed), servers.sshd(bed, "bob", [BOB["6"]]) as key:
        said = bed.says(
            "alice", "ssh", *servers.quiet(key), "-p", str(SSH), "-o", "ProxyUseFdpass=yes",
            "-o", f"ProxyCommand={pipe}", "root@six.test", 'echo "$SSH_CLIENT"',
        )  # fmt: skip
        assert said.split()[0] == LEAVING["6"]
