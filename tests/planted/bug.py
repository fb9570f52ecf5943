"""One bug, as it is put into a copy of the source and taken out again."""

from pathlib import Path

import attrs


@attrs.frozen
class Change:
    """*right* stands in *file* once, and *wrong* takes its place."""

    file: str
    right: str
    wrong: str


@attrs.frozen
class Bug:
    """A mistake that is easily made.

    suite: words for pytest that choose the few tests of which at least one must fail by it.
    """

    name: str
    suite: str
    changes: tuple[Change, ...]

    def planted(self, root: Path) -> dict[Path, str]:
        """By path the text of each file below *root* that has this bug; ValueError where the source has moved on."""
        texts: dict[Path, str] = {}
        for change in self.changes:
            path = root / change.file
            text = texts.get(path) or path.read_text()
            if (count := text.count(change.right)) != 1:
                raise ValueError(f"{self.name}: in {change.file} there is {count} times, not once:\n{change.right}")
            texts[path] = text.replace(change.right, change.wrong)
        return texts


def bug(name: str, suite: str, *changes: tuple[str, str, str]) -> Bug:
    """A bug called *name*, of changes by file, right and wrong."""
    return Bug(name, suite, tuple(Change(*each) for each in changes))
