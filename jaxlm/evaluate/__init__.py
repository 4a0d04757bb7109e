"""How well runs predict a text, and which answers they take: python -m jaxlm.evaluate RUN --text FILE, --choices FILE.

Also as functions: `text.evaluate_text` and `choices.evaluate_choices`.
"""
