"""What callers ask for: the same statements for all peers."""

from server import ACCOUNTS, ROWS

COLUMNS = "id, name, price, stock, created"
# Load: the statement, its argument (0: a key that changes with each call), the rows it gives.
SELECTS = {
    "point": (f"SELECT {COLUMNS} FROM items WHERE id = $1", 0, 1),
    "rows100": (f"SELECT {COLUMNS} FROM items WHERE id <= $1", 100, 100),
    "rows10k": (f"SELECT {COLUMNS} FROM items WHERE id <= $1", ROWS, ROWS),
}
INSERT = "INSERT INTO log (item, note) VALUES ($1, $2)"
NOTE = "a note of some forty characters, in all"
READ = "SELECT balance FROM accounts WHERE id = $1"
WRITE = "UPDATE accounts SET balance = $1 WHERE id = $2"
LOADS = (*SELECTS, "insert", "transaction")


def key(me: int, turn: int) -> int:
    """Return what a caller asks for in this turn: spread over all rows, from 1."""
    return (me * 7919 + turn * 31) % min(ROWS, ACCOUNTS - 1) + 1


def formatted(sql: str) -> str:
    """Return a statement in the form that psycopg takes."""
    return sql.replace("$1", "%s").replace("$2", "%s")


def pgbench_script(load: str) -> str:
    """Return the load as a script of pgbench."""
    pick = f"\\set key random(1, {ROWS - 1})\n"
    if load in SELECTS:
        sql, argument, _ = SELECTS[load]
        return pick + sql.replace("$1", str(argument or ":key")) + ";\n"
    if load == "insert":
        return pick + INSERT.replace("$1", ":key").replace("$2", f"'{NOTE}'") + ";\n"
    write = WRITE.replace("$1", ":balance + 1").replace("$2", ":key")
    return f"{pick}BEGIN;\n{READ.replace('$1', ':key')} \\gset\n{write};\nCOMMIT;\n"
