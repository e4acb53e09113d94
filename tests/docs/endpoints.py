"""``python -m tests.docs.endpoints``: docs/endpoints.md, from what a gateway says of itself."""

from __future__ import annotations

import json
from typing import Any

from tests.support.server import Server, running

HEAD = """\
# Endpoints

Every endpoint of plain HTTP, from the gateway's own description at `/openapi.json`;
[http-api.md](http-api.md) tells what they mean. Besides these there are `/health`, `/ready`,
`/status` and `/metrics` ([operations.md](operations.md)). This file is generated: `make docs`.
"""


def document_of(server: Server) -> dict[str, Any]:
    """The description that a gateway gives."""
    found: dict[str, Any] = json.loads(server.get("/openapi.json").body)
    return found


def page(document: dict[str, Any]) -> str:
    """The text of ``docs/endpoints.md``."""
    operations = [
        _operation(method, path, operation)
        for path, methods in sorted(document["paths"].items())
        for method, operation in sorted(methods.items())
    ]
    return "\n".join([HEAD, *operations])


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    lines = [f"## {method.upper()} `{path}`", "", f"{operation['summary']}.", ""]
    asked = [each for each in operation["parameters"] if each["in"] != "path"]
    if asked:
        lines += ["| parameter | in | takes | default |", "|---|---|---|---|"]
        lines += [
            f"| `{each['name']}` | {each['in']} | {_cell(each['description'])} "
            f"| {_default(each['schema'])} |"
            for each in asked
        ]
        lines.append("")
    if body := operation.get("requestBody"):
        lines += [f"Body: {_content(body['content'])}.", ""]
    lines += ["| status | answer |", "|---|---|"]
    lines += [
        f"| {status} | {_content(answer.get('content', {})) or answer['description']} |"
        for status, answer in sorted(operation["responses"].items())
    ]
    return "\n".join([*lines, ""])


def _default(schema: dict[str, Any]) -> str:
    return f"`{json.dumps(schema['default'])}`" if "default" in schema else ""


def _content(content: dict[str, Any]) -> str:
    return ", ".join(f"{_name(each['schema'])}`{kind}`" for kind, each in content.items())


def _name(schema: dict[str, Any]) -> str:
    names = [
        each["$ref"].rpartition("/")[2]
        for each in (schema, *schema.get("anyOf", ()))
        if "$ref" in each
    ]
    return f"{' or '.join(names)} as " if names else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    """Ask a gateway that is started for it."""
    with running("--workers", "1", "--set", "enable_dummy_provider=true") as server:
        print(page(document_of(server)), end="")


if __name__ == "__main__":
    main()
