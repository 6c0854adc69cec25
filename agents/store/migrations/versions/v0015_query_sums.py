"""Sums over stored queries, and each name once. They are filled hour by hour while the console runs, oldest first."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_SUMS = (
    "queries bigint NOT NULL, failed bigint NOT NULL, suspicious bigint NOT NULL, high bigint NOT NULL,"
    " critical bigint NOT NULL, severity smallint NOT NULL, score real NOT NULL, largest integer NOT NULL,"
    " others integer NOT NULL DEFAULT 1, types text NOT NULL, rcodes text NOT NULL,"
    " first_seen double precision NOT NULL, last_seen double precision NOT NULL"
)
_SEEN = "first_seen double precision NOT NULL, last_seen double precision NOT NULL"


def upgrade() -> None:
    # Ordered by their bytes, as columns of queries are; SQLite keeps rows in the order of the key, in one copy.
    postgres = op.get_bind().dialect.name == "postgresql"
    text, rows = ('text COLLATE "C"', "") if postgres else ("text", " WITHOUT ROWID")
    hour = f"hour integer NOT NULL, client {text} NOT NULL, domain {text} NOT NULL"
    tables = {
        "query_hours": f"{hour}, {_SUMS}, PRIMARY KEY (hour, client, domain)",
        "query_client_days": f"day integer NOT NULL, client {text} NOT NULL, {_SUMS}, PRIMARY KEY (day, client)",
        "query_domain_days": f"day integer NOT NULL, domain {text} NOT NULL, {_SUMS}, PRIMARY KEY (day, domain)",
        "query_pairs": f"client {text} NOT NULL, domain {text} NOT NULL, {_SEEN}, PRIMARY KEY (client, domain)",
        "query_domains": f"domain {text} NOT NULL, {_SEEN}, PRIMARY KEY (domain)",
        "query_names": f"name {text} PRIMARY KEY NOT NULL, domain {text} NOT NULL, {_SEEN}, hours text NOT NULL",
    }
    for name, columns in tables.items():
        op.execute(f"CREATE TABLE {name} ({columns}){rows}")
    op.create_index("query_hours_client", "query_hours", ["client", "hour"])
    op.create_index("query_hours_domain", "query_hours", ["domain", "hour"])
    op.create_index("query_domain_days_domain", "query_domain_days", ["domain", "day"])
    op.create_index("query_client_days_client", "query_client_days", ["client", "day"])
    op.create_index("query_pairs_domain", "query_pairs", ["domain"])
    op.create_index("query_names_domain", "query_names", ["domain"])
    op.create_table(
        "query_late_hours",
        sa.Column("hour", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("version", sa.BigInteger, nullable=False),
    )
    state = op.create_table(
        "query_sums",
        sa.Column("sums_id", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("until", sa.Integer, nullable=False),
        sa.Column("erasures", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(state, [{"sums_id": 1, "until": 0, "erasures": 0}])


def downgrade() -> None:
    for table in (
        "query_sums", "query_late_hours", "query_names", "query_domains", "query_pairs", "query_domain_days",
        "query_client_days", "query_hours",
    ):  # fmt: skip
        op.drop_table(table)
