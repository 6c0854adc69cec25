"""Of each user, when their sessions were ended: browsers that logged in before are unknown from then on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("users", sa.Column("ended_at", sa.Double, nullable=False, server_default="0"))


def downgrade() -> None:
    op.drop_column("users", "ended_at")
