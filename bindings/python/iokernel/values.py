"""Which Python values go to a server as their text, besides str, bytes and numbers.

Protocols that take them (PostgreSQL) read the text as they would read a literal in quotes.
"""

from __future__ import annotations

import datetime
import decimal
import ipaddress
import uuid

__all__ = ["TEXT_TYPES"]

TEXT_TYPES: tuple[type, ...] = (
    datetime.date,  # datetime, too
    datetime.time,
    datetime.timedelta,
    decimal.Decimal,
    uuid.UUID,
    ipaddress.IPv4Address,
    ipaddress.IPv6Address,
    ipaddress.IPv4Interface,
    ipaddress.IPv6Interface,
    ipaddress.IPv4Network,
    ipaddress.IPv6Network,
)
