"""python -m jaxlm.data prepare PATHS... --out DIR | verify DIR: token shards of text that need not fit into memory."""

from jaxlm.cli.data_command import run
from jaxlm.cli.process import run_main

if __name__ == "__main__":
    run_main(run)
