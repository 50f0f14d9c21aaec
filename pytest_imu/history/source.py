"""A test file's source: its bytes, its tree, and edits at exact places that leave the rest as it is."""

from __future__ import annotations

import ast
import codecs
import difflib
import hashlib
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

LINE = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n|$)")
"""As Python counts lines: a form feed, say, does not end one."""
DIGEST_CHARACTERS = 16
NO_NEWLINE = "\\ No newline at end of file"


def digest(data: bytes) -> str:
    """Return what tells a file's text from another's, whatever its line ends are."""
    text = data.replace(b"\r\n", b"\n")
    return hashlib.sha256(text).hexdigest()[:DIGEST_CHARACTERS]


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """Bytes to put in the place of others, counted in the UTF-8 form of the source."""

    start: int
    end: int
    new: str


class SourceFile:
    """One file of tests."""

    def __init__(self, data: bytes) -> None:
        """Raise SyntaxError or ValueError for what Python could not read either."""
        self.data = data
        self._mark = codecs.BOM_UTF8 if data.startswith(codecs.BOM_UTF8) else b""
        body = data.removeprefix(codecs.BOM_UTF8)
        self._encoding, _ = tokenize.detect_encoding(io.BytesIO(body).readline)
        # Offsets in the tree are those of the UTF-8 form, whatever the file is written in.
        self.text = body.decode(self._encoding).encode()
        self.tree = ast.parse(self.text.decode())
        self._starts = [match.start() for match in LINE.finditer(self.text)]

    def offset(self, line: int, column: int = 0) -> int:
        """Return the place in the text of a line, counted from 1, and a column in bytes."""
        return self._starts[line - 1] + column

    def span(self, node: ast.expr) -> tuple[int, int]:
        """Return where an expression begins and ends in the text."""
        end_line, end_column = node.end_lineno or node.lineno, node.end_col_offset or 0
        return self.offset(node.lineno, node.col_offset), self.offset(end_line, end_column)

    def segment(self, node: ast.expr) -> str:
        """Return an expression as it is written."""
        start, end = self.span(node)
        return self.text[start:end].decode()

    @property
    def newline(self) -> str:
        """What ends this file's lines."""
        first = LINE.match(self.text)
        line = first[0] if first else b""
        return line[len(line.rstrip(b"\r\n")) :].decode() or "\n"

    def diff(self, path: Path, edited: bytes) -> Iterator[str]:
        """Return the unified diff from this file to what it would be."""
        before, after = (
            list(io.StringIO(data.decode(self._encoding), newline="")) for data in (self.data, edited)
        )
        named = f"a/{path.as_posix()}", f"b/{path.as_posix()}"
        for line in difflib.unified_diff(before, after, *named):
            yield line if line.endswith(("\n", "\r")) else f"{line}\n{NO_NEWLINE}\n"

    def edited(self, edits: Iterable[Edit]) -> bytes:
        """Return the file's bytes with the edits made; raises SyntaxError where that is no Python."""
        text = self.text
        for edit in sorted(edits, key=lambda edit: (edit.start, edit.end), reverse=True):
            text = text[: edit.start] + edit.new.encode() + text[edit.end :]
        ast.parse(text.decode())
        return self._mark + text.decode().encode(self._encoding)
