"""What the environment says."""

from collections.abc import Mapping
from pathlib import Path

from typed_settings.loaders import EnvLoader
from typed_settings.types import LoadedSettings, OptionInfo, OptionList, SettingsClass

from chicory.config.layers import Layer
from chicory.config.options import PREFIX, options, sections, variable
from chicory.errors import did_you_mean


class EnvironmentLoader(EnvLoader):
    """CHICORY_<SECTION>_<KEY>, from the mapping given."""

    def __init__(self, environ: Mapping[str, str], problems: list[str]) -> None:
        super().__init__(PREFIX)
        self.environ = environ
        self.layer = Layer("environment", problems)

    def __call__(self, settings_cls: SettingsClass, options: OptionList) -> LoadedSettings:
        for info in options:
            self.read(self.get_envvar(info), info)
        self.refuse_unknown()
        return self.layer.loaded()

    def read(self, name: str, info: OptionInfo) -> None:
        """Take the variable of one setting, or, for a secret, of the file that holds it."""
        option = options()[info.path]
        if name in self.environ:
            self.layer.take(option, self.environ[name], f"env {name}", called=name)
        in_file = f"{name}_FILE"
        if option.file_key and self.environ.get(in_file):
            self.layer.take_file(option, Path(self.environ[in_file]), f"env {in_file}", called=in_file)

    def refuse_unknown(self) -> None:
        """Note variables that look like settings and are none: a typing error would otherwise just do nothing."""
        known = {variable(key) for option in options().values() for key in (option.key, option.file_key) if key}
        prefixes = tuple(f"{variable(section)}_" for section in sections())
        for name in sorted(self.environ.keys() - known):
            if name.startswith(prefixes):
                self.layer.problems.append(f"no setting belongs to the variable {name!r}{did_you_mean(name, known)}")
