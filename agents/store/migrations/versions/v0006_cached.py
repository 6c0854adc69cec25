"""Whether a query was answered from the cache. Of earlier rows that is unknown."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("queries", sa.Column("cached", sa.SmallInteger, nullable=False, server_default="-1"))


def downgrade() -> None:
    op.drop_column("queries", "cached")
