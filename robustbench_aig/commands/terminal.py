"""What the command line is made of: errors as one line and an exit code, options from a file, a console."""

import io
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from robustbench_aig.commands.config import read_tables
from robustbench_aig.errors import UserError, readable, unknown

if TYPE_CHECKING:
    from rich.console import Console

INTERRUPTED = 130


class Program(click.Group):
    """A group of commands that turns whatever a user can fix into one line on stderr and an exit code.

    A command that returns an integer exits with it.
    """

    def main(self, args: Sequence[str] | None = None, *_: Any, **extra: Any) -> NoReturn:
        given = list(sys.argv[1:] if args is None else args)
        name = str(self.name)
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # names of files may be no text that the terminal can show
                stream.reconfigure(errors="backslashreplace")
        try:
            code = super().main(given, **{**extra, "prog_name": name, "standalone_mode": False})
            sys.exit(code if isinstance(code, int) else 0)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(error.exit_code)
        except click.ClickException as error:
            _fail(" ".join(error.format_message().split()), error.exit_code)
        except UserError as error:
            _fail(str(error), error.exit_code)
        except (click.Abort, KeyboardInterrupt):
            _fail(f"interrupted; what is finished is kept, go on with: {shlex.join([name, *given])}", INTERRUPTED)
        except OSError as error:
            if error.filename is None:
                raise
            _fail(f"cannot use {error.filename} ({error.strerror}); check the path and what you may do there.", 1)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of definition, which is the order of use."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if not args[0].startswith("-") and args[0] not in self.commands:
            raise unknown("command", args[0], self.commands)
        return super().resolve_command(ctx, args)


def _fail(message: str, code: int) -> NoReturn:
    click.echo(f"Error: {readable(' '.join(message.split()))}", err=True)
    sys.exit(code)


def read_config(ctx: click.Context, _: click.Parameter, path: Path | None) -> None:
    """Callback of the group's ``--config``: the file sets defaults, so that flags and the environment come first."""
    if path is None:
        return
    assert isinstance(ctx.command, click.Group)
    known = {
        command: {
            text.removeprefix("--"): option
            for option in body.params
            if isinstance(option, click.Option)
            for text in option.opts
            if text.startswith("--")
        }
        for command, body in ctx.command.commands.items()
    }
    repeatable = {
        command: {name: option.multiple for name, option in options.items()} for command, options in known.items()
    }
    ctx.default_map = {
        command: {str(known[command][name].name): value for name, value in table.items()}
        for command, table in read_tables(path, repeatable).items()
    }


def together(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Several options as one decorator, in their order."""

    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def console() -> "Console":
    """Where tables are printed: as wide as the terminal, or wide enough for a file."""
    from rich.console import Console

    found = Console()
    return found if found.is_terminal else Console(width=140)
