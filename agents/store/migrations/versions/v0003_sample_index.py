"""The index that samples are drawn by holds one row in 16: enough to draw from, and 15 in 16 rows do not pay for it."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

RND_BELOW = 2**31 // 16


def upgrade() -> None:
    op.execute("DROP INDEX queries_sample")
    op.execute(f"CREATE INDEX queries_sample ON queries (day, rnd) WHERE severity = 0 AND rnd < {RND_BELOW}")


def downgrade() -> None:
    op.execute("DROP INDEX queries_sample")
    op.execute("CREATE INDEX queries_sample ON queries (day, rnd) WHERE severity = 0")
