"""What the TOML file says, with the line on which it says it."""

import os
from collections.abc import Mapping
from pathlib import Path

from typed_settings.exceptions import ConfigFileLoadError, ConfigFileNotFoundError
from typed_settings.loaders import TomlFormat
from typed_settings.types import LoadedSettings, OptionList, SettingsClass

from chicory.config.layers import Layer, reason
from chicory.config.options import Option, options, sections, suggestion
from chicory.config.section import dotted
from chicory.config.toml_lines import key_lines


class FileLoader:
    """The TOML file.  What it says of paths is meant from its own directory.

    copy: of that file, to be read instead.
    """

    def __init__(self, path: Path, problems: list[str], copy: Path | None = None) -> None:
        self.path = path
        self.source = copy or path
        self.layer = Layer("file", problems)
        self.lines: Mapping[str, int] = {}

    def __call__(self, settings_cls: SettingsClass, options: OptionList) -> LoadedSettings:
        try:
            tree: Mapping[str, object] = TomlFormat(None)(self.source, settings_cls, options)
            self.lines = key_lines(self.source.read_text(encoding="utf-8"))
        except (ConfigFileNotFoundError, OSError) as error:
            cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
            self.layer.problems.append(f"{self.path}: cannot be read: {reason(cause)}")
        except (ConfigFileLoadError, UnicodeDecodeError) as error:
            cause = error.__cause__ or error
            verb = "cannot be read" if isinstance(cause, OSError) else "is not TOML"
            self.layer.problems.append(f"{self.path}: {verb}: {reason(cause)}")
        else:
            self.read(tree, "")
        return self.layer.loaded()

    def read(self, table: Mapping[str, object], section: str) -> None:
        """Take the settings of one table and of those in it."""
        known = options()
        secret_files = {option.file_key: option for option in known.values() if option.file_key}
        for name, value in table.items():
            key = dotted(section, name)
            where, origin = self.place(key)
            if key in known:
                self.layer.take(known[key], self.beside(known[key], value), origin, where=where)
            elif key in secret_files and isinstance(value, str) and value:
                self.layer.take_file(secret_files[key], self.path.parent / value, origin, where=where, called=key)
            elif key in secret_files:
                self.layer.problems.append(f"{where}{key} = {value!r}: must be the path of a file")
            elif key not in sections():
                what = "table" if isinstance(value, dict) else "setting"
                self.layer.problems.append(f"{where}no {what} is called {key!r}{suggestion(key)}")
            elif isinstance(value, dict):
                self.read(value, key)  # pyright: ignore[reportUnknownArgumentType]: whatever tomllib made
            else:
                self.layer.problems.append(f"{where}{key}: must be a table, written [{key}]")

    def place(self, key: str) -> tuple[str, str]:
        """Where *key* stands, to begin a line about it with, and as an origin."""
        place = f"{self.path}:{self.lines[key]}" if key in self.lines else str(self.path)
        return f"{place}: ", f"file {place}"

    def beside(self, option: Option, value: object) -> object:
        """*value*; a path is made to begin at the file's directory."""
        if option.rule.path and isinstance(value, str) and value:
            return str(self.path.absolute().parent / os.path.expanduser(value))
        return value
