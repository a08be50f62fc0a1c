"""What an informational message under a right HASH says, and what follows from it.

    HDR*, HASH(1), N/D        (RFC 2409 section 5.7)

A Delete of a tunnel is answered by our own, errors end the quick mode that they are about,
R-U-THERE is answered, INITIAL-CONTACT closes what is from the peer's former life.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ike.events import Failure
from ike.registry import NOTIFY_ERRORS, NotifyType, Protocol
from ike.v1.contact import forget_former_life
from ike.v1.directory import Directory
from ike.v1.message import Chain
from ike.v1.payloads import Delete, Notification
from ike.v1.transitions import QuickModeState

if TYPE_CHECKING:
    from ike.v1.session import Session

_ANSWER_AWAITED = (QuickModeState.AWAIT_QM2, QuickModeState.AWAIT_QM3)


def heed(now: float, directory: Directory, session: Session, chain: Chain, message: bytes) -> None:
    """Do what ``message`` of the peer of ``session`` asks for; raises ``Dropped``."""
    assert session.end is not None
    cookies = b"".join(session.end.keys.cookies)
    ends = (session.local.address, session.remote.address)
    deletes, notifications = chain.all(Delete), chain.all(Notification)
    for notification in notifications:
        if notification.notify == NotifyType.INITIAL_CONTACT:
            if notification.spi in (cookies, b""):
                forget_former_life(now, directory, session)
        elif notification.notify in NOTIFY_ERRORS:
            _end_quick_mode(now, session, notification)
            spi = refused_spi(notification)
            if spi is not None and not session.closed:
                session.spi_refused(spi)
    answers = [
        spi
        for delete in deletes
        if delete.protocol == Protocol.ESP
        for spi in _tunnels_deleted(now, directory, session, delete)
    ]
    if answers and not session.closed:
        own = Delete(Protocol.ESP, tuple(answers))
        session.answer_notice(message, session.send_informational([own]))
    ended = {spi for d in deletes if d.protocol == Protocol.ISAKMP for spi in d.spis}
    for channel in directory.between(*ends) if ended else []:
        if channel.peer == session.peer and b"".join(channel.cookies) in ended:
            channel.close(now, "deleted by the peer", tell=False)
    for notification in notifications:
        _judge_life(session, notification, cookies, message)


def refused_spi(notification: Notification) -> int | None:
    """The ESP SPI that INVALID-SPI is about (RFC 2408 section 3.14.1)."""
    esp = notification.protocol == Protocol.ESP
    if notification.notify != NotifyType.INVALID_SPI or not esp or len(notification.spi) != 4:
        return None
    return int.from_bytes(notification.spi, "big") or None


def _tunnels_deleted(
    now: float, directory: Directory, session: Session, delete: Delete
) -> list[bytes]:
    """Close what the peer no longer receives on; returns our inbound SPIs to delete."""
    answers: list[bytes] = []
    # What it answers may have moved to another channel since, at either end.
    channels = directory.between(session.local.address, session.remote.address)
    waiting = [c.deletes for c in channels if c.peer == session.peer and c.deletes]
    under_way = {tunnel.outbound_spi: tunnel for tunnel in session.under_way}
    for spi in delete.spis:
        for deletes in waiting:
            deletes.answered(now, spi)
        tunnel = directory.tunnel_by_outbound(session, spi)
        if tunnel is not None and tunnel.belongs_to(session):
            answers.append(tunnel.inbound_spi)
            tunnel.close(now, "deleted by the peer", tell=False)
        elif (begun := under_way.pop(spi, None)) is not None and not begun.closed:
            answers += [begun.inbound_spi] if begun.inbound_spi else []
            begun.fail(now, Failure.REFUSED, "deleted by the peer", tell=False)
    return answers


def _end_quick_mode(now: float, session: Session, notification: Notification) -> None:
    """An authenticated error: end the quick mode that it is about."""
    asked = [tunnel for tunnel in session.under_way if tunnel.state in _ANSWER_AWAITED]
    # Either side's SPI may name the tunnel: the peer's own or the one that it was sent.
    about = [t for t in asked if notification.spi in (t.inbound_spi, t.outbound_spi)]
    if not about and len(asked) == 1 and not _names_a_tunnel(notification):
        about = asked
    for tunnel in about:
        detail = f"the peer said {notification.notify.name}"
        tunnel.fail(now, Failure.REFUSED, detail, tell=False)


def _names_a_tunnel(notification: Notification) -> bool:
    """Whether the SPI field can be a tunnel's: four octets that are not all zero."""
    return len(notification.spi) == 4 and any(notification.spi)


def _judge_life(
    session: Session, notification: Notification, cookies: bytes, message: bytes
) -> None:
    """Dead peer detection; raises ``Dropped``."""
    if session.liveness is None or session.closed:
        return
    if notification.notify == NotifyType.R_U_THERE:
        session.answer_notice(message, session.liveness.asked(notification, cookies))
    elif notification.notify == NotifyType.R_U_THERE_ACK:
        session.liveness.check_answer(notification, cookies)
