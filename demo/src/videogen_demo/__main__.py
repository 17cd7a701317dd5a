"""`python -m videogen_demo [--install-only]`: the main job of pib-videogen, watched live."""

from __future__ import annotations

import argparse
import sys
import time

from rich.console import Console

from videogen_demo import footage, install
from videogen_demo.kubectl import CommandError
from videogen_demo.story import CLAIM, NAMESPACE, Story, judge, tell
from videogen_demo.summary import print_summary
from videogen_demo.view import View

SYNTHETIC_CLIPS = 240


def main(arguments: list[str]) -> int:
    """0 when the story ended as it should; otherwise 1 and one sentence that says what went wrong."""
    parser = argparse.ArgumentParser(prog="python -m videogen_demo", description=__doc__)
    parser.add_argument("--install-only", action="store_true", help="bring everything up and install, but tell no story")
    parser.add_argument("--keep", action="store_true", help="go on with the objects of an earlier, interrupted story")
    options = parser.parse_args(arguments)
    console, began = Console(), time.monotonic()
    try:
        installation = install.ensure()
        console.print(f"installed after {time.monotonic() - began:.0f} s", highlight=False)
        return 0 if options.install_only else _story(installation, console, fresh=not options.keep)
    except CommandError as error:
        console.print(f"demo: {error}", style="bold red", markup=False, highlight=False)
        return 1


def _story(installation: install.Installation, console: Console, *, fresh: bool) -> int:
    cluster = installation.cluster
    story = Story(cluster)

    def upload() -> None:
        footage.collect(install.STATE, SYNTHETIC_CLIPS)
        footage.upload(cluster, NAMESPACE, CLAIM, install.STATE, installation.images["trainer"])

    with View(story, console):
        try:
            tell(story, upload, lambda: (install.gateway_url(cluster), install.host_name("standard", NAMESPACE)), fresh)
        finally:
            if story.load:
                story.load.stop()
    print_summary(story, install.STATE, console)
    judge(story)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
