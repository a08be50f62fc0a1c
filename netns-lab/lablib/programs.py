"""Steps with real programs: ssh, dig, a transfer that takes its time, any other command."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path
from typing import Any

from lablib import ask, transfer
from lablib.errors import LabError
from lablib.gateway import COMMAND
from lablib.lab import Lab
from lablib.stage import Missed, Stage, check_keys
from lablib.waiting import patient, wait_until
from lablib.webserver import HTTP_PORT, content, web_server

DNS_ANSWER = "192.0.2.53"
TRANSFER_PORT = 8001
QUESTION = "unchanged.lab.example"


def _ssh_server(stage: Stage, host: str, port: int) -> Path:
    """Starts sshd on ``host``, with keys of this run; returns the user's key."""
    folder = stage.lab.run.directory
    name, host_key, user_key = f"sshd-{host}-{port}", folder / "ssh-host", folder / "ssh-user"
    for key in (host_key, user_key):
        if not key.exists():
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
            result = stage.lab.run.call(None, command)
            if result.returncode:
                raise LabError(f"ssh-keygen: {result.stderr.strip()}")
    if name not in stage.background:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd wants it to be there
        public = user_key.with_suffix(".pub")
        options = [
            f"Port {port}", f"HostKey {host_key}", f"AuthorizedKeysFile {public}", "PidFile none",
            "StrictModes no", "UsePAM no", "PasswordAuthentication no", "PermitRootLogin yes",
            "UseDNS no", "PrintMotd no", "PrintLastLog no", "LogLevel ERROR",
        ]  # fmt: skip
        configuration = folder / f"{name}.conf"
        configuration.write_text("\n".join(options) + "\n")
        server = stage.lab.run.start(
            name, host, ["/usr/sbin/sshd", "-D", "-e", "-f", str(configuration)]
        )
        stage.background[name] = server

        def listening() -> bool:
            if not server.running:
                raise LabError(f"sshd ended: {server.text().strip()}")
            return f":{port} " in stage.lab.run.call(host, ["ss", "-Hltn"]).stdout

        wait_until(f"sshd on {host}", listening, 5.0)
    return user_key


def ssh(stage: Stage, step: dict[str, Any]) -> str:
    """``host`` runs a command on ``to`` by ssh; it must end in ``result``: done, or silent.

    Silent: no connection within ``patience`` seconds.  ``prefix``: words before the command.
    ``at``: by this address of it.
    """
    check_keys(step, {"host", "to", "at", "port", "result", "patience", "prefix"})
    lab, port, result = stage.lab, step.get("port", 22), step.get("result", "done")
    key = _ssh_server(stage, step["to"], port)
    seconds = patient(step.get("patience", 10.0 if result == "done" else 1.5))
    options = [
        "BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null",
        f"ConnectTimeout={max(1, round(seconds))}", "LogLevel=ERROR", "ConnectionAttempts=1",
    ]  # fmt: skip
    words = [word for option in options for word in ("-o", option)]
    command = ["ssh", "-F", "none", "-i", str(key), "-p", str(port), *words]
    command += [f"root@{lab.address(step.get('at', step['to']))}", "echo sealed as $SSH_CONNECTION"]
    wrapped = [*_words(lab, step.get("prefix", [])), *command]
    done = lab.run.call(None, lab.run.on_network_of(step["host"], wrapped), seconds + 20)
    said = (done.stdout + done.stderr).strip()
    seen = (
        "done" if "sealed as" in done.stdout else "silent" if "timed out" in said else said[-200:]
    )
    if seen != result:
        raise Missed(f"{seen}: {said[-300:]}")
    return said


def _words(lab: Lab, words: list[str]) -> list[str]:
    """``@bob`` is Bob's address, ``oegw`` the installed command, ``$RUN`` the run directory."""
    filled = (word.replace("$RUN", str(lab.run.directory)) for word in words)
    return [
        str(COMMAND) if word == "oegw" else str(lab.address(word[1:])) if word[:1] == "@" else word
        for word in filled
    ]


def ask_dns(stage: Stage, step: dict[str, Any]) -> str:
    """``host`` asks a DNS server on ``to`` a question, by dig; ``tcp``: by TCP.

    ``at``: by this address of it.
    """
    check_keys(step, {"host", "to", "at", "tcp"})
    lab, to = stage.lab, step["to"]
    name, address = f"unbound-{to}", str(lab.address(step.get("at", to)))
    own = "".join(f"  interface: {lab.topology.address(to, family)}\n" for family in (4, 6))
    if name not in stage.background:
        configuration = lab.run.directory / f"{name}.conf"
        configuration.write_text(
            f"server:\n{own}  access-control: 0.0.0.0/0 allow\n"
            f'  access-control: ::0/0 allow\n  username: ""\n  chroot: ""\n'
            f'  pidfile: "{lab.run.directory}/{name}.pid"\n  do-daemonize: no\n  use-syslog: no\n'
            f'  logfile: ""\n  verbosity: 1\n  module-config: "iterator"\n'
            f'  local-data: "{QUESTION}. A {DNS_ANSWER}"\n'
        )
        server = lab.run.start(name, to, ["unbound", "-d", "-c", str(configuration)])
        server.await_text("start of service")
        stage.background[name] = server
    how = ["+tcp"] if step.get("tcp") else ["+notcp"]
    seconds = round(patient(3))
    command = ["dig", f"@{address}", *how, "+short", f"+time={seconds}", "+tries=2", QUESTION, "A"]
    done = lab.run.call(step["host"], command, 4 * seconds + 10)
    if done.stdout.split() != [DNS_ANSWER]:
        raise Missed(f"dig: {(done.stdout + done.stderr).strip()[-300:]}")
    return f"{QUESTION} is {DNS_ANSWER}"


def start_transfer(stage: Stage, step: dict[str, Any]) -> str:
    """``host`` begins to get octets ``from`` another by TCP, ``rate`` a second, until it is ended.

    ``name``: of the transfer; ``at``: by this address of the other.
    """
    check_keys(step, {"name", "host", "from", "at", "rate"})
    lab, name, sender = stage.lab, step["name"], f"sender-{step['from']}"
    program = [sys.executable, "-I", str(Path(transfer.__file__))]
    if sender not in stage.background:
        server = lab.run.start(sender, step["from"], [*program, "serve", str(TRANSFER_PORT)])
        server.await_text("listening")
        stage.background[sender] = server
    address = str(lab.address(step.get("at", step["from"])))
    words = ["get", address, str(TRANSFER_PORT), str(step["rate"]), str(_progress(stage, name))]
    stage.background[f"transfer-{name}"] = lab.run.start(
        f"transfer-{name}", step["host"], [*program, *words]
    )
    return await_progress(stage, {"name": name, "more": 1})


def _progress(stage: Stage, name: str) -> Path:
    return Path(stage.lab.run.directory / f"transfer-{name}.octets")


def _octets(stage: Stage, name: str) -> int:
    """How many octets of a transfer came so far."""
    file = _progress(stage, name)
    return int(file.read_text()) if file.exists() else 0


def await_progress(stage: Stage, step: dict[str, Any]) -> str:
    """Wait until ``more`` octets of a transfer arrived."""
    check_keys(step, {"name", "more", "within"})
    name = step["name"]
    process, before = stage.background[f"transfer-{name}"], _octets(stage, name)

    def enough() -> bool:
        if not process.running:
            raise Missed(f"it is over: {process.text().strip()[-300:]}")
        return _octets(stage, name) >= before + step["more"]

    wait_until("more of the transfer", enough, step.get("within", 15.0))
    return f"{_octets(stage, name) - before} octets more"


def end_transfer(stage: Stage, step: dict[str, Any]) -> str:
    """The receiver of a transfer has enough; all must be whole, to the last octet."""
    check_keys(step, {"name", "within"})
    process = stage.background.pop(f"transfer-{step['name']}")
    process.send(signal.SIGTERM)
    wait_until("end of the transfer", lambda: not process.running, step.get("within", 15.0))
    if process.popen is None or process.popen.returncode or "whole" not in process.text():
        raise Missed(process.text().strip()[-300:])
    return process.text().strip()


def run_command(stage: Stage, step: dict[str, Any]) -> str:
    """``host`` runs ``command``; it must end with ``code`` and print what matches ``says``."""
    check_keys(step, {"host", "command", "code", "says", "within", "user"})
    lab, command = stage.lab, _words(stage.lab, step["command"])
    result = lab.run.call(step["host"], command, step.get("within", 20))
    said = (result.stdout + result.stderr).strip()
    if result.returncode != step.get("code", 0) or not re.search(step.get("says", ""), said):
        raise Missed(f"exit code {result.returncode}: {said[-300:]}")
    return said.splitlines()[-1] if said else "done"


def ask_for(stage: Stage, step: dict[str, Any]) -> str:
    """``host`` gets a file from ``to`` over a socket that asks for sealed ports, ``how``.

    ``dscp`` or ``option``: see `ask`.  ``at``: by this address of it.  For ``option``, the
    configuration of gateway ``host`` says which bit; the option is brought to a group of this run.
    """
    check_keys(step, {"host", "to", "at", "how"})
    lab, host = stage.lab, step["host"]
    (web_server(stage, step["to"]) / "file").write_bytes(content(20_000))
    address = str(lab.address(step.get("at", step["to"])))
    command = [sys.executable, "-I", str(Path(ask.__file__)), address, str(HTTP_PORT), step["how"]]
    if step["how"] != "option":
        done = lab.run.call(host, command, 20)
    else:
        with lab.run.control_group() as group:
            arguments = ["--config", str(lab.gateways[host].configuration), "--cgroup", str(group)]
            done = lab.run.call(None, [str(COMMAND), "sst", "enable", *arguments])
            if done.returncode:
                raise Missed(f"oegw sst enable: {(done.stdout + done.stderr).strip()[-300:]}")
            asking = lab.run.on_network_of(host, [*command, str(group)])
            done = lab.run.call(None, asking, 20)
            arguments = ["--cgroup", str(group)]
            gone = lab.run.call(None, [str(COMMAND), "sst", "disable", *arguments])
            if gone.returncode:
                raise Missed(f"oegw sst disable: {(gone.stdout + gone.stderr).strip()[-300:]}")
    found = re.search(r", (\d+) octets", done.stdout)
    if found is None or int(found[1]) < 20_000:
        raise Missed((done.stdout + done.stderr).strip()[-300:])
    return done.stdout.strip()
