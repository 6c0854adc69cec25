"""What README, changelog and the docs name exists."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout, suppress
from functools import cache
from pathlib import Path

import pytest

from agents import __version__
from agents.cli.parser import build_parser
from agents.dns.name import to_text
from agents.learning.evaluation import read_manifest
from agents.runtime.bootstrap import SPECS
from agents.scoring.features import FEATURES
from agents.settings import settings_of
from agents.sources.table import NEEDED, OPTIONAL, TsvSource

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")
DOCS = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *(ROOT / "agents").glob("*.md"),
]
NOT_SETTINGS = {
    "POSTGRES_PASSWORD",
    "CLIENT",
    "DOMAIN",
    "FEATURES",
    "MANIFEST",
    "NORMAL",
    "SUSPICIOUS",
    "HIGH",
    "CRITICAL",
}
"""What stands in capitals and code in README and is no setting: of compose, of make, arguments, severities."""


@cache
def help_of(*command: str) -> str:
    """What `dns-tunnel COMMAND --help` prints."""
    with redirect_stdout(io.StringIO()) as printed, suppress(SystemExit):
        build_parser().parse_args([*command, "--help"])
    return printed.getvalue()


def subcommands(*command: str) -> dict[str, list[str]]:
    """Those of a command that its help lists, each with its other names."""
    text = help_of(*command).partition("positional arguments:\n")[2]
    if not re.match(r" +[A-Z]+\n {4}", text):
        return {}
    listed = re.findall(r"(?m)^ {4}([a-z]+)(?: \(([a-z, ]+)\))?(?: |$)", text.partition("\n\n")[0])
    return {name: aliases.split(", ") if aliases else [] for name, aliases in listed}


def commands() -> set[str]:
    """Verbs of the command line, also those of before."""
    return {name for verb, aliases in subcommands().items() for name in (verb, *aliases)}


def names(pattern: str, text: str = README) -> set[str]:
    return set(re.findall(pattern, text))


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_commands_that_are_named_exist(path: Path) -> None:
    text = path.read_text("utf-8")
    named = names(r"(?:^|[`/\s])dns-tunnel ([a-z]+)\b(?![^`\n]*\bprocess)", text)
    assert named - commands() == set()


def test_readme_lists_every_command() -> None:
    listed = re.search(r"`dns-tunnel ([a-z]+(?: \| [a-z]+)+)`", README)
    assert listed is not None
    today = {name: verb for verb, aliases in subcommands().items() for name in (verb, *aliases)}
    assert sorted(today[name] for name in listed[1].split(" | ")) == sorted(subcommands())


@pytest.mark.slow
def test_every_command_has_help_with_its_options() -> None:
    helps: dict[tuple[str, ...], str] = {(verb,): help_of(verb) for verb in subcommands()}
    helps |= {(verb, action): help_of(verb, action) for verb in subcommands() for action in subcommands(verb)}
    assert {"list", "rollback", "restore"} <= set(subcommands("models"))
    for command, text in helps.items():
        assert text.startswith(f"usage: dns-tunnel {' '.join(command)} ")
    for verb in subcommands():
        assert re.match(r"\w", help_of(verb).split("\n\n")[1]), f"{verb} says what it is for"
    code = "\n".join(span for span in names(r"`([^`\n]+)`") if not span.startswith("python "))
    for option in names(r"--[a-z][a-z-]+", code) - {"--help", "--remove"}:
        assert any(re.search(rf"(?<![\w-]){option}(?![\w-])", text) for text in helps.values()), option


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_make_targets_that_are_named_exist(path: Path) -> None:
    targets = names(r"(?m)^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text("utf-8"))
    named = names(r"(?m)(?:^|`)make ([a-z0-9-]+)", path.read_text("utf-8"))
    assert named - targets == set()


def test_settings_that_are_named_exist() -> None:
    known = {name.upper() for name in settings_of(SPECS).model_fields}
    named = {word for code in names(r"`([^`\n]+)`") for word in re.findall(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b", code)}
    named |= names(r"(?m)^\| `([A-Z_]+)`") | names(r"`([A-Z_]{5,})`")
    assert {"DATA_DIR", "UPSTREAMS", "DEPLOY"} <= named
    assert named - known - NOT_SETTINGS == set()


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_links_to_files_lead_somewhere(path: Path) -> None:
    targets = names(r"\]\((?!https?:|#)([^)#\s]+)", path.read_text("utf-8"))
    assert {target for target in targets if not (path.parent / target).exists()} == set()


def table(heading: str) -> dict[str, str]:
    """Columns and their examples, of the table below a heading of docs/formats.md."""
    text = (ROOT / "docs" / "formats.md").read_text("utf-8").partition(f"## {heading}")[2].partition("\n## ")[0]
    return dict(re.findall(r"(?m)^\| `(\w+)` \| `(.*?)` \|", text))


def test_the_table_of_queries_in_the_docs_is_the_one_that_is_read(tmp_path: Path) -> None:
    columns = table("Queries")
    assert tuple(columns) == (*NEEDED, *OPTIONAL)
    path = tmp_path / "queries.tsv"
    path.write_text("\t".join(columns) + "\n" + "\t".join(columns.values()) + "\n")
    source = TsvSource(path)
    (batch,) = source.batches(10)
    assert (len(batch), source.malformed, source.warnings) == (1, 0, [])
    assert to_text(batch.qname[0]) == columns["qname"]
    told = {name: str(getattr(batch, name)[0]) for name in columns if name not in ("qname", "qtype")}
    assert told == {name: columns[name] for name in told}


@pytest.mark.parametrize("comma", ["\t", ","])
def test_the_manifest_in_the_docs_is_the_one_that_is_read(tmp_path: Path, comma: str) -> None:
    columns = table("Manifest")
    file = tmp_path / columns["file"]
    file.parent.mkdir()
    file.touch()
    manifest = tmp_path / "MANIFEST"
    manifest.write_text(comma.join(columns) + "\n" + comma.join(columns.values()) + "\n")
    assert read_manifest(manifest) == [columns]


def test_scripts_that_are_named_exist() -> None:
    assert {name for name in names(r"\bscripts/[a-z_/]+\.(?:py|sh)") if not (ROOT / name).is_file()} == set()


def test_the_changelog_has_an_entry_for_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    entry = re.search(rf"(?ms)^## {re.escape(__version__)}\b.*?(?=^## |\Z)", text)
    assert entry is not None
    assert entry[0].count("\n- ") >= 1


def test_figures_that_code_knows_are_right() -> None:
    for path in DOCS:
        for count in names(r"(\d+) lexical features", path.read_text("utf-8")):
            assert int(count) == len(FEATURES), path.name


def test_no_document_names_a_place_of_the_machine_it_was_written_on() -> None:
    for path in DOCS:
        assert not re.search(r"(?<![\w.])/(?:work|root|home/[a-z]+)/", path.read_text("utf-8")), path.name
