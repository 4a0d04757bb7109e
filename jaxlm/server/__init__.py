"""HTTP over the running batch: OpenAI's API for runs, with a page."""
