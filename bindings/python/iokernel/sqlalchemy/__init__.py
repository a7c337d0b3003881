"""A dialect of SQLAlchemy: ``postgresql+iokernel://`` for create_engine and create_async_engine.

>>> from sqlalchemy.ext.asyncio import create_async_engine
>>> engine = create_async_engine("postgresql+iokernel://app@db.internal/orders")

SQLAlchemy finds it by itself where both are installed (``pip install iokernel[sqlalchemy]``).
"""

from __future__ import annotations

from iokernel.sqlalchemy.dialect import AsyncDialect, Dialect

__all__ = ["AsyncDialect", "Dialect"]
