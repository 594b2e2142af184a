"""What `--help` shows, at the widths of a terminal that nobody has made wider and of one that somebody has."""

import re

import pytest
from click.testing import CliRunner

from entrypoint.cli import flags
from entrypoint.cli.commands import cli

WIDTHS = pytest.mark.parametrize("width", [80, 110])
COMMANDS = {"": flags.ENTRYPOINT, "check": flags.CHECK, "uninstall": flags.UNINSTALL, "install": flags.INSTALL}


def shown(command, width):
    arguments = [command, "--help"] if command else ["--help"]
    return CliRunner().invoke(cli, arguments, terminal_width=width, prog_name="multus-entrypoint").stdout


@WIDTHS
@pytest.mark.parametrize("command", COMMANDS)
def test_no_name_and_no_path_is_broken_at_the_end_of_a_line(command, width):
    text = shown(command, width)
    assert all(len(line) <= width for line in text.splitlines())
    assert [line for line in text.splitlines() if re.search(r"[\w/]-$", line)] == []
    assert "\N{NON-BREAKING HYPHEN}" not in text
    for flag in COMMANDS[command]:
        if flag.hidden:
            continue
        assert flag.opts[0] in text
        for default in (flag.default, flag.show_default):
            if isinstance(default, str) and default.startswith("/"):
                assert default in text, f"the default of {flag.opts[0]} is broken"


@WIDTHS
@pytest.mark.parametrize("command", COMMANDS)
def test_every_description_is_whole(command, width):
    words = " ".join(shown(command, width).split())
    for flag in COMMANDS[command]:
        assert flag.hidden or " ".join(flag.help.split()) in words, flag.opts[0]


@WIDTHS
def test_the_descriptions_of_the_subcommands_are_not_cut_off(width):
    words = " ".join(shown("", width).split())
    assert "..." not in words.partition("Commands:")[2]
    for command in cli.commands.values():
        assert command.help.partition(".")[0] in words


@WIDTHS
@pytest.mark.parametrize("command", ["check", "uninstall"])
def test_a_subcommand_lists_its_own_flags_and_says_where_those_of_the_entrypoint_are(command, width):
    text = shown(command, width)
    assert re.findall(r"^  (--[\w-]+)", text, re.MULTILINE) == [flag.opts[0] for flag in COMMANDS[command]]
    assert "the entrypoint that runs in this container" in " ".join(text.split())
    assert "Each is taken here, too: multus-entrypoint --help lists them." in " ".join(text.split())
