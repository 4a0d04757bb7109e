"""Train a model: python train.py configs/names_mlp.py [--optim.lr 0.05] [--run-dir DIR] [--restart] [--dry-run].

--sweep.optim.lr 0.01 0.03 0.1 in place of a setting trains once for each value. Exit code 3 means that a loss was not a
number, or far above its start.
"""

from jaxlm.cli.train import main

if __name__ == "__main__":
    main()
