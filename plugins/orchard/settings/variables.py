"""A setting as a variable of the environment, and a group of settings as a frozen dataclass of variables."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from orchard_jobs.errors import ConfigurationError


@dataclass(frozen=True)
class Variable:
    """One environment variable.

    Attributes:
        name: its name, `ORCHARD_...`.
        default: its text where it is unset or empty.
        meaning: what its value means, as the documentation's table says it.
        parse: turns its text into the setting's value; ValueError or ConfigurationError says what is wrong with
            the text, or what it must be.
        is_secret: whether its text may hold a password or a token, so that no message shows it.
    """

    name: str
    default: str
    meaning: str
    parse: Callable[[str], Any]
    is_secret: bool = False

    def read(self, environment: Mapping[str, str]) -> Any:
        """Return the value that an environment gives; ConfigurationError when its text is wrong."""
        text = environment.get(self.name, "") or self.default
        try:
            return self.parse(text)
        except ValueError as error:
            raise self.wrong(text, str(error)) from error
        except ConfigurationError as error:
            raise ConfigurationError(f"{self._told(text)}: {error}") from error

    def wrong(self, value: object, why: str) -> ConfigurationError:
        """Return the error that a value cannot be used: the variable, the value, and why or what is expected."""
        return ConfigurationError(f"{self._told(value)}: {why}")

    def _told(self, value: object) -> str:
        if value in (None, ""):
            return f"{self.name} is not set"
        return f"{self.name}={'***' if self.is_secret else repr(value)}"


def variable(name: str, default: str, meaning: str, parse: Callable[[str], Any] = str, *, is_secret: bool = False) -> Any:
    """Return the dataclass field of a setting, whose variable is `ORCHARD_<name>`."""
    return field(metadata={"variable": Variable(f"ORCHARD_{name}", default, meaning, parse, is_secret)}, repr=not is_secret)


class SettingsGroup:
    """The settings of one topic: the base of frozen dataclasses whose fields are made by `variable`."""

    title: ClassVar[str]

    @classmethod
    def variables(cls) -> dict[str, Variable]:
        """Return the variable of each attribute."""
        found: Any = cls
        return {one.name: one.metadata["variable"] for one in fields(found) if "variable" in one.metadata}

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> dict[str, Any]:
        """Return the value of each attribute; ConfigurationError names the first variable that is wrong."""
        return {name: one.read(environment) for name, one in cls.variables().items()}

    def wrong(self, attribute: str, why: str) -> ConfigurationError:
        """Return the error that an attribute's value cannot be used."""
        return self.variables()[attribute].wrong(getattr(self, attribute), why)
