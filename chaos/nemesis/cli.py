"""``chaos plan``: draw a plan of faults from a seed, or list what a plan can have."""

from __future__ import annotations

import secrets

import click
import rich.box
import rich.console
from rich.markup import escape
from rich.table import Table

from chaos.nemesis.packages import PACKAGES, draw_plan
from chaos.nemesis.vocabulary import FAULT_CLASSES


@click.command()
@click.option("--seed", type=int, default=None, help="Of every choice [default: drawn].")
@click.option(
    "--faults",
    default="storm",
    show_default=True,
    help="Packages to draw from, in turns, separated by + or commas; --list shows them.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=2, max=3600),
    default=20.0,
    show_default=True,
    help="Length of the load.",
)
@click.option("--list", "list_all", is_flag=True, help="Show all packages and kinds of fault.")
def plan(seed: int | None, faults: str, seconds: float, list_all: bool) -> None:
    """Print a plan of faults as TOML, drawn from a seed.

    \b
    Examples:
      chaos plan --seed 7 > plan.toml
      chaos plan --faults kill+partition --seconds 60
      chaos plan --list
    """
    if list_all:
        _list(rich.console.Console(highlight=False))
        return
    names = [name.strip() for name in faults.replace("+", ",").split(",") if name.strip()]
    unknown = [name for name in names if name not in PACKAGES]
    if unknown or not names:
        raise click.BadParameter(
            f"{', '.join(unknown) or 'nothing'} is no package of faults; there are "
            f"{', '.join(PACKAGES)}",
            param_hint="--faults",
        )
    seed = secrets.randbelow(2**31) if seed is None else seed
    click.echo(draw_plan(names, seconds, seed, frozenset()).as_toml(), nl=False)


def _list(console: rich.console.Console) -> None:
    packages = Table("package", "what it does", "kinds", box=rich.box.SIMPLE_HEAD)
    for package in PACKAGES.values():
        kinds = dict.fromkeys(variant.kind for variant in package.variants)
        packages.add_row(package.name, escape(package.text), ", ".join(kinds))
    console.print(packages)
    kinds_of = Table("kind", "what it does", "targets", "options", box=rich.box.SIMPLE_HEAD)
    for known in FAULT_CLASSES.values():
        options = "\n".join(
            f"{name} = {option.default!r}  {option.text}" for name, option in known.options.items()
        )
        kinds_of.add_row(known.kind, escape(known.text), ", ".join(known.targets), escape(options))
    console.print(kinds_of)
