"""Self-contained pages, which hold their style and script and load nothing."""

import base64
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def render_page(template: str, **values: Any) -> str:  # noqa: ANN401 (any value of a template)
    """Render a template on the shared page; every text is escaped.

    Args:
        template: Name of a template that extends ``page.html.j2``.
        **values: Values of the template.

    Returns:
        HTML without external references. Its content security policy forbids other scripts than its
        own, and any request.
    """
    templates = load_templates(number=show_number, plain=_plain)
    script = templates.get_template("page.js.j2").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return templates.get_template(template).render(
        script=Markup(script), script_digest=digest, **values
    )


def load_templates(**filters: Callable[..., str]) -> Environment:
    """Load our templates with filters; every text is escaped, as hubs render Markdown as HTML."""
    templates = Environment(
        loader=PackageLoader("rpo_pipeline.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= filters
    return templates


def show_number(value: float | None) -> str:
    """Write a number with three digits."""
    if value is None:
        return "n/a"
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.3g}"
    return text.replace("-", "\N{MINUS SIGN}")


def _plain(value: object) -> str:
    """Write a value of a configuration or of a document."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return "null" if value is None else str(value)


def whisker(interval: Mapping[str, float | None] | None) -> dict[str, float] | None:
    """Scale the ends and middle of a difference's interval by its largest distance from 0."""
    if not interval or interval["low"] is None or interval["high"] is None:
        return None
    largest = max(abs(interval["low"]), abs(interval["high"])) or 1.0
    return {name: (interval[name] or 0.0) / largest for name in ("low", "value", "high")}
