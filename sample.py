"""Sample from a run: python sample.py runs/names_mlp [-n 20] [--prompt TEXT] [--compare] [--score FILE]."""

from jaxlm.cli.sample import main

if __name__ == "__main__":
    main()
