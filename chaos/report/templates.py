"""The templates of all pages, and what may stand inside them."""

from __future__ import annotations

import json
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

_ENVIRONMENT: Final = Environment(
    loader=PackageLoader("chaos.report", "assets"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, **values: Any) -> str:
    """Return the page that a template makes of these values, all of them escaped."""
    return _ENVIRONMENT.get_template(template).render(**values)


def script_json(value: Any) -> str:
    """JSON that may stand inside a ``script`` element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
