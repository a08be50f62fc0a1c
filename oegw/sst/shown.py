"""A report as rows of plain values, for the JSON of ``oegw status``."""

from __future__ import annotations

from typing import Any

from oegw.sst.report import PathReport, Report, TunnelReport


def shown(report: Report, now: float) -> dict[str, Any]:
    """``now``: in monotonic seconds."""
    return {
        "peers": [_path(path) for path in report.paths],
        "tunnels": [_tunnel(tunnel) for tunnel in report.tunnels],
        "shielded": [[str(local), str(remote)] for local, remote in report.shields],
        "hosts": report.hosts,
        "held": report.held,
        "lookups": report.questions,
        "pairs": [
            {
                "local": str(local),
                "remote": str(remote),
                "leg": fate.leg.value,
                "sealed": fate.sealed,
                "dropped": fate.dropped,
                "reason": fate.reason,
                "age": round(now - fate.at, 3),
            }
            for (local, remote), fate in list(report.fates.items())[-SHOWN_PAIRS:]
        ],
    }


SHOWN_PAIRS = 64  # our choice: the latest


def _path(path: PathReport) -> dict[str, Any]:
    return {
        "gateway": str(path.gateway),
        "family": path.family,
        "state": path.state.value,
        "since": round(path.since, 3),
        "last_probe": None if path.last_probe is None else round(path.last_probe, 3),
        "algorithm": None if path.algorithm is None else path.algorithm.name.lower(),
        "epoch": path.day,
        "peer_epoch": path.peer_day,
        "source": path.source.value,
        "trust": path.trust.value,
        "key": path.key,
        "used": path.used,
    }


def _tunnel(tunnel: TunnelReport) -> dict[str, Any]:
    return {
        "local": str(tunnel.local),
        "remote": str(tunnel.remote),
        "source": "ike",
        "sending": tunnel.sending,
    }
