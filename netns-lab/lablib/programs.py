"""Steps with real programs: ssh, dig, a transfer that takes its time, any other command."""

from __future__ import annotations

import re
import signal
import sys
import time
from pathlib import Path
from string import Template
from typing import Any

from lablib import ask, transfer
from lablib.errors import LabError
from lablib.gateway import COMMAND, ROOT
from lablib.lab import Lab
from lablib.stage import Missed, Stage, check_keys
from lablib.waiting import patient, wait_until
from lablib.webserver import HTTP_PORT, content, web_server

DNS_ANSWER = "192.0.2.53"
TRANSFER_PORT = 8001
HOST_WORD = re.compile(r"@[a-z][a-z0-9.-]*")  # an address after @ is dig's
QUESTION = "unchanged.lab.example"


SSH_OPTIONS = {
    "BatchMode": "yes",
    "StrictHostKeyChecking": "no",
    "UserKnownHostsFile": "/dev/null",
    "LogLevel": "ERROR",
}


def _ssh_keys(stage: Stage) -> tuple[Path, list[str]]:
    """Makes keys of this run; returns the user's key, and the lines that sshd needs."""
    folder = stage.lab.run.directory
    host_key, user_key = folder / "ssh-host", folder / "ssh-user"
    for key in (host_key, user_key):
        if not key.exists():
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
            result = stage.lab.run.call(None, command)
            if result.returncode:
                raise LabError(f"ssh-keygen: {result.stderr.strip()}")
    Path("/run/sshd").mkdir(exist_ok=True)  # sshd wants it to be there
    public = user_key.with_suffix(".pub")
    return user_key, [
        f"HostKey {host_key}", f"AuthorizedKeysFile {public}", "PidFile none",
        "StrictModes no", "UsePAM no", "PasswordAuthentication no", "PermitRootLogin yes",
        "UseDNS no", "PrintMotd no", "PrintLastLog no", "LogLevel ERROR",
    ]  # fmt: skip


def ssh_files(stage: Stage, step: dict[str, Any]) -> str:
    """``$RUN/sshd.conf`` without a port, and ``$RUN/ssh.conf``, which fits to it."""
    check_keys(step, set())
    folder, (key, lines) = stage.lab.run.directory, _ssh_keys(stage)
    (folder / "sshd.conf").write_text("\n".join(lines) + "\n")
    client = {**SSH_OPTIONS, "IdentityFile": str(key)}
    (folder / "ssh.conf").write_text("".join(f"{k} {v}\n" for k, v in client.items()))
    return "written"


def _ssh_server(stage: Stage, host: str, port: int) -> Path:
    """Starts sshd on ``host``, with keys of this run; returns the user's key."""
    name, (user_key, options) = f"sshd-{host}-{port}", _ssh_keys(stage)
    if name not in stage.background:
        configuration = stage.lab.run.directory / f"{name}.conf"
        configuration.write_text("\n".join([f"Port {port}", *options]) + "\n")
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
    options = SSH_OPTIONS | {
        "ConnectTimeout": str(max(1, round(seconds))), "ConnectionAttempts": "1"
    }  # fmt: skip
    chosen = [word for pair in options.items() for word in ("-o", "=".join(pair))]
    command = ["ssh", "-F", "none", "-i", str(key), "-p", str(port), *chosen]
    command += [f"root@{lab.address(step.get('at', step['to']))}", "echo sealed as $SSH_CONNECTION"]
    wrapped = [*words(lab, step.get("prefix", [])), *command]
    done = lab.run.call(None, lab.run.on_network_of(step["host"], wrapped), seconds + 20)
    said = (done.stdout + done.stderr).strip()
    seen = (
        "done" if "sealed as" in done.stdout else "silent" if "timed out" in said else said[-200:]
    )
    if seen != result:
        raise Missed(f"{seen}: {said[-300:]}")
    return said


def filled_in(lab: Lab, text: str) -> str:
    """``$RUN`` is the run directory, ``$HERE`` the scenario's, ``$ROOT`` the project's, ``$OEGW``
    the installed command, ``$PYTHON`` the one that has the project, ``$PORT_x`` a port that was
    remembered."""
    if "$" not in text:
        return text
    names = {
        "RUN": str(lab.run.directory), "HERE": str(lab.scenario.directory), "ROOT": str(ROOT),
        "OEGW": str(COMMAND), "PYTHON": str(COMMAND.with_name("python")),
    }  # fmt: skip
    names |= {f"PORT_{name}": str(port) for name, port in lab.ports.items()}
    return Template(text).safe_substitute(names)


def words(lab: Lab, given: list[str]) -> list[str]:
    """``@bob`` is Bob's address, ``oegw`` the installed command, ``python`` the one that has it.

    Within words there may be what `filled_in` knows.
    """
    programs = {"oegw": str(COMMAND), "python": str(COMMAND.with_name("python"))}
    filled = (filled_in(lab, word) for word in given)
    return [
        str(lab.address(word[1:])) if HOST_WORD.fullmatch(word) else programs.get(word, word)
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
    order = ["get", address, str(TRANSFER_PORT), str(step["rate"]), str(_progress(stage, name))]
    stage.background[f"transfer-{name}"] = lab.run.start(
        f"transfer-{name}", step["host"], [*program, *order]
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
    """``host`` runs ``command``, perhaps as ``user``, with ``input``.

    It must end with ``code`` and print what matches ``says``, and not what matches ``hides``; if
    not at once, then at most ``patience`` seconds later, when it is run again.
    """
    keys = {"host", "command", "code", "says", "hides", "within", "user", "input", "patience"}
    check_keys(step, keys)
    deadline = time.monotonic() + patient(step.get("patience", 0))
    while True:
        try:
            return _run_once(stage.lab, step)
        except Missed:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _run_once(lab: Lab, step: dict[str, Any]) -> str:
    command = lab.as_user(step.get("user", ""), words(lab, step["command"]))
    result = lab.run.call(step["host"], command, step.get("within", 20), step.get("input"))
    said = (result.stdout + result.stderr).strip()
    says = filled_in(lab, step.get("says", ""))
    if result.returncode != step.get("code", 0) or not re.search(says, said, re.MULTILINE):
        raise Missed(f"exit code {result.returncode}: {said[-300:]}")
    if "hides" in step and re.search(step["hides"], said, re.MULTILINE):
        raise Missed(f"it tells {step['hides']}: {said[-300:]}")
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
