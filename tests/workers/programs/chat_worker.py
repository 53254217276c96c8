"""A worker with fake vision stages and a real composer: `python -m tests.workers.programs.chat_worker --groups llm`."""

from __future__ import annotations

import argparse
import logging

from bench.fakes.worker import fake_group
from strata.core.settings import Settings
from strata.store.store import Store
from workers.engines.groups import real_group
from workers.groups import Group
from workers.process import work
from workers.profile_versions import ProfileVersions


def chat_group(name: str, store: Store, profiles: ProfileVersions, settings: Settings) -> Group:
    """A `workers.engines.groups.GroupMaker`."""
    if name == "vision":
        return fake_group(name, store, profiles, settings, 0.0)
    return real_group(name, store, profiles, settings)


def main() -> None:
    """Work until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groups", required=True)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s")
    work(Settings(), parser.parse_args().groups.split(","), chat_group)


if __name__ == "__main__":
    main()
