"""Answers of a gateway to the request for an overview, as tests need them."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]


def connection(number: int, state: str = "keyed", **fields: Any) -> Row:
    return {
        "source": "192.1.0.65/32",
        "destination": f"192.2.{number // 250}.{number % 250 + 1}/32",
        "protocol": None,
        "port": None,
        "state": state,
        "standing": state,
        "rule": "default",
        "category": "opportunistic",
        "gateway": "192.1.1.5" if state == "keyed" else None,
        "since": 12.0 + number,
        "lifespan_left": None,
        "bytes_in": 1000 * number,
        "bytes_out": 2000 * number,
        "rate_in": 125.0 * number,
        "rate_out": None,
        "reason": "",
        "encrypted_before": None,
    } | fields


def overview(moment: float = 1000.0, *rows: Row, **fields: Any) -> Row:
    states: dict[str, dict[str, int]] = {}
    for row in rows:
        by_category = states.setdefault(row["state"], {})
        by_category[row["category"]] = by_category.get(row["category"], 0) + 1
    return {
        "version": "0.1.0",
        "pid": 4711,
        "started": 1700000000.0,
        "now": 1700000000.0 + moment,
        "moment": moment,
        "identity": None,
        "fqdn": None,
        "addresses": ["192.1.1.4"],
        "datapath": {
            "name": "userspace", "core": "compiled", "workers": [{"name": "sealing 0"}],
        },
        "resolvers": [{"address": "192.1.1.53", "standing": "good", "smoothed": 0.012}],
        "warnings": [],
        "firewall_gaps": [],
        "refusals": [],
        "silent_gateways": {},
        "held": {"packets": 2, "bytes": 168},
        "lookups": 1,
        "totals": {
            "connections": states, "tunnels": 3, "trust": {"insecure": 1}, "downgraded": 0,
            "matching": len(rows), "channels": 2,
        },
        "rows": list(rows),
        "counters": {},
    } | fields  # fmt: skip
