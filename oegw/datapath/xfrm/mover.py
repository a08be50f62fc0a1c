"""An SA gets other outer addresses or ports; keys, sequence numbers and replay window go on.

The kernel changes the ports of a state in place, and nothing else of it, so there are three ways:

- only the ports of ESP in UDP change: in place, no packet notices
- an outbound SA to another address: the new state stands beside the old one, sequence numbers
  further on, until the policy has changed over; no packet is lost and no number used twice
- else the old state and the new one have the same name: the old one goes first, and says in
  its last report where it stood; packets of the moment between (about a millisecond) are lost,
  and none is accepted twice

The kernel has MIGRATE for it; but not every kernel, and it moves all SAs of a policy at once.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from oegw.datapath.interface import DatapathError, Direction, SecurityAssociation
from oegw.datapath.xfrm.messages import Frame, Group, MessageType
from oegw.datapath.xfrm.netlink import Xfrm, XfrmError, open_netlink, removed_state
from oegw.datapath.xfrm.plan import Senders, policy_of, state_of
from oegw.datapath.xfrm.settings import XfrmSettings
from oegw.datapath.xfrm.state import State

# Our choice: more packets than leave by the old state while the new one is made.  A receiver
# takes numbers that lie further on; those behind would be replays to it.
_LEAP = 65536

_LAST = {False: 2**32 - 1, True: 2**64 - 1}  # with extended sequence numbers


class Mover:
    """Moves one SA.  Nothing else of ours comes between its requests."""

    def __init__(self, kernel: Xfrm, settings: XfrmSettings, senders: Senders) -> None:
        self._kernel = kernel
        self._settings = settings
        self._senders = senders

    def move(self, old: SecurityAssociation, new: SecurityAssociation) -> tuple[int, int]:
        """Packets and octets that the old state counted, and the new one does not know of.

        Raises DatapathError, and then the SA is as before.
        """
        if new == old:
            return 0, 0
        same_ends = (new.source, new.destination) == (old.source, old.destination)
        if same_ends and new.encapsulation and old.encapsulation:
            self._kernel.ask(MessageType.UPDSA, state_of(new, self._settings))
            self._senders.replace(old.key, new)
            return 0, 0
        if old.direction is Direction.OUTBOUND and new.destination != old.destination:
            return self._change_over(old, new)
        self._replace(old, new)
        return 0, 0

    def _change_over(self, old: SecurityAssociation, new: SecurityAssociation) -> tuple[int, int]:
        before = self._state(old)
        replay = before.replay
        if replay is None or replay.sent + _LEAP >= _LAST[old.extended_sequence_numbers]:
            raise DatapathError(f"SA {old.spi:#010x}: too few sequence numbers are left to move it")
        ahead = replace(replay, sent=replay.sent + _LEAP)
        state = state_of(new, self._settings, ahead, before.consumed)
        self._kernel.ask(MessageType.NEWSA, state)
        self._senders.replace(old.key, new)
        try:
            self._send_by(new)
        except XfrmError:
            self._senders.replace(new.key, old)
            with suppress(XfrmError):
                self._kernel.ask(MessageType.DELSA, state.name)
            raise
        after = before
        with suppress(DatapathError):  # it expired just now
            after = self._state(old)
            self._kernel.ask(MessageType.DELSA, before.name)
        return (
            after.consumed.packets - before.consumed.packets,
            after.consumed.bytes - before.consumed.bytes,
        )

    def _replace(self, old: SecurityAssociation, new: SecurityAssociation) -> None:
        outbound = old.direction is Direction.OUTBOUND
        if outbound:
            # A packet that met the policy without its state would make the kernel ask for one.
            blocked = policy_of(old, self._settings, blocked=True)
            self._kernel.ask(MessageType.UPDPOLICY, blocked)
        last = self._state(old)
        with open_netlink(Group.SA) as reports:
            try:
                self._kernel.ask(MessageType.DELSA, last.name)
            except XfrmError:
                if outbound:
                    self._send_by(old)
                raise
            report = removed_state(reports, lambda frame: _names(frame, last))
        if report is not None:
            _, attributes = report.raw()
            last = State.parse(attributes["XFRMA_SA"], attributes)
        try:
            self._kernel.ask(
                MessageType.NEWSA, state_of(new, self._settings, last.replay, last.consumed)
            )
        except XfrmError:
            again = state_of(old, self._settings, last.replay, last.consumed)
            self._kernel.ask(MessageType.NEWSA, again)
            if outbound:
                self._send_by(old)
            raise
        self._senders.replace(old.key, new)
        if outbound:
            self._send_by(new)

    def _send_by(self, sa: SecurityAssociation) -> None:
        policy = self._senders.policy(sa)
        if policy is not None:
            self._kernel.ask(MessageType.UPDPOLICY, policy)

    def _state(self, sa: SecurityAssociation) -> State:
        """Raises DatapathError."""
        name = state_of(sa, self._settings).name
        try:
            frame = self._kernel.ask(MessageType.GETSA, name)
            if frame is not None:
                state = frame.content()
                if isinstance(state, State):
                    return state
        except ValueError as error:
            raise DatapathError(f"SA {sa.spi:#010x}: the kernel's answer: {error}") from None
        raise DatapathError(f"SA {sa.spi:#010x}: the kernel says nothing of it")


def _names(frame: Frame, state: State) -> bool:
    try:
        return bool(frame.content() == state.name)
    except ValueError:
        return False
