"""The kernel's settings for a router: forwarding, reverse path filter, redirects."""

from __future__ import annotations

from collections.abc import Iterator

from oegw.doctor.facts import Facts
from oegw.doctor.finding import PROBLEM, WARNING, Finding, Kind, Shell

OFF = Kind(
    "forwarding-off",
    PROBLEM,
    "this box does not forward what comes from hosts behind it",
    "their packets end here, encrypted or not",
    "sysctl -w {name}=1",
)
STRICT = Kind(
    "rp-filter-strict",
    WARNING,
    "the strict reverse path filter is on for an interface by which packets come whose way back "
    "leads elsewhere; a problem on the tunnel's device",
    "the kernel silently drops what comes out of a tunnel, or in by the other of two uplinks",
    "sysctl -w net/ipv4/conf/{link}/rp_filter=2",
)
SENDS = Kind(
    "redirects-sent",
    WARNING,
    "this box tells hosts of a shorter way than through it (ICMP redirects)",
    "on a link with two routers a host then goes around the gateway, in clear",
    "{commands}",
)
ACCEPTS = Kind(
    "redirects-accepted",
    WARNING,
    "this box believes ICMP redirects",
    "anybody on a link can have packets of ours sent to themselves",
    "{commands}",
)
KINDS = (OFF, STRICT, SENDS, ACCEPTS)


def look(facts: Facts) -> Iterator[Finding]:
    sysctls, environment = facts.sysctls(), facts.environment
    tunnel = facts.settings.datapath.tunnel_interface
    inside = [link.name for link in facts.inside]

    def value(family: int, name: str, link: str) -> int:
        text = sysctls.get(f"net/ipv{family}/conf/{link}/{name}", "0")
        return int(text) if text.lstrip("-").isdigit() else 0

    for family, switch in ((4, "net/ipv4/ip_forward"), (6, "net/ipv6/conf/all/forwarding")):
        behind = [link for link in facts.inside if link.has(family)]
        ours = any(link.has(family) for link in facts.links() if link.name in environment.outside)
        stopped = [link.name for link in behind if not value(family, "forwarding", link.name)]
        if ours and stopped:
            what = f"IPv{family} from {', '.join(stopped)} is not forwarded"
            yield OFF.found(what, name=switch)

    several = len(environment.outside) > 1
    names = {link.name for link in facts.links()}
    for link in (tunnel, *(environment.outside if several else ())):
        # The kernel takes the larger of the two.
        if link in names and max(value(4, "rp_filter", "all"), value(4, "rp_filter", link)) == 1:
            severity = PROBLEM if link == tunnel else WARNING
            yield STRICT.found(f"the strict filter is on for {link}", severity, link=link)

    links = [name for name in (*inside, *environment.outside) if name in names]
    # Either of the two switches it on; a router believes them only if both do.
    sending = [
        n for n in links if value(4, "send_redirects", n) or value(4, "send_redirects", "all")
    ]
    if sending and inside:
        yield SENDS.found(
            f"they are sent by {', '.join(sending)}",
            commands=_off("send_redirects", 4, ("all", *sending)),
        )
    believing = [
        name
        for name in links
        if value(4, "accept_redirects", name)
        and (value(4, "accept_redirects", "all") or not value(4, "forwarding", name))
    ]
    if believing:
        yield ACCEPTS.found(
            f"those of IPv4 from {', '.join(believing)} are believed",
            commands=_off("accept_redirects", 4, ("all", *believing)),
        )
    believing = [
        name
        for name in links
        if value(6, "accept_redirects", name) and not value(6, "forwarding", name)
    ]
    if believing:
        yield ACCEPTS.found(
            f"those of IPv6 from {', '.join(believing)} are believed",
            commands=_off("accept_redirects", 6, believing),
        )


def _off(name: str, family: int, links: tuple[str, ...] | list[str]) -> Shell:
    words = " ".join(f"net/ipv{family}/conf/{link}/{name}=0" for link in links)
    return Shell(f"sysctl -w {words}")
