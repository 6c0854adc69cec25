"""Kind and model of an incident as columns that the database makes from its evidence, and an index for counting."""

from __future__ import annotations

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

_NAMES = ("kind", "model")
_INDEX = (
    "last_seen", "incident_id", "severity", "tool", "kind", "model", "client", "domain", "source", "closed_at",
)  # fmt: skip
_SQLITE = """
ALTER TABLE incidents ADD COLUMN {name} TEXT GENERATED ALWAYS AS (
    CASE WHEN json_valid(evidence) THEN coalesce(json_extract(evidence, '$.{name}'), '') ELSE '' END
) VIRTUAL
"""
_OF_EVIDENCE = """
CREATE FUNCTION incident_evidence(evidence text, name text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
$$ BEGIN
    RETURN coalesce(evidence::json ->> name, '');
EXCEPTION WHEN others THEN
    RETURN '';
END $$
"""
_POSTGRES = (
    "ALTER TABLE incidents ADD COLUMN {name} TEXT GENERATED ALWAYS AS (incident_evidence(evidence, '{name}')) STORED"
)


def upgrade() -> None:
    """An evidence that is no JSON has neither: no incident is refused for it."""
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    if not is_sqlite:
        op.execute(_OF_EVIDENCE)
    for name in _NAMES:
        op.execute((_SQLITE if is_sqlite else _POSTGRES).format(name=name))
    op.create_index("incidents_facets", "incidents", list(_INDEX))


def downgrade() -> None:
    op.drop_index("incidents_facets", "incidents")
    for name in _NAMES:
        op.execute(f"ALTER TABLE incidents DROP COLUMN {name}")
    if op.get_bind().dialect.name != "sqlite":
        op.execute("DROP FUNCTION incident_evidence(text, text)")
