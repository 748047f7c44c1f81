"""Reads the committed corpus: `Q:`/`A:` pairs and prose paragraphs in Markdown files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Pair:
    """One answer and every wording of its question."""

    questions: tuple[str, ...]
    answer: str


@dataclass(frozen=True)
class Corpus:
    pairs: tuple[Pair, ...]
    prose: tuple[str, ...]


def read_corpus(folder: Path) -> Corpus:
    """Reads `folder/*.md` in name order.

    Blocks are separated by blank lines. A block that starts with `Q:` holds one or more questions, one
    per line, and then one `A:` line; headings are skipped; everything else is prose.

    Raises ValueError naming the file and the block when a question has no answer.
    """
    pairs: list[Pair] = []
    prose: list[str] = []
    for path in sorted(folder.glob("*.md")):
        for block in path.read_text(encoding="utf-8").split("\n\n"):
            lines = [line.strip() for line in block.strip().splitlines() if line.strip()]
            if not lines or lines[0].startswith(("#", ">")):
                continue
            if lines[0].startswith("Q:"):
                pairs.append(_pair(path, lines))
            else:
                prose.append(" ".join(lines))
    if not pairs:
        raise ValueError(f"{folder}: no question was found; add *.md files with `Q:` and `A:` lines")
    return Corpus(tuple(pairs), tuple(prose))


def _pair(path: Path, lines: list[str]) -> Pair:
    questions = tuple(line[2:].strip() for line in lines if line.startswith("Q:"))
    rest = lines[len(questions) :]
    if not rest or not rest[0].startswith("A:"):
        raise ValueError(f"{path.name}: the question {questions[0]!r} has no `A:` line right after it")
    return Pair(questions, " ".join([rest[0][2:].strip(), *rest[1:]]))
