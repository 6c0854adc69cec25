"""Tables of people: users, their sessions, and tokens for programs. Of secrets they hold hashes alone."""

from __future__ import annotations

from sqlalchemy import Column, Double, Index, Integer, Table, Text

from agents.store.rows import metadata

USERS = Table(
    "users",
    metadata,
    Column("name", Text, primary_key=True),
    Column("role", Text, nullable=False),
    Column("password", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("made_at", Double, nullable=False),
    Column("made_by", Text, nullable=False),
    Column("disabled_at", Double),
    Column("link", Text, nullable=False),
    Column("link_until", Double, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("locked_until", Double, nullable=False),
    Column("last_login", Double),
    Column("ended_at", Double, nullable=False, server_default="0"),
    Index("users_subject", "subject"),
)
"""`password`: an Argon2id hash; "" = none yet. `subject`: issuer and subject of OpenID Connect; "" = none.
`link`: SHA-256 of the one-time link that sets a password; "" = none is open. `failed`: wrong passwords in a row.
`ended_at`: when sessions were ended last, other than by a password; browsers that logged in before are unknown."""

SESSIONS = Table(
    "user_sessions",
    metadata,
    Column("session", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("began_at", Double, nullable=False),
    Column("until", Double, nullable=False),
    Column("address", Text, nullable=False),
    Column("browser", Text, nullable=False),
    Index("user_sessions_name", "name"),
)
"""`session`: SHA-256 of the secret in the browser's cookie."""

TOKENS = Table(
    "api_tokens",
    metadata,
    Column("token_id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("what_for", Text, nullable=False),
    Column("secret", Text, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("made_at", Double, nullable=False),
    Column("until", Double, nullable=False),
    Column("used_at", Double),
    Column("revoked_at", Double),
    Column("revoked_by", Text, nullable=False),
    Index("api_tokens_name", "name"),
)
"""`name`: the user whose token it is. `secret`: its SHA-256. `scopes`: their names with spaces between."""
