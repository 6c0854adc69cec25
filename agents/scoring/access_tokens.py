"""Access tokens of common providers: each begins with letters that its provider documents.

Sources: the providers' own pages on token formats, as of 2026-11-20: AWS "IAM identifiers", Google Cloud "API keys",
GitHub "About authentication", GitLab "Token overview", Slack "Token types", Stripe "API keys", Square "Access tokens",
OpenAI, Anthropic, Hugging Face "User access tokens", npm "About access tokens", PyPI "API tokens", DigitalOcean "Token
format", SendGrid "API keys", Mailgun, Shopify, Databricks, HashiCorp Vault "Tokens", Telegram "Bot API".
"""

from __future__ import annotations

from typing import NamedTuple


class Token(NamedTuple):
    """One form. begins: its first letters, in lower case; rest: a pattern of what follows, in any case."""

    provider: str
    begins: str
    rest: str


_W = "[a-z0-9]"
_D = "[a-z0-9_-]"
TOKENS = (
    Token("AWS", "akia", "[a-z2-7]{16}"),
    Token("AWS", "asia", "[a-z2-7]{16}"),
    Token("Google", "aiza", f"{_D}{{35}}"),
    Token("Google", "gocspx-", f"{_D}{{28}}"),
    Token("Google", "ya29.", f"{_D}{{30,}}"),
    *(Token("GitHub", f"gh{kind}_", f"{_W}{{36}}") for kind in "pousr"),
    Token("GitHub", "github_pat_", f"{_W}{{22}}_{_W}{{59}}"),
    *(Token("GitLab", f"{kind}-", f"{_D}{{20,}}") for kind in ("glpat", "gldt", "glrt", "glptt", "glcbt", "glft")),
    *(Token("Slack", f"xox{kind}-", r"[0-9]{8,}-[a-z0-9-]{16,}") for kind in "abeoprs"),
    Token("Slack", "xapp-", r"[0-9]-[a-z0-9]{8,}-[a-z0-9-]{16,}"),
    *(Token("Stripe", f"{kind}_live_", f"{_W}{{20,}}") for kind in ("sk", "rk")),
    *(Token("Stripe", f"{kind}_test_", f"{_W}{{20,}}") for kind in ("sk", "rk")),
    Token("Stripe", "whsec_", f"{_W}{{32}}"),
    Token("Square", "sq0atp-", f"{_D}{{22}}"),
    Token("Square", "sq0csp-", f"{_D}{{43}}"),
    Token("Square", "eaaa", f"{_D}{{60}}"),
    Token("Anthropic", "sk-ant-", f"{_D}{{24,}}"),
    Token("OpenAI", "sk-proj-", f"{_D}{{40,}}"),
    Token("OpenAI", "sk-svcacct-", f"{_D}{{40,}}"),
    Token("OpenAI", "sk-", f"{_W}{{40,}}"),
    Token("Hugging Face", "hf_", "[a-z]{34}"),
    Token("Groq", "gsk_", f"{_W}{{52}}"),
    Token("Replicate", "r8_", f"{_W}{{37}}"),
    Token("npm", "npm_", f"{_W}{{36}}"),
    Token("PyPI", "pypi-", f"{_D}{{60,}}"),
    *(Token("DigitalOcean", f"do{kind}_v1_", "[a-f0-9]{64}") for kind in "opr"),
    Token("SendGrid", "sg.", rf"{_D}{{22}}\.?{_D}{{43}}"),
    Token("Mailgun", "key-", "[a-f0-9]{32}"),
    *(Token("Shopify", f"shp{kind}_", "[a-f0-9]{32}") for kind in ("at", "ca", "pa", "ss")),
    Token("Databricks", "dapi", "[a-f0-9]{32}"),
    Token("Vault", "hvs.", f"{_D}{{24,}}"),
    Token("Grafana", "glsa_", f"{_W}{{32}}_[a-f0-9]{{8}}"),
    Token("Linear", "lin_api_", f"{_W}{{40}}"),
    Token("New Relic", "nrak-", f"{_W}{{27}}"),
)
"""Forms whose first letters are their own."""
_FIRST = {token.begins.partition(".")[0][:4].encode() for token in TOKENS}
MARKED = tuple(sorted(mark for mark in _FIRST if len(mark) > 2))
"""The first letters of all of them, four at most and none of a second label: what a name must have to hold a token. Two
letters (`SG`) are too few to look for: they are a label of their own."""
REST_MIN = 16
"""Characters that follow those letters, at least."""
SIGNS = b"=:/~."
"""Bytes inside a label of which one stands in each other secret in plain text: settings, webhooks, bot tokens."""
BOT_LABELS = (23, 28), 6, (27, 38)
"""Sizes of the three parts of a bot's token, which dots part (Discord)."""
