"""Which kinds of queries (type, response code, severity) each hour has: a rare one is looked for in few hours.

Hours that are summed up already get no kinds: a search looks through their sums, as before, until they are too old.
An index has what the largest answers of weeks are looked for by.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


_DOMAIN = ["domain", "hour", "client", "queries", "severity"]


def upgrade() -> None:
    rows = "" if op.get_bind().dialect.name == "postgresql" else " WITHOUT ROWID"
    op.execute(
        "CREATE TABLE query_kinds (hour integer NOT NULL, qtype integer NOT NULL, rcode integer NOT NULL,"
        f" severity smallint NOT NULL, PRIMARY KEY (hour, qtype, rcode, severity)){rows}"
    )
    op.add_column("query_sums", sa.Column("kinds_from", sa.Integer, nullable=False, server_default="0"))
    op.execute("UPDATE query_sums SET kinds_from = until")
    op.drop_index("query_hours_domain", "query_hours")
    op.create_index("query_hours_domain", "query_hours", [*_DOMAIN, "largest", "last_seen"])


def downgrade() -> None:
    op.drop_index("query_hours_domain", "query_hours")
    op.create_index("query_hours_domain", "query_hours", _DOMAIN)
    op.drop_column("query_sums", "kinds_from")
    op.drop_table("query_kinds")
