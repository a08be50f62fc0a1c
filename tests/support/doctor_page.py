"""The table of all findings in `oegw/docs/doctor.md`: `python -m tests.support.doctor_page` writes
it anew, and a test holds the page to it."""

from __future__ import annotations

import re
from pathlib import Path

from oegw.arguments import DOCUMENTATION
from oegw.doctor.checks import SUBJECTS
from oegw.doctor.finding import Kind

PAGE = DOCUMENTATION / "doctor.md"
BEGIN, END = "<!-- findings: made from the code -->\n", "<!-- end of findings -->\n"

# What the words of commands may be.
WORDS = {
    "path": "FILE",
    "file": "FILE",
    "init": "oegw init",
    "check": "oegw check",
    "start": "systemctl start oegw",
    "restart": "systemctl restart oegw",
    "reload": "oegw reload",
    "status": "oegw status",
    "forget": "oegw forget 0.0.0.0/0",
    "rollover": "oegw rollover",
    "publish": "oegw dns-records --update",
    "kill": "kill -9 NUMBER; ",
}
# Those of which the whole command depends on the box.
COMMANDS = {
    "leftover-routes": "ip -4 rule delete priority 4500 ...",
    "leftover-queue-rule": "iptables -t mangle -D PREROUTING ...",
    "leftover-ipsec": "ip xfrm policy delete src ... dst ... dir out if_id 0x1194 && ...",
    "kernel-no-tun": "modprobe tun",
    "clock-behind": "timedatectl set-ntp true",
    "clock-unsynchronised": "timedatectl set-ntp true",
    "resolver-not-validating": "unbound-anchor; unbound-control reload",
    "other-ike-daemon": "systemctl disable --now strongswan-starter",
    "foreign-ipsec": "ip xfrm policy delete src ... dst ... dir out",
    "ike-port-taken": "systemctl disable --now UNIT",
    "ike-port-blocked": "nft insert rule 'inet filter input udp dport { 500, 4500 } accept'",
    "esp-blocked": "nft insert rule 'inet filter input meta l4proto esp accept'",
    "docker-drops-forwarded": "iptables -I DOCKER-USER -i oegw0 -j ACCEPT && ...",
    "ufw-drops-forwarded": "ufw route allow in on oegw0 && ufw route allow out on oegw0",
    "forwarded-dropped": "nft insert rule inet filter forward iifname oegw0 accept && ...",
    "firewall-gap": "each rule of the chain once more, for oegw0",
    "mark-overwritten": "sed -i ... FILE && systemctl restart oegw",
    "mark-bits-shared": "sed -i ... FILE && systemctl restart oegw",
    "mark-compared-whole": "ip -4 rule add priority 9 table 9 fwmark 0x1/0xffff && ...",
    "redirects-sent": "sysctl -w net/ipv4/conf/all/send_redirects=0 ...",
    "redirects-accepted": "sysctl -w net/ipv4/conf/all/accept_redirects=0 ...",
    "pmtu-blocked": "nft insert rule 'inet filter input icmp type destination-unreachable accept'",
    "nat-undeclared": "printf ... '[[nat]]' ... >> FILE && systemctl restart oegw",
    "behind-nat": "printf ... 'fqdn = ...' >> FILE && systemctl restart oegw",
    "ipv6-leak": "printf ... '[[rule]]' ... >> FILE && oegw reload",
    "resolver-silent": "apt-get install unbound && sed -i ... FILE",
    "resolver-untrusted": "apt-get install unbound && sed -i ... FILE",
}


def command_of(kind: Kind) -> str:
    text = COMMANDS.get(kind.name)
    if text is None:
        text = re.sub(r"(?<!\{)\{(\w+)\}", lambda m: WORDS.get(m[1], m[1].upper()), kind.mend)
        text = text.replace("{{", "{").replace("}}", "}")
    return text.replace("|", "\\|")


def table() -> str:
    rows = [
        "| finding | severity | what | why it matters | command |",
        "| --- | --- | --- | --- | --- |",
    ]
    for subject in SUBJECTS:
        rows.append(f"| **{subject.name}** | | | | |")
        for kind in subject.kinds:
            cells = (
                f"`{kind.name}`", kind.severity.value, kind.about, kind.why,
                f"`{command_of(kind)}`",
            )  # fmt: skip
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def with_table(page: str) -> str:
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def main(path: Path = PAGE) -> None:
    path.write_text(with_table(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
