"""Pages that people open: text, tables and plots in one HTML file that needs nothing else.

`page` makes it of sections, `plots` draws what they show; what a run, a plan, a comparison or a
validation says is put together in a module each.
"""

from cluster.report.page import Drawing, Page, Section, Table, Text, html

__all__ = ["Drawing", "Page", "Section", "Table", "Text", "html"]
