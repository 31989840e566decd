"""What the repository's workflows, and those it shows to others, run of other people's code."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [
    path
    for pattern in (".github/**/*.yml", ".github/**/*.yaml", "*.md", "docs/**/*.md", "*/README.md")
    for path in sorted(ROOT.glob(pattern))
]
USES = re.compile(r"^\s*(?:- )?uses:\s*(.+)$", re.MULTILINE)
PINNED = re.compile(r"(?:\./\S*|[\w.-]+/[\w./-]+@[0-9a-f]{40}\s+# v\d+\.\d+\.\d+\b.*)")


def test_actions_are_pinned_by_commit() -> None:
    used = [(path.name, use) for path in PAGES for use in USES.findall(path.read_text(encoding="utf-8"))]
    assert used
    assert [(name, use) for name, use in used if not PINNED.fullmatch(use.strip())] == []
