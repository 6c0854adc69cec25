"""Compares detector types on labelled captures: names, flow-hours and images of flows; false alarms against each tool.

    python scripts/maintainer/compare_types.py MANIFEST.tsv [--types forest,…] [--only models|names|flows] [--json PATH]

On names every type learns from shipped benign names, and its threshold leaves `share` of other shipped names above. On
flow-hours and images it learns from a third of the benign captures' flow-hours; another third sets the threshold, the
last is measured. Below each table stands leave-one-tool-out: the type that is best on all other tools, and what it
finds of the tool that was left out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from agents.core.errors import TrainingError
from agents.core.types import QueryBatch
from agents.dns.name import domain_text
from agents.learning.baseline import benign_names, benign_sample, model_bytes, sample_of
from agents.learning.evaluation import read_manifest
from agents.learning.run import TypeResult, plain
from agents.learning.type_comparison import (
    Scene,
    TypeParams,
    compare_types,
    flow_hours_of,
    joined_hours,
    picked_hours,
    scenes_of_flows,
)
from agents.runtime.bootstrap import compared_types, detector_of, load_settings
from agents.scoring.features import extract
from agents.scoring.model import Model
from agents.scoring.training import DetectorType, TrainConfig
from agents.sources import open_source
from agents.store.feedback.flow_hours import FlowHours
from scripts.maintainer.compare_models import names_of

SEED = 1
LEARNED = 10_000
BENIGN_GROUPS = ("benign", "hard benign")
BATCHES_MAX, BATCH = 20, 1 << 14
"""Of a capture, at most so many batches of so many queries."""


def name_scenes(manifest: Path) -> list[Scene]:
    """Names of the dev set, with a threshold from shipped names, and with one from half of the benign lists.

    The first shows how a type does in a network that it does not know, the second types at equal false alarms.
    """
    groups = names_of(manifest)
    shipped = benign_sample(2 * LEARNED, SEED).features
    shipped = shipped[np.random.default_rng(SEED).permutation(len(shipped))]
    tools = {tool: extract(names) for tool, names in groups.items() if tool not in BENIGN_GROUPS}
    scenes = []
    for group in (group for group in BENIGN_GROUPS if group in groups):
        benign = extract(groups[group])
        scenes.append(Scene(f"names, {group}", shipped[:LEARNED], shipped[LEARNED:], benign, tools))
        scenes.append(Scene(f"names, {group}, own threshold", shipped[:LEARNED], benign[::2], benign[1::2], tools))
    return scenes


def deployed(manifest: Path, types: Sequence[TypeParams]) -> str:
    """Names above SUSPICIOUS by whole models of each type, with the vote of encoded bits, as production has them."""
    settings = load_settings()
    groups = {group: (extract(names), names) for group, names in names_of(manifest).items()}
    learn_from, calibrate_on = benign_sample(LEARNED, SEED), sample_of(benign_names())
    lines = [f"| whole models | {' | '.join(groups)} |", f"| --- |{' --- |' * len(groups)}"]
    for spec, _ in types:
        try:
            kind = DetectorType(spec, TrainConfig(), settings.of(spec))
            model = kind.train(learn_from, calibrate_on, SEED, {})
        except TrainingError as error:
            lines.append(f"| {spec.name} | {error} |")
            continue
        shares = [(model.score(*each) >= settings.score_suspicious).mean() for each in groups.values()]
        lines.append(f"| {spec.name} | {' | '.join(f'{share:.2%}' for share in shares)} |")
    return "\n".join(lines)


def batches_of(path: Path) -> Iterator[QueryBatch]:
    """The beginning of a capture."""
    for number, batch in enumerate(open_source([path]).batches(BATCH)):
        if number == BATCHES_MAX:
            return
        yield batch


def flows_of(manifest: Path) -> list[Scene]:
    """Flow-hours of benign captures, and of each tool's captures those of the domain with the most names."""
    settings, model = load_settings(), Model.from_bytes(model_bytes())
    benign: list[FlowHours] = []
    tunnels = defaultdict[str, list[FlowHours]](list)
    for row in read_manifest(manifest):
        path = manifest.parent / row["file"]
        if not row["file"].endswith((".tsv", ".tsv.gz")):
            continue
        batches = list(batches_of(path))
        found = flow_hours_of(detector_of(settings, model), batches)
        if row["kind"] == "benign":
            benign.append(found)
        elif row["kind"] == "tunnel-tool" and len(found):
            names = defaultdict[str, set[bytes]](set)
            for batch in batches:
                for qname in batch.qname:
                    names[domain_text(qname)].add(qname)
            own = max(names, key=lambda domain: len(names[domain]))
            tunnels[row["tool"]].append(
                picked_hours(found, [at for at, domain in enumerate(found.domain) if domain == own])
            )
        print(f"  {row['file']}: {len(found)} flow-hours", file=sys.stderr, flush=True)
    together = joined_hours(benign)
    return scenes_of_flows(together, together, tunnels, SEED)


def table(results: Sequence[TypeResult]) -> str:
    """The types of one scene, and leave-one-tool-out."""
    good = [one for one in results if not one.problem]
    tools = sorted(good[0].by_tool) if good else []
    lines = [f"| {results[0].scene} | false alarms | {' | '.join(tools)} | mean | training | a row |"]
    lines.append(f"| --- |{' --- |' * (len(tools) + 4)}")
    for one in results:
        if one.problem:
            lines.append(f"| {one.type} | {one.problem} |{' |' * (len(tools) + 3)}")
            continue
        shares = " | ".join(f"{one.by_tool[tool]:.2f}" for tool in tools)
        cost = f"{one.fit_s:.1f} s | {one.score_us:.0f} µs"
        lines.append(f"| {one.type} | {one.false_alarms:.2%} | {shares} | {one.found:.3f} | {cost} |")
    for left in tools if len(tools) > 1 else ():
        best = max(good, key=lambda one: sum(share for tool, share in one.by_tool.items() if tool != left))
        lines.append(f"without {left}: {best.type} is best, and finds {best.by_tool[left]:.2f} of it")
    return "\n".join(lines)


def main(arguments: argparse.Namespace) -> None:
    types: list[TypeParams] = list(compared_types(load_settings(compare_types=arguments.types)))
    results: list[TypeResult] = []
    if arguments.only in ("all", "models"):
        print(deployed(arguments.manifest, types) + "\n", flush=True)
    makers: list[Callable[[Path], list[Scene]]] = []
    makers += [name_scenes] if arguments.only in ("all", "names") else []
    makers += [flows_of] if arguments.only in ("all", "flows") else []
    for scene in (scene for make in makers for scene in make(arguments.manifest)):
        found = compare_types([scene], types, arguments.share, SEED)
        print(table(found) + "\n", flush=True)
        results += found
    if arguments.json:
        arguments.json.write_text(json.dumps([plain(one) for one in results], indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--types", default="all")
    parser.add_argument("--only", choices=("all", "models", "names", "flows"), default="all")
    parser.add_argument("--share", type=float, default=0.001)
    parser.add_argument("--json", type=Path)
    main(parser.parse_args())
