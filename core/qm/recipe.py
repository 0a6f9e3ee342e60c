"""What is asked: stages, a default scheme, rules on layer names. A file that a person can read, edit and run again."""

from __future__ import annotations

import fnmatch
import glob
import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Self

import tomli_w
from pydantic import AfterValidator, Field, ValidationError

from qm.errors import UsageError
from qm.file import written
from qm.scheme import Scheme
from qm.strict import Strict, complaint


def _canonical(text: str) -> str:
    return str(Scheme.parse(text))


SchemeText = Annotated[str, AfterValidator(_canonical)]


class Stage(Strict):
    """One method of the pipe, with its options as the user wrote them."""

    plugin: str = Field(description="the method's full name, such as onnx.ptq")
    options: dict[str, Any] = Field(default_factory=dict)


class Rule(Strict):
    """The scheme of every layer whose name matches the glob ``layers``; a later rule wins over an earlier one."""

    layers: str
    scheme: SchemeText

    @classmethod
    def exactly(cls, name: str, scheme: Scheme | str) -> Self:
        """A rule for one layer, whatever characters its name holds."""
        return cls(layers=glob.escape(name), scheme=str(scheme))

    def matches(self, name: str) -> bool:
        """Whether the rule speaks of the layer."""
        return fnmatch.fnmatchcase(name, self.layers)


class Recipe(Strict):
    """All that is asked of a run, apart from the model and the data."""

    version: int = Field(default=1, ge=1, le=1)
    stages: tuple[Stage, ...] = ()
    scheme: SchemeText | None = Field(default=None, description="default scheme; the method's own where absent")
    rules: tuple[Rule, ...] = ()
    target: str = "host"
    seed: int = Field(default=0, ge=0)
    samples: int | None = Field(default=None, ge=1, description="how many samples calibrate")

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """The recipe in a TOML or JSON file.

        Raises:
            UsageError: the file is missing, not TOML or JSON, or holds what a recipe does not have.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
            values = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
            return cls.model_validate(values)
        except FileNotFoundError:
            raise UsageError(f"recipe {str(path)!r} does not exist", hint="Write one with qm plan.") from None
        except (OSError, UnicodeDecodeError) as e:
            raise UsageError(f"recipe {str(path)!r} cannot be read: {e}") from e
        except (tomllib.TOMLDecodeError, json.JSONDecodeError) as e:
            raise UsageError(
                f"recipe {str(path)!r} is not {'JSON' if path.suffix == '.json' else 'TOML'}: {e}",
                hint="See docs/reference/recipe.md for its form.",
            ) from e
        except ValidationError as e:
            raise UsageError(
                f"recipe {str(path)!r} is wrong: {complaint(e)}", hint="See docs/reference/recipe.md for its form."
            ) from e

    def text(self, *, fmt: str = "toml") -> str:
        """The recipe as TOML, or as JSON where ``fmt`` is ``json``."""
        values = self.model_dump(mode="json", exclude_none=True)
        return json.dumps(values, indent=2) + "\n" if fmt == "json" else tomli_w.dumps(values)

    def write(self, path: str | Path, *, force: bool = False) -> None:
        """Write the recipe, whole or not at all; the suffix ``.json`` chooses JSON."""
        path = Path(path)
        with written(path, force=force) as temporary:
            temporary.write_text(self.text(fmt="json" if path.suffix == ".json" else "toml"), encoding="utf-8")

    def with_rules(self, *rules: Rule) -> Self:
        """The same recipe with more rules at the end, where they win."""
        return self.model_copy(update={"rules": (*self.rules, *rules)})
