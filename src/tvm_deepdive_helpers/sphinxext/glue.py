"""Role ``glue``: a number or a word in a sentence that a cell handed over.

``{glue}`key```, ``{glue}`part/script:key```, and either with a Python format specification, ``{glue}`key|.1f```.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxRole

from . import cells, records


class Glue(SphinxRole):
    """See the module."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        target, bar, spec = self.text.partition("|")
        try:
            record, key = cells.load_record(self.env, target.strip())
            value = record.value(key)
            try:
                text = format(value, spec.strip()) if bar else str(value)
            except (ValueError, TypeError) as err:
                raise records.RecordError(f"cannot format {value!r} with {spec.strip()!r}: {err}") from None
        except records.RecordError as err:
            message = self.inliner.reporter.error(f"glue: {err}", line=self.lineno)
            return [self.inliner.problematic(self.rawtext, self.rawtext, message)], [message]
        return [nodes.inline(self.rawtext, text, classes=["glue"])], []


def setup(app: Any) -> dict[str, Any]:
    app.add_role("glue", Glue())
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
