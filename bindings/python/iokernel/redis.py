"""What Redis and Valkey clients offer beyond ``call()``, shared by iokernel.sync and
iokernel.asyncio.

Every command is a method with the arguments in the server's own order, and gives the server's own
reply (over RESP3): ``set`` gives ``"OK"``, ``hgetall`` a dict, ``zrange(..., withscores=True)`` a
list of ``[member, score]``. A dozen of them also take the keywords that users of other clients
expect. All take ``timeout=`` (seconds) and ``repeatable=``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from iokernel._core import command
from iokernel.errors import Error, ReplyError, WatchError

if TYPE_CHECKING:
    from iokernel._core import Argument

__all__ = ["Message", "RedisCommands"]

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
Options = Any  # timeout= and repeatable=, handed on to call()

SCHEMES = ("redis", "rediss", "valkey", "valkeys", "unix")


class Calls(Protocol[R_co]):
    """Whatever has ``call()``: a client, a lease or a transaction."""

    def call(
        self, *args: Argument, timeout: float | None = None, repeatable: bool | None = None
    ) -> R_co:
        """Send one command."""


# ---- keyword forms ----------------------------------------------------------------------------


def _flat(first: Argument | Iterable[Argument], rest: tuple[Argument, ...]) -> list[Argument]:
    """``f(a, b)`` and ``f([a, b])`` are the same."""
    if isinstance(first, (str, bytes, bytearray, memoryview, int, float)):
        return [first, *rest]
    return [*first, *rest]


def _flags(**flags: bool) -> list[Argument]:
    return [name.upper() for name, on in flags.items() if on]


def _pairs(**values: Argument | None) -> list[Argument]:
    args: list[Argument] = []
    for name, value in values.items():
        if value is not None:
            args += [name.upper(), value]
    return args


def _items(mapping: Mapping[Any, Argument]) -> list[Argument]:
    return [word for item in mapping.items() for word in item]


def _set(
    self: Calls[R],
    key: Argument,
    value: Argument,
    *,
    ex: int | None = None,
    px: int | None = None,
    exat: int | None = None,
    pxat: int | None = None,
    nx: bool = False,
    xx: bool = False,
    get: bool = False,
    keepttl: bool = False,
    **options: Options,
) -> R:
    words = _pairs(ex=ex, px=px, exat=exat, pxat=pxat)
    words += _flags(nx=nx, xx=xx, get=get, keepttl=keepttl)
    return self.call("SET", key, value, *words, **options)


def _getex(
    self: Calls[R],
    key: Argument,
    *,
    ex: int | None = None,
    px: int | None = None,
    exat: int | None = None,
    pxat: int | None = None,
    persist: bool = False,
    **options: Options,
) -> R:
    words = _pairs(ex=ex, px=px, exat=exat, pxat=pxat) + _flags(persist=persist)
    return self.call("GETEX", key, *words, **options)


def _keys_form(*words: str) -> Any:
    """A form for commands that take any number of keys, also as one list."""

    def form(
        self: Calls[R], first: Argument | Iterable[Argument], *rest: Argument, **options: Options
    ) -> R:
        return self.call(*words, *_flat(first, rest), **options)

    return form


def _members_form(*words: str) -> Any:
    """The same for commands that take one key and any number of members."""

    def form(
        self: Calls[R],
        key: Argument,
        first: Argument | Iterable[Argument],
        *rest: Argument,
        **options: Options,
    ) -> R:
        return self.call(*words, key, *_flat(first, rest), **options)

    return form


def _mapping_form(*words: str) -> Any:
    def form(self: Calls[R], mapping: Mapping[Any, Argument], **options: Options) -> R:
        return self.call(*words, *_items(mapping), **options)

    return form


def _by_form(by: str) -> Any:
    """``incr(key)`` and ``incr(key, amount)``."""

    def form(self: Calls[R], key: Argument, amount: int = 1, **options: Options) -> R:
        return self.call(by, key, amount, **options)

    return form


def _expire_form(word: str) -> Any:
    def form(
        self: Calls[R],
        key: Argument,
        when: int,
        *,
        nx: bool = False,
        xx: bool = False,
        gt: bool = False,
        lt: bool = False,
        **options: Options,
    ) -> R:
        return self.call(word, key, when, *_flags(nx=nx, xx=xx, gt=gt, lt=lt), **options)

    return form


def _hset(
    self: Calls[R],
    key: Argument,
    field: Argument | None = None,
    value: Argument | None = None,
    *more: Argument,
    mapping: Mapping[Any, Argument] | None = None,
    **options: Options,
) -> R:
    words: list[Argument] = []
    if field is not None and value is not None:
        words = [field, value, *more]
    elif field is not None:
        raise TypeError("hset() takes a field together with its value")
    return self.call("HSET", key, *words, *_items(mapping or {}), **options)


def _zadd(
    self: Calls[R],
    key: Argument,
    mapping: Mapping[Any, float],
    *,
    nx: bool = False,
    xx: bool = False,
    gt: bool = False,
    lt: bool = False,
    ch: bool = False,
    incr: bool = False,
    **options: Options,
) -> R:
    words = _flags(nx=nx, xx=xx, gt=gt, lt=lt, ch=ch, incr=incr)
    for member, score in mapping.items():
        words += [score, member]
    return self.call("ZADD", key, *words, **options)


def _zrange(
    self: Calls[R],
    key: Argument,
    start: Argument,
    stop: Argument,
    *,
    byscore: bool = False,
    bylex: bool = False,
    rev: bool = False,
    offset: int | None = None,
    count: int | None = None,
    withscores: bool = False,
    **options: Options,
) -> R:
    words = _flags(byscore=byscore, bylex=bylex, rev=rev)
    if offset is not None or count is not None:
        words += ["LIMIT", offset or 0, -1 if count is None else count]
    return self.call("ZRANGE", key, start, stop, *words, *_flags(withscores=withscores), **options)


def _withscores_form(word: str) -> Any:
    def form(
        self: Calls[R],
        key: Argument,
        start: Argument,
        stop: Argument,
        *,
        withscores: bool = False,
        **options: Options,
    ) -> R:
        return self.call(word, key, start, stop, *_flags(withscores=withscores), **options)

    return form


def scan_words(
    match: Argument | None, count: int | None, type: Argument | None = None
) -> list[Argument]:
    """The options of the SCAN family as words."""
    return _pairs(match=match, count=count, type=type)


def _scan(
    self: Calls[R],
    cursor: Argument = 0,
    *,
    match: Argument | None = None,
    count: int | None = None,
    type: Argument | None = None,
    **options: Options,
) -> R:
    return self.call("SCAN", cursor, *scan_words(match, count, type), **options)


def _scan_form(word: str) -> Any:
    def form(
        self: Calls[R],
        key: Argument,
        cursor: Argument = 0,
        *,
        match: Argument | None = None,
        count: int | None = None,
        **options: Options,
    ) -> R:
        return self.call(word, key, cursor, *scan_words(match, count), **options)

    return form


def _xadd(
    self: Calls[R],
    key: Argument,
    fields: Mapping[Any, Argument],
    id: Argument = "*",
    *,
    maxlen: int | None = None,
    approximate: bool = True,
    nomkstream: bool = False,
    **options: Options,
) -> R:
    words = _flags(nomkstream=nomkstream)
    if maxlen is not None:
        words += ["MAXLEN", "~" if approximate else "=", maxlen]
    return self.call("XADD", key, *words, id, *_items(fields), **options)


def _xread(
    self: Calls[R],
    streams: Mapping[Any, Argument],
    *,
    count: int | None = None,
    block: int | None = None,
    **options: Options,
) -> R:
    words = _pairs(count=count, block=block)
    return self.call("XREAD", *words, "STREAMS", *streams, *streams.values(), **options)


def _xreadgroup(
    self: Calls[R],
    group: Argument,
    consumer: Argument,
    streams: Mapping[Any, Argument],
    *,
    count: int | None = None,
    block: int | None = None,
    noack: bool = False,
    **options: Options,
) -> R:
    words = [*_pairs(count=count, block=block), *_flags(noack=noack)]
    return self.call(
        "XREADGROUP",
        "GROUP",
        group,
        consumer,
        *words,
        "STREAMS",
        *streams,
        *streams.values(),
        **options,
    )


def _blocking_pop_form(word: str) -> Any:
    def form(
        self: Calls[R], keys: Iterable[Argument], timeout_s: float = 0, **options: Options
    ) -> R:
        return self.call(word, *keys, timeout_s, **options)

    return form


# ---- the commands -----------------------------------------------------------------------------


class RedisCommands:
    """The commands of Redis and Valkey as methods; a mixin for clients, leases and transactions."""

    __slots__ = ()

    # strings
    append = command("APPEND", min=2, max=2)
    decr = command("DECR", min=1, max=1, form=_by_form("DECRBY"))
    decrby = command("DECRBY", min=2, max=2)
    get = command("GET", min=1, max=1)
    getdel = command("GETDEL", min=1, max=1)
    getex = command("GETEX", min=1, form=_getex)
    getrange = command("GETRANGE", min=3, max=3)
    getset = command("GETSET", min=2, max=2)
    incr = command("INCR", min=1, max=1, form=_by_form("INCRBY"))
    incrby = command("INCRBY", min=2, max=2)
    incrbyfloat = command("INCRBYFLOAT", min=2, max=2)
    lcs = command("LCS", min=2)
    mget = command("MGET", min=1, form=_keys_form("MGET"))
    mset = command("MSET", min=2, form=_mapping_form("MSET"))
    msetnx = command("MSETNX", min=2, form=_mapping_form("MSETNX"))
    psetex = command("PSETEX", min=3, max=3)
    set = command("SET", min=2, form=_set)
    setex = command("SETEX", min=3, max=3)
    setnx = command("SETNX", min=2, max=2)
    setrange = command("SETRANGE", min=3, max=3)
    strlen = command("STRLEN", min=1, max=1)

    # keys
    copy = command("COPY", min=2)
    delete = command("DEL", min=1, form=_keys_form("DEL"))
    dump = command("DUMP", min=1, max=1)
    exists = command("EXISTS", min=1, form=_keys_form("EXISTS"))
    expire = command("EXPIRE", min=2, form=_expire_form("EXPIRE"))
    expireat = command("EXPIREAT", min=2, form=_expire_form("EXPIREAT"))
    expiretime = command("EXPIRETIME", min=1, max=1)
    keys = command("KEYS", min=1, max=1)
    move = command("MOVE", min=2, max=2)
    object_encoding = command("OBJECT", "ENCODING", min=1, max=1)
    object_freq = command("OBJECT", "FREQ", min=1, max=1)
    object_idletime = command("OBJECT", "IDLETIME", min=1, max=1)
    object_refcount = command("OBJECT", "REFCOUNT", min=1, max=1)
    persist = command("PERSIST", min=1, max=1)
    pexpire = command("PEXPIRE", min=2, form=_expire_form("PEXPIRE"))
    pexpireat = command("PEXPIREAT", min=2, form=_expire_form("PEXPIREAT"))
    pexpiretime = command("PEXPIRETIME", min=1, max=1)
    pttl = command("PTTL", min=1, max=1)
    randomkey = command("RANDOMKEY", max=0)
    rename = command("RENAME", min=2, max=2)
    renamenx = command("RENAMENX", min=2, max=2)
    restore = command("RESTORE", min=3)
    scan = command("SCAN", min=1, form=_scan)
    sort = command("SORT", min=1)
    sort_ro = command("SORT_RO", min=1)
    touch = command("TOUCH", min=1, form=_keys_form("TOUCH"))
    ttl = command("TTL", min=1, max=1)
    type = command("TYPE", min=1, max=1)
    unlink = command("UNLINK", min=1, form=_keys_form("UNLINK"))

    # hashes
    hdel = command("HDEL", min=2, form=_members_form("HDEL"))
    hexists = command("HEXISTS", min=2, max=2)
    hget = command("HGET", min=2, max=2)
    hgetall = command("HGETALL", min=1, max=1)
    hincrby = command("HINCRBY", min=3, max=3)
    hincrbyfloat = command("HINCRBYFLOAT", min=3, max=3)
    hkeys = command("HKEYS", min=1, max=1)
    hlen = command("HLEN", min=1, max=1)
    hmget = command("HMGET", min=2, form=_members_form("HMGET"))
    hrandfield = command("HRANDFIELD", min=1, max=3)
    hscan = command("HSCAN", min=2, form=_scan_form("HSCAN"))
    hset = command("HSET", min=3, form=_hset)
    hsetnx = command("HSETNX", min=3, max=3)
    hstrlen = command("HSTRLEN", min=2, max=2)
    hvals = command("HVALS", min=1, max=1)

    # lists
    blmove = command("BLMOVE", min=5, max=5)
    blmpop = command("BLMPOP", min=4)
    blpop = command("BLPOP", min=2, form=_blocking_pop_form("BLPOP"))
    brpop = command("BRPOP", min=2, form=_blocking_pop_form("BRPOP"))
    lindex = command("LINDEX", min=2, max=2)
    linsert = command("LINSERT", min=4, max=4)
    llen = command("LLEN", min=1, max=1)
    lmove = command("LMOVE", min=4, max=4)
    lmpop = command("LMPOP", min=3)
    lpop = command("LPOP", min=1, max=2)
    lpos = command("LPOS", min=2)
    lpush = command("LPUSH", min=2, form=_members_form("LPUSH"))
    lpushx = command("LPUSHX", min=2, form=_members_form("LPUSHX"))
    lrange = command("LRANGE", min=3, max=3)
    lrem = command("LREM", min=3, max=3)
    lset = command("LSET", min=3, max=3)
    ltrim = command("LTRIM", min=3, max=3)
    rpop = command("RPOP", min=1, max=2)
    rpoplpush = command("RPOPLPUSH", min=2, max=2)
    rpush = command("RPUSH", min=2, form=_members_form("RPUSH"))
    rpushx = command("RPUSHX", min=2, form=_members_form("RPUSHX"))

    # sets
    sadd = command("SADD", min=2, form=_members_form("SADD"))
    scard = command("SCARD", min=1, max=1)
    sdiff = command("SDIFF", min=1, form=_keys_form("SDIFF"))
    sdiffstore = command("SDIFFSTORE", min=2, form=_members_form("SDIFFSTORE"))
    sinter = command("SINTER", min=1, form=_keys_form("SINTER"))
    sintercard = command("SINTERCARD", min=2)
    sinterstore = command("SINTERSTORE", min=2, form=_members_form("SINTERSTORE"))
    sismember = command("SISMEMBER", min=2, max=2)
    smembers = command("SMEMBERS", min=1, max=1)
    smismember = command("SMISMEMBER", min=2, form=_members_form("SMISMEMBER"))
    smove = command("SMOVE", min=3, max=3)
    spop = command("SPOP", min=1, max=2)
    srandmember = command("SRANDMEMBER", min=1, max=2)
    srem = command("SREM", min=2, form=_members_form("SREM"))
    sscan = command("SSCAN", min=2, form=_scan_form("SSCAN"))
    sunion = command("SUNION", min=1, form=_keys_form("SUNION"))
    sunionstore = command("SUNIONSTORE", min=2, form=_members_form("SUNIONSTORE"))

    # sorted sets
    bzmpop = command("BZMPOP", min=4)
    bzpopmax = command("BZPOPMAX", min=2, form=_blocking_pop_form("BZPOPMAX"))
    bzpopmin = command("BZPOPMIN", min=2, form=_blocking_pop_form("BZPOPMIN"))
    zadd = command("ZADD", min=3, form=_zadd)
    zcard = command("ZCARD", min=1, max=1)
    zcount = command("ZCOUNT", min=3, max=3)
    zdiff = command("ZDIFF", min=2)
    zdiffstore = command("ZDIFFSTORE", min=3)
    zincrby = command("ZINCRBY", min=3, max=3)
    zinter = command("ZINTER", min=2)
    zintercard = command("ZINTERCARD", min=2)
    zinterstore = command("ZINTERSTORE", min=3)
    zlexcount = command("ZLEXCOUNT", min=3, max=3)
    zmpop = command("ZMPOP", min=3)
    zmscore = command("ZMSCORE", min=2, form=_members_form("ZMSCORE"))
    zpopmax = command("ZPOPMAX", min=1, max=2)
    zpopmin = command("ZPOPMIN", min=1, max=2)
    zrandmember = command("ZRANDMEMBER", min=1, max=3)
    zrange = command("ZRANGE", min=3, form=_zrange)
    zrangebylex = command("ZRANGEBYLEX", min=3)
    zrangebyscore = command("ZRANGEBYSCORE", min=3, form=_withscores_form("ZRANGEBYSCORE"))
    zrangestore = command("ZRANGESTORE", min=4)
    zrank = command("ZRANK", min=2, max=3)
    zrem = command("ZREM", min=2, form=_members_form("ZREM"))
    zremrangebylex = command("ZREMRANGEBYLEX", min=3, max=3)
    zremrangebyrank = command("ZREMRANGEBYRANK", min=3, max=3)
    zremrangebyscore = command("ZREMRANGEBYSCORE", min=3, max=3)
    zrevrange = command("ZREVRANGE", min=3, form=_withscores_form("ZREVRANGE"))
    zrevrangebylex = command("ZREVRANGEBYLEX", min=3)
    zrevrangebyscore = command("ZREVRANGEBYSCORE", min=3, form=_withscores_form("ZREVRANGEBYSCORE"))
    zrevrank = command("ZREVRANK", min=2, max=3)
    zscan = command("ZSCAN", min=2, form=_scan_form("ZSCAN"))
    zscore = command("ZSCORE", min=2, max=2)
    zunion = command("ZUNION", min=2)
    zunionstore = command("ZUNIONSTORE", min=3)

    # streams
    xack = command("XACK", min=3)
    xadd = command("XADD", min=4, form=_xadd)
    xautoclaim = command("XAUTOCLAIM", min=5)
    xclaim = command("XCLAIM", min=5)
    xdel = command("XDEL", min=2)
    xgroup_create = command("XGROUP", "CREATE", min=3)
    xgroup_createconsumer = command("XGROUP", "CREATECONSUMER", min=3, max=3)
    xgroup_delconsumer = command("XGROUP", "DELCONSUMER", min=3, max=3)
    xgroup_destroy = command("XGROUP", "DESTROY", min=2, max=2)
    xgroup_setid = command("XGROUP", "SETID", min=3)
    xinfo_consumers = command("XINFO", "CONSUMERS", min=2, max=2)
    xinfo_groups = command("XINFO", "GROUPS", min=1, max=1)
    xinfo_stream = command("XINFO", "STREAM", min=1)
    xlen = command("XLEN", min=1, max=1)
    xpending = command("XPENDING", min=2)
    xrange = command("XRANGE", min=3)
    xread = command("XREAD", min=3, form=_xread)
    xreadgroup = command("XREADGROUP", min=6, form=_xreadgroup)
    xrevrange = command("XREVRANGE", min=3)
    xtrim = command("XTRIM", min=3)

    # bitmaps, hyperloglogs, places
    bitcount = command("BITCOUNT", min=1, max=4)
    bitfield = command("BITFIELD", min=1)
    bitfield_ro = command("BITFIELD_RO", min=1)
    bitop = command("BITOP", min=3)
    bitpos = command("BITPOS", min=2, max=5)
    getbit = command("GETBIT", min=2, max=2)
    setbit = command("SETBIT", min=3, max=3)
    pfadd = command("PFADD", min=1, form=_members_form("PFADD"))
    pfcount = command("PFCOUNT", min=1, form=_keys_form("PFCOUNT"))
    pfmerge = command("PFMERGE", min=1, form=_members_form("PFMERGE"))
    geoadd = command("GEOADD", min=4)
    geodist = command("GEODIST", min=3, max=4)
    geohash = command("GEOHASH", min=1)
    geopos = command("GEOPOS", min=1)
    geosearch = command("GEOSEARCH", min=5)
    geosearchstore = command("GEOSEARCHSTORE", min=6)

    # scripts and functions
    eval = command("EVAL", min=2)
    eval_ro = command("EVAL_RO", min=2)
    evalsha = command("EVALSHA", min=2)
    evalsha_ro = command("EVALSHA_RO", min=2)
    fcall = command("FCALL", min=2)
    fcall_ro = command("FCALL_RO", min=2)
    function_delete = command("FUNCTION", "DELETE", min=1, max=1)
    function_list = command("FUNCTION", "LIST")
    function_load = command("FUNCTION", "LOAD", min=1)
    script_exists = command("SCRIPT", "EXISTS", min=1)
    script_flush = command("SCRIPT", "FLUSH", max=1)
    script_load = command("SCRIPT", "LOAD", min=1, max=1)

    # the server
    acl_whoami = command("ACL", "WHOAMI", max=0)
    bgrewriteaof = command("BGREWRITEAOF", max=0)
    bgsave = command("BGSAVE", max=1)
    client_getname = command("CLIENT", "GETNAME", max=0)
    client_id = command("CLIENT", "ID", max=0)
    client_info = command("CLIENT", "INFO", max=0)
    client_kill = command("CLIENT", "KILL", min=1)
    client_list = command("CLIENT", "LIST")
    command_count = command("COMMAND", "COUNT", max=0)
    command_docs = command("COMMAND", "DOCS")
    config_get = command("CONFIG", "GET", min=1)
    config_resetstat = command("CONFIG", "RESETSTAT", max=0)
    config_set = command("CONFIG", "SET", min=2, form=_mapping_form("CONFIG", "SET"))
    dbsize = command("DBSIZE", max=0)
    echo = command("ECHO", min=1, max=1)
    flushall = command("FLUSHALL", max=1)
    flushdb = command("FLUSHDB", max=1)
    info = command("INFO")
    lastsave = command("LASTSAVE", max=0)
    latency_latest = command("LATENCY", "LATEST", max=0)
    memory_usage = command("MEMORY", "USAGE", min=1)
    ping = command("PING", max=1)
    publish = command("PUBLISH", min=2, max=2)
    pubsub_channels = command("PUBSUB", "CHANNELS", max=1)
    pubsub_numpat = command("PUBSUB", "NUMPAT", max=0)
    pubsub_numsub = command("PUBSUB", "NUMSUB")
    role = command("ROLE", max=0)
    save = command("SAVE", max=0)
    slowlog_get = command("SLOWLOG", "GET", max=1)
    slowlog_len = command("SLOWLOG", "LEN", max=0)
    slowlog_reset = command("SLOWLOG", "RESET", max=0)
    spublish = command("SPUBLISH", min=2, max=2)
    time = command("TIME", max=0)


# ---- transactions -----------------------------------------------------------------------------


def transaction_commands(
    commands: Sequence[tuple[Argument, ...]],
) -> list[tuple[Argument, ...]]:
    """The commands between MULTI and EXEC."""
    return [("MULTI",), *commands, ("EXEC",)]


def transaction_results(replies: Sequence[Any]) -> list[Any]:
    """EXEC's results, from the replies to all commands; raises if it was not run."""
    last = replies[-1]
    if isinstance(last, BaseException):
        if isinstance(last, ReplyError):  # EXECABORT: the command that was refused says more
            for reply in replies:
                if isinstance(reply, ReplyError):
                    raise reply
        raise last
    if last is None:
        raise WatchError(
            "A watched key was changed, so the transaction was not run.", outcome="rejected"
        )
    return list(last)


def raise_first(results: Sequence[Any]) -> None:
    """Raise the first exception among the results, if there is one."""
    for result in results:
        if isinstance(result, Error):
            raise result


# ---- subscriptions ----------------------------------------------------------------------------


class Message(NamedTuple):
    """What a subscription yields.

    ``kind`` is ``"message"``, ``"pmessage"``, ``"smessage"``, or with ``gaps=True`` also ``"gap"``
    (the connection was lost here) or ``"dropped"`` (``data`` messages were dropped here, as the
    program was slow and the URL says ``slow_consumer=drop``). ``pattern`` is set for
    ``"pmessage"``.
    """

    kind: str
    channel: Any
    data: Any
    pattern: Any = None


GAP = Message("gap", None, None)
# Between attempts that fail at once; doubles from one to the next.
RETRY_S_MIN = 0.05
RETRY_S_MAX = 2.0


def _word(value: Any) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)


class SubscriptionState:
    """What a subscription knows whichever way it waits: channels, and messages not taken."""

    __slots__ = ("_channels", "_command", "_gap_messages", "_ready", "dropped", "gaps")

    def __init__(self, command: str, channels: tuple[Argument, ...], gaps: bool) -> None:
        if not channels:
            raise TypeError(f"{command.lower()}() takes at least one channel")
        self._command = command
        self._channels: dict[Argument, None] = dict.fromkeys(channels)
        self._gap_messages = gaps
        self._ready: list[Message] = []
        self.gaps = 0
        """How often the connection was lost, and with it perhaps messages."""
        self.dropped = 0
        """How many messages were dropped until here, as the program was slow."""

    @property
    def channels(self) -> list[Argument]:
        """What it is subscribed to."""
        return list(self._channels)

    def _confirms(self, push: Any) -> bool:
        """Whether it says that a channel was subscribed."""
        return isinstance(push, list) and bool(push) and _word(push[0]) == self._command.lower()

    def _message(self, push: Any) -> Message | None:
        """The message in a push; None for confirmations."""
        if not isinstance(push, list) or len(push) < 3:
            return None
        kind = _word(push[0])
        if kind == "pmessage" and len(push) == 4:
            return Message(kind, push[2], push[3], push[1])
        if kind in ("message", "smessage"):
            return Message(kind, push[1], push[2])
        return None

    def _keep(self, push: Any) -> None:
        if isinstance(push, int):
            self.dropped += push
            if self._gap_messages:
                self._ready.append(Message("dropped", None, push))
            return
        message = self._message(push)
        if message is not None:
            self._ready.append(message)

    def _note_gap(self) -> None:
        self.gaps += 1
        if self._gap_messages:
            self._ready.append(GAP)


def is_passing(error: Error) -> bool:
    """Whether a lost subscription may come back by itself: not if we are refused."""
    return not isinstance(error, ReplyError) and error.code not in (
        "IOK_EAUTH",
        "IOK_ETLS",
        "IOK_EFORKED",
        "IOK_ETHREAD",
    )
