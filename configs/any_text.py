"""A recipe for any text of your own: it looks at the file and at this machine, and chooses everything itself.

    python train.py configs/any_text.py --data.path FILE [--minutes 5]

It never ends above Kneser-Ney counts of the same split: where it would, the counts are the model. docs/any_text.md has
the rules, the runs that they were fitted on, and what it reached.
"""

from jaxlm import AnyTextConfig, RunConfig

config = RunConfig(model=AnyTextConfig())
