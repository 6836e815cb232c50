"""Generate docs/openapi.json from the routes of cosco/metadata/http; with --check only say if it
is current. It needs the extra cosco[http]."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from cosco.metadata.http.calls import Desk
from cosco.metadata.http.site.http_site import application
from cosco.process.http_endpoint import Answer

TARGET = Path(__file__).resolve().parent.parent / "docs" / "openapi.json"


def render() -> str:
    """Return the text of docs/openapi.json."""
    desk = Desk(lambda _: Answer(200, b""), list, is_secure=False, is_open=True)
    return json.dumps(application(desk).openapi(), indent=1, ensure_ascii=False) + "\n"


def main() -> int:
    """Write the document, or with --check compare it."""
    text = render()
    if "--check" not in sys.argv[1:]:
        TARGET.write_text(text)
        return 0
    if TARGET.read_text() == text:
        return 0
    print("docs/openapi.json is not current: run `make openapi`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
