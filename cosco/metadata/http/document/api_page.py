"""The page of the OpenAPI document: all routes, with what they take and an example of each.

It is plain HTML without scripts, so that it needs nothing from elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from typing import Any, Final

STYLE: Final = """\
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 0 auto; padding: 1rem; }
section { border-top: 1px solid GrayText; padding: 0.5rem 0 1rem; }
h2 { font-size: 1.1rem; overflow-wrap: anywhere; }
code, pre { font: 0.9rem/1.4 ui-monospace, monospace; }
pre { overflow-x: auto; padding: 0.5rem; border: 1px solid GrayText; border-radius: 4px; }
table { border-collapse: collapse; }
th, td { text-align: left; vertical-align: top; padding: 0.1rem 1rem 0.1rem 0; }
"""


def page(document: dict[str, Any]) -> str:
    """Return the page of a document; whatever it says is escaped."""
    info = document["info"]
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(info['title'])}</title>",
        '<link rel="stylesheet" href="/api/style.css"></head><body><main>',
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>",
        f"<p>{escape(info['description'])}</p>",
        '<p>As a document: <a href="/openapi.json">openapi.json</a>.</p>',
    ]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            parts += _section(path, method, operation)
    parts.append("</main></body></html>")
    return "\n".join(parts) + "\n"


def _section(path: str, method: str, operation: dict[str, Any]) -> Iterator[str]:
    name = escape(operation["operationId"])
    yield f'<section aria-labelledby="{name}">'
    yield f'<h2 id="{name}"><code>{method.upper()} {escape(path)}</code></h2>'
    yield f"<p>{escape(operation['summary'])}. {escape(operation.get('description', ''))}</p>"
    if parameters := operation.get("parameters"):
        yield "<table><thead><tr><th>parameter</th><th>in</th><th>meaning</th></tr></thead><tbody>"
        for one in parameters:
            cells = one["name"], one["in"], one.get("description", "")
            yield "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
        yield "</tbody></table>"
    if example := operation.get("x-example"):
        yield f"<pre>{escape(example['request'])}</pre>"
        yield f"<pre>{escape(_shown(example['answer']))}</pre>"
    yield "</section>"


def _shown(answer: Any) -> str:
    return answer if isinstance(answer, str) else json.dumps(answer, indent=2)
