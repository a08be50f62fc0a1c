"""What happens in a scenario, step by step.  Each step may carry its own expectation.

A step is a table with ``do`` and the arguments of the function of that name
below.  It returns what was seen, and raises `Missed` if that is not what the
step expects.
"""

from __future__ import annotations

import hashlib
import json
import re
import signal
import sys
import time
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from lablib import (
    background,
    changes,
    crossing,
    errorsback,
    forge,
    lifetimes,
    matrix,
    moniker,
    monikersteps,
    nameservers,
    orders,
    outage,
    pings,
    policysteps,
    programs,
    publishing,
    sealedsteps,
    services,
    socks,
    sockssteps,
    stream,
    whole,
    workersteps,
)
from lablib.errors import LabError
from lablib.gateway import ask
from lablib.stage import Missed, Stage, check_keys
from lablib.traces import matches, plain
from lablib.waiting import patient, wait_until
from lablib.webserver import HTTP_PORT, content, web_server

PING_PATTERN = b"oegw clear text!"  # 16 octets, the most that ping repeats
ECHO_PORT = 7001


def _ping_command(stage: Stage, step: dict[str, Any]) -> list[str]:
    count, interval = step.get("count", 1), step.get("interval", 0.1)
    return [
        "ping", f"-{stage.lab.scenario.family}", "-n", "-O", "-p", PING_PATTERN.hex(),
        "-i", str(interval), "-W", str(patient(step.get("patience", 2))),
        *(["-c", str(count)] if count else []),
        *(["-s", str(step["size"])] if "size" in step else []),
        *(["-I", str(stage.lab.address(step["source"]))] if "source" in step else []), step["to"],
    ]  # fmt: skip


def ping(stage: Stage, step: dict[str, Any]) -> str:
    """``count`` echo requests from ``host`` to ``to``; ``answered``: how many must come back.

    ``source``: from this one of the host's addresses.

    The last answer may take ``patience`` seconds, and where some must not come, so long they are
    waited for.
    """
    check_keys(step, {"host", "to", "source", "count", "interval", "patience", "answered", "size"})
    count = step.get("count", 1)
    answered = step.get("answered", count)
    if count > 1 and answered:
        return _pings(stage, step, count, answered)
    result = stage.lab.run.call(step["host"], _ping_command(stage, step), 30 + count)
    found = re.search(r"(\d+) packets transmitted, (\d+) received", result.stdout)
    if found is None:
        raise Missed(f"ping said: {(result.stdout + result.stderr).strip()}")
    times = [float(ms) for ms in re.findall(r"time=([\d.]+) ms", result.stdout)]
    return _answers(int(found[1]), int(found[2]), times, (count, answered))


def _pings(stage: Stage, step: dict[str, Any], count: int, answered: int) -> str:
    """The same by our own program, which is more patient: see there.

    Where all must be answered, the second request is sent when the first was answered: of what is
    held for a tunnel, a gateway keeps the first packet and the newest, and drops those between.
    """
    source = str(stage.lab.address(step["source"])) if "source" in step else ""
    patience, size = patient(step.get("patience", 2)), step.get("size", 56)
    order = {
        "requests": [[source, step["to"]]] * count, "family": stage.lab.scenario.family,
        "apart": step.get("interval", 0.1), "answers": answered, "within": patience,
        "after": 0 if answered == count else patience,
        "first": patience if answered == count else 0,
        "payload": (PING_PATTERN.decode() * (size // 16 + 1))[:size],
    }  # fmt: skip
    command = [sys.executable, "-IS", str(Path(pings.__file__)), json.dumps(order)]
    result = stage.lab.run.call(step["host"], command, 30 + count + 2 * patience)
    if result.returncode:
        raise Missed(f"pings said: {result.stderr.strip()[-300:]}")
    heard = [1000 * s for s in json.loads(result.stdout) if s is not None]
    return _answers(count, len(heard), heard, (count, answered))


def _answers(sent: int, received: int, times: list[float], wanted: tuple[int, int]) -> str:
    seen = f"{received} of {sent} answered"
    if times:
        seen += f", first after {times[0]:.3g} ms"
    if (sent, received) != wanted:
        raise Missed(seen)
    return seen


def start_ping(stage: Stage, step: dict[str, Any]) -> str:
    """A ping without end, under ``name``."""
    check_keys(step, {"host", "to", "interval", "name", "patience"})
    command = _ping_command(stage, {**step, "count": 0})
    stage.background[step["name"]] = stage.lab.run.start(step["name"], step["host"], command)
    stage.intervals[step["name"]] = step.get("interval", 0.1)
    return "under way"


def _await_lines(stage: Stage, step: dict[str, Any], pattern: str, what: str) -> str:
    process = stage.background[step["name"]]
    before, more = len(re.findall(pattern, process.text())), int(step.get("more", 5))

    def enough() -> bool:
        if not process.running:
            raise Missed(f"{process.name} ended: {process.text()[-300:]}")
        return len(re.findall(pattern, process.text())) >= before + more

    wait_until(f"{more} more {what}", enough, step.get("within", 15))
    return f"{more} more {what}"


def await_answers(stage: Stage, step: dict[str, Any]) -> str:
    """Wait until a running ping got ``more`` answers, at most ``within`` seconds."""
    check_keys(step, {"name", "more", "within"})
    return _await_lines(stage, step, r"bytes from .*icmp_seq=", "answers")


def await_losses(stage: Stage, step: dict[str, Any]) -> str:
    """Wait until a running ping missed ``more`` answers, at most ``within`` seconds."""
    check_keys(step, {"name", "more", "within"})
    return _await_lines(stage, step, r"no answer yet for icmp_seq=", "requests without an answer")


def stop(stage: Stage, step: dict[str, Any]) -> str:
    """End a process that runs in the background."""
    check_keys(step, {"name"})
    stage.background.pop(step["name"]).end()
    return "ended"


def kill_gateway(stage: Stage, step: dict[str, Any]) -> str:
    """SIGKILL to the gateway's process."""
    check_keys(step, {"gateway"})
    gateway = stage.lab.gateways[step["gateway"]]
    assert gateway.process is not None
    pid = gateway.process.pid
    gateway.kill()
    return f"SIGKILL to process {pid}"


def reload_gateway(stage: Stage, step: dict[str, Any]) -> str:
    """Append ``rules``, if any, to the gateway's configuration and send SIGHUP.

    Waits until it traced what became of it: ``refused`` says whether it must keep the old policy.
    """
    check_keys(step, {"gateway", "rules", "refused"})
    gateway = stage.lab.gateways[step["gateway"]]
    assert gateway.process is not None
    wanted = "reload_failed" if step.get("refused") else "reloaded"

    def told() -> int:
        return sum(e["event"] == wanted for e in gateway.events())

    before = told()
    good = gateway.configuration.read_text()
    whole.put(gateway.configuration, good + step.get("rules", ""))
    gateway.process.send(signal.SIGHUP)
    wait_until(f"{wanted} by {gateway.name}", lambda: told() > before, 5.0)
    if step.get("refused"):
        whole.put(gateway.configuration, good)
    return wanted.replace("_", " ")


def stop_gateway(stage: Stage, step: dict[str, Any]) -> str:
    """SIGTERM to the gateway's process; it must leave with exit code 0."""
    check_keys(step, {"gateway"})
    gateway = stage.lab.gateways[step["gateway"]]
    process = gateway.process
    assert process is not None
    gateway.stop()
    assert process.popen is not None
    code = process.popen.returncode
    if code:
        raise Missed(f"exit code {code}; it said: {process.text()[-500:]}")
    return "exit code 0"


def start_gateway(stage: Stage, step: dict[str, Any]) -> str:
    """Start a gateway again, and wait until it answers."""
    check_keys(step, {"gateway"})
    gateway = stage.lab.gateways[step["gateway"]]
    gateway.begin()
    pid = gateway.ready()["pid"]
    moniker.await_children(stage.lab.run, [gateway])
    socks.await_servers(stage.lab.run, [gateway])
    return f"process {pid}"


def await_state(stage: Stage, step: dict[str, Any]) -> str:
    """Wait until ``gateway`` has a connection from ``source`` to ``destination`` in ``state``."""
    check_keys(step, {"gateway", "source", "destination", "state", "within"})
    gateway = stage.lab.gateways[step["gateway"]]
    ends = {str(stage.lab.address(step[end])) for end in ("source", "destination")}
    seen: list[str] = []

    def reached() -> bool:
        seen[:] = [
            row["state"].lower()
            for row in gateway.status()["connections"]
            if {plain(row["source"]), plain(row["destination"])} == ends
        ]
        return step["state"] in seen

    try:
        wait_until(step["state"], reached, step.get("within", 10))
    except LabError as error:
        raise Missed(f"{error}; states seen: {seen}") from error
    return str(step["state"])


def await_event(stage: Stage, step: dict[str, Any]) -> str:
    """Wait until ``gateway`` traces one more ``event`` than before this step.

    With ``ever``, one that it traced earlier will do, too.
    """
    check_keys(step, {"gateway", "event", "ever", "within"})
    lab, gateway = stage.lab, stage.lab.gateways[step["gateway"]]

    def told() -> int:
        return sum(matches(lab, event, step["event"]) for event in gateway.events())

    before, began = 0 if step.get("ever") else told(), time.monotonic()
    try:
        wait_until(step["event"], lambda: told() > before, step.get("within", 10))
    except LabError as error:
        raise Missed(str(error)) from error
    return f"after {time.monotonic() - began:.1f} s"


def await_packets(stage: Stage, step: dict[str, Any]) -> str:
    """Wait until ``more`` packets of kind ``type`` than before were captured on ``link``."""
    check_keys(step, {"link", "type", "more", "within"})
    capture, more = stage.lab.captures[step["link"]], int(step.get("more", 1))

    def seen() -> int:
        return sum(packet.is_a(step["type"]) for packet in capture.packets_so_far())

    before = seen()
    try:
        wait_until(step["type"], lambda: seen() >= before + more, step.get("within", 10))
    except LabError as error:
        raise Missed(f"{error}: {seen() - before} more {step['type']}") from error
    return f"{more} more {step['type']}"


def probe(stage: Stage, step: dict[str, Any]) -> str:
    """`oegw probe` on ``gateway`` from ``source`` to ``destination``; it must end in ``result``."""
    check_keys(step, {"gateway", "source", "destination", "result", "within"})
    ends = {end: str(stage.lab.address(step[end])) for end in ("source", "destination")}
    gateway = stage.lab.gateways[step["gateway"]]
    answer = ask(gateway.socket, "probe", seconds=step.get("within", 30), **ends)
    seen = f"{answer.get('result')}: {answer.get('reason')}"
    if answer.get("result") != step["result"]:
        raise Missed(seen)
    return seen


def close(stage: Stage, step: dict[str, Any]) -> str:
    """`oegw close` on ``gateway``: ends its tunnels towards host ``destination``."""
    check_keys(step, {"gateway", "destination"})
    gateway, destination = stage.lab.gateways[step["gateway"]], step["destination"]
    answer = ask(gateway.socket, "close", destination=str(stage.lab.address(destination)))
    if not answer["closed"]:
        raise Missed("no tunnel there")
    return f"{answer['closed']} closed"


def forge_packet(stage: Stage, step: dict[str, Any]) -> str:
    """Host wild sends ``count`` clear echo requests to the MAC address of ``gateway``.

    They claim to come from ``source`` and go to ``destination``.
    """
    check_keys(step, {"gateway", "source", "destination", "count"})
    lab = stage.lab
    for interface in lab.topology.host(step["gateway"]).interfaces:
        if interface.link in ("west", "east"):
            near = "eth0" if interface.link == "west" else "eth1"
            arguments = [
                near,
                interface.mac,
                *(str(lab.address(step[end])) for end in ("source", "destination")),
            ]
    command = [sys.executable, str(Path(forge.__file__)), *arguments, PING_PATTERN.decode()]
    for _ in range(step.get("count", 1)):
        result = lab.run.call("wild", command)
        if result.returncode:
            raise LabError(f"forging: {result.stderr}")
    return f"{step.get('count', 1)} sent"


def download(stage: Stage, step: dict[str, Any]) -> str:
    """``host`` gets a file of ``bytes`` octets ``from`` another by HTTP; SHA-256 is compared.

    ``at``: by this address of it; ``named``: by its name; ``socks``: by the server at that address,
    which resolves the name, too.
    """
    check_keys(step, {"host", "from", "at", "named", "socks", "bytes", "within"})
    lab, server = stage.lab, step["from"]
    folder = web_server(stage, server)
    original = content(step.get("bytes", 10_000_000))
    (folder / "file").write_bytes(original)
    address = lab.address(step.get("at", server))
    url_host = f"[{address}]" if address.version == 6 else str(address)
    if step.get("named"):
        url_host = f"{server}.{lab.topology.domain}"
    target = lab.run.directory / f"download-{step['host']}"
    way = [f"-{address.version}"]
    if "socks" in step:
        proxy = ip_address(step["socks"])
        way = ["--proxy", f"socks5h://{f'[{proxy}]' if proxy.version == 6 else proxy}:{socks.PORT}"]
    result = lab.run.call(
        step["host"],
        ["curl", "-sS", *way, "--noproxy", "" if "socks" in step else "*",
         "--max-time", str(patient(step.get("within", 30))), "-w", "%{time_total}",
         "-o", str(target), f"http://{url_host}:{HTTP_PORT}/file"],
        60,
    )  # fmt: skip
    if result.returncode:
        raise Missed(f"curl: exit code {result.returncode}: {result.stderr.strip()}")
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    if digest != hashlib.sha256(original).hexdigest():
        raise Missed(f"SHA-256 differs: {target.stat().st_size} octets arrived")
    seconds = float(result.stdout)
    rate = len(original) * 8 / seconds / 1e6
    return (
        f"{len(original)} octets in {seconds:.2f} s ({rate:.0f} Mbit/s), SHA-256 {digest[:16]}..."
    )


def iperf(stage: Stage, step: dict[str, Any]) -> str:
    """iperf3 from ``host`` to ``to`` for ``seconds``; with ``reverse`` the server sends."""
    check_keys(step, {"host", "to", "seconds", "reverse"})
    lab, name = stage.lab, f"iperf-{step['to']}"
    if name not in stage.background:
        server = lab.run.start(name, step["to"], ["iperf3", "-s", "--forceflush"])
        server.await_text("Server listening")
        stage.background[name] = server
    arguments = ["-c", str(lab.address(step["to"])), "-t", str(step.get("seconds", 1)), "-J"]
    if step.get("reverse"):
        arguments.append("-R")
    result = lab.run.call(step["host"], ["iperf3", *arguments], 30)
    try:
        report = json.loads(result.stdout)
        received = report["end"]["sum_received"]["bytes"]
        rate = report["end"]["sum_received"]["bits_per_second"] / 1e6
    except (ValueError, KeyError) as error:
        raise Missed(f"iperf3: exit code {result.returncode}: {result.stdout[:300]}") from error
    if result.returncode or not received:
        raise Missed(f"iperf3: {report.get('error')}, {received} octets received")
    return f"{rate:.0f} Mbit/s, {received} octets"


def stream_packets(stage: Stage, step: dict[str, Any]) -> str:
    """``rate`` UDP datagrams a second from ``host`` to ``to`` and back, for ``seconds``.

    At most ``lost`` may be missing in the end.  ``at``: to this address of it.
    ``unhurried``: it is about the datagrams, not about how many a second this machine can send.
    """
    check_keys(step, {"host", "to", "at", "rate", "seconds", "lost", "unhurried"})
    lab, at = stage.lab, step.get("at", step["to"])
    address, name = str(lab.address(at)), f"echo-{at}"
    command = [sys.executable, str(Path(stream.__file__))]
    if name not in stage.background:
        server = lab.run.start(name, step["to"], [*command, "echo", address, str(ECHO_PORT)])
        server.await_text("bound")
        stage.background[name] = server
    rate, seconds = step.get("rate", 100), step["seconds"]
    arguments = [address, str(ECHO_PORT), str(rate), str(seconds), PING_PATTERN.decode()]
    result = lab.run.call(step["host"], [*command, "send", *arguments], 1.5 * seconds + 30)
    if result.returncode:
        raise LabError(f"stream: {result.stderr}")
    report = json.loads(result.stdout)
    lost = report["sent"] - report["answered"]
    seen = f"{report['answered']} of {report['sent']} came back, {report['rate']:.1f} a second"
    if lost > step.get("lost", 0) or (report["rate"] < 0.95 * rate and not step.get("unhurried")):
        raise Missed(seen)
    return seen


def resolve(stage: Stage, step: dict[str, Any]) -> str:
    """``host`` asks its resolver for a name; it must get the address of that host."""
    check_keys(step, {"host", "name"})
    lab = stage.lab
    service = "ahostsv4" if lab.scenario.family == 4 else "ahostsv6"
    result = lab.run.call(step["host"], ["getent", service, step["name"]], 30)
    found = result.stdout.split()[:1]
    if found != [str(lab.address(step["name"]))]:
        raise Missed(f"{step['name']}: {found}")
    return f"{step['name']} is {found[0]}"


STEPS: dict[str, Callable[[Stage, dict[str, Any]], str]] = {
    "ping": ping,
    "start-ping": start_ping,
    "await-answers": await_answers,
    "await-losses": await_losses,
    "stop": stop,
    "outage": outage.outage,
    "kill-gateway": kill_gateway,
    "reload-gateway": reload_gateway,
    "stop-gateway": stop_gateway,
    "start-gateway": start_gateway,
    "await-state": await_state,
    "await-event": await_event,
    "await-packets": await_packets,
    "probe": probe,
    "close": close,
    "oegw": orders.oegw,
    "set-route": changes.set_route,
    "renumber": changes.renumber,
    "remap": changes.remap,
    "plug": changes.plug,
    "interface": changes.interface,
    "write-file": changes.write_file,
    "udp-error": errorsback.udp_error,
    "path-mtu": errorsback.path_mtu,
    "knock": errorsback.knock,
    "publish": publishing.publish,
    "withdraw": publishing.withdraw,
    "matrix": matrix.play,
    "cross": crossing.cross,
    "forge": forge_packet,
    "decision-server": policysteps.decision_server,
    "asked": policysteps.asked,
    "write": policysteps.write,
    "tcp": policysteps.tcp_connect,
    "firewall": policysteps.firewall,
    "firewall-count": policysteps.firewall_count,
    "forge-esp": lifetimes.forge_esp,
    "download": download,
    "iperf": iperf,
    "resolve": resolve,
    "serve": services.serve,
    "connect": services.connect,
    "stream": stream_packets,
    "plain-frames": sealedsteps.plain_frames,
    "ssh": programs.ssh,
    "ask-dns": programs.ask_dns,
    "ask-for-sealed": programs.ask_for,
    "start-transfer": programs.start_transfer,
    "await-progress": programs.await_progress,
    "kill-workers": workersteps.kill_workers,
    "age-sas": workersteps.age_sas,
    "end-transfer": programs.end_transfer,
    "set-clock": sealedsteps.set_clock,
    "new-port-key": sealedsteps.new_port_key,
    "forge-ports": sealedsteps.forge_ports,
    "gateway-count": sealedsteps.gateway_count,
    "run": programs.run_command,
    "start": background.start,
    "listen": background.listen,
    "say": background.say,
    "kill": background.kill,
    "ssh-files": programs.ssh_files,
    "moniker-ask": monikersteps.ask,
    "moniker-daemon": monikersteps.daemon,
    "reach": monikersteps.reach,
    "bad-questions": monikersteps.bad_questions,
    "moniker-memory": monikersteps.memory,
    "kill-moniker": monikersteps.kill_child,
    "socks": sockssteps.socks,
    "socks-echo": sockssteps.echo_server,
    "socks-talk": sockssteps.talk,
    "kill-socks": sockssteps.kill_server,
    "relay": nameservers.change_relay,
    "await-resolver": nameservers.await_resolver,
}


def title(step: dict[str, Any]) -> str:
    """One line that says what a step is."""
    if "text" in step:
        return str(step["text"])
    words = [f"{k} {v}" for k, v in step.items() if k != "do"]
    return f"{step['do']}: {', '.join(words)}"


def take(stage: Stage, step: dict[str, Any]) -> str:
    """Do one step.  Raises Missed, or LabError for a step that can't be done."""
    if step.get("do") not in STEPS:
        raise LabError(f"no step {step.get('do')!r}; there are {', '.join(STEPS)}")
    return STEPS[step["do"]](stage, step)
