"""The layers of the settings, as loaders for typed-settings: the file, the environment, code, flags.

Each takes what it is given to pieces, one value for each dotted name, checks it against its rule and notes what is
wrong with it; a value carries its origin along.  typed-settings names the variables, reads the file and lays the layers
over each other.  Its own conversion is not used: it would take 3.9 for 3, and show a password in the error.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import attrs
from typed_settings.dict_utils import merge_settings, set_path
from typed_settings.loaders import Loader
from typed_settings.types import LoadedSettings, LoaderMeta, OptionInfo, OptionList, SettingsClass, SettingsDict

from chicory.config.options import Option, options, suggestion
from chicory.config.section import Section, dotted, origins_of, refusal
from chicory.config.settings import ChicoryConfig
from chicory.secret import SecretStr


@attrs.frozen
class Given:
    """A value somebody gave, and who."""

    value: object
    origin: str


@attrs.define
class Layer:
    """What one source says so far, and what is wrong with it: one line for each problem."""

    name: str
    problems: list[str]
    said: dict[str, Given] = attrs.field(factory=dict[str, Given])

    def take(self, option: Option, value: object, origin: str, *, where: str = "", called: str = "") -> None:
        """Note *value* if its rule allows it; *called* is the name of a source in which everything is text."""
        if option.key in self.said:
            self.problems.append(f"{where}give either {option.key} or {option.file_key}, not both")
            return
        try:
            parsed = option.rule.parse(value) if isinstance(value, str) and called else option.rule.check(value)
        except ValueError:
            self.problems.append(where + refusal(called or option.key, value, option.rule))
        else:
            self.said[option.key] = Given(parsed, origin)

    def take_file(self, option: Option, path: Path, origin: str, *, where: str = "", called: str) -> None:
        """Note the secret that is kept in the file *path*."""
        try:
            text = path.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            self.problems.append(f"{where}{called} = {str(path)!r}: cannot be read: {reason(error)}")
        else:
            self.take(option, SecretStr(text), origin, where=where, called=called)

    def loaded(self) -> LoadedSettings:
        """The form in which typed-settings merges layers."""
        tree: SettingsDict = {}
        for key, given in self.said.items():
            set_path(tree, key, given)
        return LoadedSettings(tree, LoaderMeta(self.name))


class CodeLoader:
    """What code gave explicitly, each value with the origin it had there."""

    def __init__(self, config: ChicoryConfig) -> None:
        self.config = config
        self.layer = Layer("code", [])

    def __call__(self, settings_cls: SettingsClass, options: OptionList) -> LoadedSettings:
        self.read(self.config)
        return self.layer.loaded()

    def read(self, section: Section) -> None:
        """Take the settings of one section and of those in it."""
        for field in section.__attrs_attrs__:
            value: object = getattr(section, field.name)
            if isinstance(value, Section):
                self.read(value)
            elif field.name in origins_of(section):
                key = dotted(section.section, field.name)
                self.layer.said[key] = Given(value, origins_of(section)[field.name])


class FlagLoader:
    """Flags by dotted name; None is a flag that was not given."""

    def __init__(self, flags: Mapping[str, object], problems: list[str]) -> None:
        self.flags = flags
        self.layer = Layer("flags", problems)

    def __call__(self, settings_cls: SettingsClass, options: OptionList) -> LoadedSettings:
        for key, value in self.flags.items():
            self.read(key, value)
        return self.layer.loaded()

    def read(self, key: str, value: object) -> None:
        """Take one flag."""
        option = options().get(key)
        if option is None:
            self.layer.problems.append(f"no setting is called {key!r}{suggestion(key)}")
        elif value is not None:
            self.layer.take(option, value, "flag", called=key)


def merge(loaders: Iterable[Loader]) -> dict[str, Given]:
    """The uppermost value of every setting that any of *loaders*, lowest first, has."""
    infos = tuple(info(option) for option in options().values())
    layers: list[LoadedSettings] = []
    for loader in loaders:
        loaded = loader(ChicoryConfig, infos)
        layers.extend([loaded] if isinstance(loaded, LoadedSettings) else loaded)
    merged: dict[str, Given] = {}
    for key, found in merge_settings(infos, layers).items():
        given: object = found.value
        assert isinstance(given, Given)
        merged[key] = given
    return merged


def info(option: Option) -> OptionInfo:
    """*option* as typed-settings describes one.  Made here, because its own search costs 3 ms a class."""
    return OptionInfo(
        parent_cls=option.owner,
        path=option.key,
        cls=object,
        default=option.default,
        has_no_default=False,
        default_is_factory=False,
        is_secret=option.rule.secret,
    )


def reason(error: BaseException) -> str:
    """What the system says went wrong, without the path, which the line names already."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
