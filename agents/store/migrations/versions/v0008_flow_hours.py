"""Flow-hours: what one client did below one domain in one hour."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_ROW_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "flow_hours",
        sa.Column("id", _ROW_ID, primary_key=True),
        sa.Column("hour", sa.Integer, nullable=False),
        sa.Column("schema", sa.SmallInteger, nullable=False),
        sa.Column("rnd", sa.Integer, nullable=False),
        sa.Column("client", sa.Text, nullable=False),
        sa.Column("domain", sa.Text, nullable=False),
        sa.Column("names", sa.Text, nullable=False),
        sa.Column("numbers", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("domain", "client", "hour", "schema", name="flow_hours_once"),
        sqlite_autoincrement=True,
    )
    op.create_index("flow_hours_by_hour", "flow_hours", ["hour"])


def downgrade() -> None:
    op.drop_table("flow_hours")
