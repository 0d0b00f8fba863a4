"""`genesis completion`: the script with which a shell completes commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from genesis.cli.talk import show

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, /, shell: str) -> None:
    """Print the script that completes commands and options in a SHELL.

    bash: eval "$(genesis completion bash)" in ~/.bashrc. zsh: the same in ~/.zshrc. fish: genesis completion fish >
    ~/.config/fish/completions/genesis.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None  # click knows all of SHELLS
    maker = kind(ctx.find_root().command, {}, "genesis", "_GENESIS_COMPLETE")
    show(maker.source_template % maker.source_vars())  # `source` would start a bash, to ask for its version
