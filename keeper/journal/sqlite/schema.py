# ruff: noqa: S608  (the texts are put together from our own words; every value is a parameter)
"""The journal's tables, version by version, and how a file becomes the newest.

Each migration runs once, forwards, inside the transaction that also raises `user_version`: a crash in the middle
leaves the older version whole. Released migrations are never edited; a change is a new one at the end.

Units are the domain's: prices and sizes x 1e6 as u64 (see `keeper.journal.rows`), times in unix seconds,
addresses and signatures in base58. `closed` says whether `state` is terminal; it is a column of its own so that the
moves between living states, which are nearly all of them, leave the indexes by user and by market alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from sqlite_utils import Database

from keeper.domain.errors import JournalError, JournalVersion

APPLICATION_ID: Final = 0x514B4A31
"""`QKJ1`, in the file's header: this is a keeper's journal and not somebody's other database."""

# Frozen texts: version 1 must stay what it was when the domain's words grow.
_V1_LIVE = "'confirmed', 'seen', 'sent', 'signed', 'unknown'"
_V1_IN_FLIGHT = "'seen', 'sent', 'signed', 'unknown'"
_V1_ENDED = "'dry_run', 'expired', 'failed', 'finalized'"
_V1_CLOSED = "'cancelled', 'dropped', 'expired', 'filled', 'rejected'"
_V1_ORDER_STATES = (
    "'cancelled', 'cancelling', 'dropped', 'executing', 'expired', 'failed', "
    "'filled', 'open', 'prepared', 'rejected', 'submitted', 'triggered'"
)

_VERSION_1: Final = (
    f"""
    CREATE TABLE orders (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        address TEXT NOT NULL UNIQUE,
        user TEXT NOT NULL,
        market TEXT NOT NULL,
        order_type INTEGER NOT NULL,
        side INTEGER NOT NULL,
        size INTEGER NOT NULL,
        price INTEGER NOT NULL,
        stop_price INTEGER NOT NULL,
        trailing_distance INTEGER NOT NULL,
        leverage INTEGER NOT NULL,
        filled_size INTEGER NOT NULL,
        order_id INTEGER,
        created_at INTEGER NOT NULL,
        expires_at INTEGER NOT NULL,
        onchain_status INTEGER NOT NULL,
        slot INTEGER NOT NULL,
        state TEXT NOT NULL CHECK (state IN ({_V1_ORDER_STATES})),
        closed INTEGER NOT NULL CHECK (closed = (state IN ({_V1_CLOSED}))),
        reason TEXT NOT NULL,
        triggered_at REAL,
        trigger_price INTEGER,
        trigger_slot INTEGER,
        position TEXT,
        budget_used INTEGER NOT NULL,
        next_attempt_at REAL,
        attempts_made INTEGER NOT NULL,
        client_order_id TEXT,
        source TEXT NOT NULL CHECK (source IN ('chain', 'api')),
        first_seen_at REAL NOT NULL,
        updated_at REAL NOT NULL,
        version INTEGER NOT NULL
    ) STRICT
    """,
    # A rowid table's index ends in the rowid: each of these also gives its rows in the order of `id`.
    "CREATE INDEX orders_user ON orders (user, closed)",
    "CREATE INDEX orders_user_market ON orders (user, market, closed)",
    "CREATE INDEX orders_market ON orders (market, closed)",
    "CREATE INDEX orders_state ON orders (state)",
    "CREATE INDEX orders_ended ON orders (updated_at) WHERE closed = 1",
    "CREATE INDEX orders_client_id ON orders (client_order_id) WHERE client_order_id IS NOT NULL",
    f"""
    CREATE TABLE attempts (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        signature TEXT NOT NULL UNIQUE,
        kind TEXT NOT NULL CHECK (kind IN ('execute', 'ratchet', 'relay')),
        order_address TEXT NOT NULL,
        wire BLOB NOT NULL,
        blockhash TEXT NOT NULL,
        last_valid_block_height INTEGER NOT NULL,
        state TEXT NOT NULL CHECK (state IN ({_V1_LIVE}, {_V1_ENDED})),
        number INTEGER NOT NULL,
        signed_at REAL NOT NULL,
        trigger_price INTEGER,
        trigger_slot INTEGER,
        unit_limit INTEGER,
        unit_price INTEGER,
        sent_at REAL,
        seen_slot INTEGER,
        confirmed_at REAL,
        finalized_at REAL,
        ended_at REAL,
        fate TEXT,
        error_name TEXT,
        error_program TEXT,
        error_detail TEXT,
        fee_lamports INTEGER,
        position TEXT
    ) STRICT
    """,
    # Promise 2, in the database itself: whatever the code above it does, a second live attempt is refused.
    f"""
    CREATE UNIQUE INDEX one_live_attempt ON attempts (order_address)
        WHERE (kind = 'execute' AND state IN ({_V1_LIVE})) OR (kind = 'ratchet' AND state IN ({_V1_IN_FLIGHT}))
    """,
    # What is open and blocks nothing: followed to its end all the same.
    f"""
    CREATE INDEX followed_attempts ON attempts (order_address)
        WHERE (kind = 'relay' AND state IN ({_V1_LIVE})) OR (kind = 'ratchet' AND state = 'confirmed')
    """,
    f"CREATE INDEX attempts_ended ON attempts (signed_at) WHERE state IN ({_V1_ENDED})",
    "CREATE INDEX attempts_order ON attempts (order_address, number)",
    "CREATE INDEX attempts_kind ON attempts (kind, signed_at)",
    "CREATE INDEX attempts_fate ON attempts (fate, signed_at) WHERE fate IS NOT NULL",
    """
    CREATE TABLE changes (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        order_ref INTEGER NOT NULL REFERENCES orders (id) ON DELETE CASCADE,
        state TEXT NOT NULL,
        reason TEXT NOT NULL,
        at REAL NOT NULL,
        slot INTEGER NOT NULL
    ) STRICT
    """,
    "CREATE INDEX changes_order ON changes (order_ref)",
    """
    CREATE TABLE prepared (
        id TEXT NOT NULL PRIMARY KEY,
        kind TEXT NOT NULL CHECK (kind IN ('place', 'cancel')),
        idempotency_key TEXT,
        body_hash TEXT,
        order_address TEXT NOT NULL,
        user TEXT NOT NULL,
        market TEXT NOT NULL,
        message BLOB NOT NULL,
        arguments TEXT NOT NULL,
        client_order_id TEXT,
        blockhash TEXT NOT NULL,
        last_valid_block_height INTEGER NOT NULL,
        created_at REAL NOT NULL,
        status TEXT NOT NULL,
        signature TEXT
    ) STRICT
    """,
    """
    CREATE UNIQUE INDEX one_prepared_per_key ON prepared (idempotency_key)
        WHERE idempotency_key IS NOT NULL
    """,
    "CREATE INDEX prepared_created ON prepared (created_at)",
    "CREATE INDEX prepared_order ON prepared (order_address)",
    "CREATE TABLE meta (key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL) STRICT",
    "CREATE TABLE daily_spend (day TEXT NOT NULL PRIMARY KEY, lamports INTEGER NOT NULL) STRICT",
    # Counting a million rows takes too long for a status page; the triggers keep the count.
    "CREATE TABLE order_counts (state TEXT NOT NULL PRIMARY KEY, n INTEGER NOT NULL) STRICT",
    """
    CREATE TRIGGER orders_added AFTER INSERT ON orders BEGIN
        INSERT INTO order_counts VALUES (NEW.state, 1) ON CONFLICT (state) DO UPDATE SET n = n + 1;
    END
    """,
    """
    CREATE TRIGGER orders_moved AFTER UPDATE OF state ON orders WHEN NEW.state <> OLD.state BEGIN
        UPDATE order_counts SET n = n - 1 WHERE state = OLD.state;
        INSERT INTO order_counts VALUES (NEW.state, 1) ON CONFLICT (state) DO UPDATE SET n = n + 1;
    END
    """,
    """
    CREATE TRIGGER orders_removed AFTER DELETE ON orders BEGIN
        UPDATE order_counts SET n = n - 1 WHERE state = OLD.state;
    END
    """,
)


def _to_version_1(db: Database) -> None:
    for statement in _VERSION_1:
        db.execute(statement)


def _to_version_2(db: Database) -> None:
    """The orders of a market that ended otherwise than filled: without it a page of them, where they are rare, would
    look at all of them in every market. A fill, which is what has to be quick, does not touch it.
    """
    # SQLite sees that one of these follows from `state = 'failed'`; that an IN does, it does not.
    db.execute(
        "CREATE INDEX orders_market_rare ON orders (market, state) WHERE state = 'cancelled' "
        "OR state = 'dropped' OR state = 'expired' OR state = 'failed' OR state = 'rejected'"
    )


def _to_version_3(db: Database) -> None:
    """What was prepared and never signed goes within hours, and is no order: those that were kept as orders end."""
    db.execute("CREATE INDEX prepared_unsigned ON prepared (created_at) WHERE status = 'prepared'")
    db.execute(
        "UPDATE orders SET reason = 'It was prepared, and never came back signed.', version = version + 1 "
        "WHERE state = 'prepared'"
    )
    db.execute(
        "INSERT INTO changes (order_ref, state, reason, at, slot) "
        "SELECT id, 'dropped', reason, first_seen_at, slot FROM orders WHERE state = 'prepared' ORDER BY id"
    )
    db.execute("UPDATE orders SET state = 'dropped', closed = 1 WHERE state = 'prepared'")


def _to_version_4(db: Database) -> None:
    """Attempts may be armed. Some seconds for a million."""
    _make_anew(
        db,
        "attempts",
        {_V1_LIVE: f"'armed', {_V1_LIVE}", "position TEXT": "position TEXT, built_from TEXT"},
        added="NULL",
    )


def _to_version_5(db: Database) -> None:
    """A prepared transaction may cancel several orders, and may place one in another's stead."""
    _make_anew(
        db,
        "prepared",
        {
            "'place', 'cancel'": "'place', 'cancel', 'amend'",
            "signature TEXT": "signature TEXT, cancels TEXT NOT NULL",
        },
        added="CASE kind WHEN 'cancel' THEN json_array(order_address) ELSE '[]' END",
    )


def _to_version_6(db: Database) -> None:
    """An attempt may post a feed's price to its market first, and says which feed's and of when."""
    db.execute("ALTER TABLE attempts ADD COLUMN posted_from TEXT")
    db.execute("ALTER TABLE attempts ADD COLUMN posted_published_at INTEGER")


def _to_version_7(db: Database) -> None:
    """An attempt may pay a sender for carrying it; and by which ways each was sent."""
    db.execute("ALTER TABLE attempts ADD COLUMN tip_lamports INTEGER")
    db.execute("ALTER TABLE attempts ADD COLUMN tip_account TEXT")
    db.execute(
        """
        CREATE TABLE attempt_ways (
            signature TEXT NOT NULL,
            way TEXT NOT NULL,
            sent_at REAL NOT NULL,
            sends INTEGER NOT NULL,
            answer TEXT CHECK (answer IN ('accepted', 'refused', 'unclear')),
            detail TEXT,
            answered_at REAL,
            PRIMARY KEY (signature, way)
        ) STRICT, WITHOUT ROWID
        """
    )


def _make_anew(db: Database, table: str, words: Mapping[str, str], *, added: str) -> None:
    """Make a table, its indexes and its triggers anew, with other words in their SQL, because SQLite can't change a
    CHECK. `added` is what the rows that are there have in the column that comes last.
    """
    made = db.execute(
        "SELECT name, sql FROM sqlite_master WHERE tbl_name = ? AND sql IS NOT NULL ORDER BY type DESC", (table,)
    ).fetchall()
    db.execute(f"ALTER TABLE {table} RENAME TO {table}_before")
    for name, sql in made:
        for word, other in words.items():
            sql = sql.replace(word, other)
        db.execute(sql)
        if name == table:
            db.execute(f"INSERT INTO {table} SELECT *, {added} FROM {table}_before")
            db.execute(f"DROP TABLE {table}_before")


MIGRATIONS: Final[tuple[Callable[[Database], None], ...]] = (
    _to_version_1,
    _to_version_2,
    _to_version_3,
    _to_version_4,
    _to_version_5,
    _to_version_6,
    _to_version_7,
)
"""`MIGRATIONS[n]` takes a journal from version n to n + 1. It runs in a transaction and must not end it."""

VERSION: Final = len(MIGRATIONS)


def version_of(db: Database) -> int:
    """The file's version; 0 for a fresh, empty file.

    Raises JournalError when it is some other application's database, JournalVersion when a newer keeper wrote it.
    """
    (application_id,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if application_id != APPLICATION_ID and (application_id or version or db.table_names()):
        raise JournalError(
            "The file is a SQLite database, but not a keeper's journal. Point `journal` at another path."
        )
    if version > VERSION:
        raise JournalVersion(
            f"The journal has version {version}; this keeper knows versions up to {VERSION}. "
            "Run the newer keeper that wrote it, or restore the backup made before the upgrade."
        )
    return int(version)


def migrate(db: Database) -> int:
    """Bring the file to the newest version; the version it had. All steps commit together or not at all."""
    found = version_of(db)
    if found == VERSION:
        return found
    # IMMEDIATE: the version is read again under the write lock by whoever comes second.
    db.execute("BEGIN IMMEDIATE")
    try:
        found = version_of(db)
        for step in MIGRATIONS[found:]:
            step(db)
        # A pragma takes no parameters; both are our own integers.
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("COMMIT")
    except BaseException:
        if db.conn.in_transaction:
            db.execute("ROLLBACK")
        raise
    return found
