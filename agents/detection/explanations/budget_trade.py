"""What the alert budget buys: investigations a week against what can leave unseen, in words and as a curve."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agents.core.drawing.logarithmic import trade_chart
from agents.detection.limits import DAYS_MIN, bounds


def budget_trade(limits: Mapping[str, Any]) -> dict[str, Any]:
    """The values of limits.BudgetChoice.to_json in words, and as a chart once it has history; {} without a curve."""
    if "curve" not in limits:
        return {}
    factor, days, budget, curve = (limits[name] for name in ("factor", "days", "budget_per_week", "curve"))
    unseen = {name: f"{amount:,.0f}" for name, amount in bounds(factor).items()}
    leak = (
        f"Per client and domain, up to {unseen['encoded_bytes_a_day']} bytes of encoded data a day "
        f"({unseen['encoded_bytes_an_hour']} an hour), or {unseen['bytes_in_words_a_day']} bytes a day spelled in "
        f"words, can leave unseen (limits at factor {factor:g}; known services and familiar domains have more)"
    )
    if days < DAYS_MIN:
        history = f"{days} of the {DAYS_MIN} days of history that it takes" if days else "no history yet"
        return {"sentence": f"{leak}; this rests on {history}, so the alert budget does not move it.", "chart": ""}
    spent = next((y for x, y in curve if x == factor), 0.0)
    weighed = f"these limits would have asked for {spent:g} investigations a week, of a budget of {budget:g}"
    over = ", and looser limits are not allowed" if spent > budget else ""
    points = [(bounds(x)["encoded_bytes_a_day"], y) for x, y in curve]
    names = (f"budget: {budget:g} a week", "encoded bytes a day that can leave unseen, per client and domain")
    chosen = bounds(factor)["encoded_bytes_a_day"]
    return {
        "sentence": f"{leak}; in {days} days of history {weighed}{over}.",
        "chart": trade_chart(points, chosen, budget, names, "investigations a week against what can leave unseen"),
    }
