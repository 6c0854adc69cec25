#!/usr/bin/env python3
"""Pin base images by tag and digest, in files that name them with FROM or image: lines.

python scripts/maintainer/pin_images.py Dockerfile docker-compose.yml            (make images)

`docker buildx imagetools inspect` asks the registry; it needs no engine. A digest that cannot be had changes nothing.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
LINE = re.compile(rf"^(FROM |\s+image: )([\w./-]+:[\w.-]+)(?:@{DIGEST.pattern})?", re.MULTILINE)
"""What names an image with a tag; one without (our own) is left alone."""


@cache
def digest(image: str) -> str:
    """The digest of an image's index, for all platforms. Ends the program where it cannot be had."""
    command = ["docker", "buildx", "imagetools", "inspect", image, "--format", "{{json .Manifest}}"]
    try:
        done = subprocess.run(  # noqa: S603 - the names come from our own files
            command, capture_output=True, text=True, check=False, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        sys.exit(f"cannot pin {image}: {type(error).__name__}: {error}")
    if done.returncode:
        sys.exit(f"cannot pin {image}: {(done.stderr.strip().splitlines() or ['docker says nothing'])[-1]}")
    found = str(json.loads(done.stdout).get("digest", ""))
    if not DIGEST.fullmatch(found):
        sys.exit(f"cannot pin {image}: the registry gave no digest")
    return found


def pinned(text: str) -> str:
    """The text with a digest behind each tag."""
    return LINE.sub(lambda found: f"{found[1]}{found[2]}@{digest(found[2])}", text)


def main(paths: list[Path]) -> None:
    """Ask for all digests first: either all files are pinned, or none."""
    for path, text in [(path, pinned(path.read_text())) for path in paths]:
        path.write_text(text)
        print(f"{path}: {', '.join(found[2] for found in LINE.finditer(text))}")


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
