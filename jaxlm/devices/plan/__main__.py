"""Compile a run for devices that are not there: python -m jaxlm.devices.plan configs/names_gpt.py --on h100."""

from jaxlm.cli.plan import main
from jaxlm.cli.process import run_main

if __name__ == "__main__":
    run_main(main)
