"""Datagrams by way of a relay that this test plays; by calls that wait, and in asyncio."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from ipaddress import ip_address
from typing import Any

import pytest

from oegw import socks5
from oegw.socks5 import AddressId, Proxy
from oegw.socks5.client import aio
from oegw.socks5.wire import Reply, place_octets
from tests.support.socks_script import Heard, Said, Step, scripted

from .test_conversation import got
