"""The asyncio shell around the cores: sockets, timers, tasks, signals.

The pump is always the same: feed the input, drain the keying core's events
into the gateway, execute the gateway's commands, send the datagrams, re-arm
one timer.  A command that must wait runs as a task and its answer comes back
as an event, so an IKE reply never leaves before its SA is installed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ike.events as keying
from dnsrecords.budget import Budget
from dnsrecords.resolver import Resolver
from ike.endpoint import Endpoint
from ike.signer import Signing
from oegw import commands as do
from oegw import config, daemonlife
from oegw import events as happened
from oegw.advice import advice
from oegw.applying import RELOAD_FAILURES, Applying
from oegw.associations import Associations
from oegw.audit import Audit
from oegw.box import check_peers, nat_of_box, policy_table
from oegw.console import Console
from oegw.contacts import Contacts
from oegw.control import ControlError, ControlServer
from oegw.datapath.interface import (
    Capability,
    Datapath,
    DatapathError,
    DatapathEvent,
    DatapathFailed,
    KeyingDatagram,
)
from oegw.environment import Environment, UnsuitableBox, survey
from oegw.gateway import Gateway
from oegw.gateways import Choice
from oegw.intercept.interception import NftInterception
from oegw.intercept.interface import InterceptError, Marks
from oegw.intercept.nft import firewall_gaps
from oegw.keyingport import IKE_PORT, KeyingPort
from oegw.keyingtrace import trace_keying
from oegw.keys import KeyFileError
from oegw.lasting import basis_of
from oegw.lookups import PURPOSE, Lookups
from oegw.management import management_advice
from oegw.memory import fingerprint
from oegw.memorytable import MemoryTable, boot_of_box
from oegw.monikerchild import moniker_child
from oegw.partsettings import coordinator_settings, intercept_settings, keying_configuration
from oegw.portservice import dns_forwarder, no_port_encryption, obey, port_encryption
from oegw.powers.orders import Role
from oegw.powers.powers import Powers, PublicKey
from oegw.powers.tohands import ToHands
from oegw.resolvers import in_use, in_words, trusted
from oegw.saving import Saving
from oegw.servicenotify import Service
from oegw.settings import AT_START_ONLY
from oegw.sockschild import socks_child
from oegw.sst.interface import SstError
from oegw.standing import Standing
from oegw.statefile import StateError, StateFile
from oegw.trace import JsonTrace
from oegw.tracefile import trace_file
from oegw.watch import Watch, stamps_of
from policy.errors import PolicyError
from policy.flow import Flow, IPAddress
from policy.rule import Sst
from policy.table import PolicyTable

if TYPE_CHECKING:
    pass

IDLE_MOMENT = 0.01  # seconds between two things done ahead
IDLE_LOOK = 0.5  # seconds until we look again whether something is to be done ahead
USAGE_LOOK = 5.0  # seconds between two readings of the SAs' counters, at most
NAT_PORT = 4500  # RFC 3947 section 4


class Daemon:
    """One running gateway."""

    def __init__(
        self,
        settings: config.Settings,
        config_path: Path,
        environment: Environment,
        powers: Powers,
        key: tuple[Signing, PublicKey],
        service: Service,
    ) -> None:
        """``powers``: what this process has no right to do itself; ``key``: ours, elsewhere."""
        self.settings = settings
        self._service = service
        self.powers = powers
        signer, public_key = key
        self.environment = environment
        self.started = time.time()
        self.capability: Capability | None = None
        self.ready = False
        self._config_path = config_path
        self._stopping = asyncio.Event()
        self._exit_code = 0
        self._received_at = 0.0  # seconds since 1970: an answer may be ready long after
        self._tasks: set[asyncio.Task[None]] = set()
        self._reloading = asyncio.Lock()
        self._at_start = settings
        self._timer: asyncio.TimerHandle | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._usage: asyncio.TimerHandle | None = None

        self.trace = JsonTrace(trace_file(settings.gateway.trace, time.time), time.time)
        self.audit = Audit(self.trace.listeners, lambda text: self._say("audit", text))
        marks = Marks(settings.intercept.mark_mask)
        resolvers = in_use(settings.dns)
        self.resolver = Resolver(
            resolvers,
            timeout=settings.dns.timeout,
            tries=settings.dns.tries,
            mark=marks.own,
            trusted=trusted(resolvers, settings.dns),
            budget=Budget(per_second=settings.dns.questions_per_second),
            listener=self._dns_event,
        )
        self._state = StateFile(settings.gateway.state)
        self._contacts = Contacts(self._state)
        self._memory = MemoryTable(self._state)
        self._disk = ThreadPoolExecutor(1, "state")  # one thread: writes keep their order
        self.endpoint = Endpoint(
            keying_configuration(settings, signer, self._contacts.all()), os.urandom
        )
        self._prefer_encapsulations(settings)
        nat = nat_of_box(settings, environment)
        self.gateway = Gateway(
            policy_table(settings, environment),
            coordinator_settings(
                settings, environment, public_key, nat, self._contacts.all(), self._came_shielded
            ),
            self.trace,
            self._memory.load(),
            self._memory.load_lasting(
                boot_of_box(),
                basis_of(
                    settings.dns, settings.gateway, resolvers, nat, environment.addresses,
                    settings.encrypts_ports, fingerprint(public_key),
                ),
            ),
        )  # fmt: skip
        self._saving = Saving(
            self._disk,
            lambda changes: self._keep(self._memory.save, *changes),
            self.gateway.memory,
            self.gateway.lasting,
        )
        self._mark = marks.own
        self.lookups = Lookups(
            settings, self.resolver, self._mark, self.gateway, self.trace, self.feed, self._spawn,
            self._say,
        )  # fmt: skip
        self._intercepted = intercept_settings(settings, environment, resolvers, nat.translations)
        self.interception = NftInterception(self._intercepted, self.trace)
        self.standing = Standing(
            (lambda _: self.interception.mend(), self._mend_ports),
            (self.interception.mend_jump, self._mend_jump_of_ports),
            (lambda _: self.datapath.mend(),),
            self.trace,
            self._fail,
        )
        self.sst = port_encryption(
            settings, environment, self.gateway, self.lookups.sst_key, self._mark, self.trace
        )
        self.forwarder = dns_forwarder(
            settings, environment, self.gateway, self.resolver, resolvers, self.sst, self._mark,
            self.trace,
        )  # fmt: skip
        self.moniker = moniker_child(config_path, self.trace, lambda: powers.door(Role.MONIKER))
        self.socks = socks_child(
            config_path, self.trace, environment.outside, lambda: powers.door(Role.SOCKS)
        )
        self.firewall_gaps: list[str] = []
        self.datapath: Datapath
        self._associations: Associations
        self._port = KeyingPort(environment.addresses, marks.own, self._datagram_received)
        self.applying = Applying(config_path, settings, self.reload, self._say, self._spawn)
        self._control = ControlServer(settings.gateway.control_socket, Console(self).answer)

    # ------------------------------------------------------------ life of it

    async def run(self) -> int:
        """Start, serve until a signal or a failure, leave; returns the exit code.

        A start that fails undoes what it did, and nothing else: rules that an
        earlier run left to hold back protected traffic stay.
        """
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._unexpected)
        for number in (signal.SIGTERM, signal.SIGINT):  # a signal in mid-start waits for its end
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        signal.pthread_sigmask(
            signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
        )  # as who started us may have them
        self.powers.on_failure(self._fail)
        async with AsyncExitStack() as undo:
            try:
                await self._start(undo)
            except (
                ControlError, OSError, DatapathError, InterceptError, SstError, StateError,
            ) as error:  # fmt: skip
                print(f"oegw: cannot start: {daemonlife.in_words(error)}", file=sys.stderr)
                return 1
            self.ready = True
            self._warn_of((*self.warnings(), *self.applying.notes()))
            if self._state.note:
                self._say("state", self._state.note)
            self.carry_out(self.gateway.begin(time.monotonic()))
            self._prepare()
            self._service.ready(self._in_short())
            self._service.attend(
                lambda: not self._stopping.is_set() and self.powers.hands_heed(), self._in_short
            )
            self._spawn(self._look_at_firewall())
            self.powers.on_change(self.standing.changed)
            self._spawn(self.standing.watch())
            if self.settings.gateway.watch:
                self._spawn(self._watch_files(self.settings.gateway.watch))
            await self._stopping.wait()
            self._service.stopping()
            if self._exit_code:
                undo.pop_all()  # the rules stay as they are: nothing passes until a restart
                return self._exit_code
            self.trace.event("gateway", "stopping")
            await self._say_goodbye()
        return 0

    async def _start(self, undo: AsyncExitStack) -> None:
        await self._control.start()  # first: it finds out whether another daemon runs
        undo.push_async_callback(self._control.close)
        undo.callback(self._state.close)
        undo.callback(self.audit.close)
        self.audit.follow(self.settings.audit)
        undo.callback(self._disk.shutdown)
        self.datapath = await self.powers.datapath()
        self._associations = Associations(self.datapath, self.interception, self.trace, self.feed)
        self.capability = await self.datapath.start(self._datapath_event)
        undo.push_async_callback(self.datapath.close)
        if self.capability.prefers_udp:
            self.endpoint.prefer_udp()
        if self.sst is not None:  # before any packet is let go
            await self.sst.start(self.gateway.table)
            undo.push_async_callback(self.sst.close)
        self.gateway.resume(time.monotonic())
        await self.interception.start(self.gateway.table, self._packet_trapped)
        undo.push_async_callback(self.interception.close)
        if self.sst is None:
            await no_port_encryption(self.settings, self.environment, self._mark, self.trace)
        if self.forwarder is not None:
            await self.forwarder.start()
            undo.push_async_callback(self.forwarder.close)
        await self._save_guard()
        await self._port.open()
        undo.push_async_callback(self._port.close)
        await self.moniker.follow(self.settings.moniker)
        undo.push_async_callback(self.moniker.close)
        await self.socks.follow(self.settings.socks)
        undo.push_async_callback(self.socks.close)
        undo.push_async_callback(self.lookups.close)
        undo.callback(self._end_tasks)
        # Nothing is waited for between this line of the trace and being ready.
        self.trace.event(
            "gateway", "started", pid=self.powers.pid, outside=self.environment.outside,
            addresses=self.environment.addresses, datapath=self.capability.name,
            reason=self.capability.reason, core=self.capability.core or None,
            core_reason=self.capability.core_reason or None,
        )  # fmt: skip
        self._look_at_usage()
        self._saving.begin()

    async def _mend_ports(self, _: bool) -> Sequence[str]:
        return () if self.sst is None else await self.sst.mend()

    async def _mend_jump_of_ports(self, thorough: bool) -> Sequence[str]:
        return () if self.sst is None else await self.sst.mend_jump(thorough)

    async def _save_guard(self) -> None:
        """For the time between the next boot and the next start."""
        kept = self.interception.residue() + (self.sst.residue() if self.sst is not None else "")
        if problem := await self.powers.save_guard(kept):
            self._say("guard", problem)

    def _in_short(self) -> str:
        """What the service's supervisor shows of us."""
        encrypted = [bool(each.tunnels) for each in self.gateway.connections()]
        name = self.capability.name if self.capability is not None else "no"
        return f"{len(encrypted)} connections, {sum(encrypted)} with tunnels; {name} datapath"

    async def _look_at_firewall(self) -> None:
        """Say so if a firewall treats what comes out of a tunnel otherwise than clear traffic."""
        try:
            gaps = await asyncio.to_thread(firewall_gaps, self._intercepted)
        except InterceptError as error:
            self.trace.drop("firewall", "unread", detail=str(error))
            return
        for gap in gaps:
            if gap not in self.firewall_gaps:
                self._say("firewall", f"warning: firewall: {gap}")
        self.firewall_gaps = gaps

    async def _say_goodbye(self) -> None:
        now = time.monotonic()
        self._execute(self.gateway.release_all_held())
        self.endpoint.close(now)
        while (event := self.endpoint.next_event()) is not None:
            self._keep_contacts(event)  # the rest is our own doing: the datapath goes as a whole
        self._saving.last()
        self._send()

    def _end_tasks(self) -> None:
        self._saving.end()
        for timer in (self._timer, self._idle, self._usage):
            if timer is not None:
                timer.cancel()
        for task in self._tasks:
            task.cancel()

    def _hang_up(self) -> None:
        if self.ready:
            self._spawn(self._reload_quietly())

    def _unexpected(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A callback raised: our own mistake, after which nothing may pass half decided."""
        error = context.get("exception")
        if "socket" in context and isinstance(error, OSError):
            # No file is left for a connection, of whoever connects: the loop tries again.
            self.trace.drop("gateway", "connection_not_accepted", detail=error.strerror)
            return
        loop.default_exception_handler(context)
        self._fail(f"internal error: {error or context.get('message')!r}")

    def _fail(self, reason: str) -> None:
        self.trace.event("gateway", "failed", reason=reason)
        print(f"oegw: {reason}; nothing passes until a restart", file=sys.stderr)
        self._exit_code = 1
        self._stopping.set()

    # ---------------------------------------------------------------- inputs

    def _packet_trapped(self, flow: Flow, packet: int, size: int) -> None:
        self.trace.event(
            "intercept", "trapped", source=flow.source, destination=flow.destination,
            protocol=flow.protocol, source_port=flow.source_port,
            destination_port=flow.destination_port, packet=packet, size=size,
        )  # fmt: skip
        if self.sst is not None:
            seen = self.gateway.nat.seen(flow, self.gateway.table)
            if seen.rule.sst is Sst.ONLY:  # beside the look-up of gateways
                self.sst.prepare(seen.flow.source, seen.flow.destination)
        self.feed(happened.PacketTrapped(flow, packet, size))

    def _datagram_received(
        self, data: bytes, local: keying.TransportAddress, remote: keying.TransportAddress
    ) -> None:
        self._received_at = round(time.time(), 6)
        self.endpoint.receive_datagram(time.monotonic(), data, local, remote)
        self._pump()

    def _dns_event(self, event: str, fields: dict[str, Any]) -> None:
        if event == "dropped":
            self.trace.drop("dns", **fields)
        else:
            self.trace.event("dns", event, purpose=PURPOSE.get(), **fields)
        if event == "server":
            self._say("dns", in_words(fields))

    def _datapath_event(self, event: DatapathEvent) -> None:
        match event:
            case DatapathFailed(reason=reason):
                self._fail(f"the datapath failed: {reason}")
            case KeyingDatagram(data=data, local=local, remote=remote, remote_port=port):
                if self.ready and local in self.environment.addresses:
                    here = keying.TransportAddress(local, NAT_PORT)
                    self._datagram_received(data, here, keying.TransportAddress(remote, port))
            case _:
                self.feed(event)

    def feed(self, event: happened.Event | DatapathEvent) -> None:
        """Give the gateway one event and do what follows."""
        self.carry_out(self.gateway.receive(event, time.monotonic()))

    def carry_out(self, commands: list[do.Command]) -> None:
        """Execute commands and all that follows from them."""
        self._execute(commands)
        self._pump()

    def _timer_fired(self) -> None:
        self._timer = None
        now = time.monotonic()
        self.endpoint.handle_timer(now)
        self._execute(self.gateway.handle_timer(now))
        self._pump()

    # ------------------------------------------------------------------ pump

    def _pump(self) -> None:
        while (event := self.endpoint.next_event()) is not None:
            trace_keying(self.trace, event, self._received_at)
            self._keep_contacts(event)
            self._execute(self.gateway.receive(event, time.monotonic()))
        self._saving.look()
        self._send()
        moments = [self.endpoint.next_timer(), self.gateway.next_timer()]
        due = min((m for m in moments if m is not None), default=None)
        if self._timer is not None:
            if due is not None and self._timer.when() <= due:
                return  # it looks again then: moments mostly move away, with each message
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = None if due is None else loop.call_at(due, self._timer_fired)

    def _prepare(self) -> None:
        """In idle moments, make the Diffie-Hellman pairs that the next exchanges need."""
        missing = self.endpoint.prepare()
        pause = IDLE_MOMENT if missing else IDLE_LOOK
        self._idle = asyncio.get_running_loop().call_later(pause, self._prepare)

    def _send(self) -> None:
        for datagram in self.endpoint.datagrams_to_send():
            local, remote = datagram.local, datagram.remote
            if local.port != IKE_PORT:  # the port of ESP in UDP, which the datapath owns
                self.datapath.send_keying(datagram.data, local.address, remote.address, remote.port)
                continue
            problem = self._port.send(datagram)
            if problem is not None:
                self.trace.drop("ike", "not_sent", remote=datagram.remote.address, detail=problem)

    def _execute(self, commands: list[do.Command]) -> None:
        now = time.monotonic()
        for command in commands:
            match command:
                case (
                    do.StartLookup() | do.StartKeyLookup() | do.StartPeerLookup()
                    | do.StartDecision()
                ):  # fmt: skip
                    self.lookups.start(command)
                case do.CancelLookup(lookup=number):
                    self.lookups.cancel(number)
                case do.StartNegotiation(tunnel=number, request=request):
                    self.endpoint.initiate(now, number, request)
                case do.ProvidePeerKeys(channel=channel, keys=keys):
                    self.endpoint.provide_peer_keys(now, channel, keys)
                case do.RefusePeerKeys(channel=channel, reason=reason):
                    self.endpoint.peer_keys_unavailable(now, channel, reason)
                case do.AcceptTunnel(tunnel=number, sst=sst):
                    self.endpoint.accept_tunnel(now, number, sst=sst)
                case do.RefuseTunnel(tunnel=number, reason=reason):
                    self.endpoint.refuse_tunnel(now, number, reason)
                case do.ConfirmInbound(tunnel=number):
                    self.endpoint.confirm_inbound(now, number)
                case do.CloseTunnel(tunnel=number):
                    self.endpoint.close_tunnel(now, number)
                case do.CloseChannels(remote=gateway):
                    self.endpoint.close_channels(now, gateway)
                case do.GreetPeer(request=request):
                    self.endpoint.greet(now, request)
                case do.DisownSpi(local=local, remote=remote, spi=spi):
                    self.endpoint.disown(now, local, remote, spi)
                case do.QueryUsage():
                    self._spawn(self._report_usage())
                case do.ReportExpiring(tunnel=number):
                    self.endpoint.tunnel_expiring(now, number)
                case do.ReportTraffic(tunnel=number, received=received, sent=sent):
                    self.endpoint.traffic_seen(now, number, received, sent)
                case do.ReportPeerMoved(tunnel=number, remote=remote):
                    self.endpoint.peer_moved(now, number, remote)
                case do.InstallSa():
                    self._spawn(self._associations.install(command))
                case do.MoveSa():
                    self._spawn(self._associations.move(command))
                case do.PreferSa():
                    self._spawn(self._associations.prefer(command))
                case do.RemoveSa():
                    self._spawn(self._associations.remove(command))
                case do.ShieldGateway():
                    self._spawn(self._shield(command))
                case (
                    do.SealTunnel() | do.SendSealed() | do.SendUnsealed() | do.UnsealTunnel()
                    | do.UnshieldGateway()
                ):  # fmt: skip
                    if self.sst is not None:
                        obey(self.sst, command)
                case do.InstallPolicy():
                    self._install_policy(command)
                case do.RemovePolicy(scope=scope):
                    self.interception.remove_policy(scope)
                case do.ReleaseHeld(packets=packets, verdict=verdict):
                    self.interception.release(packets, verdict)
                    self.trace.event("hold", "released", packets=packets, verdict=verdict.value)
                case do.DiscardHeld(packets=packets, trigger=trigger):
                    self.interception.discard(packets)
                    self.trace.drop("hold", trigger, packets=packets)

    async def _shield(self, command: do.ShieldGateway) -> None:
        reason: str | None = "port encryption does not run"
        if self.sst is not None:
            reason = await self.sst.shield(command.local, command.remote)
        self.feed(happened.GatewayShielded(command.tunnel, reason))

    def _came_shielded(self, local: IPAddress, remote: IPAddress) -> bool:
        return self.sst is not None and self.sst.came_shielded(local, remote)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(f"internal error: {error!r}")

    # -------------------------------------------------- commands that must wait

    async def processes(self) -> list[dict[str, Any]]:
        """Of which we consist, for `oegw status`."""
        children = {"moniker": self.moniker.pid, "socks": self.socks.pid}
        return await self.powers.processes(
            {name: pid for name, pid in children.items() if pid is not None}
        )

    def _install_policy(self, command: do.InstallPolicy) -> None:
        try:
            self.interception.install_policy(
                command.scope, command.verdict, command.lifespan, command.drop_clear_inbound
            )
        except InterceptError as error:
            # Not cached: the next packet of the scope is trapped again and gets the same verdict.
            self.trace.drop("policy", "not_installed", scope=command.scope, detail=str(error))
            return
        self.trace.event(
            "policy", "installed", source=command.scope.source,
            destination=command.scope.destination, verdict=command.verdict.value,
            lifespan=command.lifespan,
        )  # fmt: skip

    # ------------------------------------------------------- what is done by itself

    def _look_at_usage(self) -> None:
        """Read the SAs' counters now and then: traffic is proof that the peer lives."""
        interval = self.settings.ike.dpd_interval / 2 or USAGE_LOOK
        if self._at_start.multihoming.choice is not Choice.REKEYED:
            interval = min(interval, self._at_start.multihoming.turn)
        loop = asyncio.get_running_loop()
        self._usage = loop.call_later(min(interval, USAGE_LOOK), self._look_at_usage)
        if self.ready and any(c.tunnels for c in self.gateway.connections()):
            self._spawn(self._report_usage())

    async def _report_usage(self) -> None:
        try:
            usage = await self.datapath.usage()
        except DatapathError as error:
            self.trace.drop("sa", "usage_unread", detail=str(error))
            return
        self.feed(happened.UsageReported(usage))

    def _keep_contacts(self, event: keying.Event) -> None:
        """Write down whom we have tunnels with, in a thread: a disk may take its time."""
        match event:
            case keying.ContactBegun(identity=identity):
                self._disk.submit(self._keep, self._contacts.remember, identity)
            case keying.ContactEnded(identity=identity):
                self._disk.submit(self._keep, self._contacts.forget, identity)

    def _keep(self, work: Callable[..., None], *what: Any) -> bool:
        try:
            work(*what)
        except StateError as error:
            print(f"oegw: {error}", file=sys.stderr)
            return False
        return True

    def _prefer_encapsulations(self, settings: config.Settings) -> None:
        self.endpoint.prefer_encapsulation(
            {
                peer.address: peer.encapsulation
                for peer in settings.peers.values()
                if isinstance(peer.address, IPv4Address | IPv6Address)
                and peer.encapsulation is not None
            }
        )

    def warnings(self) -> tuple[str, ...]:
        """What of the configuration does not do what its words say on this box."""
        of_settings = advice(self.settings, self._intercepted.resolvers, self.gateway.nat)
        of_table = management_advice(self.gateway.table)
        return *of_settings, *of_table, *self.powers.warnings()

    def _take_settings(self, settings: config.Settings, environment: Environment) -> None:
        """Rules that translate sources may have come since we were started, too."""
        self.settings = settings
        noticed = environment.translates[0] if environment.translates else ""
        self.gateway.nat = replace(self.gateway.nat, noticed=noticed)

    def _warn_of(self, warnings: Iterable[str]) -> None:
        about_nat = self.gateway.nat.warnings()
        for warning in warnings:
            self._say("nat" if warning in about_nat else "policy", warning)

    def _say(self, category: str, text: str) -> None:
        """Tell the operator something that is no failure."""
        self.trace.event(category, "note", detail=text)
        print(f"oegw: {text}", file=sys.stderr)

    # ---------------------------------------------------------------- reload

    async def reload(self, settings: config.Settings | None = None) -> list[str]:
        """Read the config again and go over to its policy; tunnels that it wants stay.

        ``settings``: those that are to be in use, in place of what the files say.
        Returns notes for the operator (keys that take effect at a restart only).
        Raises ConfigError, PolicyError, UnsuitableBox, InterceptError, SstError, KeyFileError:
        then nothing has changed.
        """
        async with self._reloading:
            self.audit.reopen()  # whatever comes of the rest: logrotate has renamed it
            self._service.reloading()
            try:
                await self.powers.give_files()
                return await self._reload(settings or await self.applying.read())
            finally:
                self._service.ready(self._in_short())

    async def _reload(self, settings: config.Settings) -> list[str]:
        environment = await asyncio.to_thread(
            survey, settings.interfaces.outside, settings.gateway.addresses
        )
        check_peers(settings, self.environment)
        table = await asyncio.to_thread(policy_table, settings, environment)
        notes = [
            f"[{name}] changed: takes effect at the next restart"
            for name in AT_START_ONLY
            if getattr(settings, name) != getattr(self._at_start, name)
        ]
        if settings.encrypts_ports != self._at_start.encrypts_ports:
            on = "on" if settings.encrypts_ports else "off"
            notes.append(f"port encryption is switched {on}: takes effect at the next restart")
        if self.sst is None and (rule := settings.seals_or_drops) is not None:
            reason = "requires port encryption, which begins at a restart"
            raise config.ConfigError([f"rule {rule.name!r} {reason}"])
        signer, public_key = await self.powers.signer()
        points = await self.lookups.points_of(settings, self.settings)
        await self._replace_rules(table)
        self.lookups.use(points)
        self.endpoint.replace_key(signer)
        self.powers.keep(signer)
        self.gateway.use_key(public_key)
        before = self.warnings()
        self._take_settings(settings, environment)
        self._prefer_encapsulations(settings)
        commands = self.gateway.replace_policy(
            table, settings.peers, time.monotonic(), settings.decision_points
        )
        self.carry_out(commands)
        self._warn_of(warning for warning in self.warnings() if warning not in before)
        if self.sst is not None:
            self.sst.policy_replaced()
        self._spawn(self._look_at_firewall())
        if settings.socks.demands_encryption:
            self.interception.demand()
        await self._save_guard()  # before what may take its time: the power may fail
        notes += await self.moniker.follow(settings.moniker)
        notes += await self.socks.follow(settings.socks)
        notes += self.applying.taken(settings)
        notes += self.audit.moved(settings.audit)
        self.trace.event("gateway", "reloaded", rules=len(settings.rules), notes=notes)
        return notes

    async def _replace_rules(self, table: PolicyTable) -> None:
        """Both tables of rules, or none.  Raises InterceptError and SstError."""
        if self.sst is not None:
            await self.sst.replace_policy(table)
        try:
            await self.interception.replace_policy(table)
        except InterceptError:
            if self.sst is not None:
                await self.sst.replace_policy(self.gateway.table)
            raise

    async def _watch_files(self, interval: float) -> None:
        """Read the files of the policy again when they have changed."""
        watch = Watch(await asyncio.to_thread(stamps_of, self.settings.files))
        while True:
            await asyncio.sleep(interval)
            files = self.settings.files
            if watch.has_changed(await asyncio.to_thread(stamps_of, files)):
                self.trace.event("gateway", "files_changed")
                await self._reload_quietly()

    async def _reload_quietly(self) -> None:
        try:
            await self.reload()
        except RELOAD_FAILURES as error:
            self.trace.event("gateway", "reload_failed", detail=str(error))
            print(f"oegw: reload: the old policy stays: {error}", file=sys.stderr)


def serve(
    settings: config.Settings,
    config_path: Path,
    environment: Environment,
    hands: ToHands,
    service: Service,
) -> int:
    """Run a gateway until SIGTERM, in the process without rights (`oegw.powers`); returns the exit
    code (1: could not start, or failed).  ``service``: who is told when it is ready."""

    async def live() -> int:
        async with Powers(hands) as powers:
            key = await powers.signer()
            daemon = Daemon(settings, config_path, environment, powers, key, service)
            return await daemon.run()

    try:
        with suppress(KeyboardInterrupt):
            return asyncio.run(live())
    except (PolicyError, UnsuitableBox, KeyFileError, StateError, OSError) as error:
        print(f"oegw: cannot start: {daemonlife.in_words(error)}", file=sys.stderr)
        return 1
    return 0
