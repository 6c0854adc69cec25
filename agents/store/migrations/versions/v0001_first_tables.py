"""The first tables. On Postgres `queries` is partitioned by day; its partitions are made by the writer."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_INDEXES = (
    "CREATE INDEX queries_ts ON queries (ts)",
    "CREATE INDEX queries_client_ts ON queries (client, ts)",
    "CREATE INDEX queries_domain_ts ON queries (domain, ts)",
    "CREATE INDEX queries_sample ON queries (day, rnd) WHERE severity = 0",
)


def upgrade() -> None:
    postgres = op.get_bind().dialect.name == "postgresql"
    _queries(postgres)
    for statement in _INDEXES:
        op.execute(statement)
    _incidents()
    op.create_table(
        "batches",
        sa.Column("batch_id", sa.Text, primary_key=True),
        sa.Column("written_at", sa.Double, nullable=False),
    )
    op.create_index("batches_written_at", "batches", ["written_at"])
    op.create_table(
        "runs",
        sa.Column("run_id", sa.Text, primary_key=True),
        sa.Column("started_at", sa.Double, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
    )
    op.create_index("runs_started_at", "runs", ["started_at"])


def _queries(postgres: bool) -> None:
    # A sequence's default, not an identity: a partition that has an identity column cannot be attached.
    if postgres:
        op.execute("CREATE SEQUENCE queries_id_seq CACHE 1024")
    identity = "bigint NOT NULL DEFAULT nextval('queries_id_seq')" if postgres else "INTEGER PRIMARY KEY"
    binary = "bytea" if postgres else "BLOB"
    op.execute(
        f"""CREATE TABLE queries (
            id {identity}, ts double precision NOT NULL, day integer NOT NULL, qtype integer NOT NULL,
            score real NOT NULL, severity smallint NOT NULL, rcode smallint NOT NULL,
            ancount integer NOT NULL, qlen integer NOT NULL,
            rlen integer NOT NULL, ttl_min bigint NOT NULL, rtt_ms real,
            rnd integer NOT NULL, client text NOT NULL, qname text NOT NULL, domain text NOT NULL,
            ans_types text NOT NULL, reasons text NOT NULL, model_id text NOT NULL, batch_id text NOT NULL,
            features {binary} NOT NULL
        )"""
        + (" PARTITION BY RANGE (day)" if postgres else "")
    )


def _incidents() -> None:
    op.create_table(
        "incidents",
        sa.Column("incident_id", sa.Text, primary_key=True),
        sa.Column("client", sa.Text, nullable=False),
        sa.Column("domain", sa.Text, nullable=False),
        sa.Column("severity", sa.SmallInteger, nullable=False),
        sa.Column("score", sa.Double, nullable=False),
        sa.Column("reasons", sa.Text, nullable=False),
        sa.Column("tool", sa.Text),
        sa.Column("first_seen", sa.Double, nullable=False),
        sa.Column("last_seen", sa.Double, nullable=False),
        sa.Column("detected_at", sa.Double, nullable=False),
        sa.Column("queries", sa.BigInteger, nullable=False),
        sa.Column("unique_names", sa.BigInteger, nullable=False),
        sa.Column("leaked_bytes", sa.Double, nullable=False),
        sa.Column("queries_before_detection", sa.BigInteger, nullable=False),
        sa.Column("bytes_before_detection", sa.Double, nullable=False),
        sa.Column("sample_names", sa.Text, nullable=False),
        sa.Column("closed_at", sa.Double),
    )
    op.create_index("incidents_last_seen", "incidents", ["last_seen"])
    op.create_index("incidents_client_domain", "incidents", ["client", "domain"])
